import errno
import os
import sqlite3
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fakes.stores import SOURCE, ingest, noise, opened, plain_tar, put, read_all

from kitd.content import unfinished, writer
from kitd.content.store import ContentStore
from kitd.content.workers import Steps, Workers, storage_error
from kitd.spec.digest import digest_of
from kitd_client.api.errors import NoSpace, NotFound, StorageIo


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("as it is")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), NoSpace),
        (OSError(errno.EDQUOT, "quota"), NoSpace),
        (sqlite_error(sqlite3.SQLITE_FULL), NoSpace),
        (OSError(errno.EIO, "broken"), StorageIo),
        (OSError(errno.EROFS, "read-only"), StorageIo),
        (sqlite_error(sqlite3.SQLITE_IOERR), StorageIo),
    ],
)
async def test_errors_of_the_disk_come_back_as_the_stores(
    tmp_path: Path, error: Exception, expected: type[Exception]
) -> None:
    def fail() -> None:
        raise error

    for run in (Workers(tmp_path).work, Workers(tmp_path).flush, Workers(tmp_path).commit):
        with pytest.raises(expected) as caught:
            await run(fail)
        assert str(tmp_path) in str(caught.value)


def test_the_free_bytes_are_told(tmp_path: Path) -> None:
    error = storage_error(OSError(errno.ENOSPC, "full"), tmp_path)
    assert int(error.detail["free"]) > 0


async def test_pieces_of_one_caller_are_done_two_at_a_time(tmp_path: Path) -> None:
    both = threading.Barrier(2)
    done: list[int] = []

    def piece(number: int) -> None:
        both.wait(10)
        done.append(number)

    await Workers(tmp_path).work_abreast(piece, iter(range(6)))
    assert sorted(done) == list(range(6))


async def test_the_first_error_ends_what_is_done_abreast(tmp_path: Path) -> None:
    done: list[int] = []

    def piece(number: int) -> None:
        done.append(number)
        raise NotFound(f"piece {number}")

    with pytest.raises(NotFound):
        await Workers(tmp_path).work_abreast(piece, iter(range(100)))
    assert len(done) <= 2


async def test_threads_are_bounded_and_the_committer_is_one(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    lock = threading.Lock()
    running = {"work": 0, "commit": 0}
    most = {"work": 0, "commit": 0}

    def busy(kind: str) -> None:
        with lock:
            running[kind] += 1
            most[kind] = max(most[kind], running[kind])
        threading.Event().wait(0.001)
        with lock:
            running[kind] -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(workers.work, busy, "work")
            tasks.start_soon(workers.commit, busy, "commit")
    assert most["commit"] == 1
    assert most["work"] <= workers._daily.total_tokens


async def test_long_work_can_be_cancelled_between_its_steps(tmp_path: Path) -> None:
    done: list[int] = []
    closed: list[bool] = []

    def steps() -> Steps:
        try:
            for number in range(1_000_000):
                done.append(number)
                yield
        finally:
            closed.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Workers(tmp_path).work_through, steps())
        while len(done) < 3:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert closed == [True]
    assert len(done) < 1_000_000


@pytest.mark.parametrize("split", [True, False], ids=["split", "whole"])
async def test_a_full_disk_keeps_what_was_written(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch, *, split: bool
) -> None:
    data = plain_tar({"small": noise(3000, 1), "large": noise(400_000, 2), "end": noise(3000, 3)})
    digest = digest_of(data)
    allowed = 0

    def full(descriptor: int, piece: bytes) -> None:
        nonlocal allowed
        if allowed < len(piece):
            written = os.write(descriptor, piece[: allowed // 2])
            allowed -= written
            raise OSError(errno.ENOSPC, "No space left on device")
        allowed -= len(piece)
        assert os.write(descriptor, piece) == len(piece)

    monkeypatch.setattr(unfinished, "write_all", full)
    monkeypatch.setattr(writer, "write_all", full)
    reached: list[int] = []
    for _ in range(60):
        allowed = 40_000
        try:
            async with ingest(store, digest, len(data), split=split) as blob:
                if blob is None:
                    break
                reached.append(blob.offset)
                for start in range(blob.offset, len(data), 5000):
                    await store.work(blob.append, [data[start : start + 5000]])
                await blob.commit()
        except NoSpace:
            continue
    assert await store.has(digest)
    assert reached == sorted(reached)
    assert len(set(reached)) > 5
    assert await read_all(store, digest) == data


async def test_another_source_can_go_on_after_a_full_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(100_000, 1)

    async with opened(root) as store:
        with monkeypatch.context() as patch:
            patch.setattr(unfinished, "write_all", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(NoSpace):
                await put(store, data, split=False)
        async with ingest(store, digest_of(data), len(data), split=False, source=f"{SOURCE}2") as blob:
            assert blob is not None
            await store.work(blob.append, [data[blob.offset :]])
            await blob.commit()


async def test_errors_that_are_none_of_the_disk_pass(store: ContentStore) -> None:
    with pytest.raises(NotFound):
        await store.size(digest_of(b"absent"))
    with pytest.raises(ZeroDivisionError):
        await store.work(divmod, 1, 0)
