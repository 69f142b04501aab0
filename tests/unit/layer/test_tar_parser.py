"""What the strict reader takes and refuses (rows A3 to A11 of the fault matrix are marked)."""

import io
import tarfile
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.layer.tar import TRAILER, Member, TarParser, encode_header, padding
from kitd_client.api.errors import ArchiveInvalid, ArchiveTooLarge, KitdError, UnsupportedEntry

Parsed = list[tuple[Member, bytes]]


def parse(data: bytes, cuts: Iterable[int] = (), parser: TarParser | None = None) -> Parsed:
    """Members with their data; `cuts` are the places where one offer ends and the next begins."""
    parser = parser or TarParser()
    members: Parsed = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    total = 0
    for start, end in pairwise(edges):
        view = memoryview(data)[start:end]
        while view:
            kind, consumed = parser.next(view)
            assert consumed > 0
            if kind == "member":
                assert parser.member is not None
                members.append((parser.member, b""))
            elif kind == "data":
                members[-1] = (members[-1][0], members[-1][1] + view[:consumed])
            total += consumed
            view = view[consumed:]
    parser.finish()
    assert total == len(data)
    return members


def file(name: str, data: bytes = b"", mode: int = 0o644) -> bytes:
    return (
        encode_header(Member(name, is_dir=False, mode=mode, size=len(data)))
        + data
        + bytes(padding(len(data)))
    )


def sealed(block: bytes) -> bytes:
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def patched(at: int, value: bytes, block: bytes | None = None) -> bytes:
    """A file's header with other bytes in it and a right checksum."""
    block = block or file("some/file")
    return sealed(block[:at] + value + block[at + len(value) :])


def extension(body: bytes, kind: bytes = b"x", size: int | None = None) -> bytes:
    size = len(body) if size is None else size
    header = patched(156, kind, patched(124, b"%011o\0" % size, file("meta")))
    return header + body + bytes(padding(len(body)))


def record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def with_type(kind: bytes, name: str = "bad/one") -> bytes:
    return patched(156, kind, file(name)) + TRAILER


names = st.lists(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
        | st.integers(0xDC80, 0xDCFF).map(chr),
        min_size=1,
        max_size=60,
    ).filter(lambda part: part not in {".", ".."} and len(part.encode("utf-8", "surrogateescape")) <= 255),
    min_size=1,
    max_size=5,
).map("/".join)
# Text whose surrogate escapes spell UTF-8 comes back as the character they spell.
names = names.map(lambda name: name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))
members = st.lists(st.tuples(names, st.integers(0, 0o7777), st.none() | st.binary(max_size=1500)), max_size=5)


@given(members, st.lists(st.integers(0, 1 << 16), max_size=8))
def test_what_was_written_is_read_again_however_it_is_cut(
    entries: list[tuple[str, int, bytes | None]], cuts: list[int]
) -> None:
    expected = [
        (Member(name, data is None, mode, len(data or b"")), data or b"") for name, mode, data in entries
    ]
    pieces = [encode_header(member) + data + bytes(padding(member.size)) for member, data in expected]
    whole = b"".join(pieces) + TRAILER
    assert parse(whole) == expected
    assert parse(whole, cuts) == expected


def test_single_bytes_give_the_same_as_the_whole() -> None:
    whole = file("n" * 150, b"x" * 700) + file("\u00e9", b"y") + TRAILER
    assert parse(whole, range(len(whole))) == parse(whole)


def test_one_offer_of_whole_members_takes_two_steps_a_member() -> None:
    parser = TarParser()
    view = memoryview(file("a", b"1") + file("b", b"2") + TRAILER)
    kinds = []
    while view:
        kind, consumed = parser.next(view)
        kinds.append(kind)
        view = view[consumed:]
    assert kinds == ["member", "data", "member", "data", "end"]


def test_data_can_go_by_another_way() -> None:
    parser = TarParser()
    parser.next(memoryview(file("a", b"x" * 600)[:512]))
    assert parser.remaining == 600
    parser.skip(599)
    with pytest.raises(ValueError, match="2 bytes skipped, 1 remain"):
        parser.skip(2)
    parser.skip(1)
    assert parser.next(memoryview(bytes(padding(600)) + file("b"))) == ("member", padding(600) + 512)
    assert parser.member == Member("b", is_dir=False, mode=0o644, size=0)


