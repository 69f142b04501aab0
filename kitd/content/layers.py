"""From a stored layer to its files: decoded, or split, at the first use."""

from kitd.content.blobs import Blobs
from kitd.content.collect import Collector
from kitd.content.database import Database
from kitd.content.decode import LayerFiles, refill
from kitd.content.flight import Turns
from kitd.content.ingests import Ingests
from kitd.content.objects import Objects
from kitd.content.publish import Publisher
from kitd.content.workers import Workers
from kitd.content.writer import Sealed
from kitd.spec.digest import Digest
from kitd.spec.media_types import Compression, LayerType
from kitd_client.api.errors import DiffIdMismatch


class Layers:
    """Layers by what is in them. One caller at a time for each; nothing is found out twice."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        objects: Objects,
        ingests: Ingests,
        publisher: Publisher,
        collector: Collector,
        workers: Workers,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._objects = objects
        self._ingests = ingests
        self._publisher = publisher
        self._collector = collector
        self._workers = workers
        self._turns = Turns()

    async def files(self, layer: Digest, layer_type: LayerType, diff_id: Digest | None) -> LayerFiles:
        """The files of `layer`; see `ContentStore.files`."""
        raw = layer_type.format == "raw"
        async with self._turns.turn(layer):
            plain = layer
            if layer_type.compression != "none":
                plain = await self._decoded(layer, layer_type.compression, diff_id, raw=raw)
            _compare(layer, plain, diff_id)
            await self._keep_as(plain, raw=raw)
            blob = await self._workers.work(self._blobs.get, plain)
        return LayerFiles(self._objects, plain, blob.size, raw=raw)

    async def _decoded(
        self, layer: Digest, compression: Compression, diff_id: Digest | None, *, raw: bool
    ) -> Digest:
        """The digest that a compressed layer decodes to; that blob is here. A claim is only compared."""
        known = await self._workers.work(self._database.diff_id, layer)
        if known is not None:
            return known
        async with self._ingests.fresh(split=not raw) as fresh:
            reader = await self._workers.work(self._blobs.open, layer)
            try:
                await self._workers.work_through(refill(reader, fresh.intake, compression))
            finally:
                await self._workers.finish(reader.close)
            sealed = await self._workers.work(fresh.intake.seal, None, None)
            _compare(layer, sealed.digest, diff_id)
            await fresh.commit(sealed)
            await self._workers.commit(self._database.publish, (), [(layer, sealed.digest)])
        return sealed.digest

    async def _keep_as(self, digest: Digest, *, raw: bool) -> None:
        """A tar that came whole is split; a raw layer that some kit calls a tar becomes whole."""
        before = await self._workers.work(self._blobs.get, digest)
        if before.recipe != raw:
            return
        async with self._ingests.fresh(split=not raw) as fresh:
            reader = await self._workers.work(self._blobs.open, digest)
            try:
                await self._workers.work_through(refill(reader, fresh.intake, "none"))
            finally:
                await self._workers.finish(reader.close)
            sealed: Sealed = await self._workers.work(fresh.intake.seal, digest, before.size)
            await self._publisher.publish(sealed)
        await self._workers.commit(self._collector.replaced, before)


def _compare(layer: Digest, found: Digest, claimed: Digest | None) -> None:
    if claimed is not None and found != claimed:
        raise DiffIdMismatch(
            f"layer {layer} holds bytes with the digest {found}, and its kit claims {claimed}",
            hint="the kit was not made by an honest tool; ask who published it",
            digest=layer,
        )
