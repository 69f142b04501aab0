"""What the contenders work with: a kitd, registries on loopback, fresh file systems. Each ends with its context."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event

KITCTL = str(Path(sys.executable).with_name("kitctl"))


@dataclass(frozen=True)
class Kitd:
    """A running daemon."""

    pid: int
    environment: Mapping[str, str]

    def do(self, *arguments: str) -> str:
        """Runs a kitctl that is not timed."""
        return subprocess.run(
            [KITCTL, *arguments],
            env=os.environ | self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@contextlib.contextmanager
def kitd(home: Path, *, listen: str = "") -> Iterator[Kitd]:
    """A daemon with a store below `home`."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        "HOME": str(home),
        "KITD_SOCKET": str(home / "kitd.sock"),
        "KITD_CACHE_DIR": str(home / "store"),
    }
    if listen:
        environment["KITD_REGISTRY__LISTEN"] = listen
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        address = f"{directory}/notify"
        notify.bind(address)
        notify.settimeout(20)
        with (
            (home / "kitd.log").open("ab") as log,
            _process(
                [sys.executable, "-m", "kitd"], environment | {"NOTIFY_SOCKET": address}, log.fileno()
            ) as process,
        ):
            while b"READY=1" not in notify.recv(4096):
                pass
            yield Kitd(process.pid, environment)


@contextlib.contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], output: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _answers(url: str) -> None:
    """Waits until a server is there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            Event().wait(0.05)


_NGINX = """daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
user root; events {{ worker_connections 1024; }}
http {{
  sendfile on; tcp_nopush on; keepalive_requests 100000; access_log off;
  log_format bytes '$request_method $uri $body_bytes_sent';
  client_body_temp_path {home}/t; proxy_temp_path {home}/t; fastcgi_temp_path {home}/t;
  uwsgi_temp_path {home}/t; scgi_temp_path {home}/t;
  server {{ listen 127.0.0.1:{port}; access_log {home}/access.log bytes; include {home}/registry.conf; }}
  server {{ listen 127.0.0.1:{slow}; limit_rate 40m; include {home}/registry.conf; }}
}}
"""
_LOCATIONS = """location = /v2/ { default_type application/json; return 200 '{}'; }
location ~ ^/v2/.+/blobs/(sha256:[0-9a-f]+)$ { default_type application/octet-stream; alias ROOT/$1; }
"""
_MANIFEST = """location = /v2/{name}/manifests/{reference} {{
  default_type application/vnd.oci.image.manifest.v1+json; alias {root}/{digest};
  add_header Docker-Content-Digest {digest};
}}
"""


class StaticRegistry:
    """nginx with the files of kits: a registry to pull from that costs little itself."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._root = home / "blobs"
        self._root.mkdir(parents=True)
        (home / "t").mkdir()
        self._locations = _LOCATIONS.replace("ROOT", str(self._root))
        self.host = f"127.0.0.1:{free_port()}"
        self.slow_host = f"127.0.0.1:{free_port()}"

    def publish(self, source: str, name: str, digest: str, blobs: list[str]) -> None:
        """Takes a kit from the /v2/ listener at `source`, under the name it has there and tag v1."""
        for reference in ("v1", digest):
            self._locations += _MANIFEST.format(
                name=name, reference=reference, root=self._root, digest=digest
            )
        for kind, each in [("manifests", digest), *(("blobs", blob) for blob in blobs)]:
            url = f"http://{source}/v2/{name}/{kind}/{each}"
            with urllib.request.urlopen(url) as answer, (self._root / each).open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serves at `host`, and at `slow_host` with 40 MiB/s a connection."""
        port, slow = (host.rpartition(":")[2] for host in (self.host, self.slow_host))
        (self._home / "registry.conf").write_text(self._locations)
        config = self._home / "nginx.conf"
        config.write_text(_NGINX.format(home=self._home, port=port, slow=slow))
        with _process(["nginx", "-c", str(config), "-e", str(self._home / "error.log")], {}):
            _answers(f"http://{self.host}/v2/")
            yield

    def bytes_sent(self) -> int:
        """Bytes of bodies sent at `host` since it was asked last."""
        log = self._home / "access.log"
        total = sum(int(line.rsplit(" ", 1)[1]) for line in log.read_text().splitlines())
        os.truncate(log, 0)
        return total


def push_registry() -> str:
    """The registry to push to that is here: `registry` (distribution 3), else Debian's, which is slow."""
    return shutil.which("registry") or shutil.which("docker-registry") or ""


@contextlib.contextmanager
def registry(home: Path) -> Iterator[str]:
    """An empty registry that takes pushes; its address."""
    host = f"127.0.0.1:{free_port()}"
    config = home / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {home / 'registry'}}}, cache: {{blobdescriptor: inmemory}}}}\n"
        f"http: {{addr: '{host}', secret: bench}}\n"
    )
    with _process([push_registry(), "serve", str(config)], {"OTEL_TRACES_EXPORTER": "none"}):
        _answers(f"http://{host}/v2/")
        yield host


@contextlib.contextmanager
def file_system(kind: str, home: Path, size: int) -> Iterator[Path]:
    """A fresh file system of `size` bytes in a file of `home`, mounted; root only."""
    image, mount = home / f"{kind}.img", home / kind
    with contextlib.ExitStack() as stack:
        stack.callback(image.unlink, missing_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
        make = ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        subprocess.run([*(make if kind == "ext4" else ["mkfs.xfs", "-q"]), str(image)], check=True)
        mount.mkdir()
        stack.callback(mount.rmdir)
        # The loop device goes with the mount.
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        stack.callback(subprocess.run, ["umount", str(mount)], check=True)
        yield mount


def empty(place: Path) -> Path:
    """The directory, with nothing in it."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place
