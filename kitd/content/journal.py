"""What of a split blob is written already, in order, for whoever goes on after a restart.

A frame holds the records of one append: literal bytes, complete objects, and the mark from which on the blob
is one object because the tar parser refused it. A frame that was cut off, or lost its bytes in a power
failure, fails its checksum; it and all after it count as never written.

    frame      u32 length, u32 crc32 of what follows, records
    record     u8 kind, u64 length; a literal: its bytes; an object: its 32 bytes of sha256
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from kitd.spec.digest import Buffer, Digest, digest_hex

NAME: Final = "journal"

_FRAME: Final = struct.Struct("=II")
_RECORD: Final = struct.Struct("=BQ")
_LITERAL: Final = 0
_OBJECT: Final = 1
_REST: Final = 2
_DIGEST: Final = 32


class Written(NamedTuple):
    """One record."""

    kind: Literal["literal", "object", "rest"]
    data: bytes
    """A literal's bytes."""
    digest: Digest
    """An object's digest; empty for others."""
    size: int


class Journal:
    """The journal of one ingest directory; appended to, and read once, by one thread at a time."""

    def __init__(self, directory: str) -> None:
        self._descriptor = os.open(
            f"{directory}/{NAME}", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._pending = bytearray()

    def literal(self, data: Buffer) -> None:
        self._pending += _RECORD.pack(_LITERAL, len(data))
        self._pending += data

    def object(self, digest: Digest, size: int) -> None:
        self._pending += _RECORD.pack(_OBJECT, size)
        self._pending += bytes.fromhex(digest_hex(digest))

    def rest(self) -> None:
        """From here on the blob is one object."""
        self._pending += _RECORD.pack(_REST, 0)

    def flush(self) -> None:
        """Writes the records since the last flush as one frame."""
        if not self._pending:
            return
        frame = _FRAME.pack(len(self._pending), zlib.crc32(self._pending)) + self._pending
        self._pending.clear()
        written = 0
        while written < len(frame):
            written += os.write(self._descriptor, frame[written:])

    def frames(self) -> Iterator[tuple[int, list[Written]]]:
        """Every whole frame: where it begins, and its records. What follows the last is cut off.

        Records noted meanwhile are not flushed: they are on the disk. `cut` drops a frame and all after it.
        """
        position = 0
        end = os.fstat(self._descriptor).st_size
        while True:
            head = os.pread(self._descriptor, _FRAME.size, position)
            body = b""
            if len(head) == _FRAME.size:
                length, checksum = _FRAME.unpack(head)
                if length <= end - position - _FRAME.size:
                    body = os.pread(self._descriptor, length, position + _FRAME.size)
                if zlib.crc32(body) != checksum:
                    body = b""
            if not body:
                self.cut(position)
                return
            yield position, list(_records(body))
            self._pending.clear()
            position += _FRAME.size + len(body)

    def cut(self, position: int) -> None:
        """Drops the frame that begins at `position`, and all after it."""
        os.ftruncate(self._descriptor, position)

    def close(self) -> None:
        os.close(self._descriptor)


def _records(body: bytes) -> Iterator[Written]:
    position = 0
    while position < len(body):
        kind, size = _RECORD.unpack_from(body, position)
        position += _RECORD.size
        if kind == _LITERAL:
            yield Written("literal", body[position : position + size], Digest(""), size)
            position += size
        elif kind == _OBJECT:
            digest = Digest("sha256:" + body[position : position + _DIGEST].hex())
            yield Written("object", b"", digest, size)
            position += _DIGEST
        else:
            yield Written("rest", b"", Digest(""), 0)
