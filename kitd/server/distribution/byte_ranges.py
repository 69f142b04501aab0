"""Which bytes: the Range of a download (RFC 9110, section 14), the Content-Range of an upload chunk."""

import re

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)


def parse_range(header: str | None, size: int) -> range | None:
    """The bytes a request asks for; none: all of them, for anything but one range of bytes is ignored.

    Raises:
        ValueError: the range lies outside the blob (416).
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        stop = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= stop:
        raise ValueError(f"range {header} of {size} bytes")
    return range(start, stop)


def parse_content_range(header: str) -> range:
    """The bytes an upload chunk brings: `0-99`, as the distribution specification has it.

    Raises:
        ValueError: it is no such range.
    """
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise ValueError(f"{header!r} is no range of bytes")
    return range(int(match[1]), int(match[2]) + 1)
