"""Starts a daemon for this user when none is there, and waits until it answers."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from kitd_client import paths
from kitd_client.api.errors import DaemonUnreachable
from kitd_client.wire import connect

IDLE = "15m"
"""How long a daemon that was started here stays without work."""

_DEADLINE = 20.0
_STEP = 0.02
_LOCK_LIMIT = 65536

_started: list[subprocess.Popen[bytes]] = []
"""Daemons outlive their clients: nobody waits for them, and nobody shall be warned about that."""


class _Owner(NamedTuple):
    """What the owner of a store writes into its lock file, a line each."""

    pid: int
    socket: str


def start_daemon(environ: Mapping[str, str], notice: Callable[[str], None]) -> str:
    """Starts `kitd` of this installation and returns the path of the socket that answers.

    Of two clients that do so at once one daemon wins the store's lock; both clients come to its socket, by
    the usual place or by the lock file.

    Args:
        environ: the environment, which the daemon inherits.
        notice: takes the line that says so.

    Raises:
        DaemonUnreachable: there is no `kitd` here, it failed, or it does not answer within 20 s.
    """
    if find_spec("kitd") is None:
        raise DaemonUnreachable(
            "no daemon is running, and this installation has none to start",
            hint="install kitd, then run 'kitd'",
        )
    log = Path(paths.daemon_log(environ))
    try:
        process = _spawn(log, environ)
    except OSError as error:
        raise DaemonUnreachable(
            f"no daemon is running, and none can be started: {error}", hint="start it with 'kitd'"
        ) from error
    deadline = time.monotonic() + _DEADLINE
    with _Exit(process.pid) as exit_:
        ended = False
        while time.monotonic() < deadline:
            found = _answering(environ)
            if found is not None:
                notice(_story(found, process.pid, log))
                return found.socket
            ended = exit_.within(_STEP, ended=ended)
            # Status 69 is the loser's of a race: the winner is about to answer.
            if ended and process.wait() != DaemonUnreachable.exit_code:
                break
    raise _failed(process.poll(), log)


def _spawn(log: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kitd", "--idle", IDLE],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=dict(environ),
            start_new_session=True,
        )
    _started.append(process)
    return process


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
        return f"started kitd (pid {started}, ends after {IDLE} without work; log: {log})"
    return f"found kitd just started by another (pid {found.pid}, {found.socket})"


def _failed(status: int | None, log: Path) -> DaemonUnreachable:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    how = f"does not answer after {_DEADLINE:.0f} s" if status is None else f"ended with status {status}"
    return DaemonUnreachable(
        f"the daemon that was started {how}: {lines[-1] if lines else 'it said nothing'}",
        hint=f"see {log}, then start it with 'kitd'",
    )
