"""System calls that Python does not offer: syncfs, sync_file_range, the type of a file system."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kitd.spec.digest import Buffer

SYNC_THREADS: Final = 16
"""Measured: more flushes than that at a time gain nothing."""

BATCH: Final = 16
"""From that many files on one flush of the file system is cheaper than one of each file."""

FOREIGN_DIRTY: Final = 512 << 20
"""Bytes of others' unwritten data that a flush of the whole file system may wait for."""

_WRITE: Final = 2
_DONTCACHE: Final = 0x80
_KEEP_SIZE: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_MEMINFO: Final = Path("/proc/meminfo")
_FS_TYPE_BUFFER: Final = 256


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)


def sync_file_system(descriptor: int) -> None:
    """Waits until everything written to the file system of `descriptor` is safe: syncfs(2).

    Raises:
        OSError: something is not, and was not when `descriptor` was opened, or before and nobody was told yet.
    """
    _check(_LIBC.syncfs(descriptor))


def start_writing(descriptor: int, offset: int, length: int) -> None:
    """Lets the kernel begin to write a range to the disk, so that a later flush is short: sync_file_range(2).

    Only a hint: whether anything is safe is for the flush to say, so failures are left to it.
    """
    _LIBC.sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_WRITE))


def allocate(descriptor: int, offset: int, length: int) -> None:
    """Takes room for a range of a file that is about to be written, without changing its size: fallocate(2).

    Writing is a third cheaper then. Only a hint: whether there is room is for the write to say.
    """
    _LIBC.fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length))


def write_uncached(descriptor: int, data: Buffer) -> int:
    """Writes at the descriptor's position, around the page cache: see RWF_DONTCACHE in pwritev2(2).

    The kernel begins to write at once. OSError with EOPNOTSUPP or EINVAL: it is older than 6.14, or the file
    system cannot.

    Returns:
        Bytes taken.
    """
    return os.pwritev(descriptor, [data], -1, _DONTCACHE)


def sync_file(path: str) -> None:
    """Waits until the data of one file is safe; OSError if it is not, and then the file must be given up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def open_directory(path: str) -> int:
    """A descriptor of a directory, to flush it or its file system through."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextmanager
def opened_directory(path: str) -> Iterator[int]:
    """The same, for as long as the context lasts."""
    descriptor = open_directory(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_directory(path: str) -> None:
    """Waits until the names in a directory are safe; OSError if they are not."""
    with opened_directory(path) as descriptor:
        os.fsync(descriptor)


def sync_data(paths: Sequence[str], size: int, since: int) -> None:
    """Makes the data of new files safe: the whole file system at once for many files, else each file.

    Args:
        paths: the files, all on one file system.
        size: bytes in them; what is dirty beyond that belongs to others.
        since: a descriptor there that is older than the files.

    Raises:
        OSError: some file is not safe. Its pages may count as clean now, so a second flush would prove
            nothing (fsync fails once, then lies): every one of the files must be given up.
    """
    if len(paths) >= BATCH and dirty_bytes() - size <= FOREIGN_DIRTY:
        sync_file_system(since)
    else:
        _each(sync_file, paths)


def sync_directories(paths: Sequence[str]) -> None:
    """Makes the names in several directories safe; OSError if one is not."""
    _each(sync_directory, paths)


def _each(sync: Callable[[str], None], paths: Sequence[str]) -> None:
    if len(paths) <= 1:
        for path in paths:
            sync(path)
        return
    with ThreadPoolExecutor(min(SYNC_THREADS, len(paths)), thread_name_prefix="kitd-sync") as threads:
        for _ in threads.map(sync, paths):
            pass


def dirty_bytes() -> int:
    """Bytes of all file systems that wait to be written, or are being written."""
    fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    return sum(int(fields[name].split()[0]) << 10 for name in ("Dirty", "Writeback"))


def file_system_type(path: str) -> int:
    """The magic number of the file system that `path` lies on (statfs(2))."""
    buffer = ctypes.create_string_buffer(_FS_TYPE_BUFFER)
    _check(_LIBC.statfs(os.fsencode(path), buffer), path)
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF
