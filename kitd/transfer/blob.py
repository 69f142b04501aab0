"""One blob from a repository into the store: probe, fan out, append in order, go on after whatever happens."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
from anyio.abc import ObjectReceiveStream

from kitd.content.ingest import BlobIngest
from kitd.content.store import ContentStore
from kitd.errors import single_error
from kitd.progress import Progress
from kitd.registry.body import BodyInterrupted
from kitd.registry.repository import RemoteBlob, Repository
from kitd.spec.digest import Buffer
from kitd.spec.oci import Descriptor
from kitd.transfer.patience import Patience
from kitd.transfer.window import Pieces, Seat, Window, ordered
from kitd_client.api.errors import DigestMismatch, RegistryProtocol, RegistryUnavailable

INTERRUPTIONS = 6
"""Broken bodies in a row, without one new byte, before a blob is given up."""


class _RangesRefused(RegistryProtocol):
    """A repository that answered ranges answers whole bodies now."""


class BlobNews:
    """Counts one blob for one job: what is said of it never runs ahead of the truth, or backwards."""

    def __init__(self, item: str, size: int, progress: Progress) -> None:
        self._item = item
        self._size = size
        self._progress = progress
        self._done = 0
        self.fetched: dict[str, int] = {}
        """Bytes this job moved, by host."""

    def began(self, done: int) -> None:
        """The blob is this job's to write, `done` bytes are there."""
        self._done = done
        self._progress.began(self._item, self._size, done)

    def watched(self, source: str, count: int) -> None:
        """Another job moved `count` bytes of the blob."""
        count = min(count, self._size - self._done)
        if count > 0:
            self._done += count
            self._progress.moved(self._item, source, count)

    def received(self, host: str, count: int) -> None:
        """This job moved `count` bytes that the blob lacked."""
        self.repeated(host, count)
        self.watched(host, count)

    def repeated(self, host: str, count: int) -> None:
        """This job moved `count` bytes that were there already."""
        self.fetched[host] = self.fetched.get(host, 0) + count

    def present(self) -> None:
        """The blob is in the store."""
        if self._done == 0:
            self.began(self._size)
        else:
            self.watched("local", self._size - self._done)


async def fetch_blob(
    store: ContentStore,
    window: Window,
    repository: Repository,
    descriptor: Descriptor,
    *,
    split: bool,
    news: BlobNews,
    patience: Patience,
) -> None:
    """Brings a blob into the store, or waits for whoever brings it; at the end it is there, durably.

    Args:
        store: where the blob goes.
        window: whose memory and connections are used.
        repository: where the blob is asked for.
        descriptor: digest and size, both of which are verified.
        split: the blob is a plain tar and is to be stored as its files.
        news: told of every byte.
        patience: the repository's: while it is held back, another job that waits for the blob goes on with it.

    Raises:
        DigestMismatch: the repository sent other bytes twice, or says that it sends another blob.
        KitdError: what the registry or the store had to say; what was appended is kept for the next attempt.
    """
    news.began(0)
    while True:
        async with store.ingest(
            descriptor.digest,
            descriptor.size,
            split=split,
            source=repository.source,
            can_go_on=lambda: repository.ready() and window.has_room(repository.registry),
            moved=news.watched,
        ) as ingest:
            if ingest is None:
                news.present()
                return
            news.began(ingest.offset)
            download = _Download(store, window, repository, descriptor, ingest, news)
            try:
                if await download.run(patience):
                    return
            finally:
                # What came and was not appended is gone: from here on the truth is what the store has.
                news.began(ingest.offset)


