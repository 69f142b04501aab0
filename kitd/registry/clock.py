"""Time as the registry client sees it; tests bring their own."""

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Monotonic time for every wait, wall time only to read dates that others wrote."""

    def now(self) -> float:
        """Monotonic seconds."""

    def wall(self) -> float:
        """Seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The real one."""

    def now(self) -> float:
        return anyio.current_time()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
