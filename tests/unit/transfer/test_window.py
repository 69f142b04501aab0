import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest

from kitd.transfer.window import Pieces, Window, ordered
from kitd_client.api.errors import RegistryUnavailable

pytestmark = pytest.mark.anyio

KIB = 1024


class Host:
    """A host that serves ranges in any order it likes and counts what is open at once."""

    def __init__(self, connections: int, seed: int, failing: float = 0.0) -> None:
        self.connections = anyio.CapacityLimiter(connections)
        self.random = random.Random(seed)
        self.failing = failing
        self.open_bytes = self.most_bytes = 0
        self.most_connections = 0
        self.failures = 0
        self.asked: list[tuple[int, int]] = []

    def fetcher(self, blob: bytes) -> Callable[[int, int], Awaitable[Pieces]]:
        async def fetch(first: int, end: int) -> Pieces:
            self.asked.append((first, end))
            self.open_bytes += end - first
            self.most_bytes = max(self.most_bytes, self.open_bytes)
            while True:
                async with self.connections:
                    self.most_connections = max(self.most_connections, int(self.connections.borrowed_tokens))
                    for _ in range(self.random.randrange(6)):
                        await anyio.lowlevel.checkpoint()
                    if self.random.random() >= self.failing:
                        return [blob[first:end]]
                    self.failures += 1

        return fetch


def blob_of(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def fill(window: Window, host: Host, name: str, blob: bytes) -> bytes:
    out = bytearray()

    async def append(pieces: Pieces) -> None:
        await anyio.lowlevel.checkpoint()
        for piece in pieces:
            out.extend(piece)
            host.open_bytes -= len(piece)

    async with window.admit(name) as seat:
        await ordered(seat, 0, len(blob), fetch=host.fetcher(blob), append=append)
    return bytes(out)


async def test_a_slow_disk_gets_fewer_and_larger_requests_within_the_same_memory() -> None:
    window = Window(memory=32 * KIB, range_size=1 * KIB, connections=16, per_host=32)
    host = Host(connections=32, seed=1)
    blob = blob_of(200 * KIB, 1)
    out = bytearray()

    async def append(pieces: Pieces) -> None:
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        for piece in pieces:
            out.extend(piece)
            host.open_bytes -= len(piece)

    async with window.admit("registry") as seat:
        await ordered(seat, 0, len(blob), fetch=host.fetcher(blob), append=append)
    assert out == blob
    assert len(host.asked) < 100
    assert host.most_bytes <= 17 * KIB
    assert host.asked[0] == (0, KIB)


@pytest.mark.parametrize("seed", range(5))
async def test_forty_layers_with_failing_ranges_end_under_a_small_budget(seed: int) -> None:
    """Invariant of the window: no deadlock, whatever the order in which ranges arrive or fail."""
    memory = 16 * KIB
    window = Window(memory=memory, range_size=4 * KIB, connections=16, per_host=32)
    host = Host(connections=32, seed=seed, failing=0.05)
    blobs = [blob_of(20 * KIB + index, index) for index in range(40)]
    results: dict[int, bytes] = {}

    async def one(index: int) -> None:
        results[index] = await fill(window, host, "registry", blobs[index])

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for index in range(len(blobs)):
                tasks.start_soon(one, index)
    assert [results[index] for index in range(40)] == blobs
    assert host.failures > 0
    assert host.most_bytes <= memory
    assert host.most_connections <= 32


async def test_one_blob_uses_all_its_streams() -> None:
    window = Window(memory=64 * KIB, range_size=KIB, connections=8, per_host=32)
    host = Host(connections=100, seed=1)
    blob = blob_of(100 * KIB, 1)
    assert await fill(window, host, "registry", blob) == blob
    assert host.most_connections == 8


async def test_a_host_never_takes_every_seat() -> None:
    window = Window(memory=8 * KIB, range_size=KIB, connections=2, per_host=32)
    held = anyio.Event()
    inside = 0

    async def hold() -> None:
        nonlocal inside
        async with window.admit("busy"):
            inside += 1
            await held.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        assert 0 < inside < 4
        with anyio.fail_after(5):
            async with window.admit("other"):
                pass
        held.set()
    assert inside == 20


async def test_as_many_seats_are_left_as_blobs_of_other_hosts_wait() -> None:
    window = Window(memory=8 * KIB, range_size=KIB, connections=2, per_host=32)
    heard: list[bool] = []

    async def wait(host: str) -> None:
        async with window.admit(host):
            pass

    with window.heard_by(lambda: heard.append(True)):
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            held = [await stack.enter_async_context(window.admit(host)) for host in ("a", "a", "a", "b")]
            assert not window.has_room("c")
            assert not any(seat.yields() for seat in held)
            tasks.start_soon(wait, "a")
            await anyio.wait_all_tasks_blocked()
            assert heard
            # The next of the same host would be held back as well.
            assert not any(seat.yields() for seat in held[:3])
            tasks.start_soon(wait, "c")
            await anyio.wait_all_tasks_blocked()
            assert [seat.yields() for seat in held[:3]] == [True, False, False]
            await stack.aclose()
    assert window.has_room("a")


async def test_a_cancelled_wait_leaves_its_place_to_the_next() -> None:
    window = Window(memory=2 * KIB, range_size=KIB, connections=1, per_host=2)
    async with window.admit("host"), anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def give_up() -> None:
            with scope:
                async with window.admit("host"):
                    pytest.fail("there was no seat to have")

        tasks.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    with anyio.fail_after(5):
        async with window.admit("host"):
            pass


async def test_the_first_error_ends_the_blob_and_gives_everything_back() -> None:
    window = Window(memory=16 * KIB, range_size=KIB, connections=4, per_host=32)
    host = Host(connections=100, seed=2)
    blob = blob_of(64 * KIB, 2)
    good = host.fetcher(blob)

    async def fetch(first: int, end: int) -> Pieces:
        if first == 9 * KIB:
            raise RegistryUnavailable("gone")
        return await good(first, end)

    async def append(pieces: Pieces) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RegistryUnavailable, match="gone"):
        async with window.admit("registry") as seat:
            await ordered(seat, 0, len(blob), fetch=fetch, append=append)
    assert await fill(window, Host(connections=100, seed=3), "registry", blob) == blob


async def test_a_second_blob_gets_its_share_of_the_read_ahead() -> None:
    window = Window(memory=32 * KIB, range_size=KIB, connections=16, per_host=64)
    async with window.admit("a") as first:
        alone = sum(first.take() for _ in range(40))
        async with window.admit("b") as second:
            for _ in range(alone - 1):
                first.give_back()
            together = 1 + sum(first.take() for _ in range(40))
            assert sum(second.take() for _ in range(40)) >= together - 1
    assert alone == 16
    assert together == 9
