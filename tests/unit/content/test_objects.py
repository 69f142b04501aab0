"""Somebody else writes to the store: noticed before the bytes are used."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.stores import TAR, ingest, noise, open_files, opened, plain_tar, put, read_all

from kitd.content.layout import Layout
from kitd.content.store import ContentStore
from kitd.spec.digest import digest_of
from kitd_client.api.errors import NotFound, ObjectDamaged

FILE = noise(10_000, 1)
OTHER = noise(20_000, 2)
ONE = plain_tar({"a": FILE, "b": OTHER})
TWO = plain_tar({"x": FILE})
THREE = plain_tar({"y": OTHER})


def path_of(store: ContentStore, data: bytes) -> Path:
    return Path(Layout(store.root).object(digest_of(data)))


def write_through_a_link(path: Path) -> None:
    link = path.parent.parent.parent.parent / "link"
    link.hardlink_to(path)
    link.chmod(0o644)
    with link.open("r+b") as file:
        file.write(b"!")


def write_through_a_descriptor(path: Path) -> None:
    lent = os.open(path, os.O_RDONLY)
    os.chmod(path, 0o644)  # noqa: PTH101 (as the thief would)
    mine = os.open(f"/proc/self/fd/{lent}", os.O_RDWR)
    os.pwrite(mine, b"!", 500)
    os.close(mine)
    os.close(lent)


def shorten(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 100)
    os.utime(path, ns=(0, 0))


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(FILE[:-1] + b"!")


def remove(path: Path) -> None:
    path.unlink()


def plant_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


HARMS = [write_through_a_link, write_through_a_descriptor, shorten, replace, remove, plant_a_link]


@pytest.mark.parametrize("harm", HARMS)
async def test_a_bad_object_fails_its_use_and_the_next_pull_mends_it(
    store: ContentStore, harm: Callable[[Path], None]
) -> None:
    one, two, three = [await put(store, data) for data in (ONE, TWO, THREE)]
    harm(path_of(store, FILE))
    with pytest.raises(ObjectDamaged) as caught:
        await read_all(store, one)
    assert digest_of(FILE) in caught.value.message
    assert not await store.has(one)
    assert not await store.has(two)
    assert await read_all(store, three) == THREE
    with pytest.raises(NotFound):
        await store.open(two)
    for data in (ONE, TWO):
        assert await put(store, data) == digest_of(data)
        assert await read_all(store, digest_of(data)) == data


@pytest.mark.parametrize("harm", HARMS)
async def test_a_bad_object_is_not_lent(store: ContentStore, harm: Callable[[Path], None]) -> None:
    await put(store, ONE)
    harm(path_of(store, FILE))
    if harm is not shorten:
        with pytest.raises(ObjectDamaged):
            await store.work(store.open_object, digest_of(FILE))
        with pytest.raises(ObjectDamaged):
            await store.work(store.open_objects, [digest_of(OTHER), digest_of(FILE)])
        assert open_files(store.root) == []


async def test_a_touched_object_with_the_right_bytes_is_used_on(store: ContentStore) -> None:
    digest = await put(store, ONE)
    path = path_of(store, FILE)
    path.touch()
    assert await read_all(store, digest) == ONE
    assert path.stat().st_mtime_ns == 0


@pytest.mark.parametrize("harm", HARMS)
async def test_a_commit_replaces_a_bad_object(store: ContentStore, harm: Callable[[Path], None]) -> None:
    await put(store, ONE)
    harm(path_of(store, FILE))
    two = await put(store, TWO)
    assert await read_all(store, two) == TWO
    assert path_of(store, FILE).read_bytes() == FILE


@pytest.mark.parametrize("harm", HARMS)
async def test_an_object_that_turns_bad_before_the_commit_is_replaced(
    store: ContentStore, harm: Callable[[Path], None]
) -> None:
    async with ingest(store, digest_of(TWO), len(TWO)) as blob:
        assert blob is not None
        await store.work(blob.append, [TWO])
        await put(store, ONE)
        harm(path_of(store, FILE))
        await blob.commit()
    assert await read_all(store, digest_of(TWO)) == TWO


async def test_a_whole_blob_is_checked_too(store: ContentStore) -> None:
    digest = await put(store, FILE, split=False)
    write_through_a_link(path_of(store, FILE))
    with pytest.raises(ObjectDamaged):
        await store.open(digest)
    assert not await store.has(digest)


async def test_a_document_is_hashed_even_if_it_looks_untouched(store: ContentStore) -> None:
    await store.add(b"{}", digest_of(b"{}"))
    path = path_of(store, b"{}")
    path.chmod(0o600)
    path.write_bytes(b"[]")
    os.utime(path, ns=(0, 0))
    with pytest.raises(ObjectDamaged):
        await store.read(digest_of(b"{}"), 10)
    assert not await store.has(digest_of(b"{}"))


def touch(path: Path) -> None:
    path.touch()


def garble(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-10])
    os.utime(path, ns=(0, 0))


def empty(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"")
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("harm", [touch, garble, empty, remove])
async def test_a_bad_recipe_takes_its_blob_away(store: ContentStore, harm: Callable[[Path], None]) -> None:
    digest = await put(store, ONE)
    harm(Path(Layout(store.root).recipe(digest)))
    with pytest.raises(ObjectDamaged):
        await store.open(digest)
    assert not await store.has(digest)
    with pytest.raises(NotFound):
        await store.files(digest, TAR, diff_id=digest)
    await put(store, ONE)
    assert await read_all(store, digest) == ONE


async def test_bytes_lost_while_they_are_read(store: ContentStore) -> None:
    digest = await put(store, FILE, split=False)
    reader = await store.open(digest)
    path = path_of(store, FILE)
    path.chmod(0o600)
    os.truncate(path, 100)
    assert reader.read(0, 50) == FILE[:50]
    with pytest.raises(ObjectDamaged):
        reader.read(0, 200)
    reader.close()
    assert not await store.has(digest)


async def test_objects_are_read_only_and_bear_no_time(root: Path) -> None:
    async with opened(root) as store:
        await put(store, plain_tar({"small": b"x", "large": noise(600_000, 3)}))
        await put(store, noise(100, 4), split=False)
        await store.add(b"{}", digest_of(b"{}"))
    files = [
        path for folder in ("objects", "recipes") for path in (root / folder).rglob("*") if path.is_file()
    ]
    assert len(files) == 5
    assert {(path.stat().st_mode & 0o7777, path.stat().st_mtime_ns) for path in files} == {(0o444, 0)}
