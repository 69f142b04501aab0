"""How tests run the daemon: it is ready when it says so, its log is kept, its end is noticed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.daemon import Daemon

READY = """
import os, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("store at", os.environ["KITD_CACHE_DIR"], "argv", sys.argv[1:], flush=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
    out.sendto(b"STATUS=waking", os.environ["NOTIFY_SOCKET"])
    out.sendto(b"READY=1\\nSTATUS=up", os.environ["NOTIFY_SOCKET"])
signal.sigwait([signal.SIGTERM])
print("stopping", flush=True)
sys.exit(7)
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Daemon]:
    return lambda program: Daemon(tmp_path, program=("-c", program), arguments=("--flag",))


def test_ready_log_and_exit_status(make: Callable[[str], Daemon]) -> None:
    with make(READY) as daemon:
        assert daemon.notified == ["STATUS=waking", "READY=1", "STATUS=up"]
        daemon.wait_log(r"argv \['--flag'\]")
        assert str(daemon.store) in daemon.log
        assert len(str(daemon.socket)) < 108
        assert daemon.terminate() == 7
        assert daemon.log.endswith("stopping\n")
        daemon.start()
        daemon.kill()
        daemon.start()
        daemon.wait_log("(?s)store.*store.*store")
    assert not daemon.socket.parent.exists()


def test_an_end_before_ready_is_told_with_the_log(make: Callable[[str], Daemon]) -> None:
    daemon = make("print('no such store'); raise SystemExit(69)")
    with pytest.raises(AssertionError, match=r"(?s)ended with 69 before READY.*no such store"):
        daemon.start()
    daemon.close()


def test_never_ready(make: Callable[[str], Daemon]) -> None:
    daemon = make("import signal; signal.pause()")
    with pytest.raises(AssertionError, match="not READY"):
        daemon.start(within=0.2)
    daemon.close()


def test_a_daemon_that_does_not_end_is_killed(make: Callable[[str], Daemon]) -> None:
    daemon = make(READY.replace("sys.exit(7)", "signal.sigwait([signal.SIGTERM])"))
    daemon.start()
    with pytest.raises(AssertionError, match="did not end"):
        daemon.terminate(within=0.2)
    daemon.close()


def test_it_may_end_by_itself(make: Callable[[str], Daemon]) -> None:
    with make(READY.replace("signal.sigwait([signal.SIGTERM])", "")) as daemon:
        assert daemon.wait() == 7


def test_the_environment_is_clean(make: Callable[[str], Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    environment = make(READY).environment
    assert not {"HTTPS_PROXY", "DOCKER_CONFIG"} & set(environment)


def test_the_real_daemon_and_kitctl(daemon: Daemon) -> None:
    assert "READY=1" in daemon.notified
    assert f"pid {daemon.pid}" in daemon.kitctl("version").stdout
    with pytest.raises(AssertionError, match="kitctl info not a reference: exit"):
        daemon.kitctl("info", "not a reference")
    assert daemon.terminate() == 0
