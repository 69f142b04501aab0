"""Reads tar archives as kits have them, strictly, without I/O; writing is in `tar_header`.

Accepted: ustar headers of files and directories, PAX extended headers (local, and global ones that change
nothing here), GNU long names. Everything else is refused by name. The same name twice is not looked for here:
that takes all layers of a kit, and the plan of an unpack sees them.
"""

import struct
from typing import Final, Literal, NamedTuple

from kitd.layer.tar_header import (
    BLOCK,
    SPACES_SUM,
    TRAILER,
    Member,
    byte_sum,
    check_name,
    encode_header,
    padding,
    shown,
)
from kitd.layer.tar_pax import SIZE_LIMIT, parse_records
from kitd_client.api.errors import ArchiveInvalid, ArchiveTooLarge, UnsupportedEntry

__all__ = ["MEMBERS", "TRAILER", "Member", "Step", "TarParser", "check_name", "encode_header", "padding"]

MEMBERS: Final = 5_000_000
"""How many members an archive may have."""

_EXTENSION_LIMIT: Final = 1 << 20
_ZEROES: Final = bytes(BLOCK)
_FIELDS: Final = struct.Struct("100s8s16x12s12x8s1s100x8s80x155s8x4s")
_USTAR: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \0"
_STAR: Final = b"tar\0"
_BASE_256: Final = 0x80
_NEGATIVE: Final = 0x40
_PERMISSIONS: Final = 0o7777
_FILES: Final = (b"0", b"\0")
_EXTENSIONS: Final = {
    b"x": "extended header",
    b"g": "global header",
    b"L": "GNU long name",
    b"K": "GNU long link target",
}
_REFUSED: Final = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"6": "fifo",
    b"7": "contiguous file",
    b"D": "GNU directory listing",
    b"M": "continuation of another volume",
    b"S": "GNU sparse file",
    b"V": "volume label",
}


class Step(NamedTuple):
    """How far one call of `TarParser.next` came.

    `framing`: headers, padding or trailer. `member`: the last of these bytes completes a member's header;
    what comes before it, such as the padding of the member before, is framing too. `data`: bytes of the
    member's file. `end`: the second of the two zero blocks that end an archive.
    """

    kind: Literal["framing", "member", "data", "end"]
    consumed: int


