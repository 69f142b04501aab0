import anyio
import pytest
from fakes.clock import StillClock

from kitd.registry.rate import RateLimit


async def test_bytes_take_the_time_they_need(clock: StillClock) -> None:
    rate = RateLimit(1000, clock)
    for _ in range(5):
        await rate.take(1000)
    assert clock.time - 1000 == pytest.approx(4.9)


async def test_without_a_limit_nobody_waits(clock: StillClock) -> None:
    rate = RateLimit(0, clock)
    await rate.take(10**12)
    assert clock.slept == []


async def test_idle_time_is_no_credit(clock: StillClock) -> None:
    rate = RateLimit(1000, clock)
    clock.time += 3600
    await rate.take(2000)
    assert clock.slept == [pytest.approx(1.9)]


async def test_who_asks_first_is_served_first(clock: StillClock) -> None:
    rate = RateLimit(1000, clock)
    order: list[int] = []

    async def take(number: int) -> None:
        await rate.take(1000)
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(take, number)
    assert order == [0, 1, 2, 3]
    assert clock.slept == sorted(clock.slept)


async def test_a_limit_can_be_set_and_lifted_while_it_is_used(clock: StillClock) -> None:
    rate = RateLimit(1000, clock)
    await rate.take(1000)
    rate.bytes_per_second = 0
    await rate.take(10**9)
    rate.bytes_per_second = 100
    before = clock.time
    await rate.take(100)
    assert clock.time - before == pytest.approx(1.0, abs=0.11)
