import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kitd.systemd import Notifier, take_listen_sockets

_CHILD = """
import json, os, sys
from kitd.systemd import take_listen_sockets
os.environ["LISTEN_PID"] = sys.argv[1] if sys.argv[1] != "self" else str(os.getpid())
environ = dict(os.environ)
sockets = take_listen_sockets(environ)
print(json.dumps({
    "names": {name: sock.getsockname() for name, sock in sockets.items()},
    "inherited": [os.get_inheritable(sock.fileno()) for sock in sockets.values()],
    "left": [name for name in environ if name.startswith("LISTEN_")],
}))
"""


def _take(tmp_path: Path, names: str, pid: str = "self") -> dict[str, object]:
    """What a process finds that was started with two sockets from descriptor 3 on."""
    with (
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
    ):
        first.bind(str(tmp_path / "a"))
        second.bind(str(tmp_path / "b"))
        copies = [os.dup(first.fileno()), os.dup(second.fileno())]
        script = f"import os; os.dup2({copies[0]}, 3); os.dup2({copies[1]}, 4)\n{_CHILD}"
        environ = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, pid],
                pass_fds=copies,
                env=environ,
                check=True,
                capture_output=True,
            )
        finally:
            for descriptor in copies:
                os.close(descriptor)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_passed_sockets_are_found_by_name_and_not_passed_on(tmp_path: Path) -> None:
    found = _take(tmp_path, "registry:api")
    assert found["names"] == {"registry": str(tmp_path / "a"), "api": str(tmp_path / "b")}
    assert found["inherited"] == [False, False]
    assert found["left"] == []


def test_sockets_meant_for_another_process_are_left_alone(tmp_path: Path) -> None:
    assert _take(tmp_path, "api:registry", pid="1") == {"names": {}, "inherited": [], "left": []}


def test_without_systemd_there_are_no_sockets() -> None:
    assert take_listen_sockets({}) == {}


@pytest.mark.parametrize("abstract", [False, True])
def test_news_reach_the_notify_socket(tmp_path: Path, *, abstract: bool) -> None:
    address = f"@kitd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if abstract else address)
        listener.settimeout(5)
        Notifier({"NOTIFY_SOCKET": address}).send("READY=1", "STATUS=2 jobs")
        assert listener.recv(1000) == b"READY=1\nSTATUS=2 jobs"


def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    Notifier({}).send("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).send("READY=1")


def test_the_watchdog_is_meant_for_one_process() -> None:
    own = str(os.getpid())
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": own}).watchdog == 30
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog == 30
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog == 0
    assert Notifier({}).watchdog == 0
