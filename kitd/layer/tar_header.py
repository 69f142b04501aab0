"""Names and headers of tar members, byte for byte as `kit` (Go's archive/tar) writes them.

Sources: POSIX.1-2017 pax, section "ustar Interchange Format"; the bytes of kits made by `kit pack`.
"""

import zlib
from typing import Final

import msgspec

from kitd_client.api.errors import ArchiveInvalid

BLOCK: Final = 512
TRAILER: Final = bytes(2 * BLOCK)
"""The end of every archive; nothing follows it."""

_NAME_SIZE: Final = 100
_PREFIX_SIZE: Final = 155
_OCTAL_SIZE_LIMIT: Final = 8**11
_COMPONENT_LIMIT: Final = 255
_NAME_LIMIT: Final = 4096
_DEPTH_LIMIT: Final = 256

_OWNER: Final = b"%07o\0%07o\0" % (1000, 0)
_MTIME: Final = b"%011o\0" % 0
_MAGIC: Final = b"ustar\x0000"
_MEMBER_TAIL: Final = _MAGIC + bytes(64) + 2 * (b"%07o\0" % 0)
_EXTENSION_TAIL: Final = _MAGIC + bytes(80)
SPACES_SUM: Final = 8 * 0x20
"""While a checksum is computed, its own field counts as spaces."""

_NO_COMPONENTS: Final = frozenset(("", ".", ".."))


class Member(msgspec.Struct, frozen=True, gc=False):
    """One file or directory of an archive."""

    name: str
    """`/` between components, no `/` at the end; bytes that are not UTF-8 are lone surrogates (PEP 383)."""
    is_dir: bool
    mode: int
    """The bits of 0o7777 as the archive has them."""
    size: int
    """Bytes of data; 0 for a directory."""


def shown(name: str) -> str:
    """`name` as an error message quotes it: printable, encodable, of bounded length."""
    return repr(name) if len(name) <= _COMPONENT_LIMIT else f"{name[:_COMPONENT_LIMIT]!r}..."


def check_name(name: str) -> tuple[str, ...]:
    r"""The components of a member's name.

    Refused: absolute names, empty, `.` and `..` components (so also a `/` at the end), NUL, components over
    255 bytes, names over 4096 bytes or 256 components. Names that merely contain `..` or a `\` are legal.

    Raises:
        ArchiveInvalid: naming the member.
    """
    components = tuple(name.split("/"))
    reason = None
    if not _NO_COMPONENTS.isdisjoint(components) or "\0" in name:
        reason = _why_refused(name, components)
    elif len(name) > _COMPONENT_LIMIT or not name.isascii():
        reason = _why_too_long(name, components)
    if reason is not None:
        raise ArchiveInvalid(f"member {shown(name)}: {reason}", member=shown(name))
    return components


def _why_refused(name: str, components: tuple[str, ...]) -> str:
    if "\0" in name:
        return "the name has a NUL byte"
    if name.startswith("/"):
        return "the name is absolute"
    if ".." in components:
        return "the name leads out of the archive"
    if "." in components:
        return "the name has a '.' component"
    return "the name is empty" if not name else "the name has an empty component"


def _why_too_long(name: str, components: tuple[str, ...]) -> str | None:
    if len(name.encode("utf-8", "surrogateescape")) > _NAME_LIMIT:
        return f"the name is longer than {_NAME_LIMIT} bytes"
    if len(components) > _DEPTH_LIMIT:
        return f"the name is deeper than {_DEPTH_LIMIT} directories"
    if any(len(part.encode("utf-8", "surrogateescape")) > _COMPONENT_LIMIT for part in components):
        return f"a component of the name is longer than {_COMPONENT_LIMIT} bytes"
    return None


def padding(size: int) -> int:
    """How many zero bytes follow a file's `size` bytes of data."""
    return -size % BLOCK


def encode_header(member: Member) -> bytes:
    """All header blocks of `member`: a ustar header, before it a PAX one where ustar cannot say it all.

    Owner 1000:0, no owner names, time 0: what `kit` writes whoever packs.
    """
    name = member.name.encode("utf-8", "surrogateescape")
    kind = b"5" if member.is_dir else b"0"
    fits = member.size < _OCTAL_SIZE_LIMIT
    if fits and len(name) <= _NAME_SIZE and name.isascii():
        return _ustar(name, b"", member.mode, member.size, kind)
    split = _split(name)
    if fits and split is not None:
        return _ustar(split[1], split[0], member.mode, member.size, kind)
    records = b""
    if len(name) > _NAME_SIZE or not name.isascii():
        records = _record(b"path", name)
    if not fits:
        records += _record(b"size", b"%d" % member.size)
    extension = _extension_header(name, len(records)) + records + bytes(padding(len(records)))
    return extension + _ustar(_shortened(name), b"", member.mode, member.size if fits else 0, kind)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """The prefix and the name field of a long name; None where ustar has no room for it."""
    if not name.isascii():
        return None
    cut = name.rfind(b"/", 0, _PREFIX_SIZE + 1)
    if cut <= 0 or not 1 <= len(name) - cut - 1 <= _NAME_SIZE:
        return None
    return name[:cut], name[cut + 1 :]


def _ascii(name: bytes) -> bytes:
    return name if name.isascii() else bytes(byte for byte in name if byte < 0x80)  # noqa: PLR2004 (ASCII)


def _shortened(name: bytes) -> bytes:
    """The name field of a header whose full name is in the PAX header: ASCII, cut, no `/` at the cut."""
    whole = _ascii(name)
    field = whole[:_NAME_SIZE]
    if len(whole) > _NAME_SIZE and field.endswith(b"/"):
        end = len(field[:-1].rstrip(b"/"))
        field = field[:end] + b"\0" + field[end + 1 :]
    return field


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


def _extension_header(name: bytes, size: int) -> bytes:
    directory, slash, base = name.rpartition(b"/")
    field = _ascii(directory + slash + b"PaxHeaders.0/" + base)[:_NAME_SIZE].rstrip(b"/")
    head = b"%b%07o\0%07o\0%07o\0%011o\0" % (field.ljust(_NAME_SIZE, b"\0"), 0, 0, 0, size)
    return _sealed(head + _MTIME, b"x" + bytes(100) + _EXTENSION_TAIL + bytes(167))


def _ustar(name: bytes, prefix: bytes, mode: int, size: int, kind: bytes) -> bytes:
    head = b"%b%07o\0%b%011o\0%b" % (name.ljust(_NAME_SIZE, b"\0"), mode, _OWNER, size, _MTIME)
    if not prefix:
        return _sealed(head, _DIRECTORY if kind == b"5" else _FILE)
    return _sealed(head, kind + bytes(100) + _MEMBER_TAIL + prefix.ljust(167, b"\0"))


def _sealed(before: bytes, after: bytes) -> bytes:
    """A header block: the checksum goes between its two parts."""
    return b"%b%06o\0 %b" % (before, byte_sum(before) + byte_sum(after) + SPACES_SUM, after)


def byte_sum(part: bytes | memoryview) -> int:
    """The sum of at most 256 bytes that may be anything, or of any header part made here.

    Adler-32 keeps one plus the sum, modulo 65 521, in its lower half; 256 bytes sum up to 65 280 at most. It
    takes a twentieth of the time of `sum`.
    """
    return (zlib.adler32(part) & 0xFFFF) - 1


_FILE: Final = b"0" + bytes(100) + _MEMBER_TAIL + bytes(167)
_DIRECTORY: Final = b"5" + bytes(100) + _MEMBER_TAIL + bytes(167)
