"""The memory and the connections of all transfers, shared so that none can wait for ever.

Rules, all three needed (the naive window, one pool of buffers for everybody, deadlocks):

1. A blob is admitted only with a *seat*: memory for one range and one connection to its host that nobody else can
   take. A host never gets all seats.
2. A range is asked for only when its whole memory is reserved, and ranges of a blob are asked for in order. So the
   first range that is not appended yet either has its memory, or everything before it is appended and the seat's own
   memory is free.
3. A range that fails is asked for again under the reservation it has.

A host that makes us wait (Retry-After) could hold every seat it has for minutes. So a blob that is held back leaves
its seat when a blob of another host would get it, and takes its place again, empty-handed, when its own host is ready.

What is left beside the seats is read-ahead: nobody waits for it while holding something.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import takewhile

import anyio
import anyio.abc

from kitd.errors import single_error
from kitd.spec.digest import Buffer
from kitd.transfer.plan import plan_at_once, plan_range_size, plan_share

Pieces = list[Buffer]

LARGEST_APPEND = 16 << 20
"""Bytes after which no further range joins an append: it cannot be cancelled, and lasts some 20 ms by then."""


class Seat:
    """One admitted blob: its own range and connection, and the read-ahead it holds."""

    def __init__(self, window: "Window", host: str) -> None:
        self.host = host
        self._window = window
        self._own_free = True
        self._ahead = 0
        self._wake = anyio.Event()

    @property
    def range_size(self) -> int:
        """Bytes of one range."""
        return self._window.range_size

    def take(self) -> bool:
        """Reserves memory and a connection for the next range, if there are any now."""
        if self._own_free:
            self._own_free = False
            return True
        if self._ahead >= self._window.share() or not self._window.take_ahead(self.host):
            return False
        self._ahead += 1
        return True

    def give_back(self) -> None:
        """Ends one reservation. Read-ahead goes first: the seat's own stays with the blob anyway."""
        if self._ahead:
            self._ahead -= 1
            self._window.give_ahead(self.host)
        else:
            self._own_free = True

    def close(self) -> None:
        """Ends every reservation."""
        while self._ahead:
            self.give_back()

    def yields(self) -> bool:
        """Whether a blob of another host waits for this seat: the owner, who is held back, then has to leave it."""
        return self._window.lets_go(self)

    def wake(self) -> None:
        """Lets the owner look again."""
        self._wake.set()

    async def news(self) -> None:
        """Returns after the next `wake`."""
        await self._wake.wait()
        self._wake = anyio.Event()


