"""Hosts that make a job wait, or keep it busy, take nothing from others that could go on."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from fakes import faults
from fakes.exchange import Gate
from fakes.kits import FakeKit, large_kit, put_kit
from fakes.node import KIB, RANGE, Node, node
from fakes.registry import ScriptedRegistry
from fakes.stores import read_all

from kitd.spec.digest import Digest

SEATS = 8
PER_HOST = 6
"""Of the window that `node` has."""


@pytest.fixture
async def pulling(anyio_backend: object, store_root: Path) -> AsyncIterator[Node]:
    """In real time: ten minutes are ten minutes here."""
    async with node(store_root, real_time=True, stall_timeout=60) as opened:
        assert opened.window._seats_free == SEATS
        yield opened


async def eventually(so: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not so():  # noqa: ASYNC110 (there is no event to wait for)
            await anyio.sleep(0.005)


def _asks_to_wait(registry: ScriptedRegistry) -> bool:
    return bool(registry.select(status=429))


async def assert_here(node: Node, kit: FakeKit) -> None:
    for digest, data in zip(kit.layer_digests, kit.layers, strict=True):
        assert await read_all(node.store, Digest(digest)) == data


async def test_hosts_that_ask_to_wait_do_not_hold_the_seats(pulling: Node) -> None:
    """Two of them had all seats, for up to ten minutes, while a third could not even begin."""
    async with ScriptedRegistry() as one, ScriptedRegistry() as two, ScriptedRegistry() as healthy:
        good = large_kit(4 * RANGE, 4, seed=100)
        put_kit(healthy, good, "team/kit")
        waiting = [(one, large_kit(2 * RANGE, PER_HOST)), (two, large_kit(2 * RANGE, 4, seed=50))]
        async with anyio.create_task_group() as tasks:
            for registry, kit in waiting:
                put_kit(registry, kit, "team/kit")
                registry.script(faults.too_many("600"), path="/blobs/sha256", skip=1, times=None)
                tasks.start_soon(pulling.pull, f"{registry.host}/team/kit:v1")
                await eventually(partial(_asks_to_wait, registry))
            with anyio.fail_after(10):
                await pulling.pull(f"{healthy.host}/team/kit:v1")
            await assert_here(pulling, good)
            tasks.cancel_scope.cancel()
        assert pulling.window._seats_free == SEATS
        # Nobody was asked again before his time.
        for registry, kit in waiting:
            assert len(registry.select(status=429)) <= len(kit.layers)


async def test_who_waits_for_a_seat_leaves_the_blob_to_whoever_has_one(pulling: Node) -> None:
    """A blob whose job queues behind a busy host is fetched by the next job, from a host that has room."""
    async with ScriptedRegistry() as busy, ScriptedRegistry() as free:
        wanted = large_kit(4 * RANGE, seed=100)
        for registry in (busy, free):
            put_kit(registry, wanted, "team/wanted")
        put_kit(busy, large_kit(2 * RANGE, PER_HOST), "team/slow")
        gate = Gate()
        busy.script(faults.stall(gate), path="/team/slow/blobs/", skip=1, times=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pulling.pull, f"{busy.host}/team/slow:v1")
            await gate.until_held(PER_HOST)
            tasks.start_soon(pulling.pull, f"{busy.host}/team/wanted:v1")
            await eventually(lambda: len(pulling.window._queue) == 1)
            with anyio.fail_after(10):
                await pulling.pull(f"{free.host}/team/wanted:v1")
            await assert_here(pulling, wanted)
            layer = f"/team/wanted/blobs/{wanted.layer_digests[0]}"
            assert (busy.sent(layer), free.sent(layer)) == (0, len(wanted.layers[0]))
            gate.open()
        assert await pulling.has(f"{busy.host}/team/wanted:v1")


async def test_a_seat_that_is_left_costs_no_progress(pulling: Node) -> None:
    """What was appended stays; in the end the blob that made room is fetched too, each byte of it once or nearly."""
    async with ScriptedRegistry() as waiting, ScriptedRegistry() as other:
        slow, good = large_kit(8 * RANGE, PER_HOST), large_kit(2 * RANGE, 6, seed=100)
        put_kit(waiting, slow, "team/slow")
        put_kit(other, good, "team/good")
        waiting.script(faults.too_many("1"), path="/blobs/sha256", skip=12, times=3)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pulling.pull, f"{waiting.host}/team/slow:v1")
                await eventually(partial(_asks_to_wait, waiting))
                tasks.start_soon(pulling.pull, f"{other.host}/team/good:v1")
        await assert_here(pulling, slow)
        await assert_here(pulling, good)
        assert waiting.sent("/blobs/") - slow.size - len(slow.config) <= 1024 * KIB
