"""path: a read-only tree of a kit inside the store, without a second copy."""

from kitd.content.store import ContentStore
from kitd.kits.load import choose_layers, load_kit, plan_tree
from kitd.spec.digest import digest_of
from kitd.spec.modelkit import parse_filters
from kitd.spec.reference import parse_reference
from kitd_client.api.jobs import PathRequest
from kitd_client.api.kits import PathAnswer


async def path(store: ContentStore, request: PathRequest) -> PathAnswer:
    """The directory for this kit and these filters; the same one every time.

    Raises:
        NotFound: the kit is not here.
        KitIncomplete: a layer the filters select is not here.
        ArchiveInvalid: a layer holds something that must not be unpacked.
    """
    reference = parse_reference(request.reference)
    filters = parse_filters(request.filters)
    with store.lease() as lease:
        stored = await load_kit(store, reference, lease)
        wanted = await choose_layers(store, stored, filters, lease)
        key = digest_of("\n".join(layer.descriptor.digest for layer in wanted.layers).encode())
        known = await store.find_snapshot(stored.record.manifest, key)
        if known is None:
            entries = await store.work((await plan_tree(store, wanted)).entries)
            known = await store.snapshot(stored.record.manifest, key, entries)
    return PathAnswer(str(known))
