"""An object that is not complete yet: in memory while it is small and new, else in its tail file."""

import errno
import hashlib
import os
from typing import Final

from kitd.content.sync import allocate, start_writing, write_uncached
from kitd.spec.digest import Buffer

SLICE: Final = 1 << 20
"""Bytes hashed, or written around the page cache, in one go. Each go waits once for the interpreter."""

_WRITE: Final = 1 << 18
"""Bytes of one write into the page cache: with 1 MiB it takes four times the processor time (measured: cold
memory in large folios)."""

_WRITE_BACK: Final = 8 << 20
"""In steps of this the kernel starts to write a large object, so that the flush at the end is short."""

_CACHED: Final = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
"""Bytes of an object that stay in the page cache, for the unpack or push that follows: reading them from the
disk again costs a fifth of pull and unpack together. What is larger is written around the cache, so that it
pushes nobody's working set out."""

_ROOM: Final = 64 << 20
"""Bytes for which room is taken ahead of the writing."""

_UNKNOWN_FLAG: Final = (errno.EOPNOTSUPP, errno.EINVAL)
_TAIL: Final = "tail-"


def tail_name(offset: int) -> str:
    """The name of an incomplete object that begins at `offset` of its blob."""
    return f"{_TAIL}{offset}"


def write_all(descriptor: int, data: Buffer) -> None:
    """Writes every byte, however little the kernel takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:_WRITE]) :]


class Unfinished:
    """An object that is not complete yet: in memory while it is small and new, else in its tail file."""

    def __init__(self, start: int, size: int | None, *, shares_hash: bool) -> None:
        self.start = start
        self.size = size
        """Bytes it will have; None: all that comes."""
        self.received = 0
        self.hasher = None if shares_hash else hashlib.sha256()
        """None: the blob is this object, and its hash is the blob's."""
        self.buffer: bytearray | None = bytearray()
        self.descriptor = -1
        self._started = 0
        self._allocated = 0
        self._uncached = True

    def open(self, directory: str) -> None:
        """Moves it from memory to its tail file."""
        path = f"{directory}/{tail_name(self.start)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.descriptor = os.open(path, flags, 0o600)
        buffer, self.buffer = self.buffer, None
        if buffer:
            self._write(buffer)

    def go_on(self, path: str) -> None:
        """Takes up a tail file of an earlier life; its bytes are still to be hashed."""
        self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.buffer = None

    def read_again(self, data: Buffer) -> None:
        self.received += len(data)
        self._started = self._allocated = self.received
        if self.hasher is not None:
            self.hasher.update(data)
        os.lseek(self.descriptor, self.received, os.SEEK_SET)

    def add(self, data: Buffer) -> None:
        self.received += len(data)
        if self.buffer is None:
            self._write(data)
        else:
            self.buffer += data

    def _write(self, data: Buffer) -> None:
        if self.hasher is not None:
            self.hasher.update(data)
        self._make_room()
        if self.received > _CACHED and self._uncached:
            self._write_uncached(data)
            return
        write_all(self.descriptor, data)
        if self.received - self._started >= _WRITE_BACK:
            start_writing(self.descriptor, self._started, self.received - self._started)
            self._started = self.received

    def _make_room(self) -> None:
        """Stays a step ahead, and no more: a hostile archive may claim any size for a file."""
        if self.size is not None and self.received > self._allocated:
            step = min(self.size, self.received + _ROOM) - self._allocated
            allocate(self.descriptor, self._allocated, step)
            self._allocated += step

    def trim(self) -> None:
        """Gives back the room that was taken ahead. Moves the file's time, so it comes before sealing; OSError."""
        if self._allocated > self.received:
            # Not to what was received: a write that failed may have left less.
            os.ftruncate(self.descriptor, os.fstat(self.descriptor).st_size)
            self._allocated = self.received

    def _write_uncached(self, data: Buffer) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[write_uncached(self.descriptor, view) :]
        except OSError as error:
            if error.errno not in _UNKNOWN_FLAG:
                raise
            self._uncached = False
            write_all(self.descriptor, view)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
