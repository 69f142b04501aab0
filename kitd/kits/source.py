"""What is to be packed: the Kitfile, the parents it names, and the files that its layers hold."""

import msgspec

from kitd.content.leases import Lease
from kitd.content.store import ContentStore
from kitd.kits.load import load_kit, load_parents
from kitd.layer.ignore import parse_ignore
from kitd.layer.selection import Entry, LayerPlan, Selector
from kitd.progress import Progress
from kitd.registry.transport import Access, Transport
from kitd.spec.digest import Digest
from kitd.spec.kitfile import KITFILE_LIMIT, KITFILE_NAMES, Kitfile, parse_kitfile
from kitd.spec.modelkit import Kit, narrow_to_model, refuse_remote_datasets
from kitd.spec.reference import Reference
from kitd.transfer.fetch import LONGEST_CHAIN, fetch_chain
from kitd.workspace import Listing, Workspace
from kitd_client.api.errors import KitfileNotFound, ReferenceChainTooLong
from kitd_client.api.jobs import PackRequest


class Parents(msgspec.Struct, frozen=True):
    """The kits that a Kitfile builds on, nearest first."""

    digests: tuple[Digest, ...] = ()
    paths: tuple[str, ...] = ()
    """Paths of their layers: they are left out of the child's."""


async def read_kitfile(
    store: ContentStore, workspace: Workspace, request: PackRequest, progress: Progress
) -> Kitfile:
    """The Kitfile given with the request, or the directory's.

    Raises:
        KitfileNotFound: neither exists.
        KitfileInvalid: it breaks a rule.
        Unsupported: it names a dataset that lies elsewhere.
    """
    if request.kitfile is not None:
        text: bytes | None = request.kitfile.encode()
    else:
        text = None
        for name in KITFILE_NAMES:
            text = await workspace.read_small(name, KITFILE_LIMIT)
            if text is not None:
                break
    if text is None:
        raise KitfileNotFound(
            f"the directory has no {', '.join(KITFILE_NAMES[:-1])} or {KITFILE_NAMES[-1]}",
            hint="write one (https://kitops.org/docs/kitfile/format), or name it with -f",
        )
    kitfile, warnings = await store.work(parse_kitfile, text)
    for warning in warnings:
        progress.warned(warning)
    refuse_remote_datasets(kitfile)
    return kitfile


async def find_parents(
    store: ContentStore,
    transport: Transport,
    access: Access,
    reference: Reference,
    progress: Progress,
    lease: Lease,
) -> Parents:
    """Manifest and config of every parent, from the store if they are there, else from their registries.

    Raises:
        ParentUnreachable: one cannot be had.
        ReferenceChainTooLong, ReferenceCycle: the chain is none.
    """
    if await store.resolve(reference) is not None:
        nearest = await load_kit(store, reference, lease)
        kits = [(nearest.record.manifest, nearest.kit)]
        kits += [(parent.record.manifest, parent.kit) for parent in await load_parents(store, nearest, lease)]
        if len(kits) > LONGEST_CHAIN:
            raise ReferenceChainTooLong(
                f"reached maximum number of model references ({LONGEST_CHAIN}) from {reference}"
            )
    else:
        chain = await fetch_chain(
            store,
            lambda parent: transport.repository(
                parent.registry, parent.repository, access, waiting=progress.waiting
            ),
            reference,
            narrow_to_model(()) or (),
            progress,
            lease,
        )
        kits = [(remote.digest, remote.kit) for remote in chain]
    return Parents(tuple(digest for digest, _ in kits), _paths([kit for _, kit in kits]))


def _paths(kits: list[Kit]) -> tuple[str, ...]:
    return tuple(layer.path for kit in kits for layer in kit.layers)


async def choose_files(
    store: ContentStore,
    workspace: Workspace,
    kitfile: Kitfile,
    request: PackRequest,
    parents: Parents,
    progress: Progress,
) -> tuple[LayerPlan, ...]:
    """Lists the directories that matter, no others, and decides which file belongs to which layer.

    Raises:
        SourceUnreadable: a file that belongs to a layer cannot be read.
        SourceUnsuitable: a path of the Kitfile does not exist, or is of the wrong kind.
    """
    ignore = parse_ignore((await workspace.read_small(".kitignore", KITFILE_LIMIT)) or b"")
    selector = Selector(
        kitfile,
        ignore,
        layer_format=request.layer_format,
        compression="gzip" if request.compression == "gzip-fastest" else request.compression,
        foreign=parents.paths,
    )
    while directories := selector.wanted():
        for listing in await workspace.scan(directories):
            await store.work(_listed, selector, listing)
    plans, warnings = await store.work(selector.plan)
    for warning in warnings:
        progress.warned(warning)
    return plans


def _listed(selector: Selector, listing: Listing) -> None:
    entries = [
        Entry(entry.name, entry.kind, entry.mode, entry.size, entry.error) for entry in listing.entries
    ]
    selector.listed(listing.directory, entries, listing.error)
