"""How errors leave a task group, and where the rest of a story is told.

The errors themselves are wire contract: `kitd_client.api.errors`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kitd_client.api.errors import KitdError


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@contextmanager
def single_error() -> Iterator[None]:
    """Put around a task group: its first `KitdError` leaves as itself, so `except` clauses see it.

    A group with any other error in it passes unchanged: a bug must not hide behind an expected failure.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        if all(isinstance(leaf, KitdError) for leaf in leaves):
            raise leaves[0] from group
        raise


def log_place() -> str:
    """This process's log as a hint names it: with its path, if standard error is a file."""
    try:
        place = Path("/proc/self/fd/2").readlink()
    except OSError:
        return "kitd's log"
    if place.is_file():
        return f"kitd's log {place}"
    return "kitd's log in the journal" if "JOURNAL_STREAM" in os.environ else "kitd's log"
