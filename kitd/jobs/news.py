"""What a job says, kept short: one entry per item and per note, whatever the number of calls.

A reader comes when it likes, hears the state so far and then what is new. It pulls: a slow one costs the job
nothing, and what it missed is coalesced, never lost, for counts are cumulative.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

import anyio

from kitd_client.api.jobs import Began, Event, Moved, Resolved, Terminal, Waiting, Warned

_CADENCE = 1 / 3
"""Seconds between two `moved` of one item; with the last one, before the end, at most four in a second."""
_COUNTS = 100
"""Words about counts in a second, to all who listen: beyond, each hears of them less often."""

_NOTES = 1000
"""Notes kept; a kit may have any number of things to warn about."""


@dataclass(slots=True)
class _Item:
    name: str
    total: int = 0
    base: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    begun: int = 0
    """How often it began: each time starts the count anew."""
    version: int = 0

    @property
    def done(self) -> int:
        return self.base + sum(self.sources.values())


@dataclass(slots=True)
class _Note:
    event: Event
    version: int


_E = TypeVar("_E", _Item, _Note)


class _Bell:
    """Wakes who waits. Rung for every piece of every blob, by each of many jobs: unheard it must cost nothing."""

    def __init__(self) -> None:
        self._next: anyio.Event | None = None

    def next(self) -> anyio.Event:
        """Set when the bell is rung the next time."""
        if self._next is None:
            self._next = anyio.Event()
        return self._next

    def ring(self) -> None:
        if self._next is not None:
            self._next.set()
            self._next = None


class News:
    """The `Progress` of one job, and the state its readers see."""

    def __init__(self) -> None:
        self.terminal: Terminal | None = None
        self.version = 0
        self.spoken = _Bell()
        """Rung by everything but `moved`."""
        self.stirred = _Bell()
        """Rung by everything."""
        self._items: dict[str, _Item] = {}
        self._notes: dict[str, _Note] = {}
        self._left_out = 0
        self.total = 0
        """Bytes of all items begun so far."""
        self.done = 0
        """Bytes done of all items begun so far."""

    def began(self, item: str, total: int, done: int) -> None:
        """See `Progress`."""
        entry = self._touched(item)
        self.total += total - entry.total
        self.done += done - entry.done
        entry.total, entry.base, entry.sources = total, done, {}
        entry.begun += 1
        self._speak()

    def moved(self, item: str, source: str, count: int) -> None:
        """See `Progress`."""
        sources = self._touched(item).sources
        sources[source] = sources.get(source, 0) + count
        self.done += count
        self.stirred.ring()

    def waiting(self, reason: str, seconds: float) -> None:
        """See `Progress`. Only the last one is remembered."""
        self._note("waiting", Waiting(reason=reason, seconds=round(seconds)))

    def warned(self, message: str) -> None:
        """See `Progress`. The same words twice are one warning; after a thousand the rest is only counted."""
        if message not in self._notes and len(self._notes) >= _NOTES:
            self._left_out += 1
            self._note("left out", Warned(message=f"... and {self._left_out} further warnings"))
        else:
            self._note(message, Warned(message=message))

    def resolved(self, reference: str, digest: str) -> None:
        """See `Progress`."""
        self._note(f"resolved {reference}", Resolved(reference=reference, digest=digest))

    def end(self, terminal: Terminal) -> None:
        """The last word. A second one is not heard: a job ends once."""
        if self.terminal is None:
            self.terminal = terminal
            self._speak()

    def since(self, version: int) -> list[_Item | _Note]:
        """What was touched after `version`, oldest first."""
        fresh: list[_Item | _Note] = [*_newer(self._items, version), *_newer(self._notes, version)]
        return sorted(fresh, key=lambda entry: entry.version)

    def _touched(self, name: str) -> _Item:
        entry = self._items.pop(name, None) or _Item(name)
        self.version += 1
        entry.version = self.version
        self._items[name] = entry
        return entry

    def _note(self, key: str, event: Event) -> None:
        self._notes.pop(key, None)
        self.version += 1
        self._notes[key] = _Note(event, self.version)
        self._speak()

    def _speak(self) -> None:
        self.spoken.ring()
        self.stirred.ring()


def _newer(entries: dict[str, _E], version: int) -> Iterator[_E]:
    """The entries touched after `version`: a touch moves an entry to the end."""
    for entry in reversed(entries.values()):
        if entry.version <= version:
            return
        yield entry


@dataclass(slots=True)
class _Told:
    begun: int
    done: int
    counts: dict[str, int] = field(default_factory=dict)


class Reader:
    """One listener's place in the news of one job.

    Args:
        news: the job's.
        crowd: how many listen to the daemon now.
    """

    def __init__(self, news: News, crowd: Callable[[], int] = lambda: 1) -> None:
        self._news = news
        self._crowd = crowd
        self._heard = 0
        self._counted = 0
        self._quiet_until = 0.0
        self._told: dict[str, _Told] = {}

    def take(self) -> list[Event]:
        """What is new, without the terminal event: notes and beginnings at once, counts at their cadence."""
        news, now = self._news, monotonic()
        loud = now >= self._quiet_until or news.terminal is not None
        events: list[Event] = []
        for entry in news.since(self._counted):
            if isinstance(entry, _Item):
                events += self._about(entry, loud=loud)
            elif entry.version > self._heard:
                events.append(entry.event)
        self._heard = news.version
        if loud:
            self._counted = news.version
        if any(isinstance(event, Moved) for event in events):
            self._quiet_until = now + max(_CADENCE, self._crowd() / _COUNTS)
        return events

    async def batches(self, pause: float) -> AsyncGenerator[list[Event], None]:
        """Everything there is and will be to hear; the last batch ends with the one terminal event.

        A batch is empty when there was nothing to say for `pause` seconds.
        """
        news = self._news
        while True:
            terminal = news.terminal
            batch = self.take()
            if terminal is not None:
                yield [*batch, terminal]
                return
            if batch:
                yield batch
            elif self._counted < news.version or monotonic() < self._quiet_until:
                # Counts that come now would only wake it to wait.
                with anyio.move_on_after(self._quiet_until - monotonic()):
                    await news.spoken.next().wait()
            else:
                with anyio.move_on_after(pause) as silence:
                    await news.stirred.next().wait()
                if silence.cancelled_caught:
                    yield []

    def _about(self, item: _Item, *, loud: bool) -> Iterator[Event]:
        told = self._told.get(item.name)
        if told is None or told.begun != item.begun:
            told = self._told[item.name] = _Told(item.begun, item.base)
            yield Began(item=item.name, total=item.total, done=item.base)
        if not loud:
            return
        for source, count in item.sources.items():
            more = count - told.counts.get(source, 0)
            if more:
                told.counts[source] = count
                told.done += more
                yield Moved(item=item.name, source=source, done=told.done)
