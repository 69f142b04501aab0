"""Single flight: one writer for each blob, and the open blob passes from hand to hand."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

import anyio

from kitd.content.intake import Intake
from kitd.spec.digest import Digest
from kitd_client.api.errors import KitdError

RESUMED = "local"
"""The source of bytes that were here already."""

_CADENCE: Final = 0.1
"""Seconds between two words to those who wait: they may be hundreds, and pieces come by the thousand."""


class Waiter:
    """One job that wants a blob.

    Args:
        source: the repository it would fetch from.
        can_go_on: whether that repository takes requests now.
        moved: told of bytes that others move, by source.
    """

    def __init__(self, source: str, can_go_on: Callable[[], bool], moved: Callable[[str, int], None]) -> None:
        self.source = source
        self.can_go_on = can_go_on
        self.moved = moved
        self.turn = anyio.Event()
        self.landed = False
        """The blob is here: nobody needs a turn."""
        self.error: KitdError | None = None
        """Why it gets no turn."""


class Flight:
    """One blob under way: the open intake, who waits for it, and what they were told."""

    def __init__(self) -> None:
        self.intake: Intake | None = None
        self.waiters: deque[Waiter] = deque()
        self.arrival: Callable[[], None] | None = None
        """Called when somebody begins to wait; whoever writes sets it for himself."""
        self._moved: dict[str, int] = {}
        self._untold: dict[str, int] = {}
        self._quiet_until = 0.0
        self._repeated = 0

    def join(self, waiter: Waiter) -> None:
        self._tell()
        self.waiters.append(waiter)
        for source, count in self._moved.items():
            waiter.moved(source, count)
        if self.arrival is not None:
            self.arrival()

    def moved(self, source: str, count: int) -> None:
        """The blob grew: those who wait hear of it soon, and before one of them gets his turn."""
        self._untold[source] = self._untold.get(source, 0) + count
        if monotonic() >= self._quiet_until:
            self._tell()

    def _tell(self) -> None:
        """What waiters were told before a restart is not told again."""
        for source, count in self._untold.items():
            known = min(self._repeated, count)
            self._repeated -= known
            if count > known:
                self._moved[source] = self._moved.get(source, 0) + count - known
                for waiter in self.waiters:
                    waiter.moved(source, count - known)
        self._untold.clear()
        self._quiet_until = monotonic() + _CADENCE

    def restarted(self) -> None:
        """The blob lost its bytes."""
        self._untold.clear()
        self._repeated = sum(self._moved.values())

    def hand_over_wanted(self) -> bool:
        return any(waiter.can_go_on() for waiter in self.waiters)

    def land(self) -> None:
        """The blob is here: all who wait go on at once."""
        self._tell()
        while self.waiters:
            waiter = self.waiters.popleft()
            waiter.landed = True
            waiter.turn.set()

    def fail(self, source: str, error: KitdError) -> None:
        """Ends everyone who would ask the same repository for the same bytes."""
        ended = [waiter for waiter in self.waiters if waiter.source == source]
        for waiter in ended:
            self.waiters.remove(waiter)
            waiter.error = type(error)(error.message, kept=error.kept, hint=error.hint, **error.detail)
            waiter.turn.set()

    def following(self) -> Waiter | None:
        """Who is next: the first that can go on, else the first."""
        self._tell()
        ready = (waiter for waiter in self.waiters if waiter.can_go_on())
        chosen = next(ready, self.waiters[0] if self.waiters else None)
        if chosen is not None:
            self.waiters.remove(chosen)
        return chosen


class Turns:
    """One caller at a time for each key."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[anyio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Waits for the others with the same key."""
        lock, users = self._locks.setdefault(key, (anyio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                self._locks.pop(key)


class Flights:
    """All blobs under way.

    Args:
        close: gives up the descriptors of an intake that nobody waits for; its bytes stay on the disk.
    """

    def __init__(self, close: Callable[[Intake], Awaitable[None]]) -> None:
        self._flights: dict[Digest, Flight] = {}
        self._close = close

    def under_way(self) -> set[Digest]:
        """The blobs that somebody writes now."""
        return set(self._flights)

    @asynccontextmanager
    async def turn(self, digest: Digest, waiter: Waiter) -> AsyncIterator[Flight | None]:
        """Waits until the blob is this caller's alone; afterwards it is the next one's. None: it landed meanwhile.

        Raises:
            KitdError: what ended another caller that would have asked the same repository.
        """
        flight = self._flights.get(digest)
        if flight is None:
            flight = self._flights[digest] = Flight()
        else:
            flight.join(waiter)
            await self._wait(digest, flight, waiter)
            if waiter.landed:
                yield None
                return
        try:
            yield flight
        finally:
            await self._pass_on(digest, flight)

    async def _wait(self, digest: Digest, flight: Flight, waiter: Waiter) -> None:
        try:
            await waiter.turn.wait()
        except BaseException:
            if waiter in flight.waiters:
                flight.waiters.remove(waiter)
            elif waiter.error is None and not waiter.landed:
                await self._pass_on(digest, flight)
            raise
        if waiter.error is not None:
            raise waiter.error

    async def _pass_on(self, digest: Digest, flight: Flight) -> None:
        flight.arrival = None
        following = flight.following()
        if following is not None:
            following.turn.set()
            return
        intake, flight.intake = flight.intake, None
        if intake is not None:
            # Whoever comes now would open the same directory: not before it is closed.
            try:
                with anyio.CancelScope(shield=True):
                    await self._close(intake)
            finally:
                await self._pass_on(digest, flight)
            return
        del self._flights[digest]
