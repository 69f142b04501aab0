"""Who hears that a registry makes a job wait: the user, and whoever could let another job go on meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kitd.progress import Progress


class Patience:
    """Passed to the registry client as its `waiting` callback, once per job."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._listeners: list[Callable[[], None]] = []

    def __call__(self, reason: str, seconds: float) -> None:
        """Requests of this job are held back for `seconds`."""
        self._progress.waiting(reason, seconds)
        for listener in list(self._listeners):
            listener()

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Inside, `listener` is called at every wait."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)
