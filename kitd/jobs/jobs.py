"""The jobs of this daemon's life: each runs in its own scope and ends in exactly one terminal event."""

import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Literal, Self

import anyio
from anyio.abc import TaskGroup

from kitd.errors import log_place
from kitd.jobs.news import News
from kitd.progress import Progress
from kitd_client.api.errors import (
    Busy,
    Cancelled,
    DaemonRestarted,
    DaemonStopping,
    Internal,
    KitdError,
    NotFound,
)
from kitd_client.api.jobs import CancelledEvent, Failed, JobInfo, Result, Succeeded, Terminal

_log = logging.getLogger(__name__)

_REMEMBERED = 200
"""Finished jobs that can still be asked about."""

_SHOWN = 1000
"""Characters of what a job is about."""

_PER_UID = 512
"""Running jobs of one user."""

_ID = re.compile(r"([0-9a-f]{6})-[0-9]{1,12}")

State = Literal["running", "succeeded", "failed", "cancelled"]


class Job:
    """One piece of work. Made by `Jobs.start`."""

    def __init__(self, job_id: str, verb: str, reference: str, uid: int, kept: str) -> None:
        self.id = job_id
        self.verb = verb
        self.reference = reference
        self.uid = uid
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.news = News()
        self.scope = anyio.CancelScope()
        self._kept = kept
        self._stopping = False

    @property
    def state(self) -> State:
        match self.news.terminal:
            case None:
                return "running"
            case Succeeded():
                return "succeeded"
            case Failed():
                return "failed"
            case CancelledEvent():
                return "cancelled"

    def info(self) -> JobInfo:
        """The job as `kitctl jobs` shows it."""
        return JobInfo(
            id=self.id,
            verb=self.verb,
            reference=self.reference,
            state=self.state,
            uid=self.uid,
            started=self.started,
            total=self.news.total,
            done=self.news.done,
            problem=self.news.terminal.problem if isinstance(self.news.terminal, Failed) else None,
        )

    def cancel(self) -> None:
        """Ends the job as soon as it lets go; the terminal event says when. An ended job stays as it is."""
        self.scope.cancel()

    def stop(self) -> None:
        """The same because the daemon ends: the job fails with `daemon_stopping`, to be asked for again."""
        self._stopping = True
        self.scope.cancel()

    async def ended(self) -> Terminal:
        """Waits for the terminal event."""
        while True:
            spoken = self.news.spoken.next()
            if self.news.terminal is not None:
                return self.news.terminal
            await spoken.wait()

    async def run(self, work: Callable[[Progress], Awaitable[Result]]) -> None:
        """Does the work in this job's scope; raises nothing but the cancellation of the whole daemon."""
        terminal: Terminal | None = None
        try:
            with self.scope:
                terminal = await self._outcome(work)
        finally:
            self.news.end(terminal or self.interrupted())

    def interrupted(self) -> Terminal:
        """How the job ends when it was not left to end by itself."""
        if self._stopping or not self.scope.cancel_called:
            stopping = DaemonStopping(
                f"kitd was stopped while it did {self.verb} {self.reference}",
                kept=self.kept or None,
                hint="ask again",
            )
            return Failed(problem=stopping.problem())
        return CancelledEvent(kept=self.kept)

    @property
    def kept(self) -> str:
        """What an interruption leaves, with today's figures; empty while nothing has begun."""
        if not self.news.total:
            return ""
        return self._kept.format(done=_mebibytes(self.news.done), total=_mebibytes(self.news.total))

    async def _outcome(self, work: Callable[[Progress], Awaitable[Result]]) -> Terminal:
        try:
            return Succeeded(result=await work(self.news))
        except Cancelled as error:
            return CancelledEvent(kept=error.kept or self.kept)
        except KitdError as error:
            _log.info("job %s, %s %s: %s", self.id, self.verb, self.reference, error.message)
            error.kept = error.kept or self.kept or None
            return Failed(problem=error.problem())
        except Exception:  # noqa: BLE001 - a bug of ours ends its job, never the daemon
            _log.exception("job %s, %s %s: internal error", self.id, self.verb, self.reference)
            problem = Internal(
                f"internal error while kitd did {self.verb} {self.reference}",
                kept=self.kept or None,
                hint=f"{log_place()} has the trace: look for job {self.id}",
            ).problem()
            return Failed(problem=problem)


class Jobs:
    """Owns every job of this daemon; leaving it ends them all. An id carries the life it belongs to."""

    def __init__(self) -> None:
        self._life = secrets.token_hex(3)
        self._count = 0
        self._jobs: dict[str, Job] = {}
        self._draining = False
        self._stack = AsyncExitStack()
        self._group: TaskGroup

    async def __aenter__(self) -> Self:
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._draining = True
        self._group.cancel_scope.cancel()
        await self._stack.aclose()

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return sum(1 for job in self._jobs.values() if job.state == "running")

    def start(
        self,
        verb: str,
        reference: str,
        uid: int,
        run: Callable[[Progress], Awaitable[Result]],
        *,
        kept: str = "",
    ) -> Job:
        """Starts `run` as a job of `uid`.

        Args:
            verb: what `kitctl jobs` shows.
            reference: the same.
            uid: whose job it is: he and root may see and cancel it.
            run: does the work, speaks to its Progress.
            kept: what is kept when the job is interrupted, for the person who asks; may name `{done}` and `{total}`.

        Raises:
            DaemonStopping: the daemon takes no more work.
            Busy: this user has too many running jobs.
        """
        if self._draining:
            raise DaemonStopping("kitd is stopping and takes no new work", hint="ask again in a moment")
        own = sum(1 for job in self._jobs.values() if job.uid == uid and job.state == "running")
        if own >= _PER_UID:
            raise Busy(f"uid {uid} has {own} running jobs, the most one user may", hint="wait for one to end")
        self._count += 1
        job = Job(f"{self._life}-{self._count}", verb, _shown(reference), uid, kept)
        self._jobs[job.id] = job
        self._forget()
        self._group.start_soon(job.run, run, name=f"job {job.id}")
        return job

    def get(self, job_id: str, uid: int) -> Job:
        """The job of that id, for its owner and root; for others it does not exist.

        Raises:
            NotFound: no such job, or another user's.
            DaemonRestarted: the id is of an earlier life of the daemon.
        """
        job = self._jobs.get(job_id)
        if job is not None and uid in {0, job.uid}:
            return job
        form = _ID.fullmatch(job_id)
        if form is not None and form[1] != self._life:
            raise DaemonRestarted(
                f"job {job_id} ended when kitd was restarted",
                kept="what it had fetched",
                hint="ask again for what it did: it goes on from there",
                job=job_id,
            )
        raise NotFound(f"job {job_id}: no such job", hint="`kitctl jobs` lists yours", job=job_id)

    def seen_by(self, uid: int) -> list[JobInfo]:
        """The jobs of `uid`, oldest first; all of them for root."""
        return [job.info() for job in self._jobs.values() if uid in {0, job.uid}]

    async def drain(self, seconds: float) -> None:
        """Takes no more work and ends what runs: every job has its terminal event when this returns."""
        self._draining = True
        running = [job for job in self._jobs.values() if job.state == "running"]
        for job in running:
            job.stop()
        with anyio.move_on_after(seconds):
            for job in running:
                await job.ended()
        for job in running:
            job.news.end(job.interrupted())

    def _forget(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.state != "running"]
        for job_id in ended[: max(0, len(ended) - _REMEMBERED)]:
            del self._jobs[job_id]


def _shown(text: str) -> str:
    """What a user wrote, as a line of the log and root's terminal can bear it."""
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
