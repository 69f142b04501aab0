import pytest
from fakes.clock import StillClock

from kitd.registry.gate import Gate
from kitd.registry.retry import Backoff


@pytest.fixture
def gate(clock: StillClock) -> Gate:
    return Gate("registry.example", clock, Backoff(random=lambda: 1.0))


async def test_an_open_gate_holds_nobody(gate: Gate, clock: StillClock) -> None:
    assert gate.ready()
    await gate.passed(None)
    assert clock.slept == []


async def test_a_pause_holds_everyone_and_is_told(gate: Gate, clock: StillClock) -> None:
    told: list[tuple[str, float]] = []
    gate.hold(20, "asks to wait (429)")
    assert not gate.ready()
    await gate.passed(lambda reason, seconds: told.append((reason, seconds)))
    assert clock.slept == [20]
    assert told == [("registry.example asks to wait (429)", 20)]
    assert gate.ready()


async def test_a_short_pause_is_no_news(gate: Gate) -> None:
    told: list[float] = []
    gate.hold(0.5, "asks to wait (429)")
    await gate.passed(lambda _, seconds: told.append(seconds))
    assert told == []


async def test_a_shorter_pause_does_not_shorten_a_longer_one(gate: Gate, clock: StillClock) -> None:
    gate.hold(20, "asks to wait (429)")
    gate.hold(2, "asks to wait (503)")
    await gate.passed(None)
    assert clock.time == 1020


async def test_a_pause_that_grows_while_one_waits_is_kept(gate: Gate, clock: StillClock) -> None:
    gate.hold(2, "asks to wait (503)")
    told: list[float] = []

    def longer(_reason: str, seconds: float) -> None:
        if not told:
            gate.hold(10, "asks to wait (503)")
        told.append(seconds)

    await gate.passed(longer)
    assert clock.slept == [2, 8]
    assert told == [2, 8]


async def test_all_requests_of_one_outage_are_one_failure(gate: Gate) -> None:
    entered = [await gate.passed(None) for _ in range(16)]
    for one in entered:
        gate.unreachable(one)
    assert gate.failures == 1


async def test_outages_in_a_row_wait_longer_until_the_host_is_back(gate: Gate, clock: StillClock) -> None:
    for _ in range(4):
        gate.unreachable(await gate.passed(None))
    await gate.passed(None)
    assert clock.slept == [0.25, 0.5, 1, 2]
    gate.answered()
    assert gate.failures == 0
