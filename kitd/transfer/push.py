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

PARALLEL_BLOBS = 4
"""No registry takes parallel chunks of one blob; four blobs at once reach what eight do (transfer-performance 4)."""


MountSources = Callable[[Digest], Sequence[str]]
"""Other repositories of the same registry that may have a blob."""


class _Push:
    def __init__(
        self, store: ContentStore, repository: Repository, mount_from: MountSources, progress: Progress
    ) -> None:
        self._store = store
        self._repository = repository
        self._mount_from = mount_from
        self._progress = progress
        self._turns = anyio.CapacityLimiter(PARALLEL_BLOBS)
        self.sent = 0

    async def blobs(self, named: Sequence[tuple[str, Descriptor]]) -> None:
        with single_error():
            async with anyio.create_task_group() as tasks:
                for label, descriptor in named:
                    tasks.start_soon(self._blob, label, descriptor)

    async def _blob(self, label: str, descriptor: Descriptor) -> None:
        async with self._turns:
            self._progress.began(label, descriptor.size, 0)
            done = 0

            def sent(count: int) -> None:
                nonlocal done
                done += count
                self.sent += count
                self._progress.moved(label, self._repository.registry, count)

            reader = await self._store.open(descriptor.digest)
            try:
                await push_blob(
                    self._repository,
                    descriptor,
                    reader,
                    work=self._store.work,
                    mount_from=self._mount_from(descriptor.digest),
                    sent=sent,
                )
            finally:
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
