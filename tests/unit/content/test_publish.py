"""The order of a commit, read from the system calls of a process of its own."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fakes.publishing import ANSWERED
from fakes.stores import ingest, noise, opened, plain_tar, put, read_all

from kitd.content import publish, sync
from kitd.content.objects import Objects
from kitd.content.publish import Publisher
from kitd.content.store import ContentStore
from kitd.spec.digest import Digest, digest_of
from kitd_client.api.errors import NoSpace, StorageIo

TESTS = Path(__file__).parent.parent.parent
CALLS = "fdatasync,fsync,syncfs,link,linkat"
_SYNC = re.compile(r"\b(fdatasync|fsync|syncfs)\(\d+<([^>]*)>")
_LINK = re.compile(r'\blink(?:at)?\((?:AT_FDCWD[^,]*, )?"([^"]*)", (?:AT_FDCWD[^,]*, )?"([^"]*)"')

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def violations(trace: str) -> list[str]:
    """What a trace of one commit shows to be unsafe: nothing may become visible before it is on the disk."""
    found: list[str] = []
    safe: set[str] = set()
    everything_safe = False
    names: dict[str, bool] = {}
    committed = False
    linked: set[str] = set()
    commit, answered, _ = trace.partition(f'link("{ANSWERED}"')
    assert answered
    for line in commit.splitlines():
        if match := _SYNC.search(line):
            call, path = match.groups()
            everything_safe = everything_safe or call == "syncfs"
            if call == "fdatasync" or "/ingest/" not in path:
                safe.add(path)
            names |= {name: True for name in names if str(Path(name).parent) == path}
            if path.endswith("kitd.db-wal") and names:
                committed = True
                found += [f"{name} may be lost" for name, kept in names.items() if not kept]
        elif match := _LINK.search(line):
            source, target = match.groups()
            linked.add(source)
            if "/objects/" in target or "/recipes/" in target:
                names[target] = False
                if not everything_safe and source not in safe:
                    found.append(f"{source} is linked before its data is safe")
    found += [f"{path} was never linked" for path in sorted(safe - linked) if "/ingest/" in path]
    if not committed:
        found.append("the database was never flushed")
    return found


def traced(tmp_path: Path, files: int, *step: str) -> str:
    """What one process asks the kernel for while it commits one blob."""
    trace = tmp_path / "trace"
    root = tmp_path / "store"
    child = [sys.executable, "-m", "fakes.publishing", str(root), str(files), *step]
    subprocess.run(
        ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace), *child],
        cwd=TESTS,
        check=True,
    )
    return "\n".join(whole_calls(trace.read_text().splitlines()))


def whole_calls(lines: list[str]) -> Iterator[str]:
    """One line a call: a link counts from its beginning on, a flush when it has ended."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, _, call = line.partition(" ")
        if "<unfinished" in call and "sync" in call:
            begun[thread] = call
        elif "resumed>" not in call:
            yield call
        elif thread in begun:
            yield begun.pop(thread)


@pytest.mark.parametrize("files", [3, 200], ids=["file by file", "all at once"])
def test_data_then_links_then_directories_then_database(tmp_path: Path, files: int) -> None:
    trace = traced(tmp_path, files)
    assert violations(trace) == []
    assert len(_LINK.findall(trace)) >= files + 1
    assert ("syncfs(" in trace) == (files > sync.BATCH)
    for taken_out in (
        r"fdatasync\(.*ingest|syncfs\(",
        r"\blink.*/store/",
        r"fsync\(.*(objects|recipes)",
        r"kitd\.db-wal",
    ):
        rest = "\n".join(line for line in trace.splitlines() if not re.search(taken_out, line))
        assert violations(rest) != []


@pytest.mark.parametrize("step", ["data", "link", "directories", "database"])
def test_a_commit_without_one_of_its_steps_is_found_out(tmp_path: Path, step: str) -> None:
    assert violations(traced(tmp_path, 3, step)) != []


