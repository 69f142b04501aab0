"""Unpack, as the daemon sees it."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path

import anyio
import msgspec
import pytest
from unit.workspace.scripted import ClientPeer, daemon_end, open_descriptors

from kitd.workspace import Batch, DescriptorBudget, MemberToWrite, Workspace
from kitd_client.api.errors import (
    KitdError,
    NoSpace,
    TargetBusy,
    TargetExists,
    TargetUnsafe,
    TargetUnwritable,
    WorkspaceBroken,
)
from kitd_client.api.jobs import Event, Warned
from kitd_client.api.workspace import (
    Check,
    Checked,
    EventFrame,
    ObstacleRow,
    Publish,
    Published,
    Refused,
    Write,
    Written,
)


def members(count: int, size: int = 1) -> list[MemberToWrite]:
    return [MemberToWrite(f"d/{number}", False, 0o644, size) for number in range(count)]


async def test_what_is_skipped_is_counted_over_all_frames() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        for _ in range(2):
            asked = peer.asked(Check).members
            peer.send(Checked([0, len(asked) - 1], []))

    async with daemon_end(script) as workspace:
        reply = await workspace.check(members(3000))
    assert reply.skipped == {0, 2047, 2048, 2999}


async def test_all_collisions_are_told_at_once() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        for _ in range(2):
            peer.asked(Check)
            peer.send(Checked([], [ObstacleRow(index, "exists", "already exists") for index in range(8)]))

    async with daemon_end(script) as workspace:
        with pytest.raises(TargetExists) as caught:
            await workspace.check(members(3000))
    assert "d/0 already exists; d/1" in caught.value.message
    assert caught.value.message.endswith("d/2049 already exists (and 6 more)")
    assert caught.value.kept == "nothing was written"
    assert "-o" in str(caught.value.hint)


async def test_one_unsafe_obstacle_outweighs_files_that_exist() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Check)
        peer.send(
            Checked([], [ObstacleRow(0, "exists", "already exists"), ObstacleRow(1, "unsafe", "is a link")])
        )

    async with daemon_end(script) as workspace:
        with pytest.raises(TargetUnsafe, match="d/1 is a link"):
            await workspace.check(members(2))


@pytest.mark.parametrize("answer", [Checked([2], []), Checked([], [ObstacleRow(2, "exists", "")])])
async def test_a_check_that_speaks_of_other_members_is_an_error(answer: Checked) -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Check)
        peer.send(answer)

    async with daemon_end(script) as workspace:
        with pytest.raises(WorkspaceBroken):
            await workspace.check(members(2))


async def test_descriptors_arrive_in_order_and_the_daemon_keeps_none(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"content")
    batch = [
        MemberToWrite("dir", True, 0o755, 0),
        *members(64, 7),
        MemberToWrite("empty", False, 0o600, 0),
        MemberToWrite("Kitfile", False, 0o644, 3, b"abc"),
    ]
    seen: list[bytes] = []

    def script(peer: ClientPeer) -> None:
        peer.greet()
        asked = peer.asked(Write)
        assert [row.path for row in asked.members if row.is_lent] == [b"d/%d" % n for n in range(64)]
        assert (asked.item, asked.done) == ("files", 9)
        _, descriptors, _, _ = socket.recv_fds(peer.sock, 1, 253)
        for descriptor in descriptors:
            seen.append(os.pread(descriptor, 10, 0))
            os.close(descriptor)
        peer.send(Written())
        peer.asked(Publish)
        peer.send(Published(66, 0))

    async def lend() -> Iterable[int]:
        return [os.open(tmp_path / "object", os.O_RDONLY) for _ in range(64)]

    async with daemon_end(script) as workspace:
        before = open_descriptors()
        await workspace.write(await workspace.lend(batch, lend), item="files", done=9)
        assert open_descriptors() <= before
        assert (await workspace.publish()).files == 66
    assert seen == [b"content"] * 64


async def test_nothing_is_lent_for_members_without_content() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Write)
        peer.send(Written())

    async def lend() -> Iterable[int]:
        pytest.fail("nothing is to be opened")

    async with daemon_end(script) as workspace:
        await workspace.write(await workspace.lend([MemberToWrite("empty", False, 0o644, 0)], lend))


async def test_a_batch_over_the_limit_is_a_bug_of_the_caller() -> None:
    async def lend() -> Iterable[int]:
        pytest.fail("nothing is to be opened")

    async with daemon_end(lambda _: None) as workspace:
        with pytest.raises(ValueError, match="65 descriptors"):
            await workspace.write(await workspace.lend(members(65), lend))


async def test_descriptors_are_closed_when_the_client_hangs_up(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"x")
    budget = DescriptorBudget(64)

    async def lend() -> Iterable[int]:
        return [os.open(tmp_path / "object", os.O_RDONLY) for _ in range(3)]

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Write)

    before = open_descriptors()
    async with daemon_end(script, budget=budget) as workspace:
        with pytest.raises(WorkspaceBroken):
            await workspace.write(await workspace.lend(members(3), lend))
    assert open_descriptors() <= before
    assert budget.lent() == 0


async def test_the_next_batch_is_opened_while_one_is_written_if_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"x")
    opened = 0

    async def lend() -> Iterable[int]:
        nonlocal opened
        opened += 1
        return [os.open(tmp_path / "object", os.O_RDONLY) for _ in range(64)]

    def script(peer: ClientPeer) -> None:
        peer.greet()
        for _ in range(2):
            peer.asked(Write)
            _, descriptors, _, _ = socket.recv_fds(peer.sock, 1, 253)
            for descriptor in descriptors:
                os.close(descriptor)
            peer.send(Written())

    for room, ahead in ((256, 2), (64, 1)):
        opened = 0
        budget = DescriptorBudget(room)
        before = open_descriptors()
        async with daemon_end(script, budget=budget) as workspace, anyio.create_task_group() as group:
            first = await workspace.lend(members(64), lend)
            second: list[Batch] = []

            async def go_on(workspace: Workspace = workspace, second: list[Batch] = second) -> None:
                second.append(await workspace.lend(members(64), lend))

            group.start_soon(go_on)
            await anyio.wait_all_tasks_blocked()
            assert opened == ahead
            await workspace.write(first)
            await anyio.wait_all_tasks_blocked()
            await workspace.write(second[0])
            # One that is never written.
            (await workspace.lend(members(64), lend)).close()
        assert budget.lent() == 0
        assert open_descriptors() <= before


@pytest.mark.parametrize(
    "error",
    [
        TargetBusy("another unpack", kept="nothing", hint="wait"),
        TargetUnwritable("no space left on device", kept="nothing was put in place"),
        TargetExists("x appeared"),
    ],
)
async def test_a_refusal_of_the_client_is_raised_as_what_it_is(error: KitdError) -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Publish)
        peer.send(Refused(error.problem()))
        peer.asked(Publish)
        peer.send(Published(1, 0))

    async with daemon_end(script) as workspace:
        with pytest.raises(type(error)) as caught:
            await workspace.publish()
        assert caught.value.problem() == error.problem()
        assert (await workspace.publish()).files == 1  # the turn was over: the next is in order


@pytest.mark.parametrize("code", [NoSpace.code, "no such code"])
async def test_a_client_cannot_fail_as_something_else(code: str) -> None:
    body = msgspec.msgpack.encode(
        {
            "type": "refused",
            "problem": {"code": code, "title": "t" * 20_000, "status": 1, "detail": {"message": 1}},
        }
    )
    forged = len(body).to_bytes(4, "big") + body

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Publish)
        peer.raw(forged)

    async with daemon_end(script) as workspace:
        with pytest.raises(WorkspaceBroken) as caught:
            await workspace.publish()
    assert len(caught.value.message) < 10_000


async def test_what_is_said_before_a_turn_is_heard_before_it() -> None:
    """A turn may read for minutes: a bar whose total comes behind it is wrong all the while."""
    heard: list[Event] = []

    def script(peer: ClientPeer) -> None:
        peer.greet()
        for number in range(3):
            if number:  # nothing is said before the greeting
                heard.append(peer.asked(EventFrame).event)
            peer.asked(Publish)
            peer.send(Published(0, 0))
            if not number:
                heard.append(peer.asked(EventFrame).event)

    async with daemon_end(script) as workspace, anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(workspace.event, Warned(str(number)))
            await workspace.publish()
            await anyio.wait_all_tasks_blocked()
    assert heard == [Warned(str(number)) for number in range(3)]
