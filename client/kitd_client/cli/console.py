"""What commands share: data to standard output, notes to standard error, tables."""

import sys
from collections.abc import Callable, Iterable, Sequence

from kitd_client.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import msgspec


def tell(text: str, end: str = "\n") -> None:
    """Writes data to standard output: it is out when this returns.

    Raises:
        BrokenPipeError: the reader has gone.
        TargetUnwritable: standard output takes nothing more (a full disk, a failing one).
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        from kitd_client.api.errors import TargetUnwritable  # noqa: PLC0415 -- start-up time

        raise TargetUnwritable(
            f"cannot write to standard output: {error.strerror}",
            kept="what the command did; only its answer is lost",
            hint="send the answer where there is space, then run the command again",
        ) from error


def tell_json(value: "msgspec.Struct | Sequence[msgspec.Struct] | dict[str, str | bool]") -> None:
    """Writes a value of the API, or a few named ones, as a line of JSON; errors as of `tell`."""
    import msgspec  # noqa: PLC0415 -- start-up time of `list` and `version`

    tell(msgspec.json.encode(value).decode())


def table(rows: Iterable[Sequence[str]]) -> str:
    """Lines with columns three blanks apart, the first row being the head; as kit prints them."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "   ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def note(text: str) -> None:
    """Tells a person something on standard error."""
    mention(f"kitctl: {printable(text, lines=True)}")


def mention(text: str) -> None:
    """Writes a line to standard error, or drops it: no command fails for want of somebody to tell about it."""
    try:  # noqa: SIM105 -- contextlib costs start-up time
        print(text, file=sys.stderr)
    except OSError:
        pass


def notes(*, quiet: bool) -> Callable[[str], None]:
    """Takes notes for a person; warnings are heard even if it is to be quiet."""
    return (lambda text: note(text) if text.startswith("warning:") else None) if quiet else note
