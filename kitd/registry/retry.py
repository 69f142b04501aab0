"""When to ask again, and how long to wait before it."""

import email.utils
import random
import re
from collections.abc import Callable

import msgspec

RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that may be another one next time; no other is asked again."""

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more (a year, by mistake) is asked again after this."""

_SECONDS = re.compile(r"\d{1,12}")
_STEEPEST = 32


class Backoff(msgspec.Struct, frozen=True):
    """Exponential waits with full jitter: many clients of one failing host must not come back at once."""

    attempts: int = 6
    """Requests in all, the first one counted."""
    base: float = 0.25
    """Seconds: the first wait is at most this, each further one at most twice the one before."""
    cap: float = 30.0
    """Seconds at most for one wait."""
    random: Callable[[], float] = random.random
    """0 <= x < 1."""

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures (1 is the first)."""
        return self.random() * min(self.cap, self.base * 2.0 ** min(failures - 1, _STEEPEST))


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3): seconds, or a date seen from `wall`.

    At most `LONGEST_WAIT`. None: there is no such header, or none that can be read.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT)
    try:
        date = email.utils.parsedate_to_datetime(text)
        seconds = date.timestamp() - wall
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)
