"""What the rest of the daemon relies on: blobs go in, and come out as the bytes they are."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.stores import SOURCE, TAR, ingest, noise, opened, plain_tar, put, read_all, stored_bytes

from kitd.content.store import ContentStore, KitRecord
from kitd.layer.tar import Member
from kitd.spec.digest import digest_of
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import (
    ConfigInvalid,
    DigestMismatch,
    KitIncomplete,
    NotFound,
    SizeMismatch,
    UnsupportedEntry,
)

KIT = {
    "data": None,
    "data/empty": b"",
    "data/small": noise(700, 1),
    "data/block": noise(512, 2),
    "data/again": noise(700, 1),
    "weights.bin": noise(700_000, 3),
    "tail": b"x",
}


def linked(name: str) -> bytes:
    """A header that every strict parser refuses: a symbolic link."""
    block = bytearray(plain_tar({name: b""})[:512])
    block[156:157] = b"2"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def refused() -> bytes:
    """A tar with a link in its middle."""
    whole = plain_tar(KIT)
    end = plain_tar({"after": noise(5000, 9)})
    return whole[:-1024] + linked("link") + end


BLOBS = {
    "tar": plain_tar(KIT),
    "refused in the middle": refused(),
    "cut off in a member": plain_tar(KIT)[:400_000],
    "cut off in a header": plain_tar(KIT)[:1300],
    "only directories": plain_tar({"a": None, "b": None}),
    "padded like GNU tar": plain_tar(KIT) + bytes(9216),
    "no tar at all": noise(300_001, 5),
    "one byte": b"a",
    "empty": b"",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[ContentStore]:
    async with opened(root) as opened_store:
        yield opened_store


@pytest.mark.parametrize("split", [True, False], ids=["split", "whole"])
@pytest.mark.parametrize("piece", [1000, 300_007], ids=str)
@pytest.mark.parametrize("kind", BLOBS)
async def test_any_bytes_come_back(store: ContentStore, kind: str, piece: int, *, split: bool) -> None:
    data = BLOBS[kind]
    digest = await put(store, data, split=split, piece=piece)
    assert await store.has(digest)
    assert await store.size(digest) == len(data)
    assert await read_all(store, digest) == data


@pytest.mark.parametrize("kind", ["tar", "refused in the middle", "no tar at all"])
async def test_any_range_comes_back(store: ContentStore, kind: str) -> None:
    data = BLOBS[kind]
    digest = await put(store, data)
    reader = await store.open(digest)
    dice = random.Random(1)
    for _ in range(300):
        start = dice.randrange(len(data) + 10)
        length = dice.choice([0, 1, 511, 512, 513, 4096, 100_000, len(data)])
        assert reader.read(start, length) == data[start : start + length]
        buffer = bytearray(length)
        count = reader.readinto(start, buffer)
        assert buffer[:count] == data[start : start + length]
    for start in range(0, len(data), 7919):
        assert reader.read(start, 7919) == data[start : start + 7919]
    reader.close()


async def test_nothing_is_visible_before_its_commit(store: ContentStore) -> None:
    data = plain_tar(KIT)
    digest = digest_of(data)
    async with ingest(store, digest, len(data)) as blob:
        assert blob is not None
        await store.work(blob.append, [data])
        assert blob.offset == len(data)
        assert not await store.has(digest)
        with pytest.raises(NotFound):
            await store.open(digest)
        result = await blob.commit()
        assert (result.digest, result.size, result.already_present) == (digest, len(data), False)
    assert await store.has(digest)


async def test_what_is_here_needs_no_ingest(store: ContentStore) -> None:
    data = plain_tar(KIT)
    digest = await put(store, data)
    async with ingest(store, digest, len(data)) as blob:
        assert blob is None


async def test_a_file_of_a_layer_is_a_blob_when_somebody_wants_it(store: ContentStore) -> None:
    await put(store, plain_tar(KIT))
    digest = digest_of(KIT["weights.bin"] or b"")
    assert not await store.has(digest)
    async with ingest(store, digest, 700_000, split=False) as blob:
        assert blob is None
    assert await read_all(store, digest) == KIT["weights.bin"]


async def test_everything_survives_a_restart(root: Path) -> None:
    data = plain_tar(KIT)
    reference = parse_reference("registry.example/team/kit:v1")
    async with opened(root) as store:
        digest = await put(store, data)
        await store.add(b"{}", digest_of(b"{}"))
        record = KitRecord(manifest=digest_of(b"{}"), selected=(digest,), complete=True, parents=())
        await store.tag(reference, record)
    async with opened(root) as store:
        assert await read_all(store, digest) == data
        assert await store.read(digest_of(b"{}"), 100) == b"{}"
        assert await store.resolve(reference) == record


@pytest.mark.parametrize("split", [True, False], ids=["split", "whole"])
async def test_an_interrupted_blob_goes_on_after_a_restart(root: Path, *, split: bool) -> None:
    data = plain_tar(KIT)
    digest = digest_of(data)
    for stop in (1, 600, 1024, 2000, 300_000, 650_001, len(data) - 600, len(data)):
        async with opened(root) as store, ingest(store, digest, len(data), split=split) as blob:
            assert blob is not None
            await store.work(blob.append, [data[blob.offset : stop]])
            assert await store.kept(digest) > 0
    async with opened(root) as store, ingest(store, digest, len(data), split=split) as blob:
        assert blob is not None
        assert blob.offset == len(data)
        await blob.commit()
        assert await read_all(store, digest) == data
        assert await store.kept(digest) == 0


async def test_wrong_bytes_are_never_visible_and_leave_nothing(store: ContentStore) -> None:
    data = plain_tar(KIT)
    digest = digest_of(data)
    with pytest.raises(DigestMismatch) as caught:  # noqa: PT012 (it leaves through the context)
        async with ingest(store, digest, len(data)) as blob:
            assert blob is not None
            await store.work(blob.append, [b"?" + data[1:]])
            await blob.commit()
    assert digest in caught.value.message
    assert not await store.has(digest)
    assert await store.kept(digest) == 0
    assert await put(store, data) == digest


async def test_a_caller_may_start_again_after_wrong_bytes(store: ContentStore) -> None:
    data = plain_tar(KIT)
    async with ingest(store, digest_of(data), len(data)) as blob:
        assert blob is not None
        await store.work(blob.append, [data[:-1] + b"?"])
        with pytest.raises(DigestMismatch):
            await blob.commit()
        await blob.restart()
        assert blob.offset == 0
        await store.work(blob.append, [data])
        await blob.commit()
    assert await read_all(store, digest_of(data)) == data


async def test_missing_bytes_are_no_blob_and_stay_for_the_next(store: ContentStore) -> None:
    data = plain_tar(KIT)
    digest = digest_of(data)
    with pytest.raises(SizeMismatch):  # noqa: PT012 (it leaves through the context)
        async with ingest(store, digest, len(data)) as blob:
            assert blob is not None
            await store.work(blob.append, [data[:5000]])
            await blob.commit()
    async with ingest(store, digest, len(data)) as blob:
        assert blob is not None
        assert blob.offset == 5000


async def test_more_bytes_than_the_descriptor_says_are_refused(store: ContentStore) -> None:
    data = plain_tar(KIT)
    async with ingest(store, digest_of(data), 1000) as blob:
        assert blob is not None
        with pytest.raises(SizeMismatch):
            await store.work(blob.append, [data])
        assert blob.offset == 0


async def test_a_lying_size_is_refused_and_harms_nobody(store: ContentStore) -> None:
    data = plain_tar(KIT)
    digest = digest_of(data)
    async with ingest(store, digest, len(data)) as blob:
        assert blob is not None
        await store.work(blob.append, [data[:5000]])
    with pytest.raises(SizeMismatch):
        async with ingest(store, digest, 100):
            pass
    await put(store, data)
    with pytest.raises(SizeMismatch):
        async with ingest(store, digest, len(data) + 1):
            pass
    assert await read_all(store, digest) == data


async def test_small_documents(store: ContentStore) -> None:
    data = b'{"schemaVersion": 2}'
    await store.add(data, digest_of(data))
    await store.add(data, digest_of(data))
    assert await store.read(digest_of(data), len(data)) == data
    with pytest.raises(ConfigInvalid):
        await store.read(digest_of(data), len(data) - 1)
    with pytest.raises(NotFound):
        await store.read(digest_of(b"other"), 100)
    with pytest.raises(DigestMismatch):
        await store.add(data, digest_of(b"other"))


async def test_a_blob_of_unknown_digest(store: ContentStore) -> None:
    data = noise(100_000, 8)
    async with store.new_blob() as blob:
        for start in range(0, len(data), 30_000):
            await store.work(blob.append, [data[start : start + 30_000]])
        result = await blob.commit()
    assert result.digest == digest_of(data)
    async with store.new_blob() as blob:
        await store.work(blob.append, [data])
        with pytest.raises(DigestMismatch):
            await blob.commit(digest_of(b"other"))
        assert (await blob.commit(digest_of(data))).already_present
    async with store.new_blob() as blob:
        await store.work(blob.append, [b"forgotten"])
    assert not await store.has(digest_of(b"forgotten"))
    assert await read_all(store, digest_of(data)) == data


@pytest.mark.parametrize("written", [1, 3, 1000], ids=["at once", "now and then", "at the end"])
async def test_a_tar_written_here_has_the_bytes_kit_would_write(store: ContentStore, written: int) -> None:
    async with store.new_tar() as tar:
        for name, data in KIT.items():
            member = Member(name, data is None, 0o755 if data is None else 0o644, len(data or b""))
            await store.work(tar.begin, member)
            for start in range(0, len(data or b""), 300_000):
                await store.work(tar.data, (data or b"")[start : start + 300_000])
            if len(name) % written == 0:
                await store.work(tar.write)
        result = await tar.commit()
    assert (result.digest, result.already_present) == (digest_of(plain_tar(KIT)), False)
    assert await read_all(store, result.digest) == plain_tar(KIT)
    async with store.new_tar() as tar:
        await store.work(tar.begin, Member("short", is_dir=False, mode=0o644, size=10))
        with pytest.raises(ValueError, match="lacks 10 bytes"):
            await tar.commit()
        with pytest.raises(ValueError, match="takes 10"):
            await store.work(tar.data, bytes(11))


async def test_files_of_one_content_are_written_by_two_threads_at_once(store: ContentStore) -> None:
    same = noise(40_000, 1)
    files = {f"d/{number}": same if number % 2 else noise(30_000, number) for number in range(100)}
    async with store.new_tar() as tar:
        for name, data in files.items():
            tar.begin(Member(name, is_dir=False, mode=0o644, size=len(data)))
            tar.data(data)
        await store.work(tar.write)
        result = await tar.commit()
    assert result.digest == digest_of(plain_tar(files))
    assert await read_all(store, result.digest) == plain_tar(files)


async def test_the_files_of_a_layer(store: ContentStore) -> None:
    digest = await put(store, plain_tar(KIT))
    files = await store.files(digest, TAR, diff_id=digest)
    found = {member.name: (member.is_dir, member.size, content) for member, content in files}
    assert found == {
        name: (data is None, len(data or b""), digest_of(data) if data else None)
        for name, data in KIT.items()
    }


async def test_only_unpacking_minds_a_refused_member(store: ContentStore) -> None:
    digest = await put(store, refused())
    files = await store.files(digest, TAR, diff_id=digest)
    with pytest.raises(UnsupportedEntry, match="link"):
        list(files)


async def test_one_copy_on_disk(store: ContentStore, root: Path) -> None:
    files = {f"d/{number}": noise(10_240, number) for number in range(1500)}
    kit = plain_tar(files)
    await put(store, kit)
    assert stored_bytes(root) <= 1.02 * len(kit)


async def test_the_same_file_in_two_layers_is_stored_once(store: ContentStore, root: Path) -> None:
    await put(store, plain_tar({"a": noise(200_000, 1), "b": noise(50_000, 2)}))
    before = stored_bytes(root)
    await put(store, plain_tar({"c/d": noise(200_000, 1), "e": noise(50_000, 2), "new": noise(1000, 3)}))
    assert stored_bytes(root) - before < 6000


async def test_a_name_needs_all_that_it_speaks_of(store: ContentStore) -> None:
    await store.add(b"{}", digest_of(b"{}"))
    reference = parse_reference(f"{SOURCE}:v1")
    record = KitRecord(manifest=digest_of(b"{}"), selected=(digest_of(b"absent"),), complete=True, parents=())
    with pytest.raises(KitIncomplete) as caught:
        await store.tag(reference, record)
    assert caught.value.detail["digest"] == digest_of(b"absent")
    assert await store.resolve(reference) is None


async def test_usage(store: ContentStore) -> None:
    before = await store.usage()
    assert (before.store_bytes, before.kits) == (0, 0)
    await store.add(b"{}", digest_of(b"{}"))
    record = KitRecord(manifest=digest_of(b"{}"), selected=(), complete=True, parents=())
    await store.tag(parse_reference("one:v1"), record)
    await store.tag(parse_reference("two:v1"), record)
    after = await store.usage()
    assert (after.store_bytes, after.kits) == (2, 1)
    assert after.free_bytes > 0
