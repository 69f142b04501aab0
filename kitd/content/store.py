"""The content store: every file once, by sha256. Its face; each method is told in one of the modules beside.

Everything that touches the file system runs in a worker thread. What answers, is done: durable, or gone.
"""

import logging
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

import anyio
import msgspec

from kitd.content.beside import Beside
from kitd.content.blobs import Blobs
from kitd.content.claim import claimed
from kitd.content.collect import Collector, Removal
from kitd.content.database import Database
from kitd.content.decode import LayerFiles
from kitd.content.disposal import Freeing
from kitd.content.flight import Flights, Turns
from kitd.content.ingest import BlobIngest, LayerResult
from kitd.content.ingests import Ingests
from kitd.content.layers import Layers
from kitd.content.layout import Layout
from kitd.content.leases import Lease, Leases
from kitd.content.names import KitRecord, Names, TagRow
from kitd.content.objects import Objects
from kitd.content.publish import Publisher
from kitd.content.reader import BlobReader
from kitd.content.snapshots import Snapshots, TreeEntry
from kitd.content.tar_ingest import TarIngest
from kitd.content.trash import Trash
from kitd.content.workers import P, T, Workers
from kitd.spec.digest import Digest
from kitd.spec.media_types import LayerType
from kitd.spec.reference import Reference
from kitd_client.api.errors import KitdError

__all__ = [
    "BlobIngest",
    "BlobReader",
    "ContentStore",
    "KitRecord",
    "LayerFiles",
    "LayerResult",
    "Lease",
    "Removal",
    "TagRow",
    "TarIngest",
    "TreeEntry",
    "Usage",
]

_log: Final = logging.getLogger(__name__)


class Usage(msgspec.Struct, frozen=True):
    """How much there is."""

    store_bytes: int
    """Bytes of all visible blobs."""
    free_bytes: int
    """Free bytes of the store's file system, for this user."""
    kits: int


