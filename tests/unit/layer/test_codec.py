import gzip
import io
import random
import zlib
from collections.abc import Iterable
from typing import Literal

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kitd.layer.codec import Decoder, Encoder, Packing, compress_frame, decompress_frame
from kitd_client.api.errors import ArchiveInvalid, ArchiveTooLarge

MIB = 1 << 20
BOTH = pytest.mark.parametrize("compression", ["gzip", "zstd"])
Compression = Literal["gzip", "zstd"]


def pack(data: bytes, compression: Compression) -> bytes:
    return (
        gzip.compress(data, mtime=0) if compression == "gzip" else zstandard.ZstdCompressor().compress(data)
    )


def unpack(data: bytes, compression: Compression, *, cut: int = 4096, limit: int = 1 << 40) -> bytes:
    decoder = Decoder(compression, limit=limit)
    pieces = []
    for start in range(0, len(data), cut):
        for piece in decoder.feed(data[start : start + cut]):
            assert len(piece) <= MIB
            pieces.append(piece)
    decoder.finish()
    return b"".join(pieces)


def zstd_runs(blocks: int, *, window_log: int = 17) -> bytes:
    """A zstd frame whose every four bytes become 128 KiB of zeros (RFC 8878, 3.1.1: RLE blocks)."""
    head = b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3])
    body = b"".join(
        ((number == blocks - 1) | 1 << 1 | 131072 << 3).to_bytes(3, "little") + b"\0"
        for number in range(blocks)
    )
    return head + body


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=4),
    st.integers(1, 5000),
    st.sampled_from(["gzip", "zstd"]),
)
def test_members_one_after_another_come_back_however_they_are_cut(
    members: list[bytes], cut: int, compression: Compression
) -> None:
    whole = b"".join(pack(member, compression) for member in members)
    assert unpack(whole, compression, cut=cut) == b"".join(members)


@pytest.mark.parametrize("packing", ["gzip", "gzip-fastest", "zstd"])
def test_what_was_encoded_is_decoded(packing: Packing) -> None:
    data = random.Random(1).randbytes(MIB) + b"text " * MIB
    encoder = Encoder(packing)
    packed = b"".join([encoder.feed(data[: MIB + 7]), encoder.feed(data[MIB + 7 :]), encoder.finish()])
    assert len(packed) < len(data) / 2
    compression: Compression = "zstd" if packing == "zstd" else "gzip"
    assert unpack(packed, compression, cut=100_000) == data


def encode(packing: Packing, data: bytes) -> bytes:
    encoder = Encoder(packing)
    return encoder.feed(data) + encoder.finish()


def test_other_tools_read_what_was_encoded() -> None:
    data = b"some words " * 5000
    assert gzip.decompress(encode("gzip", data)) == data
    assert gzip.decompress(encode("gzip-fastest", data)) == data
    assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(encode("zstd", data))).read() == data


def test_kit_levels_of_gzip_are_used() -> None:
    data = b"".join(b"%d," % (number * 7919 % 10007) for number in range(50_000))
    assert encode("gzip", data)[10:] == zlib.compress(data, 6, -15) + gzip.compress(data)[-8:]
    assert len(encode("gzip-fastest", data)) > len(encode("gzip", data))


@BOTH
def test_the_same_bytes_come_out_at_any_time(compression: Compression) -> None:
    assert encode(compression, b"x" * 1000) == encode(compression, b"x" * 1000)


@BOTH
def test_a_layer_of_nothing_is_legal(compression: Compression) -> None:
    assert unpack(pack(b"", compression), compression) == b""


@BOTH
@pytest.mark.parametrize("cut", [1, 5, 4096])
def test_zeros_may_follow_and_nothing_else(compression: Compression, cut: int) -> None:  # A3
    good = pack(b"data", compression)
    assert unpack(good + bytes(1000), compression, cut=cut) == b"data"
    for tail in (b"x", b"garbage!" * 10, bytes(10) + b"x", bytes(10) + good):
        with pytest.raises(ArchiveInvalid, match=r"damaged|follows the end"):
            unpack(good + tail + bytes(20), compression, cut=cut)


