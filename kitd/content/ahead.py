"""Flushing ahead: the disk works on many small files while more of them are written."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from kitd.content import sync

STEP: Final = 64 << 20
"""Bytes in small files after which the disk is put to work."""


class Ahead:
    """A thread that flushes the file system so that the flush at the end of a blob is short.

    It proves nothing, and what fails in it is not lost: whoever wrote flushes again through a descriptor that is
    older than his files, and every descriptor is told of each error once (syncfs(2), Linux 5.8).
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kitd-ahead")
        self._under_way: Future[None] | None = None

    def flush(self, descriptor: int) -> None:
        """Begins to flush the file system of `descriptor`, unless that is under way; waits for nothing."""
        if self._under_way is None or self._under_way.done():
            self._under_way = self._thread.submit(_flush, os.dup(descriptor))

    def close(self) -> None:
        """Waits for what is under way."""
        self._thread.shutdown()


def _flush(descriptor: int) -> None:
    try:
        # Others' data would be written for nobody's good.
        if sync.dirty_bytes() <= sync.FOREIGN_DIRTY:
            sync.sync_file_system(descriptor)
    finally:
        os.close(descriptor)
