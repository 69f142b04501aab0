"""Events of a job or a workspace, up to the one that ends it."""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from kitd_client.api.errors import Cancelled, from_problem
from kitd_client.api.jobs import CancelledEvent, Event, Result, Succeeded, Terminal

OnEvent = Callable[[Event], None]

_decoder = msgspec.json.Decoder(Event)


def decode_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Reads NDJSON up to and with the terminal event; an empty line only keeps the connection alive.

    Raises:
        msgspec.MsgspecError: a line is no event.
    """
    for line in lines:
        if not line:
            continue
        event = _decoder.decode(line)
        yield event
        if isinstance(event, Terminal):
            return


def last_word(events: Iterable[Event], on_event: OnEvent | None) -> Terminal | None:
    """Passes events on and returns the terminal one, or none if the stream ended without."""
    for event in events:
        if on_event is not None:
            on_event(event)
        if isinstance(event, Terminal):
            return event
    return None


def verdict(terminal: Terminal, what: str) -> Result:
    """The result of what succeeded.

    Args:
        terminal: how it ended.
        what: the operation, for the message: `pull registry/kit:tag`.

    Raises:
        KitdError: what it failed with; `Cancelled` if it was cancelled.
    """
    if isinstance(terminal, Succeeded):
        return terminal.result
    if isinstance(terminal, CancelledEvent):
        raise Cancelled(f"{what} was cancelled", kept=terminal.kept or None)
    raise from_problem(terminal.problem)
