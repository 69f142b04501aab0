"""Copying from a lent descriptor."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from kitd_client.api.errors import ProtocolError

_FICLONE: Final = 0x40049409
"""`ioctl_ficlone(2)`."""
_PIECE: Final = 8 << 20
_READ: Final = 256 << 10
_NO_CLONE: Final = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
_NO_RANGE: Final = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF)


class Copier:
    """Copies whole files in the cheapest way that source and target allow, which it finds out once."""

    def __init__(self) -> None:
        self._clones = True
        self._ranges = True

    def copy(self, source: int, target: int, size: int, copied: Callable[[int], None]) -> None:
        """All `size` bytes of `source`, which must have exactly so many, into the empty `target`.

        The offset of `source` is not used: it is shared with the daemon.

        Raises:
            ProtocolError: the daemon lent something else than it said.
            OSError: the write failed.
        """
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise ProtocolError(
                f"the daemon lent a file of {status.st_size} bytes where {size} were announced"
            )
        if self._clone(source, target):
            copied(size)
            return
        done = 0
        while done < size:
            count = self._some(source, target, done, size - done)
            if not count:
                raise ProtocolError(f"the file that the daemon lent ends at byte {done} of {size}")
            done += count
            copied(count)

    def _clone(self, source: int, target: int) -> bool:
        if not self._clones:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            self._clones = False
        return self._clones

    def _some(self, source: int, target: int, offset: int, count: int) -> int:
        if self._ranges:
            try:
                return os.copy_file_range(source, target, min(count, _PIECE), offset, offset)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                self._ranges = False
        data = memoryview(os.pread(source, min(count, _READ), offset))
        written = 0
        while written < len(data):
            written += os.pwrite(target, data[written:], offset + written)
        return written