@BOTH
def test_a_cut_off_layer_is_never_a_success(compression: Compression) -> None:  # A8
    good = pack(b"some words", compression)
    for length in range(len(good)):
        with pytest.raises(ArchiveInvalid, match=f"the {compression} layer is cut off after {length} bytes"):
            unpack(good[:length], compression)
    with pytest.raises(ArchiveInvalid, match="cut off"):
        unpack(good + good[:-1], compression)


@BOTH
def test_zeros_alone_are_no_layer(compression: Compression) -> None:
    with pytest.raises(ArchiveInvalid):
        unpack(bytes(100), compression)


def flipped(data: bytes, places: Iterable[int]) -> Iterable[bytes]:
    for at in places:
        yield data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_a_damaged_layer_is_noticed() -> None:
    data = random.Random(2).randbytes(3000)
    for bad in flipped(pack(data, "gzip"), range(30, 3000, 301)):
        with pytest.raises(ArchiveInvalid, match=r"damaged|cut off"):
            unpack(bad, "gzip")
    for bad in flipped(encode("zstd", data), range(20, 3000, 301)):
        with pytest.raises(ArchiveInvalid, match=r"damaged|cut off"):
            unpack(bad, "zstd")


@BOTH
def test_no_more_comes_out_than_the_limit(compression: Compression) -> None:  # A1
    good = pack(bytes(1000), compression)
    assert unpack(good, compression, limit=1000) == bytes(1000)
    with pytest.raises(ArchiveTooLarge, match="unpacks to more than 999 bytes"):
        unpack(good, compression, limit=999)


@pytest.mark.parametrize(
    ("compression", "bomb"),
    [
        ("zstd", zstd_runs(8192)),  # 32 KiB that would become 1 GiB
        ("gzip", gzip.compress(bytes(128 * MIB), 9)),  # 1028:1
    ],
)
def test_a_bomb_goes_off_no_further_than_its_ratio(compression: Compression, bomb: bytes) -> None:  # A1
    sizes: list[int] = []
    with pytest.raises(ArchiveTooLarge, match="more than 200 times its size"):
        sizes.extend(map(len, Decoder(compression, limit=1 << 40).feed(bomb)))
    assert sum(sizes) <= 64 * MIB


def test_up_to_64_mib_any_ratio_is_taken() -> None:  # A1
    assert len(unpack(zstd_runs(512), "zstd")) == 64 * MIB


def test_well_compressed_text_is_no_bomb() -> None:
    line = b'{"label": 0, "text": "the same words again and again"}\n'
    data = b"".join(line + b"%d\n" % number for number in range(1_300_000))
    assert len(data) > 64 * MIB
    assert len(unpack(pack(data, "zstd"), "zstd", cut=MIB)) == len(data)


def test_a_window_that_costs_too_much_memory_is_refused() -> None:  # A2
    assert unpack(zstd_runs(1, window_log=27), "zstd") == bytes(131072)
    with pytest.raises(ArchiveInvalid, match="too much memory"):
        unpack(zstd_runs(1, window_log=28), "zstd")


def test_a_frame_comes_back_and_nothing_else_does() -> None:
    frame = compress_frame(b"literals" * 100)
    assert decompress_frame(frame, 800) == b"literals" * 100
    for bad, size in ((frame, 801), (frame[:-1], 800), (b"", 0), (b"no frame at all", 15)):
        with pytest.raises(ArchiveInvalid, match="a zstd frame"):
            decompress_frame(bad, size)
    with pytest.raises(ArchiveInvalid, match="cannot be read"):
        decompress_frame(frame[:-1] + bytes([frame[-1] ^ 1]), 800)
