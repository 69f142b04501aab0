import math
from contextlib import aclosing

import anyio
import pytest

from kitd.jobs.jobs import Job, Jobs
from kitd.jobs.news import Reader
from kitd.progress import Progress
from kitd_client.api.errors import (
    Busy,
    Cancelled,
    DaemonRestarted,
    DaemonStopping,
    NoSpace,
    NotFound,
)
from kitd_client.api.jobs import CancelledEvent, Event, Failed, Moved, Pulled, Resolved, Succeeded

ALICE, BOB, ROOT = 1000, 1001, 0


def _pulled() -> Pulled:
    return Pulled(reference="reg/x:1", digest="sha256:aa", size=3)


async def _at_once(progress: Progress) -> Pulled:
    progress.resolved("reg/x:1", "sha256:aa")
    progress.began("model", 3, 0)
    progress.moved("model", "reg", 3)
    return _pulled()


async def _for_ever(progress: Progress) -> Pulled:
    progress.began("model", 100, 40)
    await anyio.sleep_forever()
    raise AssertionError


async def _events(job: Job) -> list[Event]:
    async with aclosing(Reader(job.news).batches(math.inf)) as batches:
        return [event async for batch in batches for event in batch]


async def test_a_job_runs_and_its_events_can_be_read_again_after_its_end() -> None:
    async with Jobs() as jobs:
        job = jobs.start("pull", "reg/x:1", ALICE, _at_once)
        first = await _events(job)
        assert first == await _events(job)
    assert first[0] == Resolved(reference="reg/x:1", digest="sha256:aa")
    assert first[-2:] == [Moved(item="model", source="reg", done=3), Succeeded(result=_pulled())]
    assert (job.info().state, job.info().total, job.info().done) == ("succeeded", 3, 3)
    assert job.info().problem is None


async def test_cancel_ends_a_job_and_says_what_is_kept() -> None:
    async with Jobs() as jobs:
        job = jobs.start("pull", "reg/x:1", ALICE, _for_ever, kept="all of it")
        await anyio.wait_all_tasks_blocked()
        assert (job.info().state, job.info().done) == ("running", 40)
        job.cancel()
        assert await job.ended() == CancelledEvent(kept="all of it")
        job.cancel()
        assert (await _events(job))[-1] == CancelledEvent(kept="all of it")
        assert jobs.running == 0


async def test_a_job_cancelled_before_its_first_step_ends_too() -> None:
    async with Jobs() as jobs:
        job = jobs.start("pull", "reg/x:1", ALICE, _for_ever)
        job.cancel()
        assert isinstance(await job.ended(), CancelledEvent)


async def test_an_error_of_the_table_ends_the_job_as_itself() -> None:
    async def full(_: Progress) -> Pulled:
        raise NoSpace("no room", kept="4 MiB", needed=10, free=5)

    async def given_up(_: Progress) -> Pulled:
        raise Cancelled("the client hung up", kept="a bit")

    async with Jobs() as jobs:
        failed = await jobs.start("pull", "r", ALICE, full).ended()
        assert isinstance(failed, Failed)
        assert (failed.problem.code, failed.problem.kept, failed.problem.detail) == (
            "no_space",
            "4 MiB",
            {"needed": 10, "free": 5},
        )
        [info] = jobs.seen_by(ALICE)
        assert (info.state, info.problem) == ("failed", failed.problem)
        assert await jobs.start("pull", "r", ALICE, given_up).ended() == CancelledEvent(kept="a bit")


async def test_a_bug_ends_its_job_alone_and_its_trace_stays_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def buggy(_: Progress) -> Pulled:
        raise ZeroDivisionError("secret inner words")

    async with Jobs() as jobs:
        other = jobs.start("pull", "r", ALICE, _for_ever)
        job = jobs.start("pull", "r", ALICE, buggy)
        terminal = await job.ended()
        assert isinstance(terminal, Failed)
        assert terminal.problem.code == "internal"
        assert job.id in (terminal.problem.hint or "")
        assert "inner words" not in str(terminal)
        assert "inner words" in caplog.text
        assert other.info().state == "running"


