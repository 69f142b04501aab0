"""push: a kit from the store to a registry."""

from kitd.content.store import ContentStore
from kitd.kits.load import StoredKit, load_kit, require
from kitd.progress import Progress
from kitd.registry.transport import Access, Transport
from kitd.spec.digest import Digest
from kitd.spec.reference import Reference, parse_reference
from kitd.transfer.push import MountSources, push_kit
from kitd_client.api.errors import InvalidReference
from kitd_client.api.jobs import Pushed, PushRequest

MOUNT_SOURCES = 2


async def push(
    store: ContentStore, transport: Transport, request: PushRequest, uid: int, progress: Progress
) -> Pushed:
    """Pushes the kit `source` names to `destination`, or to where its own name points.

    Raises:
        NotFound: there is no such kit here.
        KitIncomplete: a layer of it is not here.
        InvalidReference: the destination names no registry.
        KitdError: what the registry had to say; blobs it took are not sent again.
    """
    source = parse_reference(request.source)
    destination = parse_reference(request.destination) if request.destination else source
    if destination.is_local:
        raise InvalidReference(
            f"{destination} names no registry: registry is required when pushing",
            hint=f"kitctl push {source} HOST/REPOSITORY:TAG",
        )
    access = Access(uid=uid, context=request.context)
    with store.lease() as lease:
        stored = await load_kit(store, source, lease)
        labels = {layer.descriptor.digest: layer.label for layer in stored.kit.layers}
        for layer in stored.kit.manifest.layers:
            await require(store, source, labels.get(layer.digest, "of another kind"), layer)
        progress.resolved(str(source), stored.record.manifest)
        repository = transport.repository(
            destination.registry,
            destination.repository,
            access,
            limit_rate=request.limit_rate,
            waiting=progress.waiting,
        )
        sent = await push_kit(
            store,
            repository,
            destination.tag or stored.record.manifest,
            stored.kit,
            stored.manifest,
            mount_from=await _mount_sources(store, destination, stored),
            progress=progress,
        )
    return Pushed(
        reference=str(destination),
        digest=stored.record.manifest,
        size=sum(layer.size for layer in stored.kit.manifest.layers),
        sent=sent,
    )


async def _mount_sources(store: ContentStore, destination: Reference, stored: StoredKit) -> MountSources:
    """Repositories of the same registry where a blob was seen. A try that fails costs a request, so few are tried."""
    host = f"{destination.registry}/"
    seen: dict[Digest, dict[str, None]] = {}
    for row in await store.tags():
        if row.name.startswith(host) and row.name != destination.name:
            same = row.record.manifest == stored.record.manifest
            for digest in (*row.record.selected, *([stored.kit.manifest.config.digest] if same else [])):
                seen.setdefault(digest, {})[row.name.removeprefix(host)] = None
    return lambda digest: list(seen.get(digest, ()))[:MOUNT_SOURCES]
