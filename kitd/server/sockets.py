"""The daemon's own Unix socket: never steals a live one, notices when it is gone, is removed at the end."""

import fcntl
import grp
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kitd.server.peers import peer_credentials
from kitd_client.api.errors import ConfigurationInvalid, StoreLocked

_BACKLOG = 128


class ApiSocket:
    """A listening socket and the name it has. Made by `bind`.

    Every name is reached through a descriptor of its directory, so the path may be of any length.
    """

    def __init__(self, path: Path, directory: int, sock: socket.socket) -> None:
        self.path = path
        self.socket = sock
        self._directory = directory
        self._hidden = f".{path.name}.{secrets.token_hex(4)}"
        self._own = _identity(path.name, directory)

    @classmethod
    def bind(cls, path: Path, mode: int, group: str) -> "ApiSocket":
        """Listens at `path`, whose directory is made if it is missing, as open as the socket.

        Args:
            path: absolute.
            mode: permission bits of the socket.
            group: its group; empty: the daemon's own.

        Raises:
            StoreLocked: another daemon answers there.
            ConfigurationInvalid: the directory is another user's, or the path cannot be had.
        """
        try:
            path.parent.mkdir(mode=0o755 if group else 0o700, parents=True, exist_ok=True)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(path, error.strerror) from error
        try:
            _check_directory(path, directory)
            with _locked(directory):
                _refuse_live(path, directory)
                return cls(path, directory, _bound(path, directory, mode, group))
        except BaseException:
            os.close(directory)
            raise

    @property
    def is_there(self) -> bool:
        """Whether the name still leads to this socket: if not, no client finds the daemon any more."""
        return self._is_ours(self.path.name) or self._is_ours(self._hidden)

    def withdraw(self) -> None:
        """Takes the name away for a moment; who connected before is still served."""
        if self._is_ours(self.path.name):
            os.rename(self.path.name, self._hidden, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def restore(self) -> None:
        """Gives the name back."""
        if self._is_ours(self._hidden):
            os.rename(self._hidden, self.path.name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def remove(self) -> None:
        """Takes the name away for good, if it is still this socket's; who came before is still served."""
        for name in (self.path.name, self._hidden):
            if self._is_ours(name):
                os.unlink(name, dir_fd=self._directory)

    def close(self) -> None:
        """Removes the name and stops listening."""
        self.remove()
        self.socket.close()
        os.close(self._directory)

    def _is_ours(self, name: str) -> bool:
        # The inode stays taken while the socket is open: no other file can have its number.
        identity = _identity(name, self._directory)
        return identity is not None and identity == self._own


def _identity(name: str, directory: int) -> tuple[int, int] | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _check_directory(path: Path, directory: int) -> None:
    """Nobody else may be able to put another socket in our place."""
    status = os.fstat(directory)
    if status.st_uid not in {0, os.geteuid()}:
        raise _unusable(path, f"its directory belongs to uid {status.st_uid}")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise _unusable(path, "its directory can be written by others")


@contextmanager
def _locked(directory: int) -> Iterator[None]:
    """Between two daemons that start at once: looking and taking are one step."""
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)


def _refuse_live(path: Path, directory: int) -> None:
    try:
        status = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise _unusable(path, "there is something else of that name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(f"/proc/self/fd/{directory}/{path.name}")
        except BlockingIOError:
            owner = "a busy daemon"
        except ConnectionRefusedError:
            return
        else:
            owner = f"the daemon with pid {peer_credentials(probe)[0]}"
    raise StoreLocked(
        f"cannot listen at {path}: {owner} answers there",
        hint="use that daemon, or give this one another socket (--socket)",
        socket=str(path),
    )


def _bound(path: Path, directory: int, mode: int, group: str) -> socket.socket:
    """A listening socket, complete with mode and group before anyone can find it."""
    name = f".{path.name}.{secrets.token_hex(4)}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{directory}/{name}")
        try:
            if group:
                os.chown(name, -1, _group_id(path, group), dir_fd=directory, follow_symlinks=False)
            os.chmod(name, mode, dir_fd=directory)
            sock.listen(_BACKLOG)
            os.rename(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(name, dir_fd=directory)
            raise
    except OSError as error:
        sock.close()
        raise _unusable(path, error.strerror) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _group_id(path: Path, group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise _unusable(path, f"there is no group {group!r}") from None


def _unusable(path: Path, reason: str | None) -> ConfigurationInvalid:
    return ConfigurationInvalid(
        f"cannot listen at {path}: {reason}", hint="name another place with --socket", socket=str(path)
    )
