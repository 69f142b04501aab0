"""Reading a stored blob, whatever it is made of."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from kitd.content.database import Blob
from kitd.content.objects import Objects
from kitd.layer.recipe import Literal, ObjectSlice
from kitd.spec.digest import Digest
from kitd_client.api.errors import ObjectDamaged

_OPEN_OBJECTS: Final = 4
"""Descriptors kept: readers go forward, and a large object is read in many steps."""


class BlobReader:
    """The bytes of one blob, at any offset; one worker thread at a time.

    Every object is checked before its first use. Errors: `ObjectDamaged`, after which the blob is no longer
    visible.
    """

    def __init__(self, blob: Blob, objects: Objects, closed: Callable[[], None]) -> None:
        self.digest = blob.digest
        self.size = blob.size
        self._objects = objects
        self._closed = closed
        self._descriptors: OrderedDict[Digest, int] = OrderedDict()
        self._stored = objects.open_recipe(blob.digest) if blob.recipe else None
        self._position = 0
        self._segments: Iterator[Literal | ObjectSlice] = iter(())
        self._left: Literal | ObjectSlice | None = None
        if self._stored is None:
            self._descriptor(blob.digest, blob.size)
        elif self._stored.recipe.size != blob.size:
            self._stored.close()
            objects.drop_recipe(blob.digest)
            raise ObjectDamaged(
                f"blob {blob.digest}: its recipe makes {self._stored.recipe.size} bytes, not {blob.size}",
                kept="everything else",
                hint="pull the kit again: only what is missing is fetched",
                digest=blob.digest,
            )

    @classmethod
    def of_object(cls, digest: Digest, size: int, objects: Objects) -> Self:
        """A reader of one object, which need not be a blob."""
        return cls(Blob(digest, size, recipe=False), objects, _nothing)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end of the blob."""
        length = max(0, min(length, self.size - offset))
        if length == 0:
            return b""
        self._go_to(offset)
        segment = self._left = self._segment(offset)
        if isinstance(segment, ObjectSlice) and segment.length >= length:
            # The usual case, of large objects: no buffer to clear first, and no second copy.
            data = os.pread(self._descriptor(segment.digest, segment.size), length, segment.offset)
            if len(data) == length:
                self._left = _behind(segment, length)
                self._position = offset + length
                return data
        buffer = bytearray(length)
        self.readinto(offset, buffer)
        return bytes(buffer)

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> int:
        """Fills `buffer` with the bytes from `offset` on; how many there were before the end of the blob."""
        view = memoryview(buffer)[: max(0, self.size - offset)]
        self._go_to(offset)
        filled = 0
        while filled < len(view):
            filled += self._fill(view[filled:], offset + filled)
        self._position = offset + filled
        return filled

    def _fill(self, view: memoryview, offset: int) -> int:
        """Fills some of `view`, from one segment."""
        segment = self._segment(offset)
        if isinstance(segment, Literal):
            count = min(len(view), len(segment.data))
            view[:count] = segment.data[:count]
            rest = segment.data[count:]
            self._left = Literal(rest) if rest else None
            return count
        count = min(len(view), segment.length)
        self._read_object(segment, view[:count])
        self._left = _behind(segment, count)
        return count

    def _go_to(self, offset: int) -> None:
        if offset != self._position:
            self._segments, self._left = iter(()), None
            self._position = offset

    def _segment(self, offset: int) -> Literal | ObjectSlice:
        if self._left is not None:
            return self._left
        if self._stored is None:
            return ObjectSlice(self.digest, offset, self.size - offset, self.size)
        segment = next(self._segments, None)
        if segment is None:
            self._segments = self._stored.recipe.segments(offset)
            segment = next(self._segments)
        return segment

    def _read_object(self, segment: ObjectSlice, view: memoryview) -> None:
        descriptor = self._descriptor(segment.digest, segment.size)
        filled = 0
        while filled < len(view):
            count = os.preadv(descriptor, [view[filled:]], segment.offset + filled)
            if count == 0:
                raise self._objects.damaged(segment.digest)
            filled += count

    def _descriptor(self, digest: Digest, size: int) -> int:
        known = self._descriptors.get(digest)
        if known is not None:
            self._descriptors.move_to_end(digest)
            return known
        descriptor = self._objects.open(digest, size)
        self._descriptors[digest] = descriptor
        if len(self._descriptors) > _OPEN_OBJECTS:
            os.close(self._descriptors.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        """Gives up descriptors and the hold on the blob; twice does no harm."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
        if self._stored is not None:
            self._segments, self._left = iter(()), None
            self._stored.close()
            self._stored = None
        self._closed()
        self._closed = _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _behind(segment: ObjectSlice, count: int) -> ObjectSlice | None:
    """What is left of a segment after its first `count` bytes."""
    rest = segment.length - count
    return ObjectSlice(segment.digest, segment.offset + count, rest, segment.size) if rest else None


def _nothing() -> None:
    pass
