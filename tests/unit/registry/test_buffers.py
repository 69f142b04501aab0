"""Memory comes back when nobody looks at it any more."""

import gc

from kitd.registry.buffers import Buffers


def address(view: memoryview) -> int:
    """Something that tells one memory from another: what is written there is seen by the next holder."""
    return int.from_bytes(view[:8], "big")


def test_what_nobody_sees_is_used_again_and_what_somebody_sees_is_not() -> None:
    buffers = Buffers(4096, spare=2)
    first = buffers.take()
    assert len(first) == 4096
    first[:8] = (7).to_bytes(8, "big")
    part = first[100:200]
    part[:5] = b"still"
    del first
    gc.collect()
    other = buffers.take()
    assert address(other) != 7
    other[:] = bytes(4096)
    assert bytes(part[:5]) == b"still"
    del part
    gc.collect()
    assert address(buffers.take()) == 7


def test_no_more_is_kept_than_said() -> None:
    buffers = Buffers(64, spare=1)
    held = [buffers.take() for _ in range(3)]
    for number, view in enumerate(held, 1):
        view[:8] = number.to_bytes(8, "big")
    del view
    held.clear()
    gc.collect()
    again = [buffers.take() for _ in range(3)]
    assert sorted(map(address, again))[:2] == [0, 0]
