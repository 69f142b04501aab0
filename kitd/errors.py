"""How errors leave a task group. The errors themselves are wire contract: `kitd_client.api.errors`."""

from collections.abc import Iterator
from contextlib import contextmanager

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
