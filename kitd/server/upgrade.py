"""The routes that change protocol: pack and unpack talk to the client's end of a workspace."""

import math
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
from aiohttp import web

from kitd.errors import single_error
from kitd.jobs.jobs import Job, Jobs
from kitd.jobs.news import Reader
from kitd.progress import Progress
from kitd.server.middleware import UID, read_body
from kitd.server.verbs import Verbs
from kitd.workspace import DescriptorBudget, Workspace
from kitd_client.api import WORKSPACE_PROTOCOL
from kitd_client.api.errors import InvalidRequest, KitdError, WorkspaceBroken
from kitd_client.api.jobs import Event, Failed, PackRequest, Result, Terminal, UnpackRequest

Work = Callable[[Workspace, Progress], Awaitable[Result]]


class UpgradeRoutes:
    """pack and unpack are jobs that belong to their connection: its end is theirs."""

    def __init__(self, verbs: Verbs, jobs: Jobs, budget: DescriptorBudget) -> None:
        self._verbs = verbs
        self._jobs = jobs
        self._budget = budget

    async def pack(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/pack, upgraded."""
        _check_upgrade(request)
        wanted = await read_body(request, PackRequest)
        uid = request[UID]
        return await self._serve(
            request,
            "pack",
            ", ".join(wanted.tags),
            lambda workspace, progress: self._verbs.pack(workspace, wanted, uid, progress),
        )

    async def unpack(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/unpack, upgraded."""
        _check_upgrade(request)
        wanted = await read_body(request, UnpackRequest)
        return await self._serve(
            request,
            "unpack",
            wanted.reference,
            lambda workspace, progress: self._verbs.unpack(workspace, wanted, progress),
        )

    async def _serve(self, request: web.Request, verb: str, reference: str, work: Work) -> web.StreamResponse:
        response = web.StreamResponse(
            status=101, headers={"Connection": "Upgrade", "Upgrade": WORKSPACE_PROTOCOL}
        )
        await response.prepare(request)
        response.force_close()
        workspace = Workspace(_take_socket(request), self._budget)
        try:
            job = self._jobs.start(verb, reference, request[UID], lambda progress: work(workspace, progress))
        except KitdError as error:
            await workspace.finish(Failed(problem=error.problem()))
            return response
        try:
            await _accompany(job, workspace)
        finally:
            job.cancel()
            await workspace.aclose()
        return response


async def _accompany(job: Job, workspace: Workspace) -> None:
    """Tells the client what the job says, up to its end; cancels the job when the client is gone."""

    async def watch() -> None:
        await workspace.gone()
        job.cancel()

    with single_error():
        async with (
            anyio.create_task_group() as tasks,
            aclosing(Reader(job.news).batches(math.inf)) as batches,
        ):
            tasks.start_soon(watch)
            async for batch in batches:
                for event in batch:
                    await _tell(job, workspace, event)
            tasks.cancel_scope.cancel()


async def _tell(job: Job, workspace: Workspace, event: Event) -> None:
    if isinstance(event, Terminal):
        await workspace.finish(event)
        return
    try:
        await workspace.event(event)
    except WorkspaceBroken:
        job.cancel()


def _check_upgrade(request: web.Request) -> None:
    if request.headers.get("Upgrade") != WORKSPACE_PROTOCOL:
        raise InvalidRequest(
            f"{request.path} needs the header Upgrade: {WORKSPACE_PROTOCOL}",
            hint="use kitctl and kitd of the same release",
        )


def _take_socket(request: web.Request) -> socket.socket:
    """The connection's socket, a second descriptor of it: aiohttp reads and closes only its own."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    transport.pause_reading()
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
