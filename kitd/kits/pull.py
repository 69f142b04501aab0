"""pull: a kit from its registry into the store, under its name."""

from kitd.content.names import KitRecord
from kitd.content.store import ContentStore
from kitd.progress import Progress
from kitd.registry.transport import Access, Transport
from kitd.spec.modelkit import parse_filters
from kitd.spec.reference import parse_reference
from kitd.transfer.fetch import fetch_chain, fetch_layers
from kitd.transfer.patience import Patience
from kitd.transfer.window import Window
from kitd_client.api.errors import InvalidReference
from kitd_client.api.jobs import Pulled, PullRequest


async def pull(
    store: ContentStore,
    transport: Transport,
    window: Window,
    request: PullRequest,
    uid: int,
    progress: Progress,
) -> Pulled:
    """Resolves the reference once, fetches documents and layers, then writes the name.

    Raises:
        InvalidReference: also for a kit that has no registry.
        InvalidFilter: a filter that kit's grammar does not know.
        KitdError: what registry, store or the kit itself had to say; bytes that arrived stay for the next pull.
    """
    reference = parse_reference(request.reference)
    if reference.is_local:
        raise InvalidReference(
            f"{request.reference} names no registry: registry is required when pulling",
            hint="write it as HOST/REPOSITORY:TAG",
        )
    filters = parse_filters(request.filters)
    access = Access(uid=uid, context=request.context)
    patience = Patience(progress)
    limit = transport.limit(request.limit_rate)
    with store.lease() as lease:
        chain = await fetch_chain(
            store,
            lambda parent: transport.repository(
                parent.registry, parent.repository, access, limit_rate=limit, waiting=patience
            ),
            reference,
            filters,
            progress,
            lease,
        )
        for remote in chain:
            await store.begin_pull(reference, remote.digest)
        fetched, size = await fetch_layers(store, window, chain, progress, patience)
        kit = chain[0]
        await store.tag(
            reference,
            KitRecord(
                manifest=kit.digest,
                selected=tuple(blob.descriptor.digest for blob in kit.blobs),
                complete=kit.complete,
                parents=tuple(parent.digest for parent in chain[1:]),
            ),
        )
    return Pulled(
        reference=str(reference),
        digest=kit.digest,
        size=size,
        fetched=fetched,
        present=max(0, size - sum(fetched.values())),
        complete=kit.complete,
    )
