"""Memory that is received into again and again: fresh memory costs more than the receiving."""

import ctypes
import weakref
from collections import deque
from typing import Final


class Buffers:
    """Buffers of one size. A buffer comes back by itself when nobody holds a view of it any more, in any thread.

    Args:
        size: bytes of each.
        spare: how many are kept for the next to ask.
    """

    def __init__(self, size: int, spare: int) -> None:
        self._kind = ctypes.c_char * size
        self._size: Final = size
        self._spare: deque[bytearray] = deque(maxlen=spare)

    def take(self) -> memoryview:
        """A buffer; what is in it is of no account."""
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = bytearray(self._size)
        # All views of a view belong to the object that was viewed first, which lives as long as they do.
        viewed = self._kind.from_buffer(memory)
        weakref.finalize(viewed, self._spare.append, memory).atexit = False
        return memoryview(viewed).cast("B")