async def test_only_the_owner_and_root_see_a_job() -> None:
    async with Jobs() as jobs:
        job = jobs.start("pull", "r", ALICE, _for_ever)
        other = jobs.start("push", "r", BOB, _for_ever)
        assert jobs.get(job.id, ALICE) is jobs.get(job.id, ROOT) is job
        with pytest.raises(NotFound):
            jobs.get(job.id, BOB)
        assert [info.id for info in jobs.seen_by(ALICE)] == [job.id]
        assert [info.id for info in jobs.seen_by(BOB)] == [other.id]
        assert [info.id for info in jobs.seen_by(ROOT)] == [job.id, other.id]


async def test_an_id_of_an_earlier_life_says_that_the_daemon_was_restarted() -> None:
    async with Jobs() as before:
        old = before.start("pull", "r", ALICE, _at_once)
    async with Jobs() as jobs:
        with pytest.raises(DaemonRestarted):
            jobs.get(old.id, ALICE)
        own = jobs.start("pull", "r", ALICE, _at_once)
        for unknown in ("nonsense", "../..", own.id.replace("-1", "-2")):
            with pytest.raises(NotFound):
                jobs.get(unknown, ALICE)


async def test_one_user_has_only_so_many_running_jobs_and_others_are_not_touched() -> None:
    async with Jobs() as jobs:
        started = [jobs.start("pull", "r", ALICE, _for_ever) for _ in range(512)]
        with pytest.raises(Busy):
            jobs.start("pull", "r", ALICE, _for_ever)
        jobs.start("pull", "r", BOB, _for_ever)
        started[0].cancel()
        await started[0].ended()
        jobs.start("pull", "r", ALICE, _for_ever)


async def test_two_hundred_finished_jobs_are_remembered() -> None:
    async with Jobs() as jobs:
        running = jobs.start("pull", "r", ALICE, _for_ever)
        ids = []
        for _ in range(205):
            job = jobs.start("pull", "r", ALICE, _at_once)
            await job.ended()
            ids.append(job.id)
        kept = [info.id for info in jobs.seen_by(ALICE)]
        assert kept[0] == running.id
        assert ids[0] not in kept
        assert set(ids[-200:]) <= set(kept)
        assert len(kept) <= 202


async def test_drain_ends_every_job_with_daemon_stopping_and_takes_no_more() -> None:
    async def stubborn(_: Progress) -> Pulled:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.2)
        return _pulled()

    async with Jobs() as jobs:
        willing = jobs.start("pull", "reg/x:1", ALICE, _for_ever, kept="4 MiB")
        slow = jobs.start("pull", "r", ALICE, stubborn)
        await anyio.wait_all_tasks_blocked()
        await jobs.drain(0.02)
        for job in (willing, slow):
            last = (await _events(job))[-1]
            assert isinstance(last, Failed)
            assert (last.problem.code, last.problem.retryable) == ("daemon_stopping", True)
        assert willing.news.terminal == (await _events(willing))[-1]
        assert "4 MiB" in str(willing.news.terminal)
        with pytest.raises(DaemonStopping):
            jobs.start("pull", "r", ALICE, _at_once)


async def test_leaving_the_jobs_ends_whatever_still_runs() -> None:
    async with Jobs() as jobs:
        job = jobs.start("pull", "r", ALICE, _for_ever)
    assert isinstance(job.news.terminal, Failed)


async def test_what_a_job_is_about_is_one_line_of_bounded_length() -> None:
    async with Jobs() as jobs:
        job = jobs.start("pull", "a\nb\x1b" + "c" * 5000, ALICE, _at_once)
        assert job.info().reference.startswith(r"a\nb\x1bccc")
        assert len(job.info().reference) < 1100
        await job.ended()
