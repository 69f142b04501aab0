"""list, inspect, info, tag, remove: what the store has, by name."""

from itertools import groupby

import msgspec

from kitd.content.names import TagRow
from kitd.content.store import ContentStore
from kitd.kits.load import load_kit, load_parents
from kitd.spec.digest import Digest
from kitd.spec.kitfile import encode_kitfile
from kitd.spec.media_types import CLI_VERSION
from kitd.spec.reference import UNNAMED_REPOSITORY, Reference, parse_reference, parse_tags
from kitd_client.api.errors import InUse, InvalidReference, KitdError, NotFound
from kitd_client.api.jobs import TagRequest
from kitd_client.api.kits import Info, Inspection, KitList, KitSummary, Removed, RemovedAll, Tagged


async def list_kits(store: ContentStore, repository: str) -> KitList:
    """One row per manifest and repository; of one repository, if it is not empty.

    Raises:
        InvalidReference: `repository` is no repository's name.
    """
    wanted = parse_reference(repository, default_tag=None).name if repository else ""
    rows = [row for row in await store.tags() if not wanted or row.name == wanted]
    kits: list[KitSummary] = []
    for (name, manifest), group in groupby(
        sorted(rows, key=lambda row: (row.name, row.record.manifest)),
        key=lambda row: (row.name, row.record.manifest),
    ):
        kits.append(await _summary(store, name, manifest, list(group)))
    return KitList(kits)


async def _summary(store: ContentStore, name: str, manifest: Digest, rows: list[TagRow]) -> KitSummary:
    tags = sorted(row.tag for row in rows if row.tag)
    model_name = author = ""
    size = 0
    try:
        stored = await load_kit(store, _named(name, manifest))
    except KitdError:
        # A damaged kit is still listed, so that it can be pulled again or removed.
        pass
    else:
        kitfile = stored.kit.kitfile
        size = sum(layer.size for layer in stored.kit.manifest.layers)
        # kit's column NAME is the package's name; a kit without one is better known by its model's than not.
        model_name = kitfile.package.name or (kitfile.model.name if kitfile.model else "")
        author = next(iter(kitfile.package.authors), "")
    return KitSummary(
        repository="" if name == UNNAMED_REPOSITORY else name,
        tags=tags,
        digest=manifest,
        model_name=model_name,
        author=author,
        size=size,
        complete=rows[0].record.complete,
    )


def _named(name: str, manifest: Digest) -> Reference:
    if name == UNNAMED_REPOSITORY:
        return parse_reference(manifest)
    return msgspec.structs.replace(parse_reference(name, default_tag=None), digest=manifest)


async def inspect(store: ContentStore, reference: str) -> Inspection:
    """Manifest and config of a kit, as the bytes they are.

    Raises:
        NotFound: the store does not name it.
    """
    stored = await load_kit(store, parse_reference(reference))
    return Inspection(
        digest=stored.record.manifest,
        cli_version=stored.kit.manifest.annotations.get(CLI_VERSION, ""),
        kitfile=msgspec.Raw(stored.config),
        manifest=msgspec.Raw(stored.manifest),
    )


async def info(store: ContentStore, reference: str) -> Info:
    """The Kitfile of a kit, as YAML.

    Raises:
        NotFound: the store does not name it.
    """
    stored = await load_kit(store, parse_reference(reference))
    return Info((await store.work(encode_kitfile, stored.kit.kitfile)).decode())


async def tag(store: ContentStore, request: TagRequest) -> Tagged:
    """Gives a kit one more name; nothing is copied.

    Raises:
        NotFound: the store does not name the source.
        InvalidReference: the destination is a digest.
    """
    source = parse_reference(request.source)
    destination = parse_reference(request.destination)
    if destination.digest is not None:
        raise InvalidReference(f"{request.destination} is a digest: a kit cannot be tagged as one")
    with store.lease() as lease:
        stored = await load_kit(store, source, lease)
        if stored.record.parents:
            await load_parents(store, stored, lease)
        await store.tag(destination, stored.record)
    return Tagged(str(destination), stored.record.manifest)


async def remove(store: ContentStore, reference: str, *, force: bool) -> Removed:
    """Takes names away (`repository:t1,t2`, or a digest: all of its names) and what nothing needs any more.

    What is kept of a pull that was not finished goes too.

    Raises:
        NotFound: the store has no such name.
        InUse: it is the last name of a kit whose tree `path` has handed out; `force` removes that, too.
    """
    untagged: list[str] = []
    digest = ""
    freed = 0
    for each in parse_tags(reference):
        gone = await store.untag(each, force=force)
        untagged += gone.names
        digest = gone.manifest or digest
        freed += gone.freed
    return Removed(untagged=untagged, digest=digest, freed=freed)


async def remove_all(store: ContentStore, *, force: bool) -> RemovedAll:
    """Removes every kit that has no tag; with `force` every kit, tagged or handed out by `path`.

    Kits that were handed out stay without `force`, and so do unfinished pulls, always.
    """
    removed: list[str] = []
    in_use: list[str] = []
    freed = 0
    rows = await store.tags()
    for name, manifest in dict.fromkeys((row.name, row.record.manifest) for row in rows):
        if not force and await _has_tag(store, name, manifest):
            continue
        kit = _named(name, manifest)
        try:
            freed += (await store.untag(kit, force=force)).freed
        except NotFound:
            # Somebody else has removed it meanwhile.
            continue
        except InUse:
            in_use.append(str(kit))
        else:
            removed.append(str(kit))
    return RemovedAll(removed=removed, in_use=in_use, freed=freed)


async def _has_tag(store: ContentStore, name: str, manifest: Digest) -> bool:
    """Asked for each kit when its turn comes: somebody may give it a name while others are removed."""
    return any(row.tag and (row.name, row.record.manifest) == (name, manifest) for row in await store.tags())
