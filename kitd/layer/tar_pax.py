"""The records of PAX extended headers: what they may change of the member that follows.

Source: POSIX.1-2017 pax, section "pax Extended Header". Where readers differ about bad records (two `path`
keys: Go takes the last, Python the first), the archive is refused.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from kitd_client.api.errors import ArchiveInvalid, UnsupportedEntry

SIZE_LIMIT: Final = 2**63 - 1
_RECORDS_LIMIT: Final = 1024
_LENGTH_DIGITS: Final = 7
_SIZE_DIGITS: Final = 19


class Extension(NamedTuple):
    """What the extended header says about the member that follows; None: nothing."""

    name: bytes | None
    size: int | None


def parse_records(body: bytes, where: str, *, is_global: bool) -> Extension:
    """The part of an extended header that counts here; times, owners and attributes are passed over.

    Raises:
        ArchiveInvalid: malformed or ambiguous records, a global name or size.
        UnsupportedEntry: the header makes the next member a GNU sparse file.
    """
    found: dict[bytes, bytes] = {}
    for key, value in _records(body, where):
        if key.startswith(b"GNU.sparse."):
            raise UnsupportedEntry(f"{where}: the next member is a GNU sparse file, kits hold none")
        if key not in {b"path", b"size"}:
            continue
        if is_global:
            raise ArchiveInvalid(f"{where}: a global header sets the {key.decode()} of every member")
        if key in found:
            raise ArchiveInvalid(f"{where}: the extended header has two {key.decode()} records")
        found[key] = value
    size = found.get(b"size")
    return Extension(found.get(b"path"), None if size is None else _size(size, where))


def _size(value: bytes, where: str) -> int:
    if value.isdigit() and len(value) <= _SIZE_DIGITS and (size := int(value)) <= SIZE_LIMIT:
        return size
    raise ArchiveInvalid(f"{where}: the extended header has the size {value[:40]!r}")


def _records(body: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    start = count = 0
    while start < len(body):
        space = body.find(b" ", start, start + _LENGTH_DIGITS + 1)
        digits = body[start:space] if space > 0 else b""
        end = start + int(digits) if digits.isdigit() else 0
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(body) or body[end - 1] != ord("\n") or not equals or not key:
            raise ArchiveInvalid(f"{where}: the extended header has a malformed record at its byte {start}")
        count += 1
        if count > _RECORDS_LIMIT:
            raise ArchiveInvalid(f"{where}: the extended header has more than {_RECORDS_LIMIT} records")
        yield key, value
        start = end