def test_an_empty_offer_takes_nothing() -> None:
    parser = TarParser()
    assert parser.next(memoryview(b"")) == ("framing", 0)
    parser.next(memoryview(file("a", b"xy")[:512]))
    assert parser.next(memoryview(b"")) == ("framing", 0)
    assert parser.remaining == 2


def test_a_huge_file_keeps_its_size() -> None:
    parser = TarParser()
    header = encode_header(Member("big", is_dir=False, mode=0o644, size=9 << 30))
    assert parser.next(memoryview(header)) == ("member", len(header))
    assert parser.remaining == 9 << 30


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_archives_of_other_tools_are_read(form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        directory = tarfile.TarInfo("dir")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name in ("dir/a", "dir/" + "n" * 90 + "/" + "m" * 90):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    assert [(member.name, member.is_dir, data) for member, data in parse(buffer.getvalue())] == [
        ("dir", True, b""),
        ("dir/a", False, b"abc"),
        ("dir/" + "n" * 90 + "/" + "m" * 90, False, b"abc"),
    ]


def test_numbers_of_gnu_tar_are_read() -> None:
    times = patched(345, b"%011o\0" % 7 * 2, patched(257, b"ustar  \0"))
    parser = TarParser()
    parser.next(memoryview(patched(124, b"\x80" + (10 << 30).to_bytes(11, "big"), times)))
    assert parser.member == Member("some/file", is_dir=False, mode=0o644, size=10 << 30)


def test_zeros_may_follow_the_end() -> None:
    assert len(parse(file("a") + TRAILER + bytes(9216))) == 1


def test_times_owners_and_attributes_are_passed_over() -> None:  # A10
    body = record("mtime", b"-1") + record("uid", b"7" * 30) + record("SCHILY.xattr.user.x", b"\0\1\2")
    header = patched(136, b"\xff" * 12)
    assert len(parse(extension(body) + header + TRAILER)) == 1


def test_the_mode_is_kept_and_has_no_more_than_its_twelve_bits() -> None:  # A10
    assert parse(patched(100, b"0104755\0") + TRAILER)[0][0].mode == 0o4755


def test_a_global_header_that_changes_nothing_is_passed_over() -> None:
    whole = extension(record("comment", b"commit 1234"), b"g") + file("a") + TRAILER
    assert [member.name for member, _ in parse(whole)] == ["a"]


def test_the_size_of_the_extended_header_counts_for_what_follows_too() -> None:  # A7
    smuggled = file("smuggled", b"?")
    inner = smuggled + bytes(512)
    outer = patched(124, b"%011o\0" % 0, file("outer"))
    whole = extension(record("size", b"%d" % len(inner))) + outer + inner + file("last") + TRAILER
    assert [(member.name, len(data)) for member, data in parse(whole)] == [("outer", len(inner)), ("last", 0)]


HOSTILE: dict[str, tuple[bytes, type[KitdError], str]] = {
    # A4, names
    "traversal": (file("../up"), ArchiveInvalid, r"member '\.\./up': the name leads out"),
    "traversal inside": (file("a/../../b"), ArchiveInvalid, r"member 'a/\.\./\.\./b': the name leads out"),
    "absolute": (file("/etc/cron.d/x"), ArchiveInvalid, "member '/etc/cron.d/x': the name is absolute"),
    "double slash": (file("a//b"), ArchiveInvalid, "member 'a//b': the name has an empty component"),
    "empty": (patched(0, bytes(9)), ArchiveInvalid, "member '': the name is empty"),
    "dot": (file("."), ArchiveInvalid, r"member '\.': the name has a '\.' component"),
    "file with a slash": (file("a/b/"), ArchiveInvalid, "member 'a/b/': the name has an empty component"),
    "NUL": (extension(record("path", b"a\0b")) + file("a"), ArchiveInvalid, r"member 'a\\x00b': .* NUL"),
    "empty path record": (extension(record("path", b"")) + file("a"), ArchiveInvalid, "member '': .* empty"),
    "long component": (file("n" * 256), ArchiveInvalid, "member 'nnn.*longer than 255 bytes"),
    "long path": (file("/".join(["n" * 250] * 17)), ArchiveInvalid, "member 'nnn.*longer than 4096 bytes"),
    "too deep": (file("/".join(["d"] * 257)), ArchiveInvalid, "member 'd/d/.*deeper than 256"),  # A11
    # A6, the headers before a header
    "large header": (extension(b"", size=(1 << 20) + 1), ArchiveInvalid, "header of 1048577 bytes, 1 MiB"),
    "two headers": (extension(b"") + extension(b""), ArchiveInvalid, "a second extended header"),
    "two global headers": (extension(b"", b"g") * 2, ArchiveInvalid, "a second global header"),
    "global header between": (
        extension(record("path", b"x")) + extension(b"", b"g"),
        ArchiveInvalid,
        "a global header between",
    ),
    "global path": (extension(record("path", b"x"), b"g"), ArchiveInvalid, "sets the path of every member"),
    "two paths": (extension(record("path", b"a") * 2), ArchiveInvalid, "two path records"),
    "two sizes": (extension(record("size", b"1") * 2), ArchiveInvalid, "two size records"),
    "named twice": (
        extension(b"long\0", b"L") + extension(record("path", b"x")),
        ArchiveInvalid,
        "named twice",
    ),
    "named twice, the other way": (
        extension(record("path", b"x")) + extension(b"long\0", b"L"),
        ArchiveInvalid,
        "named twice",
    ),
    "negative size record": (extension(record("size", b"-1")), ArchiveInvalid, "has the size b'-1'"),
    "huge size record": (extension(record("size", b"1" + b"0" * 30)), ArchiveInvalid, "has the size b'1000"),
    "size record of 2^63": (extension(record("size", b"%d" % 2**63)), ArchiveInvalid, "has the size b'922"),
    "size record of letters": (extension(record("size", b"0x10")), ArchiveInvalid, "has the size b'0x10'"),
    "empty size record": (extension(record("size", b"")), ArchiveInvalid, "has the size b''"),
    "many records": (extension(record("a", b"b") * 1025), ArchiveInvalid, "more than 1024 records"),
    "record without length": (extension(b"path=a\n"), ArchiveInvalid, "malformed record at its byte 0"),
    "record too long": (extension(b"99 path=a\n"), ArchiveInvalid, "malformed record"),
    "record of length 0": (extension(b"0 path=a\n"), ArchiveInvalid, "malformed record"),
    "record without equals": (extension(b"8 patha\n"), ArchiveInvalid, "malformed record"),
    "record without newline": (extension(b"9 path=ab"), ArchiveInvalid, "malformed record"),
    "record without key": (extension(b"5 =a\n"), ArchiveInvalid, "malformed record"),
    "header at the end": (extension(record("path", b"a")), ArchiveInvalid, "ends after an extended header"),
    # A8, headers and their order
    "negative size": (patched(124, b"\xff" * 12), ArchiveInvalid, "size that is no number"),
    "huge size": (patched(124, b"\x80" + b"\xff" * 11), ArchiveInvalid, "size that is no number"),
    "size of nines": (patched(124, b"99999999999\0"), ArchiveInvalid, "size that is no number"),
    "signed size": (patched(124, b"-0000000001\0"), ArchiveInvalid, "size that is no number"),
    "size with a gap": (patched(124, b"0000 000001\0"), ArchiveInvalid, "size that is no number"),
    "mode of letters": (patched(100, b"rwxr-xr\0"), ArchiveInvalid, "mode that is no number"),
    "bad checksum": (file("a")[:-100] + b"x" + bytes(99), ArchiveInvalid, "byte 0 .*checksum .* wrong"),
    "no tar at all": (b"x" * 512, ArchiveInvalid, "byte 0 of the archive: no tar header"),
    "old header": (patched(257, bytes(8)), ArchiveInvalid, "no tar header"),
    "obsolete prefix": (patched(508, b"tar\0", patched(345, b"p")), ArchiveInvalid, "obsolete form"),
    "prefix in a GNU header": (
        patched(257, b"ustar  \0", patched(345, b"p")),
        ArchiveInvalid,
        "obsolete form",
    ),
    "one zero block": (file("a") + bytes(512) + file("b"), ArchiveInvalid, "byte 1024 .*after member 'a'"),
    "directory with data": (
        patched(156, b"5", patched(124, b"00000000005\0")),
        ArchiveInvalid,
        "member 'some/file': a directory with 5 bytes",
    ),
    # A5, what kits never hold
    "sparse record": (extension(record("GNU.sparse.major", b"1")), UnsupportedEntry, "GNU sparse file"),
    "sparse record 0.1": (extension(record("GNU.sparse.map", b"0,1")), UnsupportedEntry, "GNU sparse"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_by_name(case: str) -> None:
    data, error, message = HOSTILE[case]
    with pytest.raises(error, match=message) as caught:
        parse(data + TRAILER)
    assert caught.type is error
    with pytest.raises(error, match=message):
        parse(data + TRAILER, range(0, len(data), 100))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (b"1", "hard link"),
        (b"2", "symbolic link"),
        (b"3", "character device"),
        (b"4", "block device"),
        (b"6", "fifo"),
        (b"7", "contiguous file"),
        (b"D", "GNU directory listing"),
        (b"M", "continuation of another volume"),
        (b"S", "GNU sparse file"),
        (b"V", "volume label"),
        (b"Z", "unknown type b'Z'"),
    ],
)
def test_links_devices_and_the_like_are_unsupported(kind: bytes, what: str) -> None:  # A5
    with pytest.raises(UnsupportedEntry, match=f"member 'bad/one': a .*{what}"):
        parse(with_type(kind))


def test_a_long_link_target_does_not_hide_the_link() -> None:  # A5
    with pytest.raises(UnsupportedEntry, match="member 'bad/one': a symbolic link"):
        parse(extension(b"t" * 200 + b"\0", b"K") + with_type(b"2"))


@pytest.mark.parametrize("length", range(0, 2560, 100))
def test_a_truncated_archive_is_never_a_success(length: int) -> None:  # A8
    whole = file("a", b"x" * 700) + TRAILER
    assert len(whole) == 2560
    with pytest.raises(ArchiveInvalid, match="the archive ends"):
        parse(whole[:length])


def test_truncation_inside_a_file_names_it() -> None:  # A8
    with pytest.raises(ArchiveInvalid, match="member 'a': the archive ends 600 bytes before its data does"):
        parse(file("a", b"x" * 700)[:612])


def test_something_after_the_end_is_refused() -> None:  # A3, A8
    for cuts in ((), (1024,), (1536, 2047)):
        with pytest.raises(ArchiveInvalid, match="after member 'a': something follows the end"):
            parse(file("a") + TRAILER + bytes(512) + b"x", cuts)


def test_there_is_a_limit_to_members() -> None:  # A11
    whole = b"".join(file(str(number)) for number in range(4)) + TRAILER
    assert len(parse(whole, parser=TarParser(limit=4))) == 4
    with pytest.raises(ArchiveTooLarge, match="member '3': the archive has more members"):
        parse(whole, parser=TarParser(limit=3))


def test_the_same_name_twice_is_for_others_to_see() -> None:  # A9
    assert [member.name for member, _ in parse(file("a") + file("a") + TRAILER)] == ["a", "a"]


def test_a_name_that_is_not_utf_8_keeps_its_bytes() -> None:  # A9
    parsed = parse(patched(0, b"caf\xe9") + TRAILER)
    assert parsed[0][0].name.encode("utf-8", "surrogateescape").startswith(b"caf\xe9")


def test_an_error_about_a_name_that_is_not_utf_8_can_be_sent() -> None:  # A9
    with pytest.raises(UnsupportedEntry, match="udcff") as caught:
        parse(patched(156, b"2", patched(0, b"\xff\n\x1b")) + TRAILER)
    assert caught.value.message.encode()


MUTATIONS: list[Callable[[bytearray, int, int], None]] = [
    lambda data, at, value: data.__setitem__(at, value),
    lambda data, at, value: data.__delitem__(slice(at, at + value)),
    lambda data, at, value: data.__setitem__(slice(at, at), bytes(value)),
]


@given(st.sampled_from(MUTATIONS), st.integers(0, 6000), st.integers(0, 255), st.lists(st.integers(0, 6000)))
def test_no_damage_leads_to_another_error(
    mutation: Callable[[bytearray, int, int], None], at: int, value: int, cuts: list[int]
) -> None:
    data = bytearray(file("n" * 150, b"x" * 600) + file("a/b", b"y") + file("\u00e9") + TRAILER)
    mutation(data, at % len(data), value)
    outcomes = []
    for places in ((), cuts):
        try:
            outcomes.append(repr(parse(bytes(data), places)))
        except KitdError as error:
            outcomes.append(type(error).__name__)
    assert outcomes[0] == outcomes[1]
