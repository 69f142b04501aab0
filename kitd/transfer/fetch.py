"""A whole kit from a registry into the store: documents first, parents too, layers in parallel."""

from collections.abc import Callable, Iterable, Sequence

import anyio
import msgspec

from kitd.content.leases import Lease
from kitd.content.store import ContentStore
from kitd.errors import single_error
from kitd.progress import Progress
from kitd.registry.repository import Repository
from kitd.spec.digest import Digest
from kitd.spec.kitfile import CONFIG_LIMIT, parse_config
from kitd.spec.media_types import parse_layer_type
from kitd.spec.modelkit import Filter, Kit, join, narrow_to_model, select
from kitd.spec.oci import MANIFEST_LIMIT, Descriptor, parse_manifest
from kitd.spec.reference import Reference
from kitd.transfer.blob import BlobNews, fetch_blob
from kitd.transfer.patience import Patience
from kitd.transfer.space import require_space
from kitd.transfer.window import Window
from kitd_client.api.errors import (
    KitdError,
    NoSpace,
    NotFound,
    ParentUnreachable,
    ReferenceChainTooLong,
    ReferenceCycle,
    StorageIo,
    Unauthorized,
)

LONGEST_CHAIN = 10
"""Kits in a chain of parents, as kit counts them."""

PARALLEL_LAYERS = 64
"""Layers of one job under way at once: each has a file open, and more than the window's seats only wait."""

OpenRepository = Callable[[Reference], Repository]


class Blob(msgspec.Struct, frozen=True):
    """A blob to fetch, and what people call it."""

    label: str
    descriptor: Descriptor

    @property
    def split(self) -> bool:
        """It is a plain tar, and is stored as its files."""
        kind = parse_layer_type(self.descriptor.media_type)
        return kind is not None and kind.format == "tar" and kind.compression == "none"


class ChainKit(msgspec.Struct, frozen=True):
    """A kit of a chain of parents; its manifest and config are in the store."""

    reference: Reference
    digest: Digest
    kit: Kit
    blobs: tuple[Blob, ...]
    """The layers that were asked for."""
    repository: Repository | None
    """Where its layers are; none: it is a kit of this store, and so are they."""

    @property
    def complete(self) -> bool:
        """All layers were asked for."""
        asked = {blob.descriptor.digest for blob in self.blobs}
        return all(layer.digest in asked for layer in self.kit.manifest.layers)


async def fetch_chain(
    store: ContentStore,
    open_repository: OpenRepository,
    reference: Reference,
    filters: tuple[Filter, ...],
    progress: Progress,
    lease: Lease,
) -> tuple[ChainKit, ...]:
    """Fetches manifest and config of a kit and of its parents, and stores both. The kit itself comes first.

    The manifest is fetched even if it is here: that is how the caller proves that he may have it. A name without
    a registry is a kit of this store, as it is to kit's pack and unpack. `lease` holds every blob of the chain
    from before it is written.

    Raises:
        KitdError: what the kit's own registry, its documents or the store had to say.
        ParentUnreachable: a parent cannot be had; nothing is named.
        ReferenceCycle: a kit is its own ancestor.
        ReferenceChainTooLong: more than ten kits in a row.
        Unauthorized: also for a parent's registry, which it names, so that the caller can ask again with more.
    """
    chain: list[ChainKit] = []
    wanted: tuple[Filter, ...] | None = filters
    following: Reference | None = reference
    while following is not None and wanted is not None:
        try:
            if following.is_local:
                found = await _local_documents(store, following, wanted, lease)
            else:
                found = await _fetch_documents(
                    store, open_repository(following), following, wanted, progress, lease
                )
        except (Unauthorized, NoSpace, StorageIo):
            raise  # what it is, also for a parent
        except KitdError as error:
            if not chain:
                raise
            remedy = error.hint if following.is_local else "make the parent reachable"
            raise _unreachable(following, reference, error.message, remedy, error.kept) from error
        if any(found.digest == other.digest for other in chain):
            raise ReferenceCycle(f"found cycle in the parents of {reference}: {following} comes again")
        chain.append(found)
        if len(chain) > LONGEST_CHAIN:
            raise ReferenceChainTooLong(
                f"reached maximum number of model references ({LONGEST_CHAIN}) from {reference}"
            )
        following = found.kit.parent
        wanted = narrow_to_model(wanted)
    return tuple(chain)


def _unreachable(
    parent: Reference, child: Reference, reason: str, remedy: str | None, kept: str | None = None
) -> ParentUnreachable:
    return ParentUnreachable(
        f"parent {parent} of {child}: {reason}",
        kept=kept,
        hint=f"{remedy}; then pull again: nothing was tagged",
        parent=str(parent),
    )


