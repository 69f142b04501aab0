"""Layers that mean no good: every one is pulled, for its digest is right, and none is unpacked."""

import dataclasses
import gzip
import json
import zlib
from pathlib import Path
from typing import Literal

import pytest
import zstandard
from fakes.daemon import Daemon
from fakes.figures import Figures
from fakes.kits import FakeKit, FakeLayer, make_kit, put_kit, tar_header, tar_of
from fakes.registry import ScriptedRegistry
from fakes.shelves import digest_of
from interop.trees import bytes_below, contents_of

from kitd_client.api.errors import ArchiveInvalid, ArchiveTooLarge, KitdError
from kitd_client.client import Client


def _member(name: str, data: bytes = b"x", *, kind: bytes = b"0", size: int | None = None) -> bytes:
    header = tar_header(name, size=len(data) if size is None else size, kind=kind)
    return header + data + bytes(-len(data) % 512)


def _with_field(offset: int, value: bytes, *, name: str = "good/field") -> bytes:
    """A header with a field of its own and a right checksum."""
    block = bytearray(tar_header(name))
    block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax(records: bytes, *, kind: bytes = b"x") -> bytes:
    return _member("pax", records, kind=kind)


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return b"%d%s" % (length, body)


END = bytes(1024)
GOOD = _member("good/first", b"first")

HOSTILE: dict[str, tuple[bytes, str, str]] = {
    # name: (archive after its first good member, code, what the message names)
    "traversal": (_member("../evil") + END, "archive_invalid", "../evil"),
    "traversal inside": (_member("good/../../evil") + END, "archive_invalid", "good/../../evil"),
    "absolute": (_member("/etc/evil") + END, "archive_invalid", "/etc/evil"),
    "no name": (_member("") + END, "archive_invalid", "member ''"),
    "a dot": (_member("good/./evil") + END, "archive_invalid", "good/./evil"),
    "an empty component": (_member("good//evil") + END, "archive_invalid", "good//evil"),
    "too deep": (
        _pax(_record(b"path", b"a/" * 300 + b"evil")) + _member("x") + END,
        "archive_invalid",
        "a/a/a",
    ),
    "long component": (_pax(_record(b"path", b"e" * 300)) + _member("x") + END, "archive_invalid", "eeeee"),
    "traversal by PAX": (
        _pax(_record(b"path", b"../evil")) + _member("x") + END,
        "archive_invalid",
        "../evil",
    ),
    "NUL by PAX": (_pax(_record(b"path", b"good/a\0b")) + _member("x") + END, "archive_invalid", "good/a"),
    "symbolic link": (_member("good/link", b"", kind=b"2") + END, "unsupported_entry", "good/link"),
    "hard link": (_member("good/link", b"", kind=b"1") + END, "unsupported_entry", "good/link"),
    "character device": (_member("good/null", b"", kind=b"3") + END, "unsupported_entry", "good/null"),
    "block device": (_member("good/disk", b"", kind=b"4") + END, "unsupported_entry", "good/disk"),
    "fifo": (_member("good/pipe", b"", kind=b"6") + END, "unsupported_entry", "good/pipe"),
    "sparse file": (_member("good/sparse", b"", kind=b"S") + END, "unsupported_entry", "good/sparse"),
    "unknown type": (_member("good/what", b"", kind=b"Z") + END, "unsupported_entry", "good/what"),
    "the same file twice": (_member("good/first", b"other") + END, "archive_invalid", "good/first"),
    "a file and a directory": (_member("good/first/below") + END, "archive_invalid", "good/first"),
    "a directory and a file": (_member("good/d/a") + _member("good/d") + END, "archive_invalid", "good/d"),
    "a directory with data": (_member("good/dir", b"data", kind=b"5") + END, "archive_invalid", "good/dir"),
    "negative size": (_with_field(124, b"\xff" * 12) + END, "archive_invalid", "good/first"),
    "size of garbage": (_with_field(124, b"0000000zz00\0") + END, "archive_invalid", "good/first"),
    "size beyond 2^63": (_with_field(124, b"\x80" + b"\x7f" * 11) + END, "archive_invalid", "good/first"),
    "huge size, few bytes": (
        _with_field(124, b"77777777777\0", name="good/huge"),
        "archive_invalid",
        "good/huge",
    ),
    "wrong checksum": (
        tar_header("good/sum").replace(b"good", b"evil") + END,
        "archive_invalid",
        "good/first",
    ),
    "PAX of 2 MiB": (
        _pax(_record(b"comment", bytes(2 << 20))) + _member("good/x") + END,
        "archive_invalid",
        "good/first",
    ),
    "PAX of 20 000 records": (
        _pax(_record(b"a", b"b") * 20_000) + _member("good/x") + END,
        "archive_invalid",
        "good/first",
    ),
    "PAX with two paths": (
        _pax(_record(b"path", b"good/a") + _record(b"path", b"good/b")) + _member("x") + END,
        "archive_invalid",
        "good/first",
    ),
    "PAX that lies about its length": (
        _pax(b"99 path=evil\n") + _member("good/x") + END,
        "archive_invalid",
        "good/first",
    ),
    "PAX with a negative size": (
        _pax(_record(b"size", b"-1")) + _member("good/x") + END,
        "archive_invalid",
        "good/first",
    ),
    "PAX of a sparse file": (
        _pax(_record(b"GNU.sparse.major", b"1")) + _member("good/x") + END,
        "unsupported_entry",
        "good/first",
    ),
    "a global PAX path": (
        _pax(_record(b"path", b"evil"), kind=b"g") + _member("good/x") + END,
        "archive_invalid",
        "good/first",
    ),
    "cut in a header": (tar_header("good/cut")[:300], "archive_invalid", "good/first"),
    "cut before the end": (b"", "archive_invalid", "good/first"),
    "one zero block": (bytes(512), "archive_invalid", "good/first"),
    "something after the end": (END + b"evil".ljust(512, b"\0"), "archive_invalid", "good/first"),
    "no tar": (b"PK\3\4".ljust(2048, b"z"), "archive_invalid", "good/first"),
    "its own Kitfile": (_member("Kitfile", b"evil: true\n") + END, "archive_invalid", "Kitfile"),
    "a staging name": (_member(".kitd-unpack-0123456789abcdef/x") + END, "target_unsafe", ".kitd-unpack"),
}
SUITE = "hostile layers"


