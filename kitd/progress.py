"""What a verb says while it works."""

from typing import Protocol


class Progress(Protocol):
    """Receives the news of one job. All calls come from the event loop and return at once."""

    def began(self, item: str, total: int, done: int) -> None:
        """`item` is under way: `total` bytes, of which `done` were there already."""

    def moved(self, item: str, source: str, count: int) -> None:
        """`count` more bytes of `item` are done; they came from `source` (a host, `local`, `workspace`)."""

    def waiting(self, reason: str, seconds: float) -> None:
        """Nothing moves for a while, and the job goes on by itself."""

    def warned(self, message: str) -> None:
        """Something the user should know and nothing stops for."""

    def resolved(self, reference: str, digest: str) -> None:
        """A name was resolved; from here on the job works by digest."""
