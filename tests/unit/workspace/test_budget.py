"""Lent descriptors: bounded for all, shared between users, and counted until the kernel has dropped them."""

import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest
from unit.workspace.scripted import open_descriptors

from kitd.workspace import budget as module
from kitd.workspace.budget import DescriptorBudget
from kitd_client.api.errors import Busy


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


@asynccontextmanager
async def reserved(
    budget: DescriptorBudget, count: int, uid: int, sock: socket.socket
) -> AsyncIterator[None]:
    """Room for as long as the block lasts, in which descriptors may be sent over `sock`."""
    await budget.reserve(count, uid)
    try:
        yield
    finally:
        budget.give_back(count, uid, sock)


async def test_who_comes_first_is_served_first(sock: socket.socket) -> None:
    budget = DescriptorBudget(128)
    order: list[str] = []
    free = anyio.Event()

    async def lend(name: str, count: int, uid: int) -> None:
        async with reserved(budget, count, uid, sock):
            order.append(name)
            await free.wait()

    async with anyio.create_task_group() as group:
        for name, count, uid in (("a", 64, 1), ("b", 40, 2), ("c", 64, 3), ("d", 1, 4)):
            group.start_soon(lend, name, count, uid)
            await anyio.wait_all_tasks_blocked()
        assert order == ["a", "b"]  # d would fit, and still waits behind c
        free.set()
    assert order == ["a", "b", "c", "d"]
    assert budget.lent() == 0


async def test_one_user_never_has_more_than_half(sock: socket.socket) -> None:
    budget = DescriptorBudget(256)
    order: list[str] = []
    free = anyio.Event()

    async def lend(name: str, uid: int) -> None:
        async with reserved(budget, 64, uid, sock):
            order.append(name)
            await free.wait()

    async with anyio.create_task_group() as group:
        for name, uid in (("a", 1), ("b", 1), ("c", 1), ("d", 2)):
            group.start_soon(lend, name, uid)
            await anyio.wait_all_tasks_blocked()
        assert order == ["a", "b", "d"]
        free.set()
    assert order == ["a", "b", "d", "c"]


async def test_waiting_has_an_end(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    budget = DescriptorBudget(64)
    async with reserved(budget, 64, 1, sock):
        with pytest.raises(Busy):
            async with reserved(budget, 1, 1, sock):
                pytest.fail("there is no room")
    async with reserved(budget, 64, 1, sock):
        assert budget.lent() == 64


async def test_who_stops_waiting_leaves_no_trace(sock: socket.socket) -> None:
    budget = DescriptorBudget(64)
    async with reserved(budget, 64, 1, sock):
        with anyio.move_on_after(0.05):
            async with reserved(budget, 64, 1, sock):
                pytest.fail("there is no room")
    assert budget.lent() == 0
    async with reserved(budget, 64, 1, sock):
        assert budget.lent() == 64


async def test_unread_descriptors_stay_counted_until_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_SECONDS", 0.01)
    budget = DescriptorBudget(64)
    ours, theirs = socket.socketpair()
    async with reserved(budget, 64, 1, ours):
        socket.send_fds(ours, [b"\0"], [0] * 64)
    ours.close()
    assert budget.lent() == 64
    with anyio.move_on_after(0.05) as scope:
        async with reserved(budget, 1, 2, theirs):
            pytest.fail("they are still in the socket")
    assert scope.cancelled_caught
    _, descriptors, _, _ = socket.recv_fds(theirs, 1, 64)
    for descriptor in descriptors:
        os.close(descriptor)
    async with reserved(budget, 64, 2, theirs):
        assert budget.lent() == 64
    theirs.close()


async def test_a_client_that_goes_gives_them_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_SECONDS", 0.01)
    budget = DescriptorBudget(64)
    ours, theirs = socket.socketpair()
    async with reserved(budget, 64, 1, ours):
        socket.send_fds(ours, [b"\0"], [0] * 64)
    ours.close()
    other, peer = socket.socketpair()

    async def leave() -> None:
        theirs.close()

    with other, peer:
        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            async with reserved(budget, 64, 1, other):
                assert budget.lent() == 64


async def test_the_limit_is_a_quarter_of_what_the_process_may_open() -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    budget = DescriptorBudget()
    assert budget._limit == max(soft // 4, 64)
    budget.close()


async def test_close_lets_go_of_sockets_that_nobody_reads() -> None:
    before = open_descriptors()
    budget = DescriptorBudget(64)
    ours, theirs = socket.socketpair()
    async with reserved(budget, 1, 1, ours):
        socket.send_fds(ours, [b"\0"], [0])
    ours.close()
    budget.close()
    theirs.close()
    assert budget.lent() == 0
    assert open_descriptors() == before


async def test_room_is_what_nobody_has_to_wait_for(sock: socket.socket) -> None:
    budget = DescriptorBudget(128)
    assert budget.has_room(64, 1)
    async with reserved(budget, 64, 1, sock):
        assert not budget.has_room(1, 1)  # the share of one user
        assert budget.has_room(64, 2)
        async with anyio.create_task_group() as group:
            group.start_soon(budget.reserve, 1, 1)
            await anyio.wait_all_tasks_blocked()
            assert not budget.has_room(64, 2)  # somebody waits
            group.cancel_scope.cancel()


async def test_what_was_never_sent_is_free_at_once() -> None:
    budget = DescriptorBudget(64)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"unread")
        await budget.reserve(64, 1)
        budget.give_back(64, 1, None)
        assert budget.lent() == 0
