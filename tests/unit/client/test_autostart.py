"""`kitctl` with a `kitd` that tells how it was started."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from kitd_client import autostart
from kitd_client.api.errors import DaemonUnreachable

_KITD = """
import fcntl, json, os, socket, sys
home = os.environ["HOME"]
store = home + "/.cache/kitd"
os.makedirs(store, exist_ok=True)
before = os.environ.get("FAKE", "")
if before == "fails":
    print("something else")
    sys.exit("kitd: unknown key cache.dri")
if before == "sleeps":
    os.read(os.open(home + "/fifo", os.O_RDONLY), 1)
lock = os.open(store + "/lock", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    os.open(home + "/fifo", os.O_WRONLY)
    sys.exit(69)
path = home + ("/elsewhere.sock" if before == "waits" else "/run/kitd/kitd.sock")
os.pwrite(lock, f"{os.getpid()}\\n{path}\\n".encode(), 0)
if before == "waits":
    os.read(os.open(home + "/fifo", os.O_RDONLY), 1)
os.makedirs(os.path.dirname(path), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
links = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        links[fd] = os.readlink("/proc/self/fd/" + fd)
    except OSError:
        pass  # the one that listed them
report = {"words": sys.argv[1:], "cwd": os.getcwd(), "leads": os.getsid(0) == os.getpid(), "links": links}
report["store"] = os.environ.get("KITD_CACHE_DIR")
with open(home + "/report", "a") as file:
    file.write(json.dumps(report) + "\\n")
listener.listen()
while True:
    connection, _ = listener.accept()
    if connection.recv(65536):
        head = b"HTTP/1.1 200 OK\\r\\nKitd-Api-Version: 1\\r\\nContent-Length: 11\\r\\n\\r\\n"
        connection.sendall(head + b'{"kits":[]}')
    connection.close()
"""
_KITCTL = [sys.executable, "-c", "import sys; from kitd_client.cli import main; sys.exit(main())"]


@pytest.fixture
def installation(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's home with a `kitd` of ours; whatever it starts is ended again."""
    package = home / "python" / "kitd"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(_KITD)
    monkeypatch.setenv("PYTHONPATH", str(home / "python"))
    os.mkfifo(home / "fifo")
    yield home
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        os.kill(int((home / ".cache/kitd/lock").read_text().split()[0]), signal.SIGKILL)


def reports(home: Path) -> list[dict[str, object]]:
    path = home / "report"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_daemon_is_started_that_shares_nothing_with_its_caller(installation: Path) -> None:
    inherited, other = os.pipe()
    try:
        done = subprocess.run(
            [*_KITCTL, "list"], capture_output=True, text=True, pass_fds=[inherited], timeout=50, check=True
        )
    finally:
        os.close(inherited)
        os.close(other)
    assert done.stdout.startswith("REPOSITORY")
    log = installation / ".local/state/kitd/kitd.log"
    [line] = done.stderr.splitlines()
    assert line.startswith("kitctl: started kitd (pid ")
    assert line.endswith(f", by default it ends after 15m without work; log: {log})")
    [report] = reports(installation)
    links = report.pop("links")
    assert report == {"words": ["--idle-default", "15m"], "cwd": "/", "leads": True, "store": None}
    assert isinstance(links, dict)
    assert [links["0"], links["1"], links["2"]] == ["/dev/null", str(log), str(log)]
    assert not [link for link in links.values() if link.startswith("pipe:")]


def test_a_relative_store_is_where_the_caller_is(installation: Path) -> None:
    environ = os.environ | {"KITD_CACHE_DIR": "store"}
    subprocess.run([*_KITCTL, "list"], cwd=installation, env=environ, timeout=50, check=True)
    report = json.loads((installation / "report").read_text())
    assert (report["cwd"], report["store"]) == ("/", f"{installation}/store")


@pytest.mark.parametrize(("size", "left"), [((1 << 20) + 1, 0), (1 << 20, 1 << 20)])
def test_a_long_log_is_put_aside_before_the_next_daemon_writes(
    installation: Path, size: int, left: int
) -> None:
    log = installation / ".local/state/kitd/kitd.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * size)
    log.with_name("kitd.log.old").write_text("from before")
    environ = os.environ | {"FAKE": "fails"}
    done = subprocess.run(
        [*_KITCTL, "list"], capture_output=True, text=True, env=environ, timeout=50, check=False
    )
    assert "kitd: unknown key cache.dri" in done.stderr
    assert log.read_bytes()[left:].startswith(b"something else\n")
    assert len(log.with_name("kitd.log.old").read_bytes()) == (len("from before") if left else size)


def test_the_daemon_that_was_started_is_used_from_then_on(installation: Path) -> None:
    for _ in range(2):
        subprocess.run([*_KITCTL, "list", "-q"], capture_output=True, timeout=50, check=True)
    assert len(reports(installation)) == 1


def test_of_two_clients_at_once_both_come_to_the_one_daemon_whose_socket_the_lock_names(
    installation: Path,
) -> None:
    environ = os.environ | {"FAKE": "waits"}
    clients = [
        subprocess.Popen([*_KITCTL, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)
        for _ in range(2)
    ]
    ends = [client.communicate(timeout=50) for client in clients]
    assert [client.returncode for client in clients] == [0, 0], ends
    assert all(output.startswith(b"REPOSITORY") for output, _ in ends)
    assert sorted(error.split()[1:3] for _, error in ends) == [[b"found", b"kitd"], [b"started", b"kitd"]]
    assert len(reports(installation)) == 1


def test_a_daemon_that_fails_is_quoted(installation: Path) -> None:
    environ = os.environ | {"FAKE": "fails"}
    done = subprocess.run(
        [*_KITCTL, "list"], capture_output=True, text=True, env=environ, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert "ended with status 1: kitd: unknown key cache.dri\n" in done.stderr
    assert str(installation / ".local/state/kitd/kitd.log") in done.stderr


def test_a_daemon_that_never_answers_is_not_waited_for_for_ever(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autostart, "_DEADLINE", 0.1)
    with pytest.raises(DaemonUnreachable, match="does not answer"):
        autostart.start_daemon(os.environ | {"FAKE": "sleeps"}, print)
    process = autostart._started.pop()
    process.kill()
    process.wait()


@pytest.mark.parametrize("words", [["--no-autostart"], ["--socket", "/nonexistent/kitd.sock"], ["named"]])
def test_no_daemon_is_started_unasked(installation: Path, words: list[str]) -> None:
    environ = dict(os.environ)
    if words == ["named"]:
        environ["KITD_SOCKET"] = "/nonexistent/kitd.sock"
        words = []
    done = subprocess.run(
        [*_KITCTL, "list", *words], capture_output=True, env=environ, timeout=50, check=False
    )
    assert done.returncode == 69
    assert not (installation / ".cache").exists()


@pytest.mark.parametrize("missing", ["kitd", "aiohttp"])
def test_an_installation_without_a_daemon_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(autostart, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(DaemonUnreachable, match="this installation has none"):
        autostart.start_daemon(os.environ, print)


def test_where_no_log_can_be_written_none_is_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    with pytest.raises(DaemonUnreachable, match="none can be started"):
        autostart.start_daemon(os.environ, print)
