import pytest

from kitd.registry.retry import LONGEST_WAIT, Backoff, parse_retry_after

_WALL = 1_445_412_420.0  # Wed, 21 Oct 2015 07:27:00 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("1000000000", LONGEST_WAIT),
        ("Wed, 21 Oct 2099 07:28:00 GMT", LONGEST_WAIT),
        ("99999999999999999999999999", None),
        ("-5", None),
        ("soon", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("1.5", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_has_an_end(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, _WALL) == seconds


def test_waits_double_up_to_the_cap() -> None:
    backoff = Backoff(random=lambda: 1.0)
    assert [backoff.delay(failures) for failures in range(1, 10)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay(10_000) == 30


def test_jitter_is_full() -> None:
    assert Backoff(random=lambda: 0.0).delay(5) == 0
    assert Backoff(random=lambda: 0.5).delay(3) == 0.5