class _Download:
    """The bytes of one open ingest, from one repository."""

    def __init__(
        self,
        store: ContentStore,
        window: Window,
        repository: Repository,
        descriptor: Descriptor,
        ingest: BlobIngest,
        news: BlobNews,
    ) -> None:
        self._store = store
        self._window = window
        self._repository = repository
        self._descriptor = descriptor
        self._ingest = ingest
        self._news = news
        self._seat: Seat | None = None
        self._stay = anyio.CancelScope()
        self._yielded = 0
        """Seats left for others, in a row and without one new byte."""

    async def run(self, patience: Patience) -> bool:
        """Fills and commits the ingest. False: held back while another job could go on, which now does."""
        ranges = True
        while True:
            if not await self._filled(patience, ranges=ranges):
                return False
            try:
                await self._ingest.commit()
            except DigestMismatch:
                if not ranges:
                    raise
                # No registry says which range lied: once more from the start, as one ordered stream.
                ranges = False
                await self._ingest.restart()
                self._news.began(0)
            else:
                return True

    async def _filled(self, patience: Patience, *, ranges: bool) -> bool:
        """Every byte is appended. False: somebody else can go on while this repository makes us wait."""
        with anyio.CancelScope() as scope:

            def held_back() -> None:
                if self._ingest.hand_over_wanted():
                    scope.cancel()

            def look() -> None:
                if self._seat is None or not self._repository.ready():
                    held_back()
                    self._make_room()

            self._ingest.when_somebody_waits(look)
            with patience.heard_by(held_back), patience.heard_by(look), self._window.heard_by(look):
                await self._fill(ranges=ranges)
        return not scope.cancelled_caught

    def _make_room(self) -> None:
        """Leaves the seat to a blob that can use it; whoever never gets on keeps it, to be told why in the end."""
        if self._seat is not None and self._yielded < INTERRUPTIONS and self._seat.yields():
            self._stay.cancel()

    async def _fill(self, *, ranges: bool) -> None:
        interruptions = 0
        size = self._descriptor.size
        while self._ingest.offset < size:
            await self._repository.until_ready()
            before = self._ingest.offset
            try:
                await self._sit(ranges=ranges)
            except _RangesRefused:
                ranges = False
            except BodyInterrupted as error:
                interruptions = 0 if self._ingest.offset > before else interruptions + 1
                if interruptions == INTERRUPTIONS:
                    raise RegistryUnavailable(
                        f"{self._descriptor.digest} from {self._repository.source}: {error.message}",
                        kept=f"{self._ingest.offset} of {size} bytes",
                        hint="ask again: the transfer goes on where it stopped",
                    ) from error
            else:
                self._yielded = 0 if self._ingest.offset > before else self._yielded + 1

    async def _sit(self, *, ranges: bool) -> None:
        """Fetches what is missing, unless the seat is left before."""
        start, size = self._ingest.offset, self._descriptor.size
        with anyio.CancelScope() as self._stay:
            async with self._window.admit(self._repository.registry) as seat:
                self._seat = seat
                try:
                    stop = min(start + seat.range_size, size) if ranges else size
                    async with self._repository.open_blob(self._descriptor, start, stop) as probe:
                        if probe.ranged and ranges:
                            await self._fan_out(seat, probe, start)
                        else:
                            await self._one_stream(seat, probe)
                finally:
                    self._seat = None
        if self._stay.cancelled_caught:
            # What came and was not appended is gone.
            self._news.began(self._ingest.offset)

    async def _fan_out(self, seat: Seat, probe: RemoteBlob, start: int) -> None:
        async def fetch(first: int, end: int) -> Pieces:
            opened = _opened(probe) if first == start else self._ask(first, end)
            return await self._range(first, end, opened)

        await ordered(seat, start, self._descriptor.size, fetch=fetch, append=self._append)

    def _ask(self, first: int, end: int) -> AbstractAsyncContextManager[RemoteBlob]:
        return self._repository.open_blob(self._descriptor, first, end)

    async def _range(self, first: int, end: int, opened: AbstractAsyncContextManager[RemoteBlob]) -> Pieces:
        pieces: Pieces = []
        got = first
        interruptions = 0
        while True:
            before = got
            try:
                async with opened as part:
                    if not part.ranged:
                        raise _RangesRefused(f"{part.host} stopped taking ranges")
                    async for piece in part.body:
                        pieces.append(piece)
                        got += len(piece)
                        self._received(part.host, len(piece))
            except BodyInterrupted:
                interruptions = 0 if got > before else interruptions + 1
                if interruptions == INTERRUPTIONS:
                    raise
            if got == end:
                return pieces
            opened = self._ask(got, end)

    async def _one_stream(self, seat: Seat, probe: RemoteBlob) -> None:
        """Appends a body as it comes. Half a range is gathered while the other half is appended."""
        sender, receiver = anyio.create_memory_object_stream[Pieces](0)
        with single_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._append_all, receiver)
                async with sender:
                    batch: Pieces = []
                    gathered = 0
                    async for piece in self._beyond_offset(probe):
                        batch.append(piece)
                        gathered += len(piece)
                        if gathered >= seat.range_size // 2:
                            await sender.send(batch)
                            batch, gathered = [], 0
                    await sender.send(batch)

    async def _beyond_offset(self, probe: RemoteBlob) -> AsyncIterator[Buffer]:
        """The pieces of a body, without what is appended already."""
        skip = self._ingest.offset - probe.begins_at
        async for piece in probe.body:
            known, new = piece[:skip], piece[skip:]
            skip -= len(known)
            self._news.repeated(probe.host, len(known))
            if new:
                self._received(probe.host, len(new))
                yield new

    async def _append_all(self, receiver: ObjectReceiveStream[Pieces]) -> None:
        async with receiver:
            async for pieces in receiver:
                await self._append(pieces)

    async def _append(self, pieces: Pieces) -> None:
        await self._store.work(self._ingest.append, pieces)

    def _received(self, host: str, count: int) -> None:
        self._news.received(host, count)
        self._ingest.moved(host, count)


@asynccontextmanager
async def _opened(part: RemoteBlob) -> AsyncIterator[RemoteBlob]:
    yield part