class Window:
    """Owns the budget of the whole daemon.

    Args:
        memory: bytes for all ranges under way together.
        range_size: bytes of one range, as wished; see `plan_range_size`.
        connections: ranges of one blob at the same time.
        per_host: connections to one host at the same time.
    """

    def __init__(self, *, memory: int, range_size: int, connections: int, per_host: int) -> None:
        self.range_size = plan_range_size(memory, connections, range_size)
        seats = max(1, memory // 2 // self.range_size)
        self._ahead_free = self._ahead_total = max(0, memory // self.range_size - seats)
        self._seats_free = seats
        self._connections = connections
        self._seats_per_host = max(1, min(seats * 3 // 4, per_host // 2))
        self._ahead_per_host = max(0, per_host - self._seats_per_host)
        self._seats: dict[Seat, None] = {}
        self._seats_by_host: dict[str, int] = {}
        self._ahead_by_host: dict[str, int] = {}
        self._queue: deque[tuple[str, anyio.Event]] = deque()
        self._leaving: set[Seat] = set()
        """Seats on their way back, for somebody in the queue."""
        self._listeners: list[Callable[[], None]] = []

    def has_room(self, host: str) -> bool:
        """Whether a blob of `host` would have a seat at once."""
        return self._seats_free > 0 and self._seats_by_host.get(host, 0) < self._seats_per_host

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Inside, `listener` is called when a blob begins to wait for a seat, and when a seat was given back."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def lets_go(self, seat: Seat) -> bool:
        """Whether `seat` is needed by another host's blob; then it counts as on its way to it."""
        waiting = sum(
            host != seat.host and self._seats_by_host.get(host, 0) < self._seats_per_host
            for host, _ in self._queue
        )
        if self._seats_free or waiting <= len(self._leaving):
            return False
        self._leaving.add(seat)
        return True

    @asynccontextmanager
    async def admit(self, host: str) -> AsyncIterator[Seat]:
        """Waits for a seat, first come first served among those whose host may have one."""
        await self._enter(host)
        seat = Seat(self, host)
        self._seats[seat] = None
        try:
            yield seat
        finally:
            seat.close()
            del self._seats[seat]
            self._leaving.discard(seat)
            self._leave(host)

    async def _enter(self, host: str) -> None:
        if not self._queue and self.has_room(host):
            self._sit_down(host)
            return
        turn = (host, anyio.Event())
        self._queue.append(turn)
        self._call_next()
        if not turn[1].is_set():
            self._tell()
        try:
            await turn[1].wait()
        except BaseException:
            if turn in self._queue:
                self._queue.remove(turn)
            else:
                self._leave(host)
            raise

    def _sit_down(self, host: str) -> None:
        self._seats_free -= 1
        self._seats_by_host[host] = self._seats_by_host.get(host, 0) + 1

    def _leave(self, host: str) -> None:
        self._seats_free += 1
        self._seats_by_host[host] -= 1
        if not self._seats_by_host[host]:
            del self._seats_by_host[host]
        self._call_next()
        self._tell()
        self._wake_all()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _call_next(self) -> None:
        for turn in list(self._queue):
            if self.has_room(turn[0]):
                self._queue.remove(turn)
                self._sit_down(turn[0])
                turn[1].set()

    def share(self) -> int:
        """Read-ahead ranges one blob may hold now."""
        return min(self._connections - 1, plan_share(self._ahead_total, len(self._seats)))

    def take_ahead(self, host: str) -> bool:
        """Reserves one read-ahead range and a connection to `host`."""
        used = self._ahead_by_host.get(host, 0)
        if self._ahead_free == 0 or used >= self._ahead_per_host:
            return False
        self._ahead_free -= 1
        self._ahead_by_host[host] = used + 1
        return True

    def give_ahead(self, host: str) -> None:
        """Ends a read-ahead reservation and lets the other blobs look."""
        self._ahead_free += 1
        self._ahead_by_host[host] -= 1
        if not self._ahead_by_host[host]:
            del self._ahead_by_host[host]
        self._wake_all()

    def _wake_all(self) -> None:
        for seat in self._seats:
            seat.wake()


async def ordered(
    seat: Seat,
    start: int,
    stop: int,
    *,
    fetch: Callable[[int, int], Awaitable[Pieces]],
    append: Callable[[Pieces], Awaitable[None]],
) -> None:
    """Fetches `start` to `stop` in ranges, several at a time, and appends them in order.

    `fetch` returns exactly the bytes of its range, or raises: it retries by itself, under its reservation.
    The first error of either callable ends everything and is raised.
    """
    arrived: dict[int, Pieces] = {}
    asked = appended = start
    size = seat.range_size
    at_once = 1
    waited = worked = 0.0

    def reserve() -> int:
        """Bytes for the next request."""
        missing = -(-(stop - asked) // size)
        reserved = sum(1 for _ in takewhile(bool, (seat.take() for _ in range(min(at_once, missing)))))
        return min(reserved * size, stop - asked)

    async def fetch_one(first: int, end: int) -> None:
        arrived[first] = await fetch(first, end)
        seat.wake()

    with single_error():
        async with anyio.create_task_group() as tasks:
            while appended < stop:
                while length := reserve():
                    tasks.start_soon(fetch_one, asked, asked + length)
                    asked += length
                ready, appended = _in_order(arrived, appended)
                began = anyio.current_time()
                if not ready:
                    await seat.news()
                    waited += anyio.current_time() - began
                    continue
                await append([piece for pieces in ready for piece in pieces])
                worked += anyio.current_time() - began
                ranges = sum(-(-sum(map(len, pieces)) // size) for pieces in ready)
                for _ in range(ranges):
                    seat.give_back()
                at_once = plan_at_once(ranges, size, waited=waited, worked=worked)
                # What was long ago counts for less and less.
                waited, worked = waited / 2, worked / 2


def _in_order(arrived: dict[int, Pieces], position: int) -> tuple[list[Pieces], int]:
    """Takes the ranges that follow `position` without a gap, as far as one append shall go; where they end."""
    ready: list[Pieces] = []
    start = position
    while position - start < LARGEST_APPEND and (pieces := arrived.pop(position, None)) is not None:
        ready.append(pieces)
        position += sum(map(len, pieces))
    return ready, position
