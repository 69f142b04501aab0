import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.transfer.plan import LARGEST_RANGE, plan_at_once, plan_range_size, plan_share


@pytest.mark.parametrize(
    ("memory", "streams", "wanted", "size"),
    [
        (128 << 20, 16, 4 << 20, 4 << 20),
        (128 << 20, 16, 64 << 20, 4 << 20),
        (1 << 30, 4, 64 << 20, LARGEST_RANGE),
        (16 << 20, 16, 4 << 20, 512 << 10),
        (1, 16, 4 << 20, 1),
    ],
)
def test_all_streams_of_a_blob_fit_in_half_the_memory(
    memory: int, streams: int, wanted: int, size: int
) -> None:
    assert plan_range_size(memory, streams, wanted) == size


@given(st.integers(0, 100), st.integers(0, 50))
def test_shares_of_the_read_ahead_use_it_up(ranges: int, seats: int) -> None:
    assert plan_share(ranges, seats) >= 1
    assert plan_share(ranges, seats) * max(1, seats) >= ranges


def test_requests_grow_only_while_the_network_is_ahead() -> None:
    mib = 1 << 20

    def at_once(appended: int, size: int, waited: float = 0.0) -> int:
        return plan_at_once(appended, size, waited=waited, worked=0.1)

    assert at_once(3, 4 * mib) == 3
    assert at_once(9, 4 * mib) == LARGEST_RANGE // (4 * mib)
    assert at_once(9, LARGEST_RANGE) == 1
    assert at_once(1, 1) == 1
    assert at_once(3, 4 * mib, waited=0.009) == 3
    assert at_once(3, 4 * mib, waited=0.011) == 1
