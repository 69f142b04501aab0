"""Compressed layers, and single frames for the store: all of gzip and zstd that the house uses.

Sources: RFC 1952 (gzip), RFC 8878 (zstd). Compressed bytes never equal kit's (another deflate, another
zstd): what can be compared is the digest of the uncompressed layer.
"""

import zlib
from collections.abc import Iterator
from typing import Final, Literal, Protocol, TypeAlias

import zstandard

from kitd_client.api.errors import ArchiveInvalid, ArchiveTooLarge

Packing: TypeAlias = Literal["gzip", "gzip-fastest", "zstd"]
"""How a layer is compressed; on the wire `gzip-fastest` is gzip."""

_PIECE: Final = 1 << 20
_WINDOW_LIMIT: Final = 1 << 27
_FREE_OF_RATIO: Final = 64 << 20
_RATIO: Final = 200
_LEVEL: Final = 3
_GZIP: Final = 31
"""zlib's word for "gzip, and nothing else"."""
_GZIP_LEVELS: Final = {"gzip": 6, "gzip-fastest": 1}

_SLICES: Final = {"gzip": 1 << 14, "zstd": 1 << 10}
"""So much is decoded at a time; at worst it becomes 16 MiB (gzip, 1032:1) or 32 MiB (zstd, 32768:1)."""


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, /) -> bytes: ...


class _Packer(Protocol):
    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Decoder:
    """Undoes the compression of one layer, offered in pieces of any size. Checksums are verified.

    Any number of gzip members or zstd frames may follow one another, and zero bytes may follow the last.

    Args:
        compression: of the layer.
        limit: how many bytes may come out. Beyond 64 MiB, 200 times what went in is a limit as well.
    """

    def __init__(self, compression: Literal["gzip", "zstd"], *, limit: int) -> None:
        self._compression = compression
        self._limit = limit
        self._taken = 0
        self._given = 0
        self._frames = 0
        self._padded = False
        self._stream: _Stream | None = None
        self._zstd = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """What `data` becomes, in pieces of at most 1 MiB; to be exhausted before the next call.

        Raises:
            ArchiveInvalid: damaged, or something else follows the last member.
            ArchiveTooLarge: more comes out than is allowed.
        """
        ready: list[bytes] = []
        size = 0
        view = memoryview(data)
        step = _SLICES[self._compression]
        for start in range(0, len(view), step):
            for piece in self._decode(view[start : start + step]):
                ready.append(piece)
                size += len(piece)
            if size >= _PIECE:
                yield from _cut(b"".join(ready))
                ready, size = [], 0
        if size:
            yield b"".join(ready)

    def finish(self) -> None:
        """No more bytes will come.

        Raises:
            ArchiveInvalid: the layer is cut off.
        """
        if self._stream is not None or not self._frames:
            raise ArchiveInvalid(f"the {self._compression} layer is cut off after {self._taken} bytes")

    def _decode(self, data: bytes | memoryview) -> Iterator[bytes]:
        self._taken += len(data)
        while data:
            if self._stream is None:
                data = self._between(bytes(data))
                if not data:
                    return
                self._stream = (
                    zlib.decompressobj(_GZIP) if self._compression == "gzip" else self._zstd.decompressobj()
                )
            try:
                piece = self._stream.decompress(data)
            except (zlib.error, zstandard.ZstdError) as error:
                raise ArchiveInvalid(f"the {self._compression} layer is damaged: {error}") from error
            self._given += len(piece)
            self._check_size()
            yield piece
            if not self._stream.eof:
                return
            data = self._stream.unused_data
            self._stream = None
            self._frames += 1

    def _between(self, data: bytes) -> bytes:
        """What is left of `data` for a next member; zeros after the last one are passed over."""
        if self._frames:
            rest = data.lstrip(b"\0")
            self._padded = self._padded or len(rest) < len(data)
            data = rest
            if data and self._padded:
                raise ArchiveInvalid(f"something follows the end of the {self._compression} layer")
        return data

    def _check_size(self) -> None:
        if self._given > self._limit:
            raise ArchiveTooLarge(
                f"the {self._compression} layer unpacks to more than {self._limit} bytes", limit=self._limit
            )
        if self._given > max(_FREE_OF_RATIO, _RATIO * self._taken):
            raise ArchiveTooLarge(
                f"the {self._compression} layer unpacks to more than {_RATIO} times its size", limit=_RATIO
            )


class Encoder:
    """Compresses one layer. gzip has the levels of kit, 6 and 1; the result does not depend on the time."""

    def __init__(self, packing: Packing) -> None:
        self._packer: _Packer
        if packing == "zstd":
            self._packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        else:
            self._packer = zlib.compressobj(_GZIP_LEVELS[packing], zlib.DEFLATED, _GZIP)

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        """The compressed bytes that are ready, perhaps none."""
        return self._packer.compress(data)

    def finish(self) -> bytes:
        """The rest of them; the encoder is used up."""
        return self._packer.flush()


def compress_frame(data: bytes | bytearray) -> bytes:
    """One zstd frame with the size of its content and a checksum."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(data)


def decompress_frame(frame: bytes | memoryview, size: int) -> bytes:
    """The `size` bytes of a frame of `compress_frame`.

    Raises:
        ArchiveInvalid: it is damaged, or has another size.
    """
    try:
        if zstandard.frame_content_size(frame) == size:
            return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise ArchiveInvalid(f"a zstd frame of {size} bytes cannot be read: {error}") from error
    raise ArchiveInvalid(f"a zstd frame has not the expected {size} bytes")


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]
