"""Which bytes to ask for, decided without asking."""

LARGEST_RANGE = 16 << 20
"""Measured: more than this per request gains nothing on any link."""

_AHEAD = 0.1
"""The network is ahead of the disk as long as it is waited for less than this share of the work."""


def plan_range_size(memory: int, streams: int, wanted: int) -> int:
    """Bytes of one range: what is wanted, at most 16 MiB, and small enough for all streams in half the memory."""
    return max(1, min(wanted, LARGEST_RANGE, memory // (2 * streams)))


def plan_at_once(appended: int, size: int, *, waited: float, worked: float) -> int:
    """How many ranges of `size` bytes the next request asks for.

    One; but as many as were just appended while the network is ahead of the disk: more connections cannot help then,
    and fewer requests cost less. Where each connection is slow, fewer of them would be slower still.

    Args:
        appended: ranges of the last append.
        size: bytes of one range.
        waited: seconds lately without a range to append.
        worked: seconds lately spent in appending.
    """
    ahead = waited < worked * _AHEAD
    return max(1, min(appended, LARGEST_RANGE // size)) if ahead else 1


def plan_share(ranges: int, seats: int) -> int:
    """How many read-ahead ranges one of `seats` blobs may hold when there are `ranges` of them in all."""
    return max(1, -(-ranges // max(1, seats)))
