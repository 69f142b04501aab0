"""The gate of a host: while it is shut, nobody on its route asks anything."""

from collections.abc import Callable
from typing import TypeAlias

from kitd.registry.clock import Clock
from kitd.registry.retry import Backoff

Waiting: TypeAlias = Callable[[str, float], None]
"""Told why and for how many seconds a request waits."""

WORTH_TELLING = 1.0
"""Seconds of a wait that people are told of."""


class Gate:
    """Holds back all requests to one host on one route.

    Two things shut it: the host asks for a pause (429, 503 with Retry-After), or it cannot be reached. In the
    second case all requests that were under way meet one and the same outage, so they count as one failure.
    """

    def __init__(self, host: str, clock: Clock, backoff: Backoff) -> None:
        self.failures = 0
        """Outages in a row."""
        self._host = host
        self._clock = clock
        self._backoff = backoff
        self._shut_until = float("-inf")
        self._reason = ""
        self._round = 0

    def ready(self) -> bool:
        """Whether a request would go out at once."""
        return self._clock.now() >= self._shut_until

    async def passed(self, waiting: Waiting | None) -> int:
        """Wait until the gate is open; what comes back belongs into `unreachable` if the request fails."""
        while (left := self._shut_until - self._clock.now()) > 0:
            if waiting is not None and left >= WORTH_TELLING:
                waiting(self._reason, left)
            await self._clock.sleep(left)
        return self._round

    def hold(self, seconds: float, reason: str) -> None:
        """Shut the gate for at least so long: the host asked for it."""
        self._shut(seconds, f"{self._host} {reason}")

    def unreachable(self, entered: int) -> None:
        """A request that passed as `entered` found no host."""
        if entered != self._round:
            return
        self._round += 1
        self.failures += 1
        self._shut(self._backoff.delay(self.failures), f"{self._host} cannot be reached")

    def answered(self) -> None:
        """The host is there, whatever it said."""
        self.failures = 0

    def _shut(self, seconds: float, reason: str) -> None:
        until = self._clock.now() + seconds
        if until > self._shut_until:
            self._shut_until, self._reason = until, reason
