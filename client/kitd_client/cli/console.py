"""What commands share: data to standard output, notes to standard error, tables."""

import sys
from collections.abc import Callable, Iterable, Sequence

from kitd_client.figures import printable


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
    print(f"kitctl: {printable(text, lines=True)}", file=sys.stderr)


def notes(*, quiet: bool) -> Callable[[str], None]:
    """Takes notes for a person; warnings are heard even if it is to be quiet."""
    return (lambda text: note(text) if text.startswith("warning:") else None) if quiet else note
