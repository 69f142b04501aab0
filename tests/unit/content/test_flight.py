"""Single flight through `store.ingest`: one writer, and the open blob passes from hand to hand."""

from collections.abc import Callable, Coroutine
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fakes.stores import SOURCE, ingest, noise, open_files, opened, plain_tar, read_all

from kitd.content import flight, ingests
from kitd.content.flight import Turns
from kitd.content.store import ContentStore
from kitd.spec.digest import Digest, digest_of
from kitd_client.api.errors import DigestMismatch, KitdError

DATA = plain_tar({"a": noise(100_000, 1), "b": noise(3000, 2)})
DIGEST = digest_of(DATA)
PIECE = 10_000


class Job:
    """One puller of DATA: writes what is missing, or waits for whoever does."""

    def __init__(self, store: ContentStore, *, source: str = SOURCE, ready: bool = True) -> None:
        self.store = store
        self.source = source
        self.ready = ready
        self.scope = anyio.CancelScope()
        self.began: int | None = None
        self.written = 0
        self.heard: list[tuple[str, int]] = []
        self.outcome: str | None = None
        self.error: KitdError | None = None
        self.holds = anyio.Event()
        self.go = anyio.Event()
        self.stop_after: int | None = None
        self.leave_when_wanted = False

    async def run(self) -> None:
        with self.scope:
            try:
                while self.outcome is None:
                    await self.turn()
            except KitdError as error:
                self.error = error
                self.outcome = "failed"
        if self.scope.cancelled_caught:
            self.outcome = "cancelled"

    async def turn(self) -> None:
        async with self.store.ingest(
            DIGEST,
            len(DATA),
            split=True,
            source=self.source,
            can_go_on=lambda: self.ready,
            moved=lambda source, count: self.heard.append((source, count)),
        ) as blob:
            if blob is None:
                self.outcome = "present"
                return
            if self.began is None:
                self.began = blob.offset
            self.holds.set()
            while blob.offset < len(DATA):
                if blob.offset == self.stop_after:
                    await self.go.wait()
                    if self.leave_when_wanted and blob.hand_over_wanted():
                        self.stop_after = None
                        return
                piece = self.piece(blob.offset)
                await self.store.work(blob.append, [piece])
                self.written += len(piece)
                blob.moved("host", len(piece))
            await blob.commit()
            self.outcome = "wrote"

    def piece(self, offset: int) -> bytes:
        return DATA[offset : offset + PIECE]


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()


async def run_all(jobs: list[Job]) -> None:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(job.run)


async def test_fifty_callers_one_writer(store: ContentStore) -> None:
    jobs = [Job(store) for _ in range(50)]
    await run_all(jobs)
    assert sorted(str(job.outcome) for job in jobs) == ["present"] * 49 + ["wrote"]
    assert sum(job.written for job in jobs) == len(DATA)
    assert all(sum(count for _, count in job.heard) == len(DATA) for job in jobs if job.outcome == "present")
    assert await read_all(store, DIGEST) == DATA


async def test_the_next_goes_on_in_memory_when_the_first_is_cancelled(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = Job(store), Job(store), Job(store)
    first.stop_after = 3 * PIECE
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.run)
        await first.holds.wait()
        tasks.start_soon(second.run)
        tasks.start_soon(third.run)
        await settled()
        monkeypatch.setattr(ingests, "resume", forbidden)  # from here on nothing may be read again
        first.scope.cancel()
    assert [job.outcome for job in (first, second, third)] == ["cancelled", "wrote", "present"]
    assert (first.written, second.began, second.written) == (3 * PIECE, 3 * PIECE, len(DATA) - 3 * PIECE)
    assert await read_all(store, DIGEST) == DATA


def forbidden(*_: object) -> None:
    raise AssertionError("the blob was read again")


async def test_a_waiter_that_is_cancelled_is_passed_over(store: ContentStore) -> None:
    first, second, third = Job(store), Job(store), Job(store)
    first.stop_after = PIECE
    async with anyio.create_task_group() as tasks:
        for job in (first, second, third):
            tasks.start_soon(job.run)
            await settled()
        await first.holds.wait()
        second.scope.cancel()
        first.scope.cancel()
    assert [job.outcome for job in (first, second, third)] == ["cancelled", "cancelled", "wrote"]