def _try(
    daemon: Daemon, client: Client, shelf: ScriptedRegistry, kit: FakeKit, name: str, out: Path
) -> tuple[str, int, str, dict[str, bytes]]:
    """Pulls (which must succeed) and unpacks: error code, exit status, message, and what was written."""
    put_kit(shelf, kit, name)
    client.pull(f"{shelf.host}/{name}:v1")
    done = daemon.kitctl("unpack", f"{shelf.host}/{name}:v1", "-d", out, "--format", "json", check=False)
    problem = json.loads(done.stderr.splitlines()[-1]) if done.returncode else {"code": "", "title": ""}
    written = contents_of(out) if out.exists() else {}
    return problem["code"], done.returncode, problem["title"], written


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_layer_is_pulled_and_never_unpacked(
    case: str,
    shared: Daemon,
    client: Client,
    shelf: ScriptedRegistry,
    out: Path,
    tmp_path: Path,
    figures: Figures,
) -> None:
    rest, code, named = HOSTILE[case]
    layers = [
        FakeLayer("model", "weights", {"weights/a.bin": b"good"}),
        FakeLayer("code", "good", {}, blob=GOOD + rest),
    ]
    name = f"hostile/case-{list(HOSTILE).index(case)}"
    got, status, message, written = _try(shared, client, shelf, make_kit(layers), name, out)
    figures.tried(SUITE)
    if (got, status) != (code, 73 if code == "target_unsafe" else 65):
        figures.violated(SUITE, f"{case}: {got!r}, exit {status}, {message}")
    if named not in message:
        figures.violated(SUITE, f"{case}: the message names no member: {message}")
    if written or [path for path in tmp_path.rglob("*") if path.name == "evil"]:
        figures.violated(SUITE, f"{case}: something was written: {sorted(written)}")
    if "Traceback" in shared.log:
        figures.violated(SUITE, f"{case}: the log has a trace")
    # `path` hands it out no more than unpack does; it has no Kitfile of its own and no staging name.
    if case not in {"its own Kitfile", "a staging name"}:
        with pytest.raises(KitdError) as caught:
            client.path(f"{shelf.host}/{name}:v1")
        assert caught.value.code == got


def test_a_layer_that_is_cut_off_in_a_file(client: Client, shelf: ScriptedRegistry, out: Path) -> None:
    blob = GOOD + tar_header("good/cut", size=5000) + b"cut"
    put_kit(shelf, make_kit([FakeLayer("code", "good", {}, blob=blob)]), "hostile/cut")
    with pytest.raises(ArchiveInvalid, match="good/cut"):
        client.unpack(f"{shelf.host}/hostile/cut:v1", out)


