"""unpack: a kit of the store into the user's directory. The client writes; the daemon says what."""

from collections.abc import Iterator, Sequence
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from kitd.content.store import ContentStore
from kitd.errors import single_error
from kitd.kits.load import StoredKit, Wanted, choose_layers, load_kit, plan_tree
from kitd.kits.tree import TreePlan
from kitd.progress import Progress
from kitd.spec.digest import Digest
from kitd.spec.kitfile import encode_kitfile
from kitd.spec.modelkit import parse_filters
from kitd.spec.reference import parse_reference
from kitd.workspace import Batch, MemberToWrite, Workspace
from kitd_client.api.errors import ArchiveInvalid, Unsupported
from kitd_client.api.jobs import Unpacked, UnpackRequest
from kitd_client.api.workspace import BATCH_DESCRIPTORS, ROWS_LIMIT, SMALL_LIMIT

ITEM = "files"
KITFILE = "Kitfile"
KITFILE_MODE = 0o644


async def unpack(
    store: ContentStore, workspace: Workspace, request: UnpackRequest, progress: Progress
) -> Unpacked:
    """Plans the whole tree, has the directory checked for all of it, then has it written and put in place.

    Raises:
        NotFound: the kit is not here.
        KitIncomplete: a layer the filters select is not here.
        ArchiveInvalid: a layer holds something that must not be unpacked; nothing was written.
        KitdError: what the client met in the user's directory.
    """
    reference = parse_reference(request.reference)
    filters = parse_filters(request.filters)
    with store.lease() as lease:
        stored = await load_kit(store, reference, lease)
        progress.resolved(str(reference), stored.record.manifest)
        wanted = await choose_layers(store, stored, filters, lease)
        if not wanted.layers and not wanted.kitfile:
            progress.warned(f"the filters select nothing of {reference}: see `kitctl info {reference}`")
        plan = await plan_tree(store, wanted)
        if plan.masked:
            progress.warned(
                f"{plan.masked} file(s) have a setuid, setgid or sticky bit, which is never unpacked"
            )
        members = await store.work(_members, stored, wanted, plan)
        skipped = (await workspace.check([member for member, _ in members])).skipped
        pairs = [pair for index, pair in enumerate(members) if index not in skipped]
        await _write(store, workspace, pairs, progress)
        published = await workspace.publish()
    return Unpacked(
        reference=str(reference),
        digest=stored.record.manifest,
        files=published.files,
        size=sum(member.size for member, _ in pairs),
        skipped=published.skipped + sum(not members[index][0].is_dir for index in skipped),
    )


Pair = tuple[MemberToWrite, Digest | None]


def _members(stored: StoredKit, wanted: Wanted, plan: TreePlan) -> list[Pair]:
    entries = plan.entries()
    members: list[Pair] = [
        (MemberToWrite(entry.path, entry.is_dir, entry.mode, entry.size), entry.digest) for entry in entries
    ]
    if wanted.kitfile:
        if any(entry.path.partition("/")[0] == KITFILE for entry in entries):
            raise ArchiveInvalid(
                f"a layer holds {KITFILE!r}, which is where the kit's own Kitfile goes",
                hint="choose layers with --filter: without `kitfile` it is not written",
                member=KITFILE,
            )
        text = encode_kitfile(stored.kit.kitfile)
        if len(text) > SMALL_LIMIT:
            raise Unsupported(
                f"the Kitfile of {stored.reference} has {len(text)} bytes as YAML; at most {SMALL_LIMIT} are written",
                kept="nothing was written",
                hint="choose layers with --filter: without `kitfile` it is not written",
            )
        members.append((MemberToWrite(KITFILE, False, KITFILE_MODE, len(text), text), None))
    return members


def _batches(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    start = lent = 0
    for index, (member, _) in enumerate(pairs):
        if lent + member.is_lent > BATCH_DESCRIPTORS or index - start == ROWS_LIMIT:
            yield pairs[start:index]
            start, lent = index, 0
        lent += member.is_lent
    if start < len(pairs):
        yield pairs[start:]


async def _write(
    store: ContentStore, workspace: Workspace, pairs: Sequence[Pair], progress: Progress
) -> None:
    total = sum(member.size for member, _ in pairs)
    progress.began(ITEM, total, 0)
    done = 0
    with single_error():
        async with anyio.create_task_group() as tasks:
            give, take = anyio.create_memory_object_stream[Batch](0)
            tasks.start_soon(_open_ahead, store, workspace, pairs, give)
            async with take:
                async for batch in take:
                    size = sum(row.size for row in batch.rows)
                    await workspace.write(batch, item=ITEM, done=done)
                    done += size
                    progress.moved(ITEM, "local", size)


async def _open_ahead(
    store: ContentStore, workspace: Workspace, pairs: Sequence[Pair], give: MemoryObjectSendStream[Batch]
) -> None:
    """Opens the next batch while the client copies the one before."""
    async with give:
        for some in _batches(pairs):
            digests = [digest for member, digest in some if member.is_lent and digest is not None]
            batch = await workspace.lend(
                [member for member, _ in some], partial(store.work, store.open_objects, digests)
            )
            try:
                await give.send(batch)
            except BaseException:
                batch.close()
                raise
