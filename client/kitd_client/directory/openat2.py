"""Opening beneath a directory only: over no link, to no parent, whatever the tree becomes meanwhile."""

import errno
import os
import stat
from typing import Final

from kitd_client.api.errors import ProtocolError
from kitd_client.api.workspace import display_path
from kitd_client.directory import kernel

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
PLACE: Final = os.O_PATH | os.O_DIRECTORY
"""Enough to work beneath a directory, and needs no right to list it."""
NOT_A_WAY: Final = (errno.ELOOP, errno.ENOTDIR)
"""A link or a file where a directory must be."""
_DEPTH_LIMIT: Final = 256
_NAME_LIMIT: Final = 255


def split_path(path: bytes) -> list[bytes]:
    """The components of a path that the daemon named; the directory itself is none.

    Raises:
        ProtocolError: no daemon of ours sends such a path: it leads out of the directory, or nowhere.
    """
    parts = path.split(b"/")
    if (
        len(parts) > _DEPTH_LIMIT
        or b"\0" in path
        or any(part in (b"", b".", b"..") or len(part) > _NAME_LIMIT for part in parts)
    ):
        raise ProtocolError(f"the daemon named a path that is not inside the directory: {display_path(path)}")
    return parts


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """A descriptor of `path` (already split once) beneath the directory `root`; never follows a link.

    Raises:
        OSError: one of `NOT_A_WAY` when a component is a link or no directory.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if not path:
        return os.open(b".", flags, dir_fd=root)
    if kernel.has_openat2():
        return kernel.openat2(root, path, flags, mode)
    *parents, name = path.split(b"/")
    place = os.open(b".", PLACE | os.O_CLOEXEC, dir_fd=root)
    try:
        for part in parents:
            below = os.open(part, PLACE | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            os.close(place)
            place = below
        return os.open(name, flags, mode, dir_fd=place)
    finally:
        os.close(place)


def blame(root: int, path: bytes) -> str:
    """Which component of `path` is no way to go, and what it is, for people."""
    parts = path.split(b"/")
    for count in range(1, len(parts) + 1):
        head = b"/".join(parts[:count])
        try:
            place = open_beneath(root, b"/".join(parts[: count - 1]), PLACE)
            try:
                mode = os.lstat(parts[count - 1], dir_fd=place).st_mode
            finally:
                os.close(place)
        except OSError:
            break
        if stat.S_ISLNK(mode):
            return f"{display_path(head)} is a symbolic link"
        if not stat.S_ISDIR(mode):
            return f"{display_path(head)} is not a directory"
    return "its path changed meanwhile"


def text(error: OSError) -> str:
    """What the system says, in the style of our messages."""
    said = os.strerror(error.errno) if error.errno else str(error)
    return said[:1].lower() + said[1:]


def reason(root: int, path: bytes, error: OSError) -> str:
    """The same, and for a path that leads over a link or a file, which component it is."""
    return blame(root, path) if error.errno in NOT_A_WAY else text(error)
