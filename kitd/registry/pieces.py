"""The bytes of an upload on their way out."""

from collections.abc import Callable, Sequence
from typing import Protocol

import anyio

from kitd.registry.rate import RateLimit
from kitd_client.api.errors import KitdError, StorageIo

_SMALL = 64 * 2**10
_QUICK = 1.0


class BlobSource(Protocol):
    """A blob to send; blocking, used in worker threads only, by one at a time."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class Work(Protocol):
    """Runs a blocking read in a bounded worker thread."""

    async def __call__(self, function: Callable[[int, int], bytes], offset: int, length: int, /) -> bytes: ...


class Feed:
    """Where the bytes of one blob come from, and who counts them."""

    def __init__(
        self,
        reader: BlobSource,
        work: Work,
        piece: int,
        rates: Sequence[RateLimit],
        sent: Callable[[int], None],
    ) -> None:
        self.size = reader.size
        self.rates = rates
        self.piece = piece
        """Bytes read at once, at most."""
        self._reader = reader
        self._work = work
        self._sent = sent
        self._furthest = 0

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes at an offset; fewer only at the end.

        Raises:
            StorageIo: the blob cannot be read, or is shorter than it says.
        """
        try:
            piece = await self._work(self._reader.read, offset, length)
        except OSError as error:
            raise StorageIo(f"a blob cannot be read for a push: {error.strerror}") from error
        if not piece:
            raise StorageIo(f"a blob ends at byte {offset} of {self.size} while it is read for a push")
        return piece

    def passed(self, offset: int) -> None:
        """All bytes up to `offset` went out; told onwards once, however often they are sent again."""
        if offset > self._furthest:
            self._sent(offset - self._furthest)
            self._furthest = offset


class Pieces:
    """Bytes `start` to `stop` of a blob, piece by piece: the body of one request.

    `scope` is the watchdog: its deadline moves on with each piece that the connection takes. Pieces are small
    on a slow connection, so that it is not taken for a dead one, and grow while they go out quickly. The
    HTTP client would hide an error of the reader behind one of its own; `failure` keeps it.
    """

    def __init__(
        self, feed: Feed, start: int, stop: int, scope: anyio.CancelScope, stall: float, commit: float
    ) -> None:
        self.failure: KitdError | None = None
        self.begun = False
        """The connection asked for the first piece."""
        self._feed = feed
        self._offset = start
        self._stop = stop
        self._scope = scope
        self._stall = stall
        self._commit = commit
        self._length = _SMALL
        self._handed_at = anyio.current_time()

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        if self.begun:
            quick = anyio.current_time() - self._handed_at < _QUICK
            self._length = min(self._length * 2, self._feed.piece) if quick else _SMALL
        self.begun = True
        self._feed.passed(self._offset)
        if self._offset == self._stop:
            self._scope.deadline = anyio.current_time() + self._commit
            raise StopAsyncIteration
        self._scope.deadline = float("inf")
        try:
            piece = await self._feed.read(self._offset, min(self._length, self._stop - self._offset))
        except KitdError as error:
            self.failure = error
            raise
        for rate in self._feed.rates:
            await rate.take(len(piece))
        self._offset += len(piece)
        self._handed_at = anyio.current_time()
        self._scope.deadline = self._handed_at + self._stall
        return piece
