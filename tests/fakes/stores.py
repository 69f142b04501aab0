"""Layers and stores for tests of the content store."""

import random
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import anyio

from kitd.content.ingest import BlobIngest
from kitd.content.store import ContentStore
from kitd.layer.tar import TRAILER, Member, encode_header, padding
from kitd.spec.digest import Digest, digest_of
from kitd.spec.media_types import LayerType

TAR = LayerType("dataset", "tar", "none")
SOURCE = "registry.example/team/kit"


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress; others for each seed."""
    return random.Random(seed).randbytes(size)


def plain_tar(files: Mapping[str, bytes | None]) -> bytes:
    """A tar as kit writes it; None stands for a directory."""
    parts: list[bytes] = []
    for name, data in files.items():
        size = len(data or b"")
        parts.append(encode_header(Member(name, data is None, 0o755 if data is None else 0o644, size)))
        parts += [data or b"", bytes(padding(size))]
    return b"".join([*parts, TRAILER])


def opened(root: Path) -> AbstractAsyncContextManager[ContentStore]:
    return ContentStore.opened(root, socket="/run/kitd.sock")


def ingest(
    store: ContentStore, digest: Digest, size: int, *, split: bool = True, source: str = SOURCE
) -> AbstractAsyncContextManager[BlobIngest | None]:
    """The ingest of a blob by somebody who can always go on, and hears nothing of others."""
    return store.ingest(
        digest, size, split=split, source=source, can_go_on=lambda: True, moved=lambda _source, _count: None
    )


async def put(store: ContentStore, data: bytes, *, split: bool = True, piece: int = 1 << 16) -> Digest:
    """Brings a blob into the store as a pull does, in pieces."""
    digest = digest_of(data)
    async with ingest(store, digest, len(data), split=split) as blob:
        if blob is not None:
            for start in range(blob.offset, len(data), piece):
                await store.work(blob.append, [data[start : start + piece]])
            await blob.commit()
    return digest


async def read_all(store: ContentStore, digest: Digest) -> bytes:
    reader = await store.open(digest)
    try:
        return await store.work(reader.read, 0, reader.size)
    finally:
        await store.work(reader.close)


def open_files(root: Path) -> list[str]:
    """The objects, recipes and ingest files of a store that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith(tuple(f"{root}/{folder}/" for folder in ("objects", "recipes", "ingest"))):
                found.append(target)
    return found


def names_in(folder: Path) -> list[str]:
    """What a directory holds."""
    return sorted(path.name for path in folder.iterdir())


async def emptied(root: Path) -> None:
    """Waits until everything in the trash of a store is unlinked."""
    with anyio.fail_after(20):
        while names_in(root / "trash"):  # noqa: ASYNC110 (nothing is said when the last file is gone)
            await anyio.sleep(0.002)


def stored_bytes(root: Path) -> int:
    """Bytes of every file of a store, each inode once, without the database."""
    status = {
        path.lstat().st_ino: path.lstat().st_size
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("kitd.db")
    }
    return sum(status.values())