class ContentStore:
    """The store of this daemon, for as long as `opened` lasts.

    Every coroutine raises, beside what it names, `NoSpace` and `StorageIo`, as `work` does.
    """

    def __init__(self, layout: Layout, database: Database, workers: Workers, beside: Beside) -> None:
        self.root = layout.root
        self._layout = layout
        self._database = database
        self._workers = workers
        self._trash = Trash(layout)
        self._names = Names(database)
        self._leases = Leases()
        self._objects = Objects(layout, database, self._trash)
        self._snapshots = Snapshots(layout, database, self._objects, self._trash)
        self._flights = Flights(lambda intake: workers.work(intake.close))
        self._turns = Turns()
        publisher = Publisher(self._objects, database, self._trash, workers)
        self._blobs = Blobs(database, self._objects, self._leases)
        self._collector = Collector(
            layout,
            database,
            self._names,
            self._objects,
            self._snapshots,
            self._trash,
            self._leases,
            self._flights.under_way,
        )
        self._ingests = Ingests(
            layout,
            self._blobs,
            self._objects,
            publisher,
            self._trash,
            self._leases,
            self._flights,
            workers,
            beside,
            self._collector.drop_ingest,
        )
        self._layers = Layers(
            database, self._blobs, self._objects, self._ingests, publisher, self._collector, workers
        )
        self._rubbish = anyio.Event()
        self._taking_away = anyio.Lock()
        workers.after_each = self._look_at_trash

    @classmethod
    @asynccontextmanager
    async def opened(cls, root: Path, *, socket: str) -> AsyncIterator[Self]:
        """Takes the store at `root`, made if it is not there, and finishes what was half done.

        Args:
            root: where the store is.
            socket: where this daemon is reached, for whoever finds the store locked.

        Raises:
            StoreLocked: another daemon has it.
            StoreRefused: another user's, of a newer version, on a network file system, no store, or damaged.
            StorageIo: the disk fails.
        """
        workers = Workers(root)
        with ExitStack() as stack:
            layout = await workers.work(stack.enter_context, claimed(root, socket=socket))
            database = await workers.work(Database, layout.database)
            stack.callback(database.close)
            beside = Beside()
            stack.callback(beside.close)
            store = await workers.work(cls, layout, database, workers, beside)
            await workers.commit(store._collector.recover)  # noqa: SLF001 (its own)
            store._rubbish.set()  # noqa: SLF001 (its own)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store._empty_trash)  # noqa: SLF001 (its own)
                try:
                    yield store
                finally:
                    tasks.cancel_scope.cancel()

    async def _empty_trash(self) -> None:
        while True:
            await self._rubbish.wait()
            self._rubbish = anyio.Event()
            try:
                if self._collector.has_rubbish:
                    await self._take_away(self._collector.drop_unheld())
                while await self._workers.work(self._trash.unlink_some):
                    pass
            except KitdError as error:
                _log.warning("the trash cannot be emptied: %s", error.message)

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in one of the store's worker threads; errors of the disk become the store's.

        Raises:
            NoSpace: the disk, or the quota, is full.
            StorageIo: the disk fails.
        """
        return await self._workers.work(function, *args, **kwargs)

    # -- blobs -----------------------------------------------------------------------------------

    def lease(self) -> Lease:
        """What a job needs, spared from collection until the context ends."""
        return Lease(self._leases)

    async def has(self, digest: Digest) -> bool:
        """Whether a blob is here. It stays if the caller has held it before it asked."""
        return await self.work(self._blobs.visible, digest) is not None

    async def size(self, digest: Digest) -> int:
        """Bytes of a blob; `NotFound` if it is not here."""
        return (await self.work(self._blobs.get, digest)).size

    async def kept(self, digest: Digest) -> int:
        """Bytes on the disk of a blob that is not complete yet."""
        return await self.work(self._ingests.kept, digest)

    async def open(self, digest: Digest) -> BlobReader:
        """A reader of a blob, which stays until the reader is closed.

        Raises:
            NotFound: it is not here.
            ObjectDamaged: it was, but not any more.
        """
        return await self.work(self._blobs.open, digest)

    async def read(self, digest: Digest, limit: int) -> bytes:
        """A whole small blob, hashed again.

        Raises:
            NotFound: it is not here.
            ObjectDamaged: it was, but not any more.
            ConfigInvalid: it has more than `limit` bytes, so it is not what it should be.
        """
        return await self.work(self._blobs.read, digest, limit)

    async def add(self, data: bytes, digest: Digest) -> None:
        """Stores a small blob, durably.

        Raises:
            DigestMismatch: the bytes have another digest.
            NoSpace: the disk is full.
        """
        if not await self.has(digest):
            async with self.new_blob() as ingest:
                await self.work(ingest.append, [data])
                await ingest.commit(digest)

    def open_object(self, digest: Digest) -> int:
        """A read-only descriptor of a whole object that nobody touched. Synchronous: for a worker thread.

        Raises:
            ObjectDamaged: there is none (any more); what needs it lost its row.
        """
        return self._objects.open(digest)

    def open_objects(self, digests: Sequence[Digest]) -> list[int]:
        """The same for several objects: all descriptors, or an error and none."""
        return self._blobs.open_objects(digests)

    # -- writing ---------------------------------------------------------------------------------

    def ingest(
        self,
        digest: Digest,
        size: int,
        *,
        split: bool,
        source: str,
        can_go_on: Callable[[], bool],
        moved: Callable[[str, int], None],
    ) -> AbstractAsyncContextManager[BlobIngest | None]:
        """Waits for this blob's turn and gives the open blob, or None: it is here, perhaps thanks to another.

        Whoever leaves without a commit leaves the bytes: to the next who waits, with all hash state, and on
        the disk. An error of digest or size that leaves the context also ends everyone who waits with the
        same `source`.

        Args:
            digest: the blob's.
            size: bytes it has by this caller's descriptor.
            split: it is a plain tar: its files become objects.
            source: the repository it would come from.
            can_go_on: whether that repository takes requests now.
            moved: told, by source, of the bytes that others bring while this waits, and of those that are here
                already, as they are read again.

        Raises:
            SizeMismatch: the blob has another size.
            DigestMismatch: another caller found that `source` sends other bytes.
        """
        return self._ingests.ingest(
            digest, size, split=split, source=source, can_go_on=can_go_on, moved=moved
        )

    def new_blob(self) -> AbstractAsyncContextManager[BlobIngest]:
        """A blob whose digest nobody knows yet; once committed, it is held until the context ends."""
        return self._ingests.new_blob()

    def new_tar(self) -> AbstractAsyncContextManager[TarIngest]:
        """A plain tar that is written here; once committed, it is held until the context ends."""
        return self._ingests.new_tar()

    # -- layers ----------------------------------------------------------------------------------

    async def files(self, layer: Digest, layer_type: LayerType, *, diff_id: Digest | None) -> LayerFiles:
        """The files of a layer. A compressed one, or a tar that came whole, is taken apart at its first use.

        Args:
            layer: its digest; the caller holds it.
            layer_type: what its media type says.
            diff_id: what its kit claims it decodes to; compared with what it does, and never looked up.

        Raises:
            NotFound: it is not here.
            DiffIdMismatch: it decodes to something else.
            ArchiveInvalid: it is damaged, or no archive that kits have; also UnsupportedEntry,
                ArchiveTooLarge.
        """
        return await self._layers.files(layer, layer_type, diff_id)

    async def find_snapshot(self, manifest: Digest, key: str) -> Path | None:
        """The tree that was made for this manifest and key, if nobody touched it."""
        return await self.work(self._snapshots.find, manifest, key)

    async def snapshot(self, manifest: Digest, key: str, entries: Sequence[TreeEntry]) -> Path:
        """A read-only tree of hard links, made once for each manifest and key; safe on the disk.

        Raises:
            ObjectDamaged: an object of it cannot be used.
            ArchiveInvalid: a path leads out of the tree.
            NotFound: the kit lost its last name meanwhile.
        """
        async with self._turns.turn((manifest, key)):
            known = await self.find_snapshot(manifest, key)
            if known is not None:
                return known
            path = self._layout.fresh_snapshot()
            try:
                tree = self._snapshots.tree(path, entries)
                await self._workers.work_through(tree.lay_out())
                await self._workers.work_abreast(tree.fill, tree.parts())
                await self._workers.work(tree.seal)
                await self._workers.commit(self._snapshots.publish, path, manifest, key)
            except BaseException:
                await self._workers.finish(self._snapshots.drop, path)
                raise
            return path

    # -- names -----------------------------------------------------------------------------------

    async def begin_pull(self, reference: Reference, manifest: Digest) -> None:
        """Notes that `reference` is being pulled, until its tag or its removal: what `manifest` names stays.

        Once for each manifest of the chain; the manifests must be in the store, for they tell what is needed.
        """
        await self.work(self._names.begin_pull, reference, manifest)

    async def tag(self, reference: Reference, record: KitRecord) -> None:
        """Writes a name, durably; by digest: keeps the kit without a tag.

        For one manifest and repository `selected` only grows.

        Raises:
            KitIncomplete: something that the record speaks of is not here (any more).
        """
        await self._workers.commit(self._names.tag, reference, record)

    async def resolve(self, reference: Reference) -> KitRecord | None:
        """What the store keeps under a tag, or under a digest in that repository; counts as a use."""
        return await self.work(self._names.resolve, reference)

    async def tags(self) -> list[TagRow]:
        """Every tag, and every kit that is kept without one."""
        return await self.work(self._names.rows)

    async def untag(self, reference: Reference, *, force: bool) -> Removal:
        """Takes a tag away (by digest: the kit with all its tags in that repository), and what nothing needs.

        Bytes of a pull that was not finished go too, if no other needs them.

        Raises:
            NotFound: nothing has that name, and no pull of it was begun.
            InUse: the last name of a kit that was handed out as a tree; `force` takes the tree away too.
        """
        removal = await self._workers.commit(self._collector.untag, reference, force=force)
        freed = await self._take_away(self._collector.collect())
        for digest in await self._workers.commit(self._collector.abandoned):
            freed += await self._ingests.abandon(digest)
        return msgspec.structs.replace(removal, freed=freed)

    def sweep(self) -> None:
        """Takes away what nothing needs, soon and in the background: something lost what spared it."""
        self._collector.due = True
        self._rubbish.set()

    async def _take_away(self, steps: Freeing) -> int:
        """Between two steps others publish; two that take away would spare for each other."""
        async with self._taking_away:
            try:
                while True:
                    freed = await self._workers.commit(_step, steps)
                    if freed is not None:
                        return freed
            finally:
                steps.close()

    async def usage(self) -> Usage:
        """How much the store has, and how much space there is."""
        return await self.work(self._usage)

    def _usage(self) -> Usage:
        return Usage(self._database.size(), shutil.disk_usage(self.root).free, self._names.count())

    def _look_at_trash(self) -> None:
        if self._trash.pending or self._collector.has_rubbish:
            self._trash.pending = False
            self._rubbish.set()


def _step(steps: Freeing) -> int | None:
    """The next step; in the end, the bytes that all of them freed."""
    try:
        next(steps)
    except StopIteration as end:
        return int(end.value)
    return None
