"""How a blob is re-created: literal bytes, and references to objects of the store.

A plain tar of N files becomes the framing between them and N references. A recipe is made to be mapped into
memory: nothing of it is read before it is needed, and an offset is found by a binary search.

    head       5 x u64: magic, objects, literal bytes, object bytes, bytes of all frames
    starts     u64 for each object: where it begins in the blob; then the size of the blob
    literals   u64 for each object: literal bytes before it; then all of them
    frames     u64 for each frame: where it begins, counted from the first; then the end of the last
    digests    32 bytes for each object
               the frames: zstd, 256 KiB of literal bytes each, the last one fewer

Numbers have the byte order of the machine: a recipe never leaves its store, and a foreign one fails by its
magic.
"""

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from kitd.layer.codec import compress_frame, decompress_frame
from kitd.spec.digest import Buffer, Digest, digest_hex
from kitd_client.api.errors import ArchiveInvalid, ObjectDamaged

_MAGIC: Final = int.from_bytes(b"kitdrcp1", sys.byteorder)
_HEAD: Final = struct.Struct("=5Q")
_FRAME: Final = 1 << 18
_NUMBER: Final = 8
_DIGEST: Final = 32


class Literal(NamedTuple):
    """Bytes that stand in the recipe itself; at most 256 KiB."""

    data: memoryview


class ObjectSlice(NamedTuple):
    """`length` bytes from `offset` on of an object that has `size` bytes."""

    digest: Digest
    offset: int
    length: int
    size: int


class RecipeBuilder:
    """Takes the parts of a blob in their order. Memory: 48 bytes an object, and one frame of literals.

    Args:
        spill: takes the frames of literals as they become full, one after the other.
    """

    def __init__(self, spill: Callable[[bytes], None]) -> None:
        self._spill = spill
        self._starts = array("Q")
        self._literals = array("Q")
        self._digests = bytearray()
        self._frames = array("Q", [0])
        """Where each frame ends, counted from the first."""
        self._pending = bytearray()
        self._literal_bytes = 0
        self._object_bytes = 0

    def literal(self, data: Buffer) -> None:
        """The next bytes of the blob stand in the recipe."""
        view = memoryview(data)
        self._literal_bytes += len(view)
        while view:
            taken = view[: _FRAME - len(self._pending)]
            self._pending += taken
            view = view[len(taken) :]
            if len(self._pending) == _FRAME:
                self._spill(self._frame())

    def reference(self, digest: Digest, size: int) -> None:
        """The next `size` bytes of the blob are the whole object `digest`; never an empty one."""
        if size <= 0:
            raise ValueError(f"a reference to {size} bytes")
        self._starts.append(self._literal_bytes + self._object_bytes)
        self._literals.append(self._literal_bytes)
        self._digests += bytes.fromhex(digest_hex(digest))
        self._object_bytes += size

    def finish(self) -> tuple[bytes, bytes]:
        """What stands in the recipe before the frames that were spilled, and after them; the builder is used up."""
        last = self._frame() if self._pending else b""
        objects = len(self._starts)
        self._starts.append(self._literal_bytes + self._object_bytes)
        self._literals.append(self._literal_bytes)
        head = _HEAD.pack(_MAGIC, objects, self._literal_bytes, self._object_bytes, self._frames[-1])
        tables = (self._starts.tobytes(), self._literals.tobytes(), self._frames.tobytes(), self._digests)
        return b"".join((head, *tables)), last

    def _frame(self) -> bytes:
        frame = compress_frame(self._pending)
        self._pending.clear()
        self._frames.append(self._frames[-1] + len(frame))
        return frame


