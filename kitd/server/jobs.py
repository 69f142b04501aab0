"""The routes about jobs: start a pull or a push, list, follow, cancel."""

from collections.abc import Sequence
from contextlib import aclosing

import anyio
import msgspec
from aiohttp import web

from kitd.jobs.jobs import Jobs
from kitd.jobs.news import Reader
from kitd.server.middleware import UID, answer, read_body
from kitd.server.verbs import Verbs
from kitd_client.api.jobs import Event, JobList, JobStarted, PullRequest, PushRequest

_PULSE_SECONDS = 15.0
"""An empty line goes out after so much silence: it finds out whether anyone still listens."""
_DEAF_SECONDS = 60.0
"""A listener that takes nothing for so long is let go."""


class JobRoutes:
    """pull and push outlive the request that starts them."""

    def __init__(self, verbs: Verbs, jobs: Jobs) -> None:
        self._verbs = verbs
        self._jobs = jobs
        self._listeners = 0

    async def pull(self, request: web.Request) -> web.Response:
        """POST /v1/pull."""
        wanted = await read_body(request, PullRequest)
        uid = request[UID]
        job = self._jobs.start(
            "pull",
            wanted.reference,
            uid,
            lambda progress: self._verbs.pull(wanted, uid, progress),
            kept="{done} of {total} stay in the store; the same pull goes on from there",
        )
        return answer(JobStarted(id=job.id), status=202)

    async def push(self, request: web.Request) -> web.Response:
        """POST /v1/push."""
        wanted = await read_body(request, PushRequest)
        uid = request[UID]
        job = self._jobs.start(
            "push",
            wanted.destination or wanted.source,
            uid,
            lambda progress: self._verbs.push(wanted, uid, progress),
            kept="blobs that the registry has taken are not sent again",
        )
        return answer(JobStarted(id=job.id), status=202)

    async def list_jobs(self, request: web.Request) -> web.Response:
        """GET /v1/jobs."""
        return answer(JobList(jobs=self._jobs.seen_by(request[UID])))

    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/{id}."""
        return answer(self._jobs.get(request.match_info["id"], request[UID]).info())

    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE /v1/jobs/{id}: the job ends soon; its events say when."""
        job = self._jobs.get(request.match_info["id"], request[UID])
        job.cancel()
        return answer(job.info(), status=202)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{id}/events: NDJSON, from the start, up to the terminal event."""
        job = self._jobs.get(request.match_info["id"], request[UID])
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.force_close()
        await response.prepare(request)
        reader = Reader(job.news, lambda: self._listeners)
        self._listeners += 1
        try:
            async with aclosing(reader.batches(_PULSE_SECONDS)) as batches:
                async for batch in batches:
                    with anyio.fail_after(_DEAF_SECONDS):
                        await response.write(_lines(batch))
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._listeners -= 1
        return response


def _lines(batch: Sequence[Event]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in batch) or b"\n"
