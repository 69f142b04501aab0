"""pack: a kit from the user's directory into the store, under its names."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from kitd.content.names import KitRecord
from kitd.content.store import ContentStore
from kitd.kits.source import Parents, choose_files, find_parents, read_kitfile
from kitd.kits.writing import members_of, write_layer
from kitd.layer.selection import LayerPlan
from kitd.progress import Progress
from kitd.registry.transport import Access, Transport
from kitd.spec.digest import Digest, digest_of
from kitd.spec.modelkit import RawFile, compose, layer_annotations, parent_reference
from kitd.spec.oci import Descriptor
from kitd.spec.reference import Reference, parse_reference
from kitd.workspace import Workspace
from kitd_client.api.errors import InvalidReference, InvalidRequest
from kitd_client.api.jobs import Packed, PackedLayer, PackRequest

_LAST_EPOCH = 253_402_300_799
"""The last second whose year has four digits."""

KIT_VERSION = "1.17.0"
"""The kit whose manifests ours equal; it stands where kit writes its own version."""


async def pack(
    store: ContentStore,
    transport: Transport,
    workspace: Workspace,
    request: PackRequest,
    uid: int,
    progress: Progress,
) -> Packed:
    """Reads Kitfile and `.kitignore`, chooses files, stores each layer, then config, manifest and names.

    Raises:
        KitfileNotFound, KitfileInvalid: there is no Kitfile to pack by.
        SourceUnreadable, SourceUnsuitable, SourceChanged: the directory does not have what the Kitfile says.
        ParentUnreachable: the kit builds on one that cannot be had.
        InvalidReference: a name is none, or a digest.
        InvalidRequest: SOURCE_DATE_EPOCH is no moment that a kit can name.
        KitdError: what the store had to say. Nothing is named before all of it is stored.
    """
    names = [_tag_of(text) for text in request.tags]
    created = _created(request.source_date_epoch)
    with store.lease() as lease:
        kitfile = await read_kitfile(store, workspace, request, progress)
        parents = Parents()
        parent = parent_reference(kitfile)
        if parent is not None:
            access = Access(uid=uid, context=request.context)
            parents = await find_parents(store, transport, access, parent, progress, lease)
        plans = await choose_files(store, workspace, kitfile, request, parents, progress)
        if not plans:
            progress.warned("the Kitfile names no files: the kit has no layers")
        packing = None if request.compression == "none" else request.compression
        _announce(plans, progress)
        layers = [await write_layer(store, workspace, plan, packing, progress, lease) for plan in plans]
        described = [_described(plan, layer, created) for plan, layer in zip(plans, layers, strict=True)]
        config, manifest = await store.work(
            compose,
            kitfile,
            described,
            created=created,
            version=KIT_VERSION,
        )
        digest = digest_of(manifest)
        for data in (config, manifest):
            lease.hold(digest_of(data))
            await store.add(data, digest_of(data))
        record = KitRecord(
            manifest=digest,
            selected=tuple(Digest(layer.digest) for layer in layers),
            complete=True,
            parents=parents.digests,
        )
        for name in names or [parse_reference(digest)]:
            await store.tag(name, record)
    return Packed(
        references=[str(name) for name in names],
        digest=digest,
        size=sum(layer.size for layer in layers),
        layers=layers,
    )


def _announce(plans: Sequence[LayerPlan], progress: Progress) -> None:
    """All layers at once: a bar whose total grows tells nothing."""
    totals: Counter[str] = Counter()
    for plan in plans:
        totals[plan.label] += sum(member.size for member in members_of(plan))
    for label, total in totals.items():
        progress.began(label, total, 0)


def _tag_of(text: str) -> Reference:
    name = parse_reference(text)
    if name.digest is not None:
        raise InvalidReference(f"{text} is a digest: a kit cannot be tagged as one", hint="give it a tag")
    return name


def _described(plan: LayerPlan, layer: PackedLayer, created: str) -> tuple[Descriptor, Digest]:
    raw = None
    if plan.file is not None:
        # kit writes the file's own time here, which makes equal kits differ; the kit's time is as true.
        name = plan.file.name.rpartition("/")[2]
        raw = RawFile(name=name, mode=plan.file.mode, size=plan.file.size, mtime=created)
    annotations = layer_annotations(plan.section, plan.path, raw)
    descriptor = Descriptor(layer.media_type, Digest(layer.digest), layer.size, annotations)
    return descriptor, Digest(layer.diff_id)


def _created(epoch: int | None) -> str:
    """Seconds since 1970, or now, as kit writes it (RFC 3339, UTC)."""
    if epoch is not None and not 0 <= epoch <= _LAST_EPOCH:
        raise InvalidRequest(
            "SOURCE_DATE_EPOCH is no moment that a kit can name",
            hint=f"give seconds since 1970, from 0 to {_LAST_EPOCH} (the end of the year 9999)",
        )
    moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(epoch, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
