"""Opening blobs for writing, and what becomes of those that are left."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import anyio

from kitd.content.beside import Beside
from kitd.content.blobs import Blobs
from kitd.content.flight import RESUMED, Flight, Flights, Waiter
from kitd.content.ingest import BlobIngest, Commit
from kitd.content.intake import Intake
from kitd.content.layout import Layout
from kitd.content.leases import Lease, Leases
from kitd.content.objects import Objects
from kitd.content.publish import Publisher
from kitd.content.resume import resume
from kitd.content.tar_ingest import TarIngest
from kitd.content.trash import Trash
from kitd.content.workers import Workers
from kitd.content.writer import Sealed
from kitd.spec.digest import Digest
from kitd_client.api.errors import DigestMismatch, KitdError, SizeMismatch


class Fresh(NamedTuple):
    """A blob whose digest is not known yet."""

    intake: Intake
    commit: Commit


class Ingests:
    """All blobs being written.

    Args (of those that do not speak for themselves):
        drop: gives up an ingest directory, and what a publication that failed has linked; bytes it had.
    """

    def __init__(
        self,
        layout: Layout,
        blobs: Blobs,
        objects: Objects,
        publisher: Publisher,
        trash: Trash,
        leases: Leases,
        flights: Flights,
        workers: Workers,
        beside: Beside,
        drop: Callable[[Path], int],
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._objects = objects
        self._publisher = publisher
        self._trash = trash
        self._leases = leases
        self._flights = flights
        self._workers = workers
        self._beside = beside
        self._drop = drop

    def kept(self, digest: Digest) -> int:
        """Bytes on the disk of a blob that is not complete yet."""
        try:
            return sum(path.stat().st_size for path in self._layout.ingest_of(digest).iterdir())
        except FileNotFoundError:
            return 0

    @asynccontextmanager
    async def ingest(
        self,
        digest: Digest,
        size: int,
        *,
        split: bool,
        source: str,
        can_go_on: Callable[[], bool],
        moved: Callable[[str, int], None],
    ) -> AsyncIterator[BlobIngest | None]:
        """See `ContentStore.ingest`."""
        with Lease(self._leases) as lease:
            lease.hold(digest)
            async with self._flights.turn(digest, Waiter(source, can_go_on, moved)) as flight:
                if flight is None:
                    if await self._is_here(digest, size):
                        yield None
                        return
                    # It was found damaged since: without a turn there is nothing to be done about it.
                    async with self.ingest(
                        digest, size, split=split, source=source, can_go_on=can_go_on, moved=moved
                    ) as ingest:
                        yield ingest
                    return
                if await self._present(digest, size):
                    flight.land()
                    yield None
                    return
                ingest = await self._begin(flight, digest, size, moved, split=split)
                try:
                    yield ingest
                except (DigestMismatch, SizeMismatch) as error:
                    flight.fail(source, error)
                    await self._give_up(flight, ingest, drop=isinstance(error, DigestMismatch))
                    raise
                finally:
                    await self._give_up(flight, ingest, drop=False)

    async def _is_here(self, digest: Digest, size: int) -> bool:
        return await self._workers.work(self._blobs.has, digest, size)

    async def _present(self, digest: Digest, size: int) -> bool:
        """Whether it is here, or can be made visible as it lies there; for whoever has the turn."""
        if await self._is_here(digest, size):
            return True
        if not await self._workers.work(Path.exists, Path(self._layout.object(digest))):
            return False
        if not await self._workers.commit(self._blobs.adopt, digest, size):
            return False
        await self._workers.work(self._trash.put, self._layout.ingest_of(digest))
        return True

    async def _begin(
        self, flight: Flight, digest: Digest, size: int, moved: Callable[[str, int], None], *, split: bool
    ) -> BlobIngest:
        if flight.intake is None:
            directory = self._layout.ingest_of(digest)
            intake = await self._workers.work(Intake, directory, self._objects, self._beside, split=split)
            told = 0

            def tell() -> None:
                nonlocal told
                if intake.offset > told:
                    for listener in (flight.moved, moved):
                        listener(RESUMED, intake.offset - told)
                    told = intake.offset

            try:
                await self._workers.work_through(resume(intake, digest), tell)
                tell()
            except BaseException:
                flight.restarted()
                await self._workers.finish(intake.close)
                raise
            flight.intake = intake
        if flight.intake.offset > size:
            raise SizeMismatch(
                f"blob {digest}: {flight.intake.offset} bytes are here, its descriptor says {size}",
                kept="the bytes that are here",
                digest=digest,
            )
        return BlobIngest(flight.intake, self._workers, self.commit, digest=digest, size=size, flight=flight)

    async def _give_up(self, flight: Flight, ingest: BlobIngest, *, drop: bool) -> None:
        intake = flight.intake
        if intake is None or not (drop or ingest.committed or intake.broken):
            return
        flight.intake = None
        await self._workers.finish(intake.close)
        if drop:
            flight.restarted()
            await self._discard(intake)

    async def _discard(self, intake: Intake) -> None:
        await self._workers.finish(self._trash.put, intake.directory)

    async def abandon(self, digest: Digest) -> int:
        """Drops what is written of a blob, unless somebody writes it now; bytes it had."""
        if digest in self._flights.under_way():
            return 0
        async with self._flights.turn(digest, Waiter("", _never, _unheard)):
            return await self._workers.commit(self._drop, self._layout.ingest_of(digest))

    async def commit(self, sealed: Sealed) -> bool:
        """Publishes a sealed blob, unless it is here already; whether it is new."""
        if await self._workers.work(self._blobs.visible, sealed.digest) is not None:
            await self._workers.work(self._trash.put, sealed.directory)
            return False
        await self._publisher.publish(sealed)
        return True

    @asynccontextmanager
    async def fresh(self, *, split: bool) -> AsyncIterator[Fresh]:
        """An intake for a blob whose digest nobody knows yet; it leaves nothing but what was committed."""
        intake = await self._workers.work(
            Intake, self._layout.fresh_ingest(), self._objects, self._beside, split=split, journaled=False
        )
        with Lease(self._leases) as lease:

            async def commit(sealed: Sealed) -> bool:
                lease.hold(sealed.digest)
                return await self.commit(sealed)

            try:
                await self._workers.work(intake.begin)
                yield Fresh(intake, commit)
            except Exception:
                if intake.sealed:
                    with anyio.CancelScope(shield=True), suppress(KitdError):
                        await self._workers.commit(self._drop, intake.directory)
                raise
            finally:
                await self._workers.finish(intake.close)
                await self._discard(intake)

    @asynccontextmanager
    async def new_blob(self) -> AsyncIterator[BlobIngest]:
        """A blob whose digest nobody knows yet; once committed, it is held until the context ends."""
        async with self.fresh(split=False) as fresh:
            yield BlobIngest(
                fresh.intake, self._workers, fresh.commit, digest=None, size=None, flight=Flight()
            )

    @asynccontextmanager
    async def new_tar(self) -> AsyncIterator[TarIngest]:
        """A plain tar that is written here; once committed, it is held until the context ends."""
        async with self.fresh(split=True) as fresh:
            yield TarIngest(fresh.intake, self._workers, fresh.commit)


def _never() -> bool:
    return False


def _unheard(source: str, count: int) -> None:
    """Nobody waits."""
