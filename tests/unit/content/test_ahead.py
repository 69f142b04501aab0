"""The disk is put to work early, and only one flush is under way."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.stores import ingest, noise, plain_tar, read_all

from kitd.content import intake, sync
from kitd.content.ahead import Ahead
from kitd.content.store import ContentStore
from kitd.spec.digest import digest_of


class Disk:
    """Stands for syncfs: notes what it is called through, and lasts until it is let go."""

    def __init__(self) -> None:
        self.flushed: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def sync(self, descriptor: int) -> None:
        self.flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        self.begun.release()
        self.go.wait(10)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(sync, "sync_file_system", made.sync)
    monkeypatch.setattr(sync, "dirty_bytes", lambda: 0)
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    with sync.opened_directory(str(tmp_path)) as descriptor:
        yield descriptor


def test_one_flush_at_a_time(disk: Disk, directory: int, tmp_path: Path) -> None:
    ahead = Ahead()
    for _ in range(3):
        ahead.flush(directory)
    assert disk.begun.acquire(timeout=10)
    disk.go.set()
    ahead.close()
    assert disk.flushed == [str(tmp_path)]


def test_where_others_have_much_unwritten_nothing_is_flushed(
    disk: Disk, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "dirty_bytes", lambda: sync.FOREIGN_DIRTY + 1)
    ahead = Ahead()
    ahead.flush(directory)
    ahead.close()
    assert disk.flushed == []


async def test_small_files_put_the_disk_to_work_before_the_blob_ends(
    store: ContentStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "STEP", 50_000)
    data = plain_tar({str(number): noise(3000, number) for number in range(40)})
    async with ingest(store, digest_of(data), len(data)) as blob:
        assert blob is not None
        await store.work(blob.append, [data])
        assert disk.begun.acquire(timeout=10)
        disk.go.set()
        await blob.commit()
    assert await read_all(store, digest_of(data)) == data