class Recipe:
    """A recipe as it is stored; one thread at a time.

    Args:
        data: the bytes; a mapping stays the caller's, who closes it after `close`.

    Raises:
        ObjectDamaged: this is no recipe, or not all of it.
    """

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self._starts = self._literals = self._frames = self._view[:0]
        try:
            self._open()
        except ObjectDamaged:
            self.close()
            raise
        self._unpacked = (-1, memoryview(b""))

    def _open(self) -> None:
        if len(self._view) < _HEAD.size:
            raise _damaged("it is too short")
        magic, self._objects, self._literal_bytes, object_bytes, frame_bytes = _HEAD.unpack_from(self._view)
        if magic != _MAGIC:
            raise _damaged("it does not begin like one")
        frames = -(-self._literal_bytes // _FRAME)
        ends = [_HEAD.size]
        for length in (self._objects + 1, self._objects + 1, frames + 1, 4 * self._objects):
            ends.append(ends[-1] + _NUMBER * length)
        if len(self._view) != ends[-1] + frame_bytes:
            raise _damaged("its length is wrong")
        self.size: int = self._literal_bytes + object_bytes
        """Bytes of the blob."""
        self._starts, self._literals, self._frames = (
            self._view[start:end].cast("Q") for start, end in pairwise(ends[:4])
        )
        self._digests_at, self._frames_at = ends[3:]
        last = (self._starts[-1], self._literals[-1], self._frames[-1])
        if last != (self.size, self._literal_bytes, frame_bytes) or self._starts[0] != self._literals[0]:
            raise _damaged("its tables do not add up")

    def close(self) -> None:
        """Gives the caller's buffer back; the recipe is of no further use."""
        for view in (self._starts, self._literals, self._frames, self._view):
            view.release()

    def segments(self, start: int = 0, stop: int | None = None) -> Iterator[Literal | ObjectSlice]:
        """What the blob's bytes from `start` to before `stop` (the end by default) consist of, in order.

        Raises:
            ObjectDamaged: the recipe contradicts itself.
        """
        end = self.size if stop is None else min(stop, self.size)
        position = start
        index = bisect_right(self._starts, position, 0, self._objects)
        if index and position < end:
            size = self._size(index - 1)
            offset = position - self._starts[index - 1]
            if offset < size:
                length = min(size - offset, end - position)
                yield ObjectSlice(self._digest(index - 1), offset, length, size)
                position += length
        while position < end:
            following = self._starts[index]
            if position < following:
                length = min(following, end) - position
                yield from self._literal(self._literals[index] - (following - position), length)
                position += length
            if position < end:
                size = self._size(index)
                length = min(size, end - position)
                yield ObjectSlice(self._digest(index), 0, length, size)
                position += length
                index += 1

    def objects(self) -> Iterator[tuple[Digest, int]]:
        """Every reference in order (an object as often as it is referred to), with the object's size."""
        for index in range(self._objects):
            yield self._digest(index), self._size(index)

    def _digest(self, index: int) -> Digest:
        at = self._digests_at + _DIGEST * index
        return Digest("sha256:" + self._view[at : at + _DIGEST].hex())

    def _size(self, index: int) -> int:
        literal = self._literals[index + 1] - self._literals[index]
        size = self._starts[index + 1] - self._starts[index] - literal
        if literal < 0 or size <= 0:
            raise _damaged("its tables do not add up")
        return size

    def _literal(self, start: int, length: int) -> Iterator[Literal]:
        while length:
            number, offset = divmod(start, _FRAME)
            data = self._frame(number)[offset : offset + length]
            if not data:
                raise _damaged("its tables do not add up")
            yield Literal(data)
            start += len(data)
            length -= len(data)

    def _frame(self, number: int) -> memoryview:
        if self._unpacked[0] != number:
            if not 0 <= number < len(self._frames) - 1:
                raise _damaged("its tables do not add up")
            first, end = self._frames[number], self._frames[number + 1]
            size = min(_FRAME, self._literal_bytes - number * _FRAME)
            with self._view[self._frames_at + first : self._frames_at + end] as packed:
                try:
                    self._unpacked = (number, memoryview(decompress_frame(packed, size)))
                except ArchiveInvalid as error:
                    raise _damaged("its literals cannot be read") from error
        return self._unpacked[1]


def _damaged(reason: str) -> ObjectDamaged:
    return ObjectDamaged(f"the recipe of a layer is damaged: {reason}", hint="pull the kit again")
