"""Layers are taken apart at their first use."""

import os
import tracemalloc
import zlib
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fakes.kits import tar_header
from fakes.stores import TAR, ingest, names_in, noise, plain_tar, put, read_all, stored_bytes

from kitd.content.layers import Layers
from kitd.content.store import ContentStore, LayerFiles
from kitd.layer.codec import Encoder
from kitd.layer.tar import TRAILER
from kitd.spec.digest import Digest, Hasher, digest_of
from kitd.spec.media_types import LayerType
from kitd_client.api.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    DiffIdMismatch,
    KitdError,
    NotFound,
    UnsupportedEntry,
)

FILES = {"d": None, "d/a": noise(5000, 1), "d/b": noise(400_000, 2), "e": b""}
PLAIN = plain_tar(FILES)
RAW = LayerType("model", "raw", "none")


def typed(compression: str, form: str = "tar") -> LayerType:
    return LayerType("dataset", form, compression)  # type: ignore[arg-type]


def packed(data: bytes, packing: str) -> bytes:
    encoder = Encoder(packing)  # type: ignore[arg-type]
    return encoder.feed(data) + encoder.finish()


def listing(files: LayerFiles) -> dict[str, Digest | None]:
    return {member.name: digest for member, digest in files}


EXPECTED = {name: digest_of(data) if data else None for name, data in FILES.items()}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("claimed", [digest_of(PLAIN), None], ids=["claimed", "not claimed"])
async def test_a_compressed_layer_is_decoded_once(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch, compression: str, claimed: Digest | None
) -> None:
    data = packed(PLAIN, compression)
    layer = await put(store, data, split=False)
    files = await store.files(layer, typed(compression), diff_id=claimed)
    assert files.digest == digest_of(PLAIN)
    assert listing(files) == EXPECTED
    assert files.totals() == (2, 405_000)
    assert await read_all(store, layer) == data
    assert await read_all(store, files.digest) == PLAIN
    monkeypatch.setattr("kitd.content.layers.refill", None)
    assert listing(await store.files(layer, typed(compression), diff_id=claimed)) == EXPECTED


async def test_many_ask_at_once_and_one_decodes(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Digest] = []
    decode = Layers._decoded

    async def counted(self: Layers, layer: Digest, *args: object, **options: object) -> Digest:
        before = self._database.diff_id(layer)
        found = await decode(self, layer, *args, **options)  # type: ignore[arg-type]
        if before is None:
            decoded.append(layer)
        return found

    monkeypatch.setattr(Layers, "_decoded", counted)
    layer = await put(store, packed(PLAIN, "gzip"), split=False)
    found: list[dict[str, Digest | None]] = []

    async def ask() -> None:
        found.append(listing(await store.files(layer, typed("gzip"), diff_id=None)))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)
    assert found == [EXPECTED] * 10
    assert decoded == [layer]


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_claim_is_compared_and_never_looked_up(store: ContentStore, compression: str) -> None:
    other = plain_tar({"secret": noise(100, 7)})
    secret = await put(store, other)
    data = PLAIN if compression == "none" else packed(PLAIN, compression)
    layer = await put(store, data, split=compression == "none")
    for _ in range(2):
        with pytest.raises(DiffIdMismatch) as caught:
            await store.files(layer, typed(compression), diff_id=secret)
        assert digest_of(PLAIN) in caught.value.message
    assert listing(await store.files(layer, typed(compression), diff_id=None)) == EXPECTED
    with pytest.raises(DiffIdMismatch):
        await store.files(layer, typed(compression), diff_id=secret)


async def test_a_tar_that_came_whole_is_split_at_its_first_use(store: ContentStore, root: Path) -> None:
    async with store.new_blob() as blob:
        await store.work(blob.append, [PLAIN])
        layer = (await blob.commit()).digest
    reader = await store.open(layer)
    assert listing(await store.files(layer, TAR, diff_id=layer)) == EXPECTED
    assert reader.read(0, len(PLAIN)) == PLAIN
    reader.close()
    assert await read_all(store, layer) == PLAIN
    await one_copy(root)


async def one_copy(root: Path) -> None:
    """What the layer was kept as before goes when nobody reads it any more."""
    with anyio.fail_after(20):
        while stored_bytes(root) > 1.02 * len(PLAIN):  # noqa: ASYNC110 (nothing is said when a file is gone)
            await anyio.sleep(0.002)


async def test_a_split_layer_that_a_kit_calls_raw_becomes_whole(store: ContentStore, root: Path) -> None:
    layer = await put(store, PLAIN)
    files = await store.files(layer, RAW, diff_id=None)
    assert (files.digest, files.totals()) == (layer, (1, len(PLAIN)))
    descriptor = await store.work(store.open_object, layer)
    assert os.pread(descriptor, len(PLAIN), 0) == PLAIN
    os.close(descriptor)
    assert await read_all(store, layer) == PLAIN
    await one_copy(root)
    assert listing(await store.files(layer, TAR, diff_id=None)) == EXPECTED


