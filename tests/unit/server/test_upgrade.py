import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
import pytest

from kitd.progress import Progress
from kitd.workspace import FileToRead, MemberToWrite, Workspace
from kitd_client.api import WORKSPACE_PROTOCOL
from kitd_client.api.errors import InvalidRequest, NoSpace
from kitd_client.api.jobs import (
    Began,
    CancelledEvent,
    Event,
    Failed,
    Packed,
    PackRequest,
    Succeeded,
    Terminal,
    Unpacked,
    UnpackRequest,
    Warned,
)
from kitd_client.directory import Directory
from kitd_client.transport import Transport

if TYPE_CHECKING:
    from unit.server.conftest import Api, Eventually

Heard = list[Event]


def _connect(
    api: "Api", verb: str, request: msgspec.Struct, *, protocol: str = WORKSPACE_PROTOCOL
) -> socket.socket:
    transport = Transport(str(api.path), autostart=False, environ={})
    answer = transport.ask("POST", f"/v1/{verb}", msgspec.json.encode(request), upgrade=protocol)
    return socket.socket(fileno=answer.take_socket())


async def _serve(
    api: "Api", verb: str, request: msgspec.Struct, directory: Directory
) -> tuple[Terminal | None, Heard]:
    heard: Heard = []

    def talk() -> Terminal | None:
        with directory, _connect(api, verb, request) as sock:
            return directory.serve(sock, heard.append)

    return await anyio.to_thread.run_sync(talk), heard


def _packed() -> Packed:
    return Packed(references=["x:1"], digest="sha256:aa", size=7)


async def test_pack_reads_the_directory_and_tells_what_goes_on(api: "Api", tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    seen: list[bytes] = []

    async def working(workspace: Workspace, progress: Progress) -> Packed:
        (listing,) = await workspace.scan([""])
        assert [entry.name for entry in listing.entries if entry.name == "model.bin"] == ["model.bin"]
        progress.warned("a link was left out")
        progress.began("model", 7, 0)
        async for parts in workspace.read([FileToRead("model.bin", 7)]):
            seen.extend(bytes(view) for _, view in parts)
        return _packed()

    api.verbs.working = working
    request = PackRequest(tags=["x:1", "x:2"])
    terminal, heard = await _serve(api, "pack", request, Directory(tmp_path))
    assert terminal == Succeeded(result=_packed())
    assert b"".join(seen) == b"weights"
    assert heard == [
        Warned(message="a link was left out"),
        Began(item="model", total=7, done=0),
    ]
    assert api.verbs.asked == [(request, os.geteuid())]
    (row,) = api.jobs.seen_by(0)
    assert (row.verb, row.reference, row.state) == ("pack", "x:1, x:2", "succeeded")


async def test_unpack_lends_descriptors_by_the_batch(api: "Api", tmp_path: Path) -> None:
    target, source = tmp_path / "target", tmp_path / "object"
    source.write_bytes(b"content")
    members = [MemberToWrite(f"f{number:03}", is_dir=False, mode=0o644, size=7) for number in range(128)]

    async def working(workspace: Workspace, progress: Progress) -> Unpacked:
        async def lend() -> list[int]:
            return [os.open(source, os.O_RDONLY) for _ in range(64)]

        await workspace.check(members)
        await workspace.write(await workspace.lend(members[:64], lend))
        await workspace.write(await workspace.lend(members[64:], lend))
        published = await workspace.publish()
        return Unpacked(reference="x:1", digest="d", files=published.files, size=7 * 128)

    api.verbs.working = working
    terminal, _ = await _serve(api, "unpack", UnpackRequest(reference="x:1"), Directory(target, create=True))
    assert isinstance(terminal, Succeeded)
    assert {path.read_bytes() for path in target.iterdir()} == {b"content"}
    assert len(list(target.iterdir())) == 128
    assert api.budget.lent() == 0


async def test_a_failed_verb_ends_the_workspace_with_its_problem(api: "Api", tmp_path: Path) -> None:
    async def working(workspace: Workspace, progress: Progress) -> Packed:
        raise NoSpace("no room", needed=2, free=1)

    api.verbs.working = working
    terminal, _ = await _serve(api, "pack", PackRequest(), Directory(tmp_path))
    assert isinstance(terminal, Failed)
    assert terminal.problem.code == "no_space"


async def _stuck(workspace: Workspace, progress: Progress) -> Packed:
    await workspace.scan([""])
    progress.began("model", 7, 0)
    await anyio.sleep_forever()
    raise AssertionError


async def test_the_end_of_the_connection_is_the_end_of_the_job(
    api: "Api", tmp_path: Path, eventually: "Eventually"
) -> None:
    async def idle(workspace: Workspace, progress: Progress) -> Packed:
        await anyio.sleep_forever()
        raise AssertionError

    api.verbs.working = idle
    sock = await anyio.to_thread.run_sync(lambda: _connect(api, "pack", PackRequest()))
    await eventually(lambda: api.jobs.running == 1)
    job = api.jobs.get(api.jobs.seen_by(0)[0].id, 0)
    sock.close()
    with anyio.fail_after(5):
        assert isinstance(await job.ended(), CancelledEvent)
    await eventually(lambda: not api.door._inside)


async def test_a_job_that_is_cancelled_tells_its_client(
    api: "Api", tmp_path: Path, eventually: "Eventually"
) -> None:
    api.verbs.working = _stuck
    ended: list[Terminal | None] = []

    async def client() -> None:
        ended.append((await _serve(api, "pack", PackRequest(), Directory(tmp_path)))[0])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client)
            await eventually(lambda: any(row.total for row in api.jobs.seen_by(0)))
            assert (await api.ask("DELETE", f"/v1/jobs/{api.jobs.seen_by(0)[0].id}"))[0] == 202
    assert isinstance(ended[0], CancelledEvent)


