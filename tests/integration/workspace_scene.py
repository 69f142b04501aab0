"""The scene of the attacks on workspaces: a daemon, a user and a stranger, each with a uid of its own."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from unit.workspace.scripted import ClientPeer

DAEMON, USER, STRANGER = 64001, 64002, 64003
HERE = Path(__file__).parent
SILENCE = 2.0
MIB = 1 << 20


def as_user(uid: int, *command: str | Path) -> list[str]:
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        *map(str, command),
    ]


class Scene:
    """Places and people."""

    def __init__(self, root: Path) -> None:
        self.socket = root / "run" / "kitd.sock"
        self.store = self._make(root / "store", DAEMON, 0o700)
        self.home = self._make(root / "home", USER, 0o755)
        self.tree = self._make(self.home / "tree", USER, 0o777)
        """Shared: anybody may write here."""
        self.private = self._make(self.home / "private", USER, 0o700)
        self._make(self.socket.parent, DAEMON, 0o755)
        self._put(self.private / "secret", b"the user's secret", USER, 0o600)
        self._put(self.store / "object", b"content" * 1000, DAEMON, 0o444)

    @staticmethod
    def _make(path: Path, uid: int, mode: int) -> Path:
        path.mkdir()
        os.chown(path, uid, uid)
        path.chmod(mode)
        return path

    def _put(self, path: Path, content: bytes, uid: int, mode: int) -> None:
        path.write_bytes(content)
        os.chown(path, uid, uid)
        path.chmod(mode)

    def put(self, name: str, content: bytes) -> Path:
        """A file of the user in the shared tree."""
        path = self.tree / name
        self._put(path, content, USER, 0o666)
        return path

    def names(self, path: Path | None = None) -> set[str]:
        top = path or self.tree
        return {str(each.relative_to(top)) for each in top.rglob("*")}

    def status(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.socket))
            sock.sendall(json.dumps({"status": str(self.home)}).encode() + b"\n")
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        found: dict[str, Any] = json.loads(answer)
        return found

    @contextmanager
    def client(
        self, request: dict[str, object], *flags: str, target: Path | None = None
    ) -> Iterator["Client"]:
        """An honest client of the user, on the shared tree."""
        process = subprocess.Popen(
            as_user(
                USER,
                sys.executable,
                HERE / "workspace_client.py",
                self.socket,
                target or self.tree,
                json.dumps(request),
                *flags,
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield Client(process)
            finally:
                process.kill()

    def run(self, request: dict[str, object], *flags: str, target: Path | None = None) -> dict[str, Any]:
        with self.client(request, *flags, target=target) as client:
            return client.last()

    @contextmanager
    def raw(self, uid: int, request: dict[str, object]) -> Iterator[ClientPeer]:
        """A connection that is another uid's, as the kernel tells the daemon, and says what the test
        wants."""
        with socket.socket(socket.AF_UNIX) as sock:
            _connect_as(uid, sock, self.socket)
            sock.sendall(json.dumps(request).encode() + b"\n")
            yield ClientPeer(sock)


class Client:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def until(self, step: str) -> None:
        """Returns when the daemon has done `step`; the client waits."""
        assert self.line() == {"event": "warned", "message": step}

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def last(self) -> dict[str, Any]:
        while (found := self.line())["event"] == "warned":
            self.go_on()
        return found


def _connect_as(uid: int, sock: socket.socket, path: Path) -> None:
    """The credentials of a connection are those of the thread at the moment it connects."""
    os.setresuid(-1, uid, -1)
    try:
        sock.connect(str(path))
    finally:
        os.setresuid(-1, 0, -1)


def code(ended: dict[str, Any]) -> str:
    assert ended["event"] == "failed", ended
    found: str = ended["problem"]["code"]
    return found


def _limit_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


@contextmanager
def opened() -> Iterator[Scene]:
    """The daemon runs in a mount namespace where the home of the user is empty."""
    root = Path(tempfile.mkdtemp(prefix="kitd-attacks-"))
    root.chmod(0o755)
    probe = as_user(USER, sys.executable, "-c", "import kitd, kitd_client")
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("other users cannot read this checkout or its virtual environment")
    scene = Scene(root)
    daemon = as_user(
        DAEMON, sys.executable, HERE / "workspace_daemon.py", scene.socket, scene.store, str(SILENCE)
    )
    hidden = f'mount -t tmpfs -o mode=755 none "{scene.home}" && exec "$@"'
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", hidden, "sh", *daemon],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_limit_descriptors,  # noqa: PLW1509 - there is one thread
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield scene
        assert process.poll() is None, "the daemon has died of an attack"
    finally:
        process.kill()
        with process:
            shutil.rmtree(root)


def hammer(uid: int, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """A process of another user that repeats something as fast as it can."""
    return subprocess.Popen(as_user(uid, sys.executable, "-c", program, *arguments))


PACK: dict[str, object] = {"verb": "pack"}


def unpack(*paths: str, **more: object) -> dict[str, object]:
    return {"verb": "unpack", "members": [[path, "object"] for path in paths], **more}
