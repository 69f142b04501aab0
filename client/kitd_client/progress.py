"""Shows a person what a job does: bars on a terminal, else a line now and then, else nothing or JSON."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, TextIO

import msgspec

from kitd_client.api.jobs import Began, Event, Moved, Resolved, Waiting, Warned
from kitd_client.figures import duration_text, printable, size_text

Mode = Literal["auto", "none", "plain", "fancy", "json"]

_WINDOW = 10.0
"""Seconds over which the rate is taken."""
_REDRAW = 0.1
_PLAIN_PAUSE = 10.0
_PLAIN_STEP = 10
_ROWS = 5
_BAR = 24
_NAME = 28
_CYAN, _PLAIN = "\x1b[36m", "\x1b[0m"


class Item:
    """One item of a job as it stands."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.done = done
        self.source = ""


class Tally:
    """The sums of a job: bytes done, bytes to do, and how fast it goes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.items: dict[str, Item] = {}
        self._clock = clock
        self._moved = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    @property
    def total(self) -> int:
        return sum(item.total for item in self.items.values())

    @property
    def done(self) -> int:
        return sum(item.done for item in self.items.values())

    @property
    def percent(self) -> int:
        total = self.total
        return min(100, self.done * 100 // total) if total else 0

    def began(self, event: Began) -> None:
        """What was there before counts as done, and not as speed."""
        self.items.pop(event.item, None)
        self.items[event.item] = Item(event.total, event.done)

    def moved(self, event: Moved) -> None:
        item = self.items.setdefault(event.item, Item(0, 0))
        self._moved += max(0, event.done - item.done)
        item.done, item.source = event.done, event.source
        item.total = max(item.total, item.done)
        now = self._clock()
        self._samples.append((now, self._moved))
        while len(self._samples) > 1 and self._samples[0][0] < now - _WINDOW:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes per second over the last 10 s."""
        then, moved = self._samples[0]
        elapsed = self._clock() - then
        return (self._moved - moved) / elapsed if elapsed > 0 else 0.0

    def figures(self) -> list[str]:
        """`1.2 GiB of 3.0 GiB`, `, 410.0 MiB/s`, `, 4s left`: what matters most comes first."""
        parts = [f"{size_text(self.done, self.total)} of {size_text(self.total)}"]
        rate = self.rate
        if rate >= 1:
            parts.append(f", {size_text(rate)}/s")
            if self.done < self.total:
                parts.append(f", {duration_text((self.total - self.done) / rate)} left")
        return parts


class Progress:
    """Takes events and writes what they mean to a stream for people.

    Args:
        stream: where to; the standard error output of a command.
        title: what is under way, `pull registry/kit:tag`.
        mode: `auto` is bars on a terminal that can and plain lines elsewhere.
        environ: `NO_COLOR`, `COLUMNS`, `TERM`, `CI` and `KITD_NO_PROGRESS` are honoured.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        stream: TextIO,
        title: str,
        mode: Mode = "auto",
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._title = title
        self._mode = choose(mode, stream, environ)
        self._environ = environ
        self._clock = clock
        self._tally = Tally(clock)
        self._drawn = 0
        self._shown = clock()
        self._percent = 0

    def event(self, event: Event) -> None:
        """Shows an event."""
        if self._mode == "json":
            self._write(msgspec.json.encode(event).decode() + "\n")
            return
        if isinstance(event, Began):
            self._tally.began(event)
        elif isinstance(event, Moved):
            self._tally.moved(event)
        elif isinstance(event, Warned):
            self.line(f"warning: {event.message}")
        elif self._mode == "none":
            return
        elif isinstance(event, Waiting):
            again = f": trying again in at most {duration_text(event.seconds)}" if event.seconds else ""
            self.line(f"{event.reason}{again}")
        elif isinstance(event, Resolved) and event.digest not in event.reference:
            self.line(f"{event.reference} is {event.digest}")
        self._show()

    def line(self, text: str) -> None:
        """Writes a line of its own, above the bars."""
        self._write(f"{self._eraser()}kitctl: {printable(text, lines=True)}\n")

    def close(self) -> None:
        """Takes the bars away."""
        self._write(self._eraser())

    def _show(self) -> None:
        since = self._clock() - self._shown
        if self._mode == "fancy" and (since >= _REDRAW or not self._drawn):
            self._draw()
        elif self._mode == "plain" and since >= 1:
            percent = self._tally.percent
            if since >= _PLAIN_PAUSE or percent >= self._percent + _PLAIN_STEP:
                self._percent = percent - percent % _PLAIN_STEP
                self.line(f"{self._title}: {percent} %, {''.join(self._tally.figures())}")
            else:
                return
        else:
            return
        self._shown = self._clock()

    def _draw(self) -> None:
        tally = self._tally
        active = [(name, item) for name, item in tally.items.items() if item.done < item.total]
        rows = [_Row(self._title.partition(" ")[0], tally.done, tally.total, tally.figures())]
        rows += [
            _Row(printable(name), item.done, item.total, [size_text(item.total), f"  {item.source}"])
            for name, item in active[:_ROWS]
        ]
        width = columns(self._stream, self._environ) - 1
        lines = _layout(rows, width, colour=not self._environ.get("NO_COLOR"))
        more = f"and {len(active) - _ROWS} more"
        if len(active) > _ROWS and len(more) <= width:
            lines.append(more)
        self._write(self._eraser() + "".join(f"{line}\n" for line in lines))
        self._drawn = len(lines)

    def _eraser(self) -> str:
        """What takes away the bars that are drawn."""
        drawn, self._drawn = self._drawn, 0
        return f"\x1b[{drawn}A\x1b[J" if drawn else ""

    def _write(self, text: str) -> None:
        """Writes, or drops what nobody can read any more: the job is worth more than its story."""
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


class _Row(NamedTuple):
    name: str
    done: int
    total: int
    figures: Sequence[str]

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0

    def text(self, room: int) -> str:
        """As many of the figures as there is room for, each of them whole."""
        text = f" {int(self.share * 100):3} %"
        for figure in [f"  {self.figures[0]}", *self.figures[1:]]:
            if len(text) + len(figure) > room:
                break
            text += figure
        return text if len(text) <= room else ""


def _layout(rows: Sequence[_Row], width: int, *, colour: bool) -> list[str]:
    """One line a row, no wider than `width`: figures come first, then names, then bars."""
    name_width = min(max(len(row.name) for row in rows), _NAME, width // 4)
    room = width - name_width - 1
    texts = [row.text(room) for row in rows]
    bar_width = max(0, min(_BAR, room - max(map(len, texts))))
    lines = []
    for row, text in zip(rows, texts, strict=True):
        filled = "#" * int(bar_width * row.share)
        bar = f"{_CYAN}{filled}{_PLAIN}" if colour and filled else filled
        bar += "-" * (bar_width - len(filled))
        lines.append(f"{row.name[:name_width]:{name_width}} {bar}{text}")
    return lines


def choose(mode: Mode, stream: TextIO, environ: Mapping[str, str]) -> Mode:
    """What a mode comes to on this stream: never bars where they cannot be drawn."""
    can_draw = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
    if mode == "fancy":
        return "fancy" if can_draw else "plain"
    if mode != "auto":
        return mode
    if environ.get("KITD_NO_PROGRESS"):
        return "none"
    return "fancy" if can_draw and not environ.get("CI") else "plain"


def columns(stream: TextIO, environ: Mapping[str, str]) -> int:
    """The width to draw in: `COLUMNS`, else the terminal's own."""
    said = environ.get("COLUMNS", "")
    if said.isdigit() and int(said) > 1:
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