async def test_a_daemon_that_stops_says_so_to_its_workspaces(
    api: "Api", tmp_path: Path, eventually: "Eventually"
) -> None:
    api.verbs.working = _stuck
    ended: list[Terminal | None] = []

    async def client() -> None:
        ended.append((await _serve(api, "unpack", UnpackRequest(reference="x:1"), Directory(tmp_path)))[0])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client)
            await eventually(lambda: api.jobs.running == 1)
            await api.jobs.drain(5)
        assert isinstance(ended[0], Failed)
        assert ended[0].problem.code == "daemon_stopping"
        ended.clear()
        await client()
        assert isinstance(ended[0], Failed)
        assert ended[0].problem.code == "daemon_stopping"


async def test_a_client_that_does_not_upgrade_is_told_so(api: "Api") -> None:
    for verb in ("pack", "unpack"):
        status, problem, _ = await api.ask("POST", f"/v1/{verb}", {})
        assert (status, problem["code"]) == (400, "invalid_request")
        assert WORKSPACE_PROTOCOL in str(problem["title"])
    with pytest.raises(InvalidRequest, match="unknown field"):
        await anyio.to_thread.run_sync(lambda: _connect(api, "pack", UnpackRequest(reference="x")))


async def test_nothing_is_left_open_after_many_workspaces(
    api: "Api", tmp_path: Path, eventually: "Eventually"
) -> None:
    async def at_once(workspace: Workspace, progress: Progress) -> Packed:
        return _packed()

    async def descriptors(work: Callable[[], Awaitable[object]], times: int) -> int:
        for _ in range(times):
            await work()
        await eventually(lambda: not api.door._inside)
        return len(list(Path("/proc/self/fd").iterdir()))  # noqa: ASYNC240 - procfs does not block

    async def once() -> None:
        await _serve(api, "pack", PackRequest(), Directory(tmp_path))

    api.verbs.working = at_once
    before = await descriptors(once, 3)
    assert await descriptors(once, 20) <= before
