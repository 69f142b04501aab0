"""What a test needs of its machine. Missing: skipped with the line that helps; in CI (env `CI`) failed."""

import os
import select
import shutil
import socket
import subprocess
from typing import NoReturn

import pytest

_PACKAGES = {
    "docker-registry": "docker-registry",
    "skopeo": "skopeo",
    "strace": "strace",
    "mkfs.xfs": "xfsprogs",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "mount": "mount",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
_SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _lacking(text: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing is skipped: {text}", pytrace=False)
    pytest.skip(text)


def need_tool(name: str) -> str:
    """The path of a program, or the test is skipped (in CI: failed)."""
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        _lacking(f"{name} is not here: apt-get install {_PACKAGES.get(name, name)}")
    return found


def need_root() -> None:
    """The test runs as root, or is skipped (in CI: failed)."""
    if os.geteuid() != 0:
        _lacking("needs root: run scripts/test as root (it switches users, mounts images, makes namespaces)")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_listening(process: subprocess.Popen[bytes], port: int, *, attempts: int = 500) -> bool:
    """Wait until something listens on the port (True) or the process ends (False).

    Between two attempts it waits on the process itself, 20 ms at most: one that ends is noticed at once.
    """
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        for _ in range(attempts):
            if poll.poll(20):
                return False
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return True
    finally:
        os.close(pidfd)
    raise AssertionError(f"nothing listens on 127.0.0.1:{port} after {attempts} attempts")
