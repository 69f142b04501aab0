"""Which bytes to ask for, decided without asking."""

LARGEST_RANGE = 16 << 20
"""Measured: more than this per request gains nothing on any link."""


def plan_range_size(memory: int, streams: int, wanted: int) -> int:
    """Bytes of one range: what is wanted, at most 16 MiB, and small enough for all streams in half the memory."""
    return max(1, min(wanted, LARGEST_RANGE, memory // (2 * streams)))


def plan_at_once(appended: int, size: int, *, behind: bool) -> int:
    """How many ranges of `size` bytes the next request asks for.

    One; but as many as were just appended while more of the blob is waiting: the network is ahead of us then,
    more connections cannot help, and fewer requests cost less.
    """
    return max(1, min(appended, LARGEST_RANGE // size)) if behind else 1


def plan_share(ranges: int, seats: int) -> int:
    """How many read-ahead ranges one of `seats` blobs may hold when there are `ranges` of them in all."""
    return max(1, -(-ranges // max(1, seats)))