async def _fetch_documents(
    store: ContentStore,
    repository: Repository,
    reference: Reference,
    filters: tuple[Filter, ...],
    progress: Progress,
    lease: Lease,
) -> ChainKit:
    digest = reference.digest or await repository.resolve(reference.tag or "latest")
    progress.resolved(str(reference), digest)
    manifest_bytes = await repository.fetch_manifest(digest)
    manifest = await store.work(parse_manifest, manifest_bytes)
    config = manifest.config
    for held in (digest, config.digest, *(layer.digest for layer in manifest.layers)):
        lease.hold(held)
    if await store.has(config.digest):
        config_bytes = await store.read(config.digest, CONFIG_LIMIT)
    else:
        config_bytes = await repository.fetch_bytes(config, CONFIG_LIMIT)
    kit = await store.work(lambda: join(manifest, parse_config(config_bytes)))
    await store.add(config_bytes, config.digest)
    await store.add(manifest_bytes, digest)
    return ChainKit(reference, digest, kit, _choose(kit, filters), repository)


async def _local_documents(
    store: ContentStore, reference: Reference, filters: tuple[Filter, ...], lease: Lease
) -> ChainKit:
    """The same of a kit that only this store has."""
    record = await store.resolve(reference)
    if record is None:
        raise NotFound(
            f"{reference} names no registry, and no kit of that name is here",
            hint=f"pack it here, or give a kit that you have pulled that name: kitctl tag KIT {reference}",
            reference=str(reference),
        )
    lease.hold(record.manifest)
    manifest = await store.work(parse_manifest, await store.read(record.manifest, MANIFEST_LIMIT))
    config = manifest.config.digest
    for held in (config, *(layer.digest for layer in manifest.layers)):
        lease.hold(held)
    config_bytes = await store.read(config, CONFIG_LIMIT)
    kit = await store.work(lambda: join(manifest, parse_config(config_bytes)))
    return ChainKit(reference, record.manifest, kit, _choose(kit, filters), None)


def _choose(kit: Kit, filters: tuple[Filter, ...]) -> tuple[Blob, ...]:
    """The layers that filters want; without filters also those that no entry of the Kitfile names."""
    chosen = [Blob(layer.label, layer.descriptor) for layer in select(kit, filters).layers]
    if not filters:
        chosen += [Blob(f"layer {each.digest[:19]}", each) for each in kit.unclaimed]
    return tuple(chosen)


async def fetch_layers(
    store: ContentStore,
    window: Window,
    chain: Sequence[ChainKit],
    progress: Progress,
    patience: Patience,
) -> tuple[dict[str, int], int]:
    """Brings every layer asked for into the store.

    Returns:
        The bytes this job moved, by host, and the bytes of all layers together.

    Raises:
        ParentUnreachable: a parent is a kit of this store, and lacks a layer; before anything moves.
        NoSpace: before anything moves, with the numbers.
        KitdError: the first failure; what was appended is kept.
    """
    wanted: dict[Digest, tuple[ChainKit, Blob]] = {}
    for kit in chain:
        for blob in kit.blobs:
            wanted.setdefault(blob.descriptor.digest, (kit, blob))
    await require_space(
        store, await _missing(store, chain[0].reference, wanted.values()), "the layers to fetch"
    )
    fetched: dict[str, int] = {}
    turns = anyio.CapacityLimiter(PARALLEL_LAYERS)

    async def fetch_layer(repository: Repository | None, blob: Blob) -> None:
        news = BlobNews(blob.label, blob.descriptor.size, progress)
        if repository is None:
            news.present()
            return
        try:
            async with turns:
                await fetch_blob(
                    store,
                    window,
                    repository,
                    blob.descriptor,
                    split=blob.split,
                    news=news,
                    patience=patience,
                )
        finally:
            for host, count in news.fetched.items():
                fetched[host] = fetched.get(host, 0) + count

    with single_error():
        async with anyio.create_task_group() as tasks:
            for kit, blob in wanted.values():
                tasks.start_soon(fetch_layer, kit.repository, blob)
    return fetched, sum(blob.descriptor.size for _, blob in wanted.values())


async def _missing(store: ContentStore, child: Reference, wanted: Iterable[tuple[ChainKit, Blob]]) -> int:
    """Bytes that are to be fetched; raises `ParentUnreachable` if some cannot be."""
    missing = 0
    for kit, blob in wanted:
        digest = blob.descriptor.digest
        if await store.has(digest):
            continue
        if kit.repository is None:
            raise _unreachable(
                kit.reference,
                child,
                f"it is here without layer {blob.label} ({digest})",
                "pull the kit that was given this name, without filters",
            )
        missing += max(0, blob.descriptor.size - await store.kept(digest))
    return missing
