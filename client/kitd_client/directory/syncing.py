"""Making safe what was written, while more is being written."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from kitd_client.directory import kernel

LARGE_BYTES: Final = 4 << 20
"""A file of this size is synced by itself."""
FEW: Final = 64
"""More small files and directories than this are synced with their file system as a whole."""
_EAGER_BYTES: Final = 64 << 20
"""So much may be dirty before the disk is put to work."""
_THREADS: Final = 4


class Syncer:
    """Syncs in a few threads; the first failure is kept for `wait`.

    What could not be synced is never synced again: the kernel has dropped it and would answer that all is
    well.

    Args:
        root: a descriptor on the file system; errors since it was opened are noticed.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._pool = ThreadPoolExecutor(_THREADS, "kitd-sync")
        self._room = threading.Semaphore(2 * _THREADS)
        self._small = 0
        self._dirty = 0
        self._eager: Future[None] | None = None
        self._failed: OSError | None = None

    @property
    def as_a_whole(self) -> bool:
        """There are many files: the file system will be synced as a whole."""
        return self._small > FEW

    def made_directory(self) -> None:
        self._small += 1

    def writing(self, descriptor: int, count: int) -> None:
        """`count` more bytes of a large file are written; from time to time the disk is put to work on it."""
        self._dirty += count
        self._ahead(os.fdatasync, descriptor)

    def wrote(self, descriptor: int, size: int) -> None:
        """A file is complete: `size` bytes behind `descriptor`, which the caller still closes."""
        if size >= LARGE_BYTES:
            self._submit(os.fdatasync, descriptor)
            return
        self._small += 1
        if self.as_a_whole:
            self._dirty += size
            self._ahead(kernel.syncfs, self._root)
        else:
            self._submit(os.fdatasync, descriptor)

    def wait(self, directories: Iterable[int]) -> None:
        """Returns when all is safe.

        Args:
            directories: descriptors of those that were made, unless all is synced as a whole.

        Raises:
            OSError: something could not be written.
        """
        self._pool.shutdown()
        if self._failed is not None:
            raise self._failed
        if self.as_a_whole:
            kernel.syncfs(self._root)
            return
        for directory in directories:
            os.fsync(directory)

    def close(self) -> None:
        """Waits for the syncs under way and forgets their outcome."""
        self._pool.shutdown()

    def _ahead(self, sync: Callable[[int], None], descriptor: int) -> None:
        if self._dirty >= _EAGER_BYTES and (self._eager is None or self._eager.done()):
            self._dirty = 0
            self._eager = self._submit(sync, descriptor)

    def _submit(self, sync: Callable[[int], None], descriptor: int) -> Future[None]:
        self._room.acquire()
        return self._pool.submit(self._sync, sync, os.dup(descriptor))

    def _sync(self, sync: Callable[[int], None], descriptor: int) -> None:
        try:
            sync(descriptor)
        except OSError as error:
            self._failed = self._failed or error
        finally:
            os.close(descriptor)
            self._room.release()
