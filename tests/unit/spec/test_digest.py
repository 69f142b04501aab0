import mmap
from pathlib import Path

import pytest

from kitd.spec.digest import Hasher, digest_hex, digest_of, parse_digest
from kitd_client.api.errors import InvalidDigest, Unsupported

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4


def test_the_digest_of_bytes_is_their_sha256() -> None:
    assert digest_of(b"abc") == f"sha256:{ABC}"
    assert digest_hex(digest_of(b"abc")) == ABC


def test_a_digest_is_read_as_it_is_written() -> None:
    assert parse_digest(f"sha256:{ABC}") == f"sha256:{ABC}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        ABC,
        f"sha256:{ABC.upper()}",
        f"sha256:{ABC[:-1]}",
        f"sha256:{ABC}0",
        f"sha256:{ABC}\n",
        f"SHA256:{ABC}",
        f"md5:{ABC}",
        f"sha512:{ABC}",
        f"sha256:{'٣' * 64}",
        f"sha256:../../../{ABC[9:]}",
        "x" * 10_000,
    ],
)
def test_anything_else_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidDigest) as caught:
        parse_digest(text)
    assert len(caught.value.message) < 250


def test_other_algorithms_are_named() -> None:
    with pytest.raises(Unsupported, match="sha512 is not supported"):
        parse_digest("sha512:" + "0" * 128)


def test_a_hasher_counts_bytes_of_every_kind_of_buffer(tmp_path: Path) -> None:
    hasher = Hasher()
    hasher.update(b"a")
    hasher.update(bytearray(b"b"))
    assert hasher.digest() == digest_of(b"ab")
    hasher.update(memoryview(b"c\0\0\0").cast("I"))
    path = tmp_path / "file"
    path.write_bytes(b"d")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        hasher.update(mapped)
    assert (hasher.size, hasher.digest()) == (7, digest_of(b"abc\0\0\0d"))
