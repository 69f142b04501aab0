"""Starts a daemon for this user when none is there, and waits until it answers."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from kitd_client import paths
from kitd_client.api.errors import ConfigurationInvalid, DaemonUnreachable, KitdError
from kitd_client.wire import connect

IDLE = "15m"
"""How long a daemon that was started here stays without work, if its configuration does not say."""

_DEADLINE = 20.0
_STEP = 0.02
_LOCK_LIMIT = 65536
_LOG_LIMIT = 1 << 20
_START = "start it with 'kitd'"
_HINT = "  hint: "
"""How kitd begins its second line when it refuses to start."""

_started: list[subprocess.Popen[bytes]] = []
"""Daemons outlive their clients: nobody waits for them, and nobody shall be warned about that."""


class _Owner(NamedTuple):
    """What the owner of a store writes into its lock file, a line each."""

    pid: int
    socket: str


def find_daemon(environ: Mapping[str, str]) -> str | None:
    """The path of the socket of the daemon that has this user's store, wherever that is, if it answers."""
    found = _answering(environ)
    return found.socket if found is not None else None


def start_daemon(environ: Mapping[str, str], notice: Callable[[str], None]) -> str:
    """Starts `kitd` of this installation and returns the path of the socket that answers.

    Of two clients that start one at once one daemon wins the store's lock; both clients come to its socket,
    by the usual place or by the lock file. A daemon that is just ending still has the store, and its name is
    gone: when it has ended, another one is started.

    Args:
        environ: the environment, which the daemon inherits.
        notice: takes the line that says so.

    Raises:
        ConfigurationInvalid: the daemon rejects its configuration, or its store.
        DaemonUnreachable: there is no `kitd` here, it failed, or it does not answer within 20 s.
    """
    # A client that was installed alone comes with the daemon's modules, but not with what they need.
    if find_spec("kitd") is None or find_spec("aiohttp") is None:
        raise DaemonUnreachable(
            "no daemon is running, and this installation has none to start",
            hint="install kitd with all it needs, then run 'kitd'; or name a daemon's socket with --socket",
        )
    log = _Log(Path(paths.daemon_log(environ)))
    deadline = time.monotonic() + _DEADLINE
    while True:
        process = _spawn(log, environ)
        found = _await_answer(process, environ, deadline)
        if found is not None:
            notice(_story(found, process.pid, log.path))
            return found.socket
        if process.poll() != DaemonUnreachable.exit_code or time.monotonic() >= deadline:
            raise _failed(process.poll(), log)


def _await_answer(
    process: subprocess.Popen[bytes], environ: Mapping[str, str], deadline: float
) -> _Owner | None:
    """The daemon that answers; none: this one has ended and no other is on its way, or time is up."""
    with _Exit(process.pid) as exit_:
        ended = False
        while time.monotonic() < deadline:
            found = _answering(environ)
            if found is not None:
                return found
            ended = exit_.within(_STEP, ended=ended)
            # Status 69 is the loser's of a race: the winner is about to answer, or about to end.
            if ended and (process.wait() != DaemonUnreachable.exit_code or _owner(environ) is None):
                return None
    return None


class _Log:
    """The file that daemons started here write to, and where the words of this one begin.

    One that has grown over 1 MiB is put aside, as `kitd.log.old`: there are two of them at most.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = path.stat().st_size if path.is_file() else 0
        if self._begin > _LOG_LIMIT:
            with suppress(OSError):
                path.replace(path.with_name(f"{path.name}.old"))
                self._begin = 0

    def last_words(self) -> tuple[str, str]:
        """The last complaint of the daemon, or else its last line, and the advice that followed."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._begin)
                lines = file.read(_LOG_LIMIT).decode(errors="replace").splitlines()
        except OSError:
            lines = []
        hint = ""
        for line in reversed(lines):
            if line.startswith("kitd: "):
                return line, hint
            hint = line.removeprefix(_HINT) if line.startswith(_HINT) else hint
        return "".join(lines[-1:]), ""


def _spawn(log: _Log, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        log.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.path.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kitd", "--idle-default", IDLE],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=dict(environ) | _from_here(environ),
                start_new_session=True,
            )
    except OSError as error:
        raise DaemonUnreachable(
            f"no daemon is running, and none can be started: {error}", hint=_START
        ) from error
    _started.append(process)
    return process


def _from_here(environ: Mapping[str, str]) -> dict[str, str]:
    """Relative paths are the caller's, and the daemon starts in the root directory."""
    names = ("KITD_CACHE_DIR", "KITD_CONFIG")
    return {name: str(Path(environ[name]).absolute()) for name in names if environ.get(name)}


class _Exit:
    """Tells when a process ends, or that it has not."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)

    def within(self, seconds: float, *, ended: bool) -> bool:
        """Waits so long at most, all of it for a process that has ended already."""
        watched = [] if ended else [self._descriptor]
        return bool(select.select(watched, [], [], seconds)[0]) or ended


def _answering(environ: Mapping[str, str]) -> _Owner | None:
    """The daemon that answers, if one does; its process may not be known (0)."""
    owner = _owner(environ) or _Owner(0, paths.user_socket(environ))
    try:
        connect(owner.socket).close()
    except OSError:
        return None
    return owner


def _owner(environ: Mapping[str, str]) -> _Owner | None:
    """Who owns the store, if the file that tells it tells of a process that lives."""
    try:
        with Path(paths.user_store(environ), "lock").open(errors="surrogateescape") as file:
            pid, _, socket = file.read(_LOCK_LIMIT).strip().partition("\n")
        owner = _Owner(int(pid), socket)
        os.kill(owner.pid, 0)
    except (OSError, ValueError, OverflowError):
        return None
    return owner


def _story(found: _Owner, started: int, log: Path) -> str:
    if found.pid in {0, started}:
        return f"started kitd (pid {started}, by default it ends after {IDLE} without work; log: {log})"
    return f"found kitd just started by another (pid {found.pid}, {found.socket})"


def _failed(status: int | None, log: _Log) -> KitdError:
    words, advice = log.last_words()
    how = f"does not answer after {_DEADLINE:.0f} s" if status is None else f"ended with status {status}"
    kind = ConfigurationInvalid if status == ConfigurationInvalid.exit_code else DaemonUnreachable
    return kind(
        f"the daemon that was started {how}: {words or 'it said nothing'}",
        hint=f"{advice or _START}; its log is {log.path}",
    )