DATA = plain_tar({"a": noise(5000, 1), "b": noise(300_000, 2)})


def failing(error: int) -> Callable[..., None]:
    def fail(*_args: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


async def test_after_a_failed_flush_the_bytes_are_given_up(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(sync, "sync_data", failing(errno.EIO))
        with pytest.raises(StorageIo):
            await put(store, DATA)
    assert not await store.has(digest)
    assert await store.kept(digest) == 0
    async with ingest(store, digest, len(DATA)) as blob:
        assert blob is not None
        assert blob.offset == 0
    await put(store, DATA)
    assert await read_all(store, digest) == DATA


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_when_the_disk_is_full_at_the_end_the_bytes_are_kept(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sync, "sync_directories", failing(error))
        with pytest.raises(NoSpace) as caught:
            await put(store, DATA)
    assert int(caught.value.detail["free"]) > 0
    async with ingest(store, digest_of(DATA), len(DATA)) as blob:
        assert blob is not None
        assert blob.offset == len(DATA)
        await blob.commit()
    assert await read_all(store, digest_of(DATA)) == DATA


async def test_commits_that_come_together_share_a_transaction(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    publish_batch = Publisher._publish

    def counted(self: Publisher, batch: list[publish._Request]) -> list[publish._Request]:
        sizes.append(len(batch))
        return publish_batch(self, batch)

    monkeypatch.setattr(Publisher, "_publish", counted)
    async with opened(root) as store:
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                data = noise(1000, number)
                tasks.start_soon(store.add, data, digest_of(data))
        assert sum(sizes) == 30
        assert len(sizes) < 30
        for number in range(30):
            data = noise(1000, number)
            assert await store.read(digest_of(data), 1000) == data


async def test_one_error_reaches_everyone_of_the_batch(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    async def add(number: int) -> None:
        data = noise(1000, number)
        try:
            await store.add(data, digest_of(data))
        except StorageIo:
            failed.append(digest_of(data))

    with monkeypatch.context() as patch:
        patch.setattr(sync, "sync_directories", failing(errno.EIO))
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(add, number)
    assert len(failed) == 10
    await add(1)
    assert await store.has(digest_of(noise(1000, 1)))


async def test_one_that_cannot_be_linked_fails_alone(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = digest_of(noise(1000, 7))
    batches: list[int] = []
    place, publish_batch = Objects.place, Publisher._publish
    failed: list[int] = []

    def placed(self: Objects, source: str, digest: Digest) -> str:
        if digest == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return place(self, source, digest)

    def counted(self: Publisher, batch: list[publish._Request]) -> list[publish._Request]:
        batches.append(len(batch))
        return publish_batch(self, batch)

    async def add(number: int) -> None:
        data = noise(1000, number)
        try:
            await store.add(data, digest_of(data))
        except StorageIo:
            failed.append(number)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "place", placed)
        patch.setattr(Publisher, "_publish", counted)
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(add, number)
    assert failed == [7]
    assert max(batches) > 1
    for number in set(range(20)) - {7}:
        assert await store.has(digest_of(noise(1000, number)))
    assert not await store.has(bad)
    await add(7)
    assert await store.has(bad)


async def test_what_is_visible_is_ok_even_if_it_cannot_be_tidied_up(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(store._trash, "put", failing(errno.EIO))
        async with ingest(store, digest, len(DATA)) as blob:
            assert blob is not None
            await store.work(blob.append, [DATA])
            await blob.commit()
    assert await read_all(store, digest) == DATA


async def test_who_cancels_a_commit_finds_it_done_or_not_begun(store: ContentStore) -> None:
    outcomes: set[bool] = set()
    for steps in range(1, 60, 3):
        data = noise(1000, steps)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.add, data, digest_of(data))
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        here = await store.has(digest_of(data))
        outcomes.add(here)
        if here:
            assert await store.read(digest_of(data), 1000) == data
    assert False in outcomes
    assert list((store.root / "ingest").iterdir()) == []