def _gzip_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(GOOD + _with_field(124, b"%011o\0" % size, name="good/bomb"))]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.compress(END), packer.flush()])


def _zstd_bomb(size: int) -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [packer.compress(GOOD + _with_field(124, b"%011o\0" % size, name="good/bomb"))]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.compress(END), packer.flush()])


_PLAIN = tar_of({"good/first": b"first" * 1000})
COMPRESSED: dict[str, tuple[str, bytes, str]] = {
    "gzip bomb": ("gzip", _gzip_bomb(1 << 30), "archive_too_large"),
    "zstd bomb": ("zstd", _zstd_bomb(1 << 30), "archive_too_large"),
    "gzip cut off": ("gzip", gzip.compress(_PLAIN)[:-20], "archive_invalid"),
    "zstd cut off": ("zstd", zstandard.compress(_PLAIN)[:-20], "archive_invalid"),
    "gzip damaged": ("gzip", gzip.compress(_PLAIN)[:-8] + bytes(8), "archive_invalid"),
    "no gzip": ("gzip", b"this is no gzip at all", "archive_invalid"),
    "no zstd": ("zstd", b"this is no zstd at all", "archive_invalid"),
    "empty gzip": ("gzip", b"", "archive_invalid"),
    "garbage after gzip": ("gzip", gzip.compress(_PLAIN) + b"\0\0garbage", "archive_invalid"),
    "traversal in zstd": ("zstd", zstandard.compress(GOOD + _member("../evil") + END), "archive_invalid"),
    "link in gzip": ("gzip", gzip.compress(GOOD + _member("good/l", kind=b"2") + END), "unsupported_entry"),
}


@pytest.mark.parametrize("case", COMPRESSED)
def test_a_hostile_compressed_layer_is_pulled_and_never_unpacked(
    case: str, shared: Daemon, client: Client, shelf: ScriptedRegistry, out: Path, figures: Figures
) -> None:
    compression, blob, code = COMPRESSED[case]
    kit = make_kit([FakeLayer("code", "good", {}, blob=blob)])
    # The blob as it is, said to be compressed.
    manifest = kit.manifest.replace(b'code.v1.tar"', f'code.v1.tar+{compression}"'.encode())
    name = f"hostile/compressed-{list(COMPRESSED).index(case)}"
    got, status, message, written = _try(
        shared, client, shelf, dataclasses.replace(kit, manifest=manifest), name, out
    )
    figures.tried(SUITE)
    if (got, status) != (code, 65):
        figures.violated(SUITE, f"{case}: {got!r}, exit {status}, {message}")
    if written:
        figures.violated(SUITE, f"{case}: something was written: {sorted(written)}")
    if "Traceback" in shared.log:
        figures.violated(SUITE, f"{case}: the log has a trace")


def test_a_bomb_fills_neither_disk_nor_memory(
    shared: Daemon, client: Client, shelf: ScriptedRegistry, out: Path
) -> None:
    kit = make_kit([FakeLayer("code", "good", {}, blob=_gzip_bomb(1 << 30))])
    manifest = kit.manifest.replace(b'code.v1.tar"', b'code.v1.tar+gzip"')
    put_kit(shelf, dataclasses.replace(kit, manifest=manifest), "hostile/bomb")
    client.pull(f"{shelf.host}/hostile/bomb:v1")
    before = bytes_below(shared.store)
    with pytest.raises(ArchiveTooLarge):
        client.unpack(f"{shelf.host}/hostile/bomb:v1", out)
    assert bytes_below(shared.store) - before < 1 << 20
    status = Path(f"/proc/{shared.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
    assert peak < 512 << 20


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_of_other_bytes_than_its_config_claims(
    compression: Literal["gzip", "zstd"], shared: Daemon, client: Client, shelf: ScriptedRegistry, out: Path
) -> None:
    kit = make_kit([FakeLayer("code", "good", {"good/a": b"a"}, compression=compression)])
    claimed, true = digest_of(b"another layer"), digest_of(tar_of({"good/a": b"a"}))
    assert kit.config.count(true.encode()) == 1
    config = kit.config.replace(true.encode(), claimed.encode())
    manifest = kit.manifest.replace(digest_of(kit.config).encode(), digest_of(config).encode())
    kit = dataclasses.replace(kit, manifest=manifest, config=config)
    got, status, message, written = _try(shared, client, shelf, kit, f"hostile/diff-{compression}", out)
    assert (got, status, written) == ("diff_id_mismatch", 65, {})
    assert claimed in message
