"""What an earlier life left is believed only after it was hashed again."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.stores import ingest, noise, opened, plain_tar, read_all

from kitd.content.journal import NAME
from kitd.content.unfinished import tail_name
from kitd.spec.digest import digest_hex, digest_of

DATA = plain_tar(
    {"a": noise(3000, 1), "dir": None, "b": noise(400_000, 2), "c": noise(3000, 1), "d": b"last"}
)
DIGEST = digest_of(DATA)
STOP = 300_000


async def interrupted(root: Path, stop: int = STOP, piece: int = 4096, *, split: bool = True) -> Path:
    async with opened(root) as store, ingest(store, DIGEST, len(DATA), split=split) as blob:
        assert blob is not None
        for start in range(0, stop, piece):
            await store.work(blob.append, [DATA[start : min(stop, start + piece)]])
    return root / "ingest" / digest_hex(DIGEST)


async def resumed(root: Path, *, split: bool = True) -> int:
    """Finishes the blob, checks it, and tells at which byte the second life went on."""
    async with opened(root) as store:
        async with ingest(store, DIGEST, len(DATA), split=split) as blob:
            assert blob is not None
            offset = blob.offset
            await store.work(blob.append, [DATA[offset:]])
            await blob.commit()
        assert await read_all(store, DIGEST) == DATA
    return offset


@pytest.mark.parametrize("split", [True, False], ids=["split", "whole"])
@pytest.mark.parametrize(
    "stop", [1, 511, 512, 513, 3512, 3584, 3600, 4608, 5120, 405_120, 408_700, len(DATA) - 1, len(DATA)]
)
async def test_it_goes_on_at_the_very_byte(root: Path, stop: int, *, split: bool) -> None:
    await interrupted(root, stop, split=split)
    assert await resumed(root, split=split) == stop


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def cut_tail(directory: Path) -> None:
    tail = directory / tail_name(4608)
    tail.write_bytes(tail.read_bytes()[:1000])


def foreign_tail(directory: Path) -> None:
    (directory / tail_name(4608)).rename(directory / tail_name(4609))


def garbled_member(directory: Path) -> None:
    flip(directory / digest_hex(digest_of(noise(3000, 1))), 5)


def lost_member(directory: Path) -> None:
    (directory / digest_hex(digest_of(noise(3000, 1)))).unlink()


def cut_journal(directory: Path) -> None:
    journal = directory / NAME
    journal.write_bytes(journal.read_bytes()[:-1])


def garbled_journal(directory: Path) -> None:
    flip(directory / NAME, 30)


def no_journal(directory: Path) -> None:
    (directory / NAME).unlink()


def strangers(directory: Path) -> None:
    (directory / "0123").write_bytes(b"?")
    (directory / digest_hex(digest_of(b"?"))).write_bytes(b"!")


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (cut_tail, 5608),
        (foreign_tail, 4608),
        (garbled_member, 512),
        (lost_member, 512),
        (cut_journal, 4096),
        (garbled_journal, 0),
        (no_journal, 0),
        (strangers, STOP),
    ],
)
async def test_what_does_not_fit_is_dropped_with_all_after_it(
    root: Path, damage: Callable[[Path], None], kept: int
) -> None:
    damage(await interrupted(root))
    assert await resumed(root) == kept


async def test_a_tail_that_lost_its_bytes_in_a_power_failure_fails_by_digest(root: Path) -> None:
    directory = await interrupted(root)
    flip(directory / tail_name(4608), 77)
    async with opened(root) as store, ingest(store, DIGEST, len(DATA)) as blob:
        assert blob is not None
        assert blob.offset == STOP
        await blob.restart()
        await store.work(blob.append, [DATA])
        await blob.commit()
        assert await read_all(store, DIGEST) == DATA


async def test_what_is_there_decides_how_it_goes_on(root: Path) -> None:
    await interrupted(root, split=False)
    assert await resumed(root, split=True) == STOP


async def test_a_refused_tar_goes_on_as_what_it_became(root: Path) -> None:
    data = plain_tar({"a": noise(3000, 1)})[:-1024] + noise(300_000, 5)
    digest = digest_of(data)
    for stop in (3584, 4000, 4096, 5000, 200_000, len(data)):
        async with opened(root) as store, ingest(store, digest, len(data)) as blob:
            assert blob is not None
            await store.work(blob.append, [data[blob.offset : stop]])
    async with opened(root) as store:
        async with ingest(store, digest, len(data)) as blob:
            assert blob is not None
            assert blob.offset == len(data)
            await blob.commit()
        assert await read_all(store, digest) == data


async def test_a_whole_blob_that_was_named_already_is_not_opened_for_writing(root: Path) -> None:
    directory = await interrupted(root, len(DATA), split=False)
    (directory / tail_name(0)).rename(directory / digest_hex(DIGEST))
    (directory / digest_hex(DIGEST)).chmod(0o444)
    async with opened(root) as store, ingest(store, DIGEST, len(DATA) + 5, split=False) as blob:
        assert blob is not None
        assert blob.offset == len(DATA)
        with pytest.raises(Exception, match="more bytes"):
            await store.work(blob.append, [b"12345"])
    assert (directory / digest_hex(DIGEST)).read_bytes() == DATA
    assert await resumed(root, split=False) == len(DATA)


async def test_the_directory_is_gone_after_the_commit(root: Path) -> None:
    directory = await interrupted(root)
    await resumed(root)
    assert not directory.exists()
    assert list((root / "ingest").iterdir()) == []


def room(root: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("end", ["left", "short"])
async def test_room_taken_ahead_is_given_back(root: Path, end: str) -> None:
    """By whoever leaves the blob, and where it ends inside the member."""
    header = tarfile.TarInfo("large")
    header.size = 300 << 20
    data = header.tobuf(tarfile.USTAR_FORMAT) + noise(3 << 20, 8)
    digest = digest_of(data)
    async with opened(root) as store:
        async with ingest(store, digest, len(data)) as blob:
            assert blob is not None
            await store.work(blob.append, [data])
            if end == "short":
                await blob.commit()
        if end == "left":
            assert await store.kept(digest) >= 3 << 20
    assert room(root) < 8 << 20
