"""A kit as the store has it."""

import msgspec

from kitd.content.leases import Lease
from kitd.content.names import KitRecord
from kitd.content.store import ContentStore
from kitd.kits.tree import TreePlan
from kitd.spec.kitfile import CONFIG_LIMIT, parse_config
from kitd.spec.modelkit import Filter, Kit, Layer, join, narrow_to_model, select
from kitd.spec.oci import MANIFEST_LIMIT, Descriptor, parse_manifest
from kitd.spec.reference import Reference
from kitd_client.api.errors import KitIncomplete, NotFound


class StoredKit(msgspec.Struct, frozen=True):
    """Manifest and config of a kit that the store names, as bytes and as values."""

    reference: Reference
    record: KitRecord
    manifest: bytes
    config: bytes
    kit: Kit


async def load_kit(store: ContentStore, reference: Reference, lease: Lease | None = None) -> StoredKit:
    """The kit a reference names.

    Args:
        store: where it is.
        reference: its name.
        lease: holds, from before each is asked for, every blob that a verb on this kit may touch.

    Raises:
        NotFound: the store does not name it.
    """
    record = await store.resolve(reference)
    if record is None:
        hint = "kitctl list" if reference.is_local else f"kitctl pull {reference}"
        raise NotFound(f"{reference} is not here", hint=hint, reference=str(reference))
    return await _load(store, reference, record, lease)


async def load_parents(store: ContentStore, stored: StoredKit, lease: Lease | None) -> list[StoredKit]:
    """The parents of a kit, as they were when it was pulled or packed; the nearest first.

    `lease` holds what they need, as `load_kit` does: the kit may lose its name while a verb is at work.

    Raises:
        KitIncomplete: the kit came without its parents (somebody pushed it here).
    """
    if stored.kit.parent is not None and not stored.record.parents:
        raise KitIncomplete(
            f"{stored.reference} is here without its parent {stored.kit.parent}",
            hint=f"kitctl pull {stored.reference}",
            reference=str(stored.reference),
        )
    records = [
        KitRecord(manifest=digest, selected=(), complete=False, parents=())
        for digest in stored.record.parents
    ]
    return [await _load(store, stored.reference, record, lease) for record in records]


async def _load(
    store: ContentStore, reference: Reference, record: KitRecord, lease: Lease | None
) -> StoredKit:
    if lease is not None:
        for digest in (record.manifest, *record.selected, *record.parents):
            lease.hold(digest)
    manifest_bytes = await store.read(record.manifest, MANIFEST_LIMIT)
    manifest = await store.work(parse_manifest, manifest_bytes)
    if lease is not None:
        for each in (manifest.config, *manifest.layers):
            lease.hold(each.digest)
    config_bytes = await store.read(manifest.config.digest, CONFIG_LIMIT)
    return StoredKit(
        reference,
        record,
        manifest_bytes,
        config_bytes,
        await store.work(lambda: join(manifest, parse_config(config_bytes))),
    )


class Wanted(msgspec.Struct, frozen=True):
    """What of a kit and of its parents a verb needs."""

    kitfile: bool
    layers: tuple[Layer, ...]
    """The parents' first: a child's files come after."""


async def choose_layers(
    store: ContentStore, stored: StoredKit, filters: tuple[Filter, ...], lease: Lease
) -> Wanted:
    """The layers that filters select, of the kit and of its parents (of which only `model` counts).

    `lease` holds the parents' from here on.

    Raises:
        KitIncomplete: naming the first layer that is not here.
    """
    selection = select(stored.kit, filters)
    layers: list[Layer] = []
    narrowed = narrow_to_model(filters)
    if narrowed is not None:
        for parent in reversed(await load_parents(store, stored, lease)):
            layers += select(parent.kit, narrowed).layers
    layers += selection.layers
    for layer in layers:
        await require(store, stored.reference, layer.label, layer.descriptor)
    return Wanted(selection.kitfile, tuple(layers))


async def require(store: ContentStore, reference: Reference, label: str, layer: Descriptor) -> None:
    """Raises `KitIncomplete` if a layer is not in the store."""
    if not await store.has(layer.digest):
        raise KitIncomplete(
            f"{reference} is here without layer {label} ({layer.digest})",
            hint=f"kitctl pull {reference}",
            reference=str(reference),
            digest=layer.digest,
        )


async def plan_tree(store: ContentStore, wanted: Wanted) -> TreePlan:
    """The tree that the wanted layers make together. Compressed layers are decoded the first time.

    Raises:
        ArchiveInvalid: a layer holds something that must not be unpacked.
        DiffIdMismatch: a layer holds other bytes than its kit claims.
    """
    plan = TreePlan()
    for layer in wanted.layers:
        files = await store.files(layer.descriptor.digest, layer.type, diff_id=layer.diff_id)
        if layer.type.format == "raw":
            await store.work(plan.add_file, layer, files)
        else:
            await store.work(plan.add, layer.label, files)
    return plan
