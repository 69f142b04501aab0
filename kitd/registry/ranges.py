"""What the answer to a range request really holds (RFC 9110, 14). Pure."""

import re

import msgspec

from kitd_client.api.errors import SizeMismatch

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,19})")
_LENGTH = re.compile(r"\d{1,19}")
_OK, _PARTIAL = 200, 206


class Part(msgspec.Struct, frozen=True):
    """The body is a part, or all, of the blob."""

    begins_at: int
    length: int
    ranged: bool


class Wanted(msgspec.Struct, frozen=True):
    """Bytes `start` to `stop` (exclusive) of a blob of `size` bytes."""

    start: int
    stop: int
    size: int
    what: str
    """The blob for people."""
    plain: bool = False
    """Asked for without a Range header."""

    def header(self) -> dict[str, str]:
        return {} if self.plain else {"Range": f"bytes={self.start}-{self.stop - 1}"}


def judge(
    wanted: Wanted, status: int, content_type: str, content_range: str | None, length: str | None
) -> Part | None:
    """What a 200, 206 or 416 answer holds; None: it cannot be used, ask for the whole blob without a range.

    Raises:
        SizeMismatch: the blob is not as long as its descriptor says.
    """
    stated = int(length) if length is not None and _LENGTH.fullmatch(length) else None
    match = _CONTENT_RANGE.fullmatch(content_range or "")
    if match is not None and match[3] != "*":
        _same_size(wanted, int(match[3]))
    if status == _OK and match is None:
        if stated is not None:
            _same_size(wanted, stated)
        return Part(0, wanted.size, ranged=False)
    if status in {_OK, _PARTIAL}:
        return _part(wanted, match, content_type, stated)
    unsatisfied = _UNSATISFIED.fullmatch(content_range or "")
    if unsatisfied is not None:
        _same_size(wanted, int(unsatisfied[1]))
    return None


def _part(wanted: Wanted, match: re.Match[str] | None, content_type: str, stated: int | None) -> Part | None:
    """A 206, or a 200 that says it is a part, as old Dragonfly peers do."""
    if match is None or wanted.plain or content_type.lower().startswith("multipart/"):
        return None
    asked = wanted.stop - wanted.start
    if (int(match[1]), int(match[2])) != (wanted.start, wanted.stop - 1) or stated not in {None, asked}:
        return None
    return Part(wanted.start, asked, ranged=True)


def _same_size(wanted: Wanted, size: int) -> None:
    if size != wanted.size:
        raise SizeMismatch(
            f"{wanted.what} has {size} bytes at the registry, its descriptor says {wanted.size}",
            expected=wanted.size,
            found=size,
        )
