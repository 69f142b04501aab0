import hashlib
import json
from pathlib import Path

import pytest

from kitd.layer.tar import TRAILER, Member, check_name, encode_header, padding
from kitd_client.api.errors import ArchiveInvalid

VECTORS = json.loads((Path(__file__).parents[2] / "data/vectors/tar-headers.json").read_text())
DEEP = "deep/" + "d" * 60 + "/" + "e" * 60


def tar(entries: list[tuple[str, int, bytes | None]]) -> bytes:
    pieces = []
    for name, mode, data in entries:
        size = len(data or b"")
        pieces += [encode_header(Member(name, data is None, mode, size)), data or b"", bytes(padding(size))]
    return b"".join((*pieces, TRAILER))


@pytest.mark.parametrize("name", VECTORS["archives"])
def test_an_archive_has_the_bytes_that_kit_writes(name: str) -> None:
    vector = VECTORS["archives"][name]
    entries = [
        (entry["name"], int(entry["mode"], 8), None if entry["dir"] else entry["text"].encode())
        for entry in vector["entries"]
    ]
    assert tar(entries).hex() == vector["archive"]


@pytest.mark.parametrize("name", VECTORS["headers"])
def test_a_huge_file_has_the_header_that_kit_writes(name: str) -> None:
    vector = VECTORS["headers"][name]
    member = Member(vector["name"], is_dir=False, mode=int(vector["mode"], 8), size=vector["size"])
    assert encode_header(member).hex() == vector["header"]


@pytest.mark.parametrize(
    ("entries", "digest"),
    [
        ([("empty", 0o755, None)], "33ec1157987bac430c49cc730727f7ffa587f8a44e46295ba86f8311767932cf"),
        (
            [("model", 0o755, None), ("model/w.bin", 0o644, b"hello weights\n")],
            "7486f1d6fc36a604b05f6eef00028e9ab3c50d530588dccb5338a47a9ae43643",
        ),
        (
            [
                ("models", 0o755, None),
                ("models/w.bin", 0o644, b"hello weights\n"),
                ("models/empty", 0o600, b""),
            ],
            "5cb9029f6ff333e0959af4e12464c2eb8c08f0e18caa55bf9e847dd7405f3a0c",
        ),
        (
            [("donn\u00e9es/mod\u00e8le.bin", 0o644, b"q")],
            "89a28b1d0647704bf6964bbc7752c40b44eedc93baa04658f10aa333def86e2e",
        ),
        (
            [("d" * 60 + "/" + "f" * 90, 0o644, b"q")],
            "7296be98a6ebe6f66af16765552042adcccd30dabdc322346916c7dcb9c6c58d",
        ),
        ([("f" * 130, 0o644, b"q")], "1da70c361a7c75d0cf1bde9c99cf96dbfa718cbe779cbd6e064fdedf2b053018"),
        (
            [("README.md", 0o644, b"# demo\n")],
            "d3ba836f73ec2071e2e82ed876eeb76071401ba5674ea7d58425a11c73a6f468",
        ),
        (
            [("src", 0o755, None), ("src/app.py", 0o644, b"print(1)\n")],
            "26928d04f586556267fff5eeaa822dfe7993eafbe918cdcbe724d0b7287edfc8",
        ),
        (
            [("data", 0o755, None), ("data/train.csv", 0o644, b"a,b\n1,2\n")],
            "d3f3b66df00c415397c6e93bd510517722a22a970d99186dad49aad3d02a0f14",
        ),
        (
            [
                ("deep", 0o755, None),
                (DEEP[:65], 0o755, None),
                (DEEP, 0o755, None),
                (DEEP + "/file.txt", 0o644, b"deep\n"),
            ],
            "1527db2ce724add5fa412c2b15960d4e9d0cdce3fea69caea07406e573b64db6",
        ),
        (
            [("long", 0o755, None), ("long/" + "n" * 120, 0o644, b"long\n")],
            "a23625cd6c383c778afb396d3b1e311ece972cdf3760c6bc66912fe1f8aab771",
        ),
        (
            [("uni", 0o755, None), ("uni/\u00e9t\u00e9.txt", 0o644, "\u00e9t\u00e9\n".encode())],
            "fc57a01c925bd9957db04aafe37bf730605d1365b3dcc8d4f61014b3af5ea9fb",
        ),
        (
            [("dots", 0o755, None), ("dots/ok.txt", 0o644, b"ok\n")],
            "add82a5a21724bb7d16cc30486d199afd65f418cd392ac462f0d5fec3b879eca",
        ),
    ],
)
def test_an_archive_has_the_digest_that_kit_gives_it(
    entries: list[tuple[str, int, bytes | None]], digest: str
) -> None:
    assert hashlib.sha256(tar(entries)).hexdigest() == digest


@pytest.mark.parametrize(
    "name",
    ["a", "a/b", "a..b", "..a", "a..", "...", "a/.../b", ".hidden", "a b", "back\\slash", "C:", "\udcff"],
)
def test_odd_names_are_legal(name: str) -> None:
    assert check_name(name) == tuple(name.split("/"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("/", "absolute"),
        ("/etc/passwd", "absolute"),
        ("//a", "absolute"),
        ("a//b", "empty component"),
        ("a/", "empty component"),
        (".", "'.' component"),
        ("./a", "'.' component"),
        ("a/./b", "'.' component"),
        ("..", "leads out"),
        ("a/../../b", "leads out"),
        ("a/..", "leads out"),
        ("a\0b", "NUL"),
        ("n" * 256, "longer than 255 bytes"),
        ("\u00e9" * 128, "longer than 255 bytes"),
        ("\udcff" * 256, "longer than 255 bytes"),
        ("/".join(["a"] * 257), "deeper than 256"),
        ("/".join(["n" * 250] * 17), "longer than 4096 bytes"),
    ],
)
def test_a_name_that_could_do_harm_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ArchiveInvalid, match=reason) as caught:
        check_name(name)
    assert caught.value.message.encode()  # can be sent, whatever the name is made of


def test_the_largest_names_are_legal() -> None:
    assert len(check_name("/".join(["a"] * 256))) == 256
    assert check_name("\u00e9" * 127 + "a")
    assert check_name("/".join(["n" * 255] * 16))
