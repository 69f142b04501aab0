import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiohttp
import anyio
import msgspec
import pytest

from kitd.jobs.jobs import Jobs
from kitd.progress import Progress
from kitd.server.app import make_api, refuse, route_table
from kitd.server.jobs import JobRoutes
from kitd.server.kits import KitRoutes
from kitd.server.listening import Listener, listening
from kitd.server.middleware import Activity
from kitd.server.peers import Door
from kitd.server.sockets import ApiSocket
from kitd.server.state import StateRoutes
from kitd.server.upgrade import UpgradeRoutes
from kitd.server.verbs import Verbs
from kitd.workspace import DescriptorBudget, Workspace
from kitd_client.api.errors import NotFound
from kitd_client.api.jobs import (
    Packed,
    PackRequest,
    PathRequest,
    Pulled,
    PullRequest,
    Pushed,
    PushRequest,
    RegistryCheck,
    TagRequest,
    Unpacked,
    UnpackRequest,
)
from kitd_client.api.kits import (
    Info,
    Inspection,
    KitList,
    PathAnswer,
    Removed,
    RemovedAll,
    Status,
    Tagged,
    Version,
)

Work = Callable[[Progress], Awaitable[Pulled]]
WorkspaceWork = Callable[[Workspace, Progress], Awaitable[Packed | Unpacked]]


@dataclass
class FakeVerbs:
    """Remembers what it was asked; a test says what the long ones do."""

    asked: list[object] = field(default_factory=list)
    pulling: Work | None = None
    working: WorkspaceWork | None = None
    listing: Callable[[], KitList] = lambda: KitList(kits=[])

    async def pull(self, request: PullRequest, uid: int, progress: Progress) -> Pulled:
        self.asked.append((request, uid))
        if self.pulling is not None:
            return await self.pulling(progress)
        progress.began("model", 3, 0)
        progress.moved("model", "reg.example", 3)
        return Pulled(reference=request.reference, digest="sha256:aa", size=3)

    async def push(self, request: PushRequest, uid: int, progress: Progress) -> Pushed:
        self.asked.append((request, uid))
        return Pushed(reference=request.destination, digest="sha256:aa", size=3)

    async def pack(self, workspace: Workspace, request: PackRequest, uid: int, progress: Progress) -> Packed:
        self.asked.append((request, uid))
        assert self.working is not None
        return cast("Packed", await self.working(workspace, progress))

    async def unpack(self, workspace: Workspace, request: UnpackRequest, progress: Progress) -> Unpacked:
        self.asked.append(request)
        assert self.working is not None
        return cast("Unpacked", await self.working(workspace, progress))

    async def path(self, request: PathRequest) -> PathAnswer:
        self.asked.append(request)
        return PathAnswer(path="/store/snapshots/x")

    async def list_kits(self, repository: str) -> KitList:
        self.asked.append(repository)
        return self.listing()

    async def inspect(self, reference: str) -> Inspection:
        self.asked.append(reference)
        raw = msgspec.Raw(b'{"a": 1}')
        return Inspection(digest="sha256:aa", cli_version="1", kitfile=raw, manifest=raw)

    async def info(self, reference: str) -> Info:
        self.asked.append(reference)
        return Info(kitfile="manifestVersion: 1.0.0\n")

    async def tag(self, request: TagRequest) -> Tagged:
        self.asked.append(request)
        return Tagged(reference=request.destination, digest="sha256:aa")

    async def remove(self, reference: str, force: bool) -> Removed:  # noqa: FBT001 - the seam
        self.asked.append((reference, force))
        if reference == "missing:latest":
            raise NotFound("missing:latest is not here", hint="kitctl list")
        return Removed(untagged=[reference])

    async def remove_all(self, force: bool) -> RemovedAll:  # noqa: FBT001 - the seam
        self.asked.append(("all", force))
        return RemovedAll(removed=["x@sha256:aa"])

    async def check_registry(self, request: RegistryCheck, uid: int) -> None:
        self.asked.append((request, uid))

    def bound(self) -> Verbs:
        names = (f.name for f in Verbs.__dataclass_fields__.values())
        return Verbs(**{name: getattr(self, name) for name in names})


Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Waits until something is so that only another task of the server brings about."""

    async def wait(so: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not so():  # noqa: ASYNC110 - there is no event to wait for
                await anyio.sleep(0.01)

    return wait


@dataclass
class Api:
    """The API behind a real Unix socket, and a client of it."""

    path: Path
    verbs: FakeVerbs
    jobs: Jobs
    activity: Activity
    door: Door
    budget: DescriptorBudget
    client: aiohttp.ClientSession
    listener: Listener

    async def ask(
        self, method: str, target: str, body: object = None
    ) -> tuple[int, dict[str, object], aiohttp.ClientResponse]:
        data = msgspec.json.encode(body) if body is not None else None
        async with self.client.request(method, f"http://kitd{target}", data=data) as response:
            text = await response.read()
            return response.status, msgspec.json.decode(text) if text else {}, response


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    verbs = FakeVerbs()
    activity, budget = Activity(), DescriptorBudget()
    door = Door("user", os.geteuid())

    async def status() -> Status:
        return Status(
            version="9.9.9",
            pid=1,
            uid=2,
            mode="user",
            socket="s",
            store="d",
            registry_listen="",
            uptime_seconds=3,
            jobs_running=jobs.running,
            kits=0,
            store_bytes=0,
            free_bytes=0,
        )

    async with AsyncExitStack() as stack:
        jobs = await stack.enter_async_context(Jobs())
        bound = verbs.bound()
        routes = route_table(
            StateRoutes(bound, Version(version="9.9.9", api=1, pid=1), status),
            KitRoutes(bound),
            JobRoutes(bound, jobs),
            UpgradeRoutes(bound, jobs, budget),
        )
        path = tmp_path / "kitd.sock"
        own = ApiSocket.bind(path, 0o600, "")
        stack.callback(own.close)
        listener = await stack.enter_async_context(
            listening(make_api(routes, door, activity), own.socket, door.guarding, refuse)
        )
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))
        )
        yield Api(path, verbs, jobs, activity, door, budget, client, listener)
        await client.close()
