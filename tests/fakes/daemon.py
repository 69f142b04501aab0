"""The real daemon as a process, in directories of its own, and the real kitctl beside it."""

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import coverage
import pytest

_ROOT = Path(__file__).parent.parent.parent
_KITCTL = "import sys; from kitd_client.cli import main; sys.exit(main())"
"""What the console script `kitctl` does, wherever it is installed."""


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's, except what measures coverage in child processes."""
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if coverage.Coverage.current() is not None:
        environment["COVERAGE_PROCESS_START"] = str(_ROOT / "pyproject.toml")
        environment["COVERAGE_FILE"] = str(_ROOT / ".coverage")
    return environment


class Daemon:
    """One kitd on one store. Start it as often as wanted: the store outlives it.

    Args:
        home: an empty directory; `store` and, if it is short enough, the socket lie in it.
        environment: variables beside the clean environment.
        arguments: of `kitd`.
        wrapper: a command put before the interpreter (`strace ...`, `setpriv ...`, `unshare ...`).
        program: what is run in place of `python -m kitd`.
    """

    def __init__(
        self,
        home: Path,
        *,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        program: Sequence[str] = ("-m", "kitd"),
    ) -> None:
        self.home = home
        self.store = home / "store"
        self._short = Path(tempfile.mkdtemp(prefix="kitd-"))
        self.socket = self._short / "kitd.sock"
        for directory in ("run", "cache", "config"):
            (home / directory).mkdir(mode=0o700, exist_ok=True)
        self.environment = clean_environment(home) | {
            "KITD_SOCKET": str(self.socket),
            "KITD_CACHE_DIR": str(self.store),
        }
        self.environment.update(environment or {})
        self._command = [*wrapper, sys.executable, *program, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._condition = threading.Condition()
        self.notified: list[str] = []
        """What it told the service manager by the time it was ready: `READY=1`, `STATUS=...`."""

    # -- its life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, *, within: float = 30.0) -> None:
        """Start it and return when it says READY=1; AssertionError with its log if it ends before."""
        assert self._process is None, "it runs already"
        with self._notify_socket() as (address, notifications):
            self._process = subprocess.Popen(
                self._command,
                env=self.environment | {"NOTIFY_SOCKET": address},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
            )
            assert self._process.stdout is not None
            self._reader = threading.Thread(target=self._collect, args=(self._process.stdout,))
            self._reader.start()
            try:
                self._wait_ready(notifications, within)
            except BaseException:
                self.kill()
                raise

    def _wait_ready(self, notifications: socket.socket, within: float) -> None:
        assert self._process is not None
        pidfd = os.pidfd_open(self._process.pid)
        poll = select.poll()
        poll.register(notifications, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        try:
            while "READY=1" not in self.notified:
                ready = [fd for fd, _ in poll.poll(within * 1000)]
                if notifications.fileno() in ready:
                    self.notified += notifications.recv(65536).decode().splitlines()
                elif pidfd in ready:
                    raise AssertionError(
                        f"kitd ended with {self._process.wait()} before READY\n{self._rest()}"
                    )
                else:
                    raise AssertionError(f"kitd was not READY within {within} s\n{self.log}")
        finally:
            os.close(pidfd)

    @contextmanager
    def _notify_socket(self) -> Iterator[tuple[str, socket.socket]]:
        self.notified.clear()
        address = self._short / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.bind(str(address))
            address.chmod(0o666)
            try:
                yield str(address), notifications
            finally:
                address.unlink()

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL; its sockets and its store stay as they are."""
        self._end(signal.SIGKILL)

    def terminate(self, *, within: float = 30.0) -> int:
        """SIGTERM, and its exit status."""
        return self._end(signal.SIGTERM, within)

    def wait(self, *, within: float = 30.0) -> int:
        """Its exit status, when it ends by itself."""
        return self._end(None, within)

    def _end(self, number: signal.Signals | None, within: float = 30.0) -> int:
        process, reader = self._process, self._reader
        assert process is not None, "it does not run"
        assert reader is not None
        if number is not None:
            process.send_signal(number)
        try:
            status = process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"kitd did not end within {within} s\n{self.log}") from None
        finally:
            reader.join()
            self._process = self._reader = None
        return status

    def close(self) -> None:
        """End it, nicely if it can (that saves coverage), and remove what lies outside of `home`."""
        try:
            if self._process is not None:
                self.terminate()
        finally:
            shutil.rmtree(self._short, ignore_errors=True)

    # -- its log ---------------------------------------------------------------------------------

    def _collect(self, stream: IO[bytes]) -> None:
        with stream:
            for line in iter(stream.readline, b""):
                with self._condition:
                    self._lines.append(line.decode(errors="replace"))
                    self._condition.notify_all()

    def _rest(self) -> str:
        if self._reader is not None:
            self._reader.join()
        return self.log

    @property
    def log(self) -> str:
        """Standard output and error so far, of all its lives."""
        return "".join(self._lines)

    def wait_log(self, pattern: str, *, within: float = 30.0) -> None:
        """Wait until the log has a match."""

        def found() -> bool:
            return re.search(pattern, self.log) is not None

        with self._condition:
            if not self._condition.wait_for(found, within):
                raise AssertionError(f"no {pattern!r} in the log within {within} s\n{self.log}")

    # -- kitctl ----------------------------------------------------------------------------------

    def kitctl(
        self,
        *arguments: str | Path,
        check: bool = True,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
        wrapper: Sequence[str] = (),
        within: float = 50.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run `kitctl` at this daemon; with `check`, any status but 0 is an AssertionError with the log."""
        done = subprocess.run(
            self.kitctl_command(*arguments, wrapper=wrapper),
            check=False,
            env=self.environment | dict(environment or {}),
            cwd=cwd or self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within,
        )
        if check and done.returncode != 0:
            said = f"exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.log}"
            raise AssertionError(f"kitctl {' '.join(map(str, arguments))}: {said}")
        return done

    def kitctl_command(self, *arguments: str | Path, wrapper: Sequence[str] = ()) -> list[str]:
        """For a test that holds the process in its own hands (Ctrl-C in the middle); mind `environment`."""
        return [*wrapper, sys.executable, "-c", _KITCTL, *map(str, arguments)]


class StartDaemon(Protocol):
    """The fixture `start_daemon`: the arguments of `Daemon` without `home`."""

    def __call__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        wrapper: Sequence[str] = (),
    ) -> Daemon: ...


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Starts daemons, each with a home of its own; all end with the test."""
    with contextlib.ExitStack() as stack:

        def start(
            *,
            environment: Mapping[str, str] | None = None,
            arguments: Sequence[str] = (),
            wrapper: Sequence[str] = (),
        ) -> Daemon:
            home = tmp_path_factory.mktemp("daemon")
            daemon = Daemon(home, environment=environment, arguments=arguments, wrapper=wrapper)
            return stack.enter_context(daemon)

        yield start


@pytest.fixture
def daemon(start_daemon: Callable[[], Daemon]) -> Daemon:
    """One daemon, running."""
    return start_daemon()
