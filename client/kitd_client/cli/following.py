"""A verb that takes its time: progress, what Ctrl-C does, and how its result is told."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from kitd_client.api.errors import KitdError
from kitd_client.api.jobs import Event, Packed, Pulled, Pushed, Result
from kitd_client.cli import INTERRUPTED
from kitd_client.cli.arguments import Options
from kitd_client.cli.complaints import interrupted
from kitd_client.cli.console import note, notes, tell, tell_json
from kitd_client.client import Client
from kitd_client.figures import duration_text, size_text
from kitd_client.progress import Progress


class Following:
    """One verb as it is followed: the callbacks for the client, and the interrupt."""

    def __init__(self, client: Client, progress: Progress) -> None:
        self.client = client
        self._progress = progress
        self._job: str | None = None
        self._interrupted = False
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def on_event(self, event: Event) -> None:
        """Shows an event."""
        self._progress.event(event)

    def on_job(self, job_id: str | None) -> None:
        """Knows from now on what an interrupt cancels."""
        self._job = job_id

    def on_interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """Cancels the job at the first interrupt and leaves at once at the second."""
        if self._interrupted:
            _leave()
        self._interrupted = True
        if self._job is None:
            raise KeyboardInterrupt
        # The stream of events goes on to its last word, which says what was kept.
        with suppress(KitdError):
            self.client.cancel(self._job)


@contextmanager
def following(options: Options, title: str) -> Iterator[Following]:
    """A client with progress for a verb that was started in the foreground.

    Raises:
        Cancelled: the person interrupted it before a job was there, or while a directory was served.
    """
    progress = Progress(sys.stderr, title, "none" if options.quiet else options.progress)
    notice = notes(quiet=options.quiet)

    def above_the_bars(text: str) -> None:
        progress.close()
        notice(text)

    with Client(options.socket, autostart=not options.no_autostart, notice=above_the_bars) as client:
        follower = Following(client, progress)
        try:
            with _interrupts(follower):
                yield follower
        except KeyboardInterrupt:
            raise interrupted(title) from None
        finally:
            progress.close()


@contextmanager
def _interrupts(follower: Following) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        # Started in the background of a script: Ctrl-C is for others.
        yield
        return
    signal.signal(signal.SIGINT, follower.on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave() -> NoReturn:
    with suppress(OSError):
        os.write(sys.stderr.fileno(), b"\n")
    os._exit(INTERRUPTED)


def tell_result(options: Options, result: Result, references: Sequence[str], summary: str) -> int:
    """Prints what a verb gave: names with their digest, or JSON; the summary is for people."""
    if options.format == "json":
        tell_json(result)
    elif references:
        tell("\n".join(references))
    if not options.quiet:
        note(summary)
    return 0


def names(result: Pulled | Pushed | Packed) -> list[str]:
    """The names of a kit with its digest, each a reference by itself."""
    references = result.references if isinstance(result, Packed) else [result.reference]
    pinned = [name if "@" in name else f"{name}@{result.digest}" for name in references]
    return pinned or [result.digest]


def summary_of(result: Result, seconds: float | None = None) -> str:
    """What happened, in a line: `pulled 2.0 GiB in 12s: 1.5 GiB from host, 0.5 GiB were here`."""
    size = size_text(result.size)
    if seconds is not None:
        size += f" in {duration_text(seconds)}" if seconds >= 1 else " in less than a second"
    if isinstance(result, Pulled):
        parts = [f"{_part(count, result.size)} from {host}" for host, count in result.fetched.items()]
        parts += [f"{_part(result.present, result.size)} were here"] if result.present else []
        partial = "" if result.complete else " (only a part of the kit was asked for)"
        return ": ".join(filter(None, [f"pulled {size}{partial}", ", ".join(parts)]))
    if isinstance(result, Pushed):
        return f"pushed {size}: {_part(result.sent, result.size)} sent"
    if isinstance(result, Packed):
        known = sum(layer.already_present for layer in result.layers)
        return (
            f"packed {_counted(len(result.layers), 'layer')}, {size}{f'; {known} were here' if known else ''}"
        )
    skipped = f"; {result.skipped} left as they were" if result.skipped else ""
    return f"unpacked {_counted(result.files, 'file')}, {size}{skipped}"


def _part(count: int, whole: int) -> str:
    """Bytes in the unit of the whole, unless they are so few that it would show none of them."""
    text = size_text(count, whole)
    return size_text(count) if text.startswith("0.0 ") else text


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
