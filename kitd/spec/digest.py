"""Digests: the names of bytes."""

import hashlib
import mmap
import re
from typing import NewType, TypeAlias

from kitd_client.api.errors import InvalidDigest, Unsupported

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap
"""What can be hashed without a copy."""

Digest = NewType("Digest", str)
"""Always `sha256:` and 64 lower-case hexadecimal digits."""

_PREFIX = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_OTHERS = {"sha384": re.compile(r"[0-9a-f]{96}"), "sha512": re.compile(r"[0-9a-f]{128}")}
_SHOWN = 100


def parse_digest(text: str) -> Digest:
    """The digest that `text` is (OCI image specification, descriptor.md, "Digests").

    Raises:
        InvalidDigest: `text` is no digest.
        Unsupported: it is one, of another algorithm than SHA-256.
    """
    algorithm, _, encoded = text.partition(":")
    if algorithm == "sha256" and _HEX.fullmatch(encoded):
        return Digest(text)
    if algorithm in _OTHERS and _OTHERS[algorithm].fullmatch(encoded):
        raise Unsupported(f"digest {text}: {algorithm} is not supported, only sha256", digest=text)
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    raise InvalidDigest(f"{shown!r} is no digest: sha256: and 64 lower-case hexadecimal digits are expected")


def digest_hex(digest: Digest) -> str:
    """The 64 hexadecimal digits of a digest."""
    return digest.removeprefix(_PREFIX)


def digest_of(data: Buffer) -> Digest:
    """The digest of bytes that are all here."""
    return Digest(_PREFIX + hashlib.sha256(data).hexdigest())


class Hasher:
    """The digest of bytes that come piece by piece."""

    __slots__ = ("_hash", "size")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes so far."""

    def update(self, data: Buffer) -> None:
        """Append bytes; from 2 KiB on this runs without the interpreter lock."""
        self._hash.update(data)
        self.size += data.nbytes if isinstance(data, memoryview) else len(data)

    def digest(self) -> Digest:
        """The digest of all bytes so far; more may follow."""
        return Digest(_PREFIX + self._hash.hexdigest())
