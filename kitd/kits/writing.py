"""One layer, from the user's files into the store."""

import os
import zipfile
from collections.abc import Sequence
from typing import Protocol

from anyio.lowlevel import checkpoint

from kitd.content.ingest import BlobIngest
from kitd.content.leases import Lease
from kitd.content.store import ContentStore
from kitd.layer.codec import Encoder, Packing
from kitd.layer.selection import LayerPlan
from kitd.layer.tar import TRAILER, Member, encode_header, padding
from kitd.progress import Progress
from kitd.spec.digest import Digest, Hasher
from kitd.spec.media_types import encode_layer_type
from kitd.workspace import FileToRead, Workspace
from kitd_client.api.errors import SourceUnsuitable
from kitd_client.api.jobs import PackedLayer

Part = tuple[int, memoryview]


class _Sink(Protocol):
    """What takes the members of a layer, in order; used in one worker thread at a time."""

    def begin(self, member: Member) -> None: ...

    def data(self, view: memoryview) -> None: ...

    def write(self) -> None: ...


class _Feeder:
    """Gives a sink the members of a plan: read bytes where there are some, and everything that has none between."""

    def __init__(self, sink: _Sink, members: Sequence[Member]) -> None:
        self._sink = sink
        self._members = members
        self._places = [index for index, member in enumerate(members) if not member.is_dir]
        self._begun = 0

    def feed(self, parts: Sequence[Part]) -> None:
        """Parts of files, by the index of the file among all files."""
        for index, view in parts:
            self._begin_until(self._places[index] + 1)
            self._sink.data(view)
        self._sink.write()

    def finish(self) -> None:
        """The members after the last byte."""
        self._begin_until(len(self._members))
        self._sink.write()

    def _begin_until(self, stop: int) -> None:
        while self._begun < stop:
            self._sink.begin(self._members[self._begun])
            self._begun += 1


class _Stream:
    """A sink for bytes that are stored as one blob: compressed, raw, or both."""

    def __init__(self, ingest: BlobIngest, packing: Packing | None, *, framed: bool) -> None:
        self._ingest = ingest
        self._encoder = None if packing is None else Encoder(packing)
        self._framed = framed
        self._plain = Hasher()
        self._padding = 0
        self._noted: list[bytes | memoryview] = []

    def begin(self, member: Member) -> None:
        if self._framed:
            self._noted.append(bytes(self._padding) + encode_header(member))
            self._padding = padding(member.size)

    def data(self, view: memoryview) -> None:
        self._noted.append(view)

    def write(self) -> None:
        noted, self._noted = self._noted, []
        for data in noted:
            self._plain.update(data)
        self._ingest.append(noted if self._encoder is None else [self._encoder.feed(data) for data in noted])

    def finish(self) -> Digest:
        """Ends the blob; the digest of the bytes before compression."""
        if self._framed:
            self._noted.append(bytes(self._padding) + TRAILER)
        self.write()
        if self._encoder is not None:
            self._ingest.append([self._encoder.finish()])
        return self._plain.digest()


def members_of(plan: LayerPlan) -> Sequence[Member]:
    """What is read for a layer: the members of a tar, or the one file of a raw layer."""
    return plan.members if plan.file is None else (plan.file,)


async def write_layer(
    store: ContentStore,
    workspace: Workspace,
    plan: LayerPlan,
    packing: Packing | None,
    progress: Progress,
    lease: Lease,
) -> PackedLayer:
    """Reads the files of a layer once each and stores it; durable when it returns.

    Args:
        packing: how the layer is compressed, if it is.

    Raises:
        SourceChanged, SourceUnreadable, SourceUnsuitable: a file was not what the scan had seen.
        NoSpace: the store is full; nothing of the layer is kept.
    """
    if plan.type.compression == "none":
        packing = None
    if plan.type.format == "tar" and packing is None:
        async with store.new_tar() as tar:
            feeder = _Feeder(tar, members_of(plan))
            await _read(store, workspace, plan, feeder, progress)
            result = await tar.commit()
            lease.hold(result.digest)
        diff_id = result.digest
    else:
        async with store.new_blob() as blob:
            stream = _Stream(blob, packing, framed=plan.type.format == "tar")
            await _read(store, workspace, plan, _Feeder(stream, members_of(plan)), progress)
            diff_id = await store.work(stream.finish)
            result = await blob.commit()
            lease.hold(result.digest)
    if plan.type.kind == "mcpb":
        await store.work(_check_bundle, store, result.digest, plan.path)
    return PackedLayer(
        digest=result.digest,
        diff_id=diff_id,
        media_type=encode_layer_type(plan.type),
        path=plan.base,
        size=result.size,
        already_present=result.already_present,
    )


async def _read(
    store: ContentStore, workspace: Workspace, plan: LayerPlan, feeder: _Feeder, progress: Progress
) -> None:
    item = plan.label
    members = members_of(plan)
    files = [FileToRead(member.name, member.size) for member in members if not member.is_dir]
    # Nothing can be said in the middle of a turn: the beginning is told before the first one.
    await checkpoint()
    async for parts in workspace.read(files, item=item):
        await store.work(feeder.feed, parts)
        progress.moved(item, "workspace", sum(len(view) for _, view in parts))
    await store.work(feeder.finish)


def _check_bundle(store: ContentStore, digest: Digest, path: str) -> None:
    with os.fdopen(store.open_object(digest), "rb") as file:
        try:
            with zipfile.ZipFile(file) as bundle:
                names = bundle.namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise SourceUnsuitable(f"{path} is no MCP bundle: {error}", path=path) from error
    if "manifest.json" not in names:
        raise SourceUnsuitable(f"{path} is no MCP bundle: it has no manifest.json at its root", path=path)
