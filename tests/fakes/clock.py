"""A clock for the registry client that does not wait."""

import anyio.lowlevel


class StillClock:
    """Sleeping takes no time, moves this clock on and is written down; sleepers sleep side by side."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return 1_800_000_000 + self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.time + seconds
        await anyio.lowlevel.checkpoint()
        self.time = max(self.time, until)