async def test_a_waiter_cancelled_while_its_turn_comes_passes_it_on(store: ContentStore) -> None:
    first, second, third = Job(store), Job(store), Job(store)
    first.stop_after = PIECE
    async with anyio.create_task_group() as tasks:
        for job in (first, second, third):
            tasks.start_soon(job.run)
            await settled()
        await first.holds.wait()
        monitor = store._flights._flights[DIGEST]
        # The turn is given to the second before it can run; it is cancelled before it wakes up.
        passed_on = monitor.following

        def following() -> object:
            chosen = passed_on()
            if chosen is not None and second.outcome is None:
                second.scope.cancel()
            return chosen

        monitor.following = following  # type: ignore[method-assign, assignment]
        first.scope.cancel()
    assert [job.outcome for job in (first, second, third)] == ["cancelled", "cancelled", "wrote"]


async def test_bytes_stay_on_the_disk_when_nobody_waits(root: Path) -> None:
    async with opened(root) as store:
        job = Job(store)
        job.stop_after = 4 * PIECE
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(job.run)
            await job.holds.wait()
            await settled()
            job.scope.cancel()
        assert store._flights.under_way() == set()
        again = Job(store)
        await again.run()
        assert (again.began, again.written) == (4 * PIECE, len(DATA) - 4 * PIECE)


async def test_one_held_back_hands_over_to_one_who_can_go_on(store: ContentStore) -> None:
    gated, blocked, ready = Job(store), Job(store, ready=False), Job(store, ready=False)
    gated.stop_after = 2 * PIECE
    gated.leave_when_wanted = True
    async with anyio.create_task_group() as tasks:
        for job in (gated, blocked, ready):
            tasks.start_soon(job.run)
            await settled()
        await gated.holds.wait()
        gated.ready = False
        ready.ready = True
        gated.go.set()
    assert (ready.outcome, ready.began) == ("wrote", 2 * PIECE)
    assert (gated.outcome, blocked.outcome) == ("present", "present")


async def test_nobody_is_handed_to_who_cannot_go_on(store: ContentStore) -> None:
    holder, blocked = Job(store), Job(store, ready=False)
    holder.stop_after = PIECE
    holder.leave_when_wanted = True
    async with anyio.create_task_group() as tasks:
        for job in (holder, blocked):
            tasks.start_soon(job.run)
            await settled()
        holder.go.set()
    assert (holder.outcome, holder.written, blocked.outcome) == ("wrote", len(DATA), "present")


class Liar(Job):
    def piece(self, offset: int) -> bytes:
        return bytes(len(super().piece(offset)))


async def test_wrong_bytes_end_those_with_the_same_source_only(store: ContentStore) -> None:
    liar, same, other = Liar(store), Job(store), Job(store, source="elsewhere.example/kit")
    liar.stop_after = PIECE
    async with anyio.create_task_group() as tasks:
        for job in (liar, same, other):
            tasks.start_soon(job.run)
            await settled()
        liar.go.set()
    assert isinstance(liar.error, DigestMismatch)
    assert isinstance(same.error, DigestMismatch)
    assert same.error is not liar.error
    assert same.error.detail == liar.error.detail
    assert (other.outcome, other.began, other.written) == ("wrote", 0, len(DATA))
    assert await read_all(store, DIGEST) == DATA


async def test_waiters_hear_what_was_there_and_what_comes(root: Path) -> None:
    async with opened(root) as store, ingest(store, DIGEST, len(DATA)) as blob:
        assert blob is not None
        await store.work(blob.append, [DATA[: 2 * PIECE]])
    async with opened(root) as store:
        holder, waiter = Job(store), Job(store)
        holder.stop_after = 3 * PIECE
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(holder.run)
            await holder.holds.wait()
            await settled()
            tasks.start_soon(waiter.run)
            await settled()
            assert waiter.heard == [("local", 2 * PIECE), ("host", PIECE)]
            holder.go.set()
        assert sum(count for _, count in waiter.heard) == len(DATA)


