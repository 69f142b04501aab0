"""How uploads go, and what registries mean by what they answer. Pure."""

import re
from fnmatch import fnmatchcase

_MONOLITHIC_ONLY = (
    "ghcr.io",
    "gcr.io",
    "*.gcr.io",
    "*.pkg.dev",
    "*.amazonaws.com",
    "*.amazonaws.com.cn",
    "public.ecr.aws",
)
"""Hosts that take no chunks (Google), only tiny ones (GitHub), or miscount them (Amazon)."""

_LARGEST_MINIMUM = 2**30
"""Bytes; a registry that wants larger chunks gets these."""
_SMALLEST_CHUNK = 2**20

_RANGE = re.compile(r"(?:bytes[= ])?0-(\d{1,19})")
_LENGTH = re.compile(r"\d{1,19}")
_LIMIT = re.compile(r"maximum permissible limit of (\d{1,6}(?:\.\d{1,6})?) ?([KMG]i?)B")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def monolithic_only(host: str) -> bool:
    """Whether a registry is known to want each blob in one piece."""
    return any(fnmatchcase(host, pattern) for pattern in _MONOLITHIC_ONLY)


def chunk_size(wanted: int, minimum: str | None) -> int:
    """Bytes of a chunk, given the `OCI-Chunk-Min-Length` of the registry."""
    least = int(minimum) if minimum is not None and _LENGTH.fullmatch(minimum) else 0
    return max(wanted, min(least, _LARGEST_MINIMUM))


def smaller_chunk(chunk: int, words: str) -> int | None:
    """The next chunk size after the registry said that `chunk` is too large; None: chunks are no use.

    GitHub says the limit in the words of a 416.
    """
    match = _LIMIT.search(words)
    size = int(float(match[1]) * _UNITS[match[2][0]]) if match else chunk // 2
    return size if _SMALLEST_CHUNK <= size < chunk else None


def says_too_large(status: int, words: str) -> bool:
    """Whether an answer to a chunk means that it is too large."""
    return status == 413 or (status == 416 and _LIMIT.search(words) is not None)  # noqa: PLR2004 - the statuses of the specification


def told(value: str | None, expected: int) -> int | None:
    """Bytes that a registry has, by the `Range` header of its answer; None: it does not say.

    `0-0` stands for no byte and for one byte; it is one only where one is expected.
    """
    match = _RANGE.fullmatch(value.strip()) if value is not None else None
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last or expected == 1 else 0
