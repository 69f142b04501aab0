"""A whole kit from the store to a registry: blobs in parallel, the manifest last."""

from collections.abc import Callable, Sequence

import anyio

from kitd.content.store import ContentStore
from kitd.errors import single_error
from kitd.progress import Progress
from kitd.registry.repository import Repository
from kitd.registry.upload import BlobsMissing, push_blob, push_manifest
from kitd.spec.digest import Digest
from kitd.spec.media_types import MANIFEST
from kitd.spec.modelkit import Kit
from kitd.spec.oci import Descriptor

PARALLEL_BLOBS = 8
"""Uploads open at once: about to be sent, being sent, or sent and being stored by the registry."""

SENT_AT_ONCE = 2
"""Of those, being sent, to begin with. Two keep a registry nearby busy; as they do not end together, it stores one
while it takes the next. More would end together, and both sides wait for its disk."""

_SLOW = 1.0
"""Seconds in which nobody got a turn: connections are slow, and one more blob is sent at once."""

MountSources = Callable[[Digest], Sequence[str]]
"""Other repositories of the same registry that may have a blob."""


class _Turns:
    """Who may send now."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(SENT_AT_ONCE)
        self._given = 0.0

    async def take(self, turn: object) -> None:
        while True:
            with anyio.move_on_after(_SLOW):
                await self._limiter.acquire_on_behalf_of(turn)
                self._given = anyio.current_time()
                return
            if anyio.current_time() - self._given >= _SLOW:
                self._limiter.total_tokens += 1
                self._given = anyio.current_time()

    def give_back(self, turn: object) -> None:
        self._limiter.release_on_behalf_of(turn)


class _Turn:
    """One blob's: from when its upload is open until its last byte is out, or it failed."""

    def __init__(self, turns: _Turns) -> None:
        self._turns = turns
        self._held = False

    async def take(self) -> None:
        if not self._held:
            await self._turns.take(self)
            self._held = True

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._turns.give_back(self)


class _Push:
    def __init__(
        self, store: ContentStore, repository: Repository, mount_from: MountSources, progress: Progress
    ) -> None:
        self._store = store
        self._repository = repository
        self._mount_from = mount_from
        self._progress = progress
        self._under_way = anyio.CapacityLimiter(PARALLEL_BLOBS)
        self._turns = _Turns()
        self.sent = 0

    async def blobs(self, named: Sequence[tuple[str, Descriptor]]) -> None:
        with single_error():
            async with anyio.create_task_group() as tasks:
                # The largest first: what is long and comes last runs alone.
                for label, descriptor in sorted(named, key=lambda each: each[1].size, reverse=True):
                    tasks.start_soon(self._blob, label, descriptor)

    async def _blob(self, label: str, descriptor: Descriptor) -> None:
        async with self._under_way:
            turn = _Turn(self._turns)
            self._progress.began(label, descriptor.size, 0)
            done = 0

            def sent(count: int) -> None:
                nonlocal done
                done += count
                self.sent += count
                self._progress.moved(label, self._repository.registry, count)
                if done == descriptor.size:
                    turn.give_back()

            reader = await self._store.open(descriptor.digest)
            try:
                await push_blob(
                    self._repository,
                    descriptor,
                    reader,
                    work=self._store.work,
                    mount_from=self._mount_from(descriptor.digest),
                    turn=turn.take,
                    sent=sent,
                )
            finally:
                turn.give_back()
                with anyio.CancelScope(shield=True):
                    await self._store.work(reader.close)
            if done < descriptor.size:
                self._progress.began(label, descriptor.size, descriptor.size)


async def push_kit(
    store: ContentStore,
    repository: Repository,
    tag: str,
    kit: Kit,
    manifest: bytes,
    *,
    mount_from: MountSources,
    progress: Progress,
) -> int:
    """Pushes layers and config, then the manifest under `tag` (or by digest).

    Args:
        mount_from: where else in the same registry a blob may be.

    Returns:
        Bytes sent; what the registry had or mounted is not among them.

    Raises:
        KitdError: what the registry said. Blobs it took stay there, a second push does not send them again.
    """
    push = _Push(store, repository, mount_from, progress)
    labels = {layer.descriptor.digest: layer.label for layer in kit.layers}
    layers = {layer.digest: layer for layer in kit.manifest.layers}
    named = [(labels.get(digest, f"layer {digest[:19]}"), layer) for digest, layer in layers.items()]
    named.append(("config", kit.manifest.config))
    await push.blobs(named)
    # Manifests of older kits do not say what they are; the registry must be told.
    media_type = kit.manifest.media_type or MANIFEST
    try:
        await push_manifest(repository, tag, manifest, media_type)
    except BlobsMissing:
        # A registry may collect a blob between our look and the manifest: look again, once.
        await push.blobs(named)
        await push_manifest(repository, tag, manifest, media_type)
    return push.sent
