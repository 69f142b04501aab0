"""The threads that touch the store's file system, and what its errors mean."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from kitd.content.sync import SYNC_THREADS
from kitd.errors import single_error
from kitd_client.api.errors import KitdError, NoSpace, StorageIo

P = ParamSpec("P")
T = TypeVar("T")

Steps = Generator[None, None, None]
"""Long work, cut so that the event loop can end it between two pieces."""

_END: Final = object()
_LEAST_THREADS: Final = 4
_ABREAST: Final = _LEAST_THREADS // 2
"""Threads that one caller may have at a time: the others stay free for others."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Workers:
    """Bounded threads: a pool for the daily work, one for waiting on the disk, one thread that publishes.

    A call is never abandoned: who cancels waits for its end, so nothing works on in the dark.
    """

    def __init__(self, root: Path) -> None:
        self.after_each: Callable[[], None] = _nothing
        """Called on the event loop after every hop."""
        self._root = root
        self._daily = anyio.CapacityLimiter(max(_LEAST_THREADS, 2 * (os.cpu_count() or 1)))
        self._flushing = anyio.CapacityLimiter(SYNC_THREADS)
        self._committer = anyio.CapacityLimiter(1)

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One hop into a worker thread; the errors of the disk come back as `NoSpace` or `StorageIo`."""
        return await self._run(self._daily, function, *args, **kwargs)

    async def finish(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """The same for what must happen, also when the caller was cancelled already."""
        with anyio.CancelScope(shield=True):
            await self.work(function, *args, **kwargs)

    async def flush(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what mostly waits for the disk."""
        return await self._run(self._flushing, function, *args, **kwargs)

    async def commit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, one at a time: what makes things visible or takes them away."""
        return await self._run(self._committer, function, *args, **kwargs)

    async def work_through(self, steps: Steps, after_each: Callable[[], None] | None = None) -> None:
        """Does long work piece by piece, so that cancelling it takes no longer than one piece.

        Args:
            steps: the work.
            after_each: called on the event loop after every piece.
        """
        try:
            while await self.work(next, steps, _END) is not _END:
                if after_each is not None:
                    after_each()
        finally:
            steps.close()

    async def work_abreast(self, function: Callable[[T], None], pieces: Iterator[T]) -> None:
        """Does each piece of long work, in no certain order; for work that mostly waits for the kernel.

        Cancelling it takes no longer than one piece, and the first error ends it.
        """

        async def lane() -> None:
            for piece in pieces:
                await self.work(function, piece)

        with single_error():
            async with anyio.create_task_group() as tasks:
                for _ in range(_ABREAST):
                    tasks.start_soon(lane)

    async def _run(
        self, limiter: anyio.CapacityLimiter, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=limiter)
        except (OSError, sqlite3.Error) as error:
            raise storage_error(error, self._root) from error
        finally:
            self.after_each()


def _nothing() -> None:
    pass


def storage_error(error: OSError | sqlite3.Error, root: Path) -> KitdError:
    """What an error of the store's disk or database means to a user."""
    if isinstance(error, OSError):
        full, what = error.errno in _FULL, error.strerror or str(error)
    else:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        what = f"database: {error}"
    if full:
        free = shutil.disk_usage(root).free
        return NoSpace(
            f"no space left for the store {root}: {free} bytes are free",
            hint="free some space (`kitctl remove REF`), or raise the quota; then ask again",
            free=free,
        )
    return StorageIo(
        f"the disk of the store {root} failed: {what}",
        kept="what was complete before",
        hint="look into the system log; the disk may be failing",
    )