@pytest.mark.parametrize("size", [0, 3000])
async def test_a_raw_layer_is_its_file(store: ContentStore, size: int) -> None:
    data = noise(size, 3)
    layer = await put(store, data, split=False)
    ((member, digest),) = await store.files(layer, RAW, diff_id=layer)
    assert (member.size, digest) == (size, layer if size else None)


async def test_a_compressed_raw_layer(store: ContentStore) -> None:
    data = noise(3000, 3)
    layer = await put(store, packed(data, "zstd"), split=False)
    files = await store.files(layer, typed("zstd", "raw"), diff_id=digest_of(data))
    assert (files.digest, files.totals()) == (digest_of(data), (1, 3000))
    descriptor = await store.work(store.open_object, files.digest)
    assert os.pread(descriptor, 4000, 0) == data
    os.close(descriptor)


def link_member() -> bytes:
    block = bytearray(plain_tar({"link": b""})[:512])
    block[156:157] = b"2"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


BAD = {
    "a link": (packed(PLAIN[:-1024] + link_member(), "gzip"), UnsupportedEntry),
    "cut off tar": (packed(PLAIN[:-1024], "gzip"), ArchiveInvalid),
    "cut off stream": (packed(PLAIN, "gzip")[:-20], ArchiveInvalid),
    "no tar": (packed(noise(5000), "gzip"), ArchiveInvalid),
    "no gzip": (noise(5000), ArchiveInvalid),
    "garbage after it": (packed(PLAIN, "gzip") + b"garbage", ArchiveInvalid),
    "a bomb": (zlib.compress(bytes(100 << 20), 9, 31), ArchiveTooLarge),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_layer_is_refused_and_leaves_nothing(store: ContentStore, root: Path, kind: str) -> None:
    data, error = BAD[kind]
    layer = await put(store, data, split=False)
    before = {path.name for path in (root / "objects").rglob("*")}
    for _ in range(2):
        with pytest.raises(KitdError) as caught:
            await store.files(layer, typed("gzip"), diff_id=None)
        assert type(caught.value) is error
    assert {path.name for path in (root / "objects").rglob("*")} == before
    assert names_in(root / "ingest") == []
    assert await read_all(store, layer) == data


@pytest.mark.parametrize("kind", ["a link", "cut off tar", "no tar"])
@pytest.mark.parametrize("split", [True, False], ids=["split", "whole"])
async def test_a_bad_plain_layer_is_refused_too(store: ContentStore, kind: str, *, split: bool) -> None:
    data, error = BAD[kind]
    plain = zlib.decompress(data, 31)
    layer = await put(store, plain, split=split)
    for _ in range(2):
        with pytest.raises(error):
            list(await store.files(layer, TAR, diff_id=None))
    assert await read_all(store, layer) == plain


async def test_a_layer_that_is_not_here(store: ContentStore) -> None:
    for layer_type in (TAR, RAW, typed("gzip")):
        with pytest.raises(NotFound):
            await store.files(digest_of(b"absent"), layer_type, diff_id=None)


async def test_cancelled_it_leaves_nothing(store: ContentStore, root: Path) -> None:
    layer = await put(store, packed(PLAIN, "gzip"), split=False)
    for steps in range(1, 30, 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: store.files(layer, typed("gzip"), diff_id=None))
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert names_in(root / "ingest") == []
    assert listing(await store.files(layer, typed("gzip"), diff_id=None)) == EXPECTED


async def test_an_archive_of_headers_takes_no_memory(store: ContentStore) -> None:
    """A member with an extended header of a megabyte, again and again: the literals wait on the disk."""
    comment = noise(1_048_000, 3)
    record = b"%d comment=%b\n" % (len(comment) + 17, comment)
    member = (
        tar_header("pax", size=len(record), kind=b"x") + record + bytes(-len(record) % 512) + tar_header("a")
    )
    copies = 48
    hasher = Hasher()
    for _ in range(copies):
        hasher.update(member)
    hasher.update(TRAILER)
    async with ingest(store, hasher.digest(), hasher.size) as blob:
        assert blob is not None
        tracemalloc.start()
        for _ in range(copies):
            await store.work(blob.append, [member])
        await store.work(blob.append, [TRAILER])
        await blob.commit()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 << 20
    found = await read_all(store, hasher.digest())
    assert digest_of(found) == hasher.digest()
    files = await store.files(hasher.digest(), TAR, diff_id=None)
    assert len(await store.work(list, files)) == copies