class TarParser:
    """Cuts one archive, offered in pieces of any size, into steps.

    Memory: one header, at most 1 MiB. An archive of N members takes about 2 N calls when whole members are
    offered. After an error the parser is of no further use; the bytes of the failed call are not consumed.

    Args:
        limit: how many members are taken before `ArchiveTooLarge`.
    """

    def __init__(self, *, limit: int = MEMBERS) -> None:
        self.member: Member | None = None
        """The last member announced."""
        self.remaining = 0
        """Bytes of its data still to come."""
        self._left = limit
        self._padding = 0
        self._offset = 0
        self._part = bytearray()
        self._wanted = BLOCK
        self._extension = b""
        self._extension_size = 0
        self._seen = b""
        self._name: bytes | None = None
        self._size: int | None = None
        self._zero_blocks = 0

    def next(self, view: memoryview) -> Step:
        """Takes a prefix of `view`; 0 bytes only of an empty one.

        Raises:
            ArchiveInvalid: the archive is malformed, or a name is not allowed.
            UnsupportedEntry: a member is neither file nor directory.
            ArchiveTooLarge: there are more members than the limit.
        """
        offered = len(view)
        if self.remaining and offered:
            taken = min(self.remaining, offered)
            self.remaining -= taken
            return Step("data", taken)
        position = self._padding
        if position >= offered:
            self._padding -= offered
            return Step("framing", offered)
        self._padding = 0
        while self._zero_blocks < 2:  # noqa: PLR2004 (two zero blocks end an archive)
            end = position + self._wanted - len(self._part)
            if end > offered:
                self._part += view[position:]
                return Step("framing", offered)
            block = view[position:end].tobytes()
            if self._part:
                block = bytes(self._part) + block
                self._part.clear()
            position = end
            if self._extension:
                self._read_extension(block)
            elif self._read_header(block):
                return Step("member", position)
            elif self._zero_blocks == 2:  # noqa: PLR2004 (as above)
                return Step("end", position)
        if view.tobytes().strip(b"\0"):
            raise ArchiveInvalid(f"{self._where()}: something follows the end of the archive")
        return Step("framing", offered)

    def skip(self, count: int) -> None:
        """`count` bytes of the member's data went by another way than `next`."""
        if not 0 <= count <= self.remaining:
            raise ValueError(f"{count} bytes skipped, {self.remaining} remain")
        self.remaining -= count

    def finish(self) -> None:
        """No more bytes will come.

        Raises:
            ArchiveInvalid: the archive is cut off.
        """
        if self._zero_blocks == 2:  # noqa: PLR2004 (as above)
            return
        if self.remaining and self.member:
            name = shown(self.member.name)
            raise ArchiveInvalid(
                f"member {name}: the archive ends {self.remaining} bytes before its data does", member=name
            )
        raise ArchiveInvalid(f"{self._where()}: the archive ends without its two zero blocks")

    def _where(self) -> str:
        after = f", after member {shown(self.member.name)}" if self.member else ""
        return f"byte {self._offset} of the archive{after}"

    def _read_header(self, block: bytes) -> bool:
        """True: the block announces a member."""
        if not block[0] and block == _ZEROES:
            if self._seen:
                raise ArchiveInvalid(f"{self._where()}: the archive ends after an extended header")
            self._zero_blocks += 1
            self._offset += BLOCK
            return False
        if self._zero_blocks:
            raise ArchiveInvalid(f"{self._where()}: a zero block in the middle of the archive")
        name, mode, size, checksum, kind, magic, prefix, star = _FIELDS.unpack(block)
        self._check(block, checksum, magic)
        length = self._number(size, "size")
        if kind in _EXTENSIONS:
            self._expect_extension(kind, length)
            return False
        if prefix[0]:
            name = self._with_prefix(name, prefix, magic, star)
        self._announce(name, self._number(mode, "mode"), length, kind)
        return True

    def _with_prefix(self, name: bytes, prefix: bytes, magic: bytes, star: bytes) -> bytes:
        """Readers differ about old ways to use this room; none of them is needed."""
        if magic == _USTAR and star != _STAR:
            return prefix.partition(b"\0")[0] + b"/" + name
        if magic == _GNU and not prefix[:24].strip(b"01234567 \0"):
            return name
        raise ArchiveInvalid(f"{self._where()}: a header of an obsolete form")

    def _check(self, block: bytes, checksum: bytes, magic: bytes) -> None:
        if magic not in {_USTAR, _GNU}:
            raise ArchiveInvalid(f"{self._where()}: no tar header")
        total = byte_sum(block[:256]) + byte_sum(block[256:]) - byte_sum(checksum) + SPACES_SUM
        if total != self._number(checksum, "checksum"):
            raise ArchiveInvalid(f"{self._where()}: the checksum of the header is wrong")

    def _number(self, field: bytes, what: str) -> int:
        digits = field.strip(b" \0")
        try:
            if digits.isdigit():
                return int(digits, 8)
        except ValueError:
            digits = b"?"
        if field[0] & _BASE_256 and not field[0] & _NEGATIVE:
            value = int.from_bytes(field, "big") & ((1 << (len(field) * 8 - 1)) - 1)
            if value <= SIZE_LIMIT:
                return value
        elif not digits:
            return 0
        raise ArchiveInvalid(f"{self._where()}: the header has a {what} that is no number from 0 to 2^63-1")

    def _expect_extension(self, kind: bytes, length: int) -> None:
        if kind in self._seen:
            raise ArchiveInvalid(f"{self._where()}: a second {_EXTENSIONS[kind]} for one member")
        if kind == b"g" and self._seen:
            raise ArchiveInvalid(f"{self._where()}: a global header between a member and its extended header")
        if length > _EXTENSION_LIMIT:
            raise ArchiveInvalid(f"{self._where()}: {_EXTENSIONS[kind]} of {length} bytes, 1 MiB is allowed")
        self._seen += kind
        self._extension = kind
        self._extension_size = length
        self._wanted = length + padding(length)
        self._offset += BLOCK

    def _read_extension(self, block: bytes) -> None:
        kind, self._extension = self._extension, b""
        body = block[: self._extension_size]
        if kind == b"L":
            if self._name is not None:
                raise ArchiveInvalid(f"{self._where()}: one member is named twice")
            self._name = body.partition(b"\0")[0]
        elif kind != b"K":
            found = parse_records(body, self._where(), is_global=kind == b"g")
            if found.name is not None:
                if self._name is not None:
                    raise ArchiveInvalid(f"{self._where()}: one member is named twice")
                self._name = found.name
            if found.size is not None:
                self._size = found.size
        self._offset += self._wanted
        self._wanted = BLOCK

    def _announce(self, field: bytes, mode: int, size: int, kind: bytes) -> None:
        raw = field.partition(b"\0")[0] if self._name is None else self._name
        if self._size is not None:
            size = self._size
        is_dir = kind == b"5"
        if is_dir:
            raw = raw.removesuffix(b"/")
        name = raw.decode("utf-8", "surrogateescape")
        if not is_dir and kind not in _FILES:
            what = _REFUSED.get(kind, f"member of the unknown type {kind!r}")
            raise UnsupportedEntry(
                f"member {shown(name)}: a {what}, but kits hold only files and directories",
                member=shown(name),
            )
        check_name(name)
        if is_dir and size:
            raise ArchiveInvalid(
                f"member {shown(name)}: a directory with {size} bytes of data", member=shown(name)
            )
        if not self._left:
            raise ArchiveTooLarge(
                f"member {shown(name)}: the archive has more members than are allowed", member=shown(name)
            )
        self._left -= 1
        self._seen, self._name, self._size = b"", None, None
        self.member = Member(name, is_dir, mode & _PERMISSIONS, size)
        self.remaining = size
        self._padding = -size % BLOCK
        self._offset += BLOCK + size + self._padding
