"""A limit on bytes per second."""

from kitd.registry.clock import Clock

_BURST = 0.1
"""Seconds of unused allowance that are kept."""


class RateLimit:
    """Bytes per second for all who share it; who asks first is served first.

    Each taker books the time its bytes need behind what is booked already, and waits for its turn. Nothing is
    kept of an idle time but a tenth of a second's worth, so a limited transfer never bursts.
    """

    def __init__(self, bytes_per_second: int, clock: Clock) -> None:
        self.bytes_per_second = bytes_per_second
        """0: no limit. May change at any time."""
        self._clock = clock
        self._booked_until = float("-inf")

    async def take(self, count: int) -> None:
        """Wait until `count` bytes are allowed. What was booked stays booked when the wait is cancelled."""
        if self.bytes_per_second <= 0:
            return
        now = self._clock.now()
        self._booked_until = max(self._booked_until, now - _BURST) + count / self.bytes_per_second
        if self._booked_until > now:
            await self._clock.sleep(self._booked_until - now)