async def test_waiters_are_not_told_twice_of_bytes_that_come_again(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "_CADENCE", 0)
    waiter = Job(store)
    async with anyio.create_task_group() as tasks, ingest(store, DIGEST, len(DATA)) as blob:
        assert blob is not None
        tasks.start_soon(waiter.run)
        await settled()
        await store.work(blob.append, [DATA[:PIECE]])
        blob.moved("host", PIECE)
        await blob.restart()
        await store.work(blob.append, [DATA])
        blob.moved("host", len(DATA))
        assert waiter.heard == [("host", PIECE), ("host", len(DATA) - PIECE)]
        await blob.commit()
    assert waiter.outcome == "present"


async def test_waiters_hear_the_sum_of_many_pieces_and_all_before_their_turn(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "_CADENCE", 600)
    waiter = Job(store)
    async with anyio.create_task_group() as tasks, ingest(store, DIGEST, len(DATA)) as blob:
        assert blob is not None
        tasks.start_soon(waiter.run)
        await settled()
        await store.work(blob.append, [DATA])
        for _ in range(len(DATA)):
            blob.moved("host", 1)
        await blob.commit()
    assert waiter.heard == [("host", len(DATA))]


async def test_cancelled_at_every_step_nothing_is_left_open(store: ContentStore) -> None:
    for step in range(1, 40):
        job = Job(store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_at(job, step))
        assert store._flights.under_way() == set()
        assert open_files(store.root) == []
    last = Job(store)
    await last.run()
    assert await read_all(store, DIGEST) == DATA


def cancel_at(job: Job, step: int) -> Callable[[], Coroutine[None, None, None]]:
    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(job.run)
            for _ in range(step):
                await anyio.lowlevel.checkpoint()
            job.scope.cancel()

    return run


async def test_turns_are_one_at_a_time_for_each_key() -> None:
    turns = Turns()
    inside: list[str] = []
    most = 0

    async def enter(key: str) -> None:
        nonlocal most
        async with turns.turn(key):
            inside.append(key)
            most = max(most, inside.count(key))
            await anyio.lowlevel.checkpoint()
            inside.remove(key)

    async with anyio.create_task_group() as tasks:
        for key in "aabab":
            tasks.start_soon(enter, key)
    assert most == 1
    assert turns._locks == {}


async def test_when_the_blob_is_here_nobody_waits_for_the_others(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the first of those who waited look at the same time: each waits until all others do."""
    looking = 0
    together = anyio.Event()
    look = ingests.Ingests._is_here

    async def is_here(self: ingests.Ingests, digest: Digest, size: int) -> bool:
        nonlocal looking
        here = await look(self, digest, size)
        if here:
            looking += 1
            if looking == len(jobs) - 1:
                together.set()
            elif looking > 1:
                await together.wait()
        return here

    monkeypatch.setattr(ingests.Ingests, "_is_here", is_here)
    jobs = [Job(store) for _ in range(10)]
    await run_all(jobs)
    assert sorted(str(job.outcome) for job in jobs) == ["present"] * 9 + ["wrote"]


async def test_a_blob_that_was_damaged_as_soon_as_it_was_here_is_written_again(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = ingests.Ingests._is_here
    looks = 0

    async def is_here(self: ingests.Ingests, digest: Digest, size: int) -> bool:
        nonlocal looks
        here = await look(self, digest, size)
        looks += here
        if looks == 2:
            looks += 1
            await store.work(store._database.hide, {DIGEST})
            return False
        return here

    jobs = [Job(store) for _ in range(3)]
    monkeypatch.setattr(ingests.Ingests, "_is_here", is_here)
    await run_all(jobs)
    assert sorted(str(job.outcome) for job in jobs) in (
        ["present", "present", "wrote"],
        ["present", "wrote", "wrote"],
    )
    assert await read_all(store, DIGEST) == DATA
