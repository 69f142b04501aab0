"""A daemon that means harm: it gets nothing from outside the directory, and changes nothing there."""

import os
import socket
from pathlib import Path

import pytest
from unit.workspace.scripted import Served, client_end, open_descriptors

from kitd_client.api.errors import DaemonUnreachable, ProtocolError
from kitd_client.api.jobs import CancelledEvent
from kitd_client.api.workspace import (
    REQUEST_LIMIT,
    Check,
    FileRow,
    MemberRow,
    Publish,
    Published,
    Read,
    ReadSmall,
    Request,
    Scan,
    Write,
    Written,
    encode_frame,
)

NAMES = [
    b"../outside",
    b"a/../../outside",
    b"/etc/passwd",
    b"//etc",
    b"..",
    b".",
    b"./a",
    b"a//b",
    b"a/",
    b"a\0b",
    b"n" * 256,
    b"/".join([b"d"] * 257),
]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").mkdir()
    return tmp_path / "target"


def untouched(target: Path) -> bool:
    return (
        {path.name for path in target.parent.iterdir()} == {"outside", "target"}
        and (target.parent / "outside").read_text() == "secret"
        and {path.name for path in target.iterdir()} == {"a"}
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ask", ["scan", "read small", "read"])
def test_no_name_leads_out_of_a_directory_that_is_packed(target: Path, name: bytes, ask: str) -> None:
    requests: dict[str, Request] = {
        "scan": Scan([b"a", name]),
        "read small": ReadSmall(name, 100),
        "read": Read([FileRow(name, 6)]),
    }
    with client_end(target) as served:
        served.daemon.send(requests[ask])
        assert isinstance(served.join(), ProtocolError)
        assert served.daemon.at_end()


@pytest.mark.parametrize("name", [*NAMES, b""])
@pytest.mark.parametrize("ask", ["check", "write a file", "write a directory"])
def test_no_name_leads_out_of_a_directory_that_is_unpacked_into(target: Path, name: bytes, ask: str) -> None:
    requests: dict[str, Request] = {
        "check": Check([MemberRow(name, False, 0o644, 0)]),
        "write a file": Write([MemberRow(b"ok", False, 0o644, 0), MemberRow(name, False, 0o644, 3, b"bad")]),
        "write a directory": Write([MemberRow(name, True, 0o755, 0)]),
    }
    with client_end(target, create=True, overwrite=True) as served:
        served.daemon.send(requests[ask])
        assert isinstance(served.join(), ProtocolError)
    assert untouched(target)


@pytest.mark.parametrize(
    "request_",
    [Check([]), Write([MemberRow(b"f", False, 0o644, 0)]), Publish()],
)
def test_a_directory_that_is_packed_is_never_written_to(target: Path, request_: Request) -> None:
    with client_end(target) as served:
        served.daemon.send(request_)
        assert isinstance(served.join(), ProtocolError)
    assert untouched(target)


@pytest.mark.parametrize("request_", [Scan([b""]), ReadSmall(b"a", 1), Read([])])
def test_a_directory_that_is_unpacked_into_is_never_read(target: Path, request_: Request) -> None:
    with client_end(target, create=True) as served:
        served.daemon.send(request_)
        assert isinstance(served.join(), ProtocolError)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param((REQUEST_LIMIT + 1).to_bytes(4, "big"), id="giant frame"),
        pytest.param(b"\0\0\0\x03abc", id="no msgpack"),
        pytest.param(b"\0\0\x75\x30" + b"\x91" * 30_000, id="deep nesting"),
        pytest.param(bytes(encode_frame(Written())), id="an answer"),
    ],
)
def test_what_is_no_request_is_an_error(target: Path, said: bytes) -> None:
    with client_end(target, create=True) as served:
        served.daemon.raw(said)
        assert isinstance(served.join(), ProtocolError)
    assert untouched(target)


def test_an_end_without_a_last_word_is_an_error(target: Path) -> None:
    with client_end(target) as served:
        served.daemon.raw(b"\0\0")
        served.daemon.sock.close()
        assert isinstance(served.join(), DaemonUnreachable)


def lend(served: Served, sizes: list[int], descriptors: list[int]) -> None:
    served.daemon.send(
        Write([MemberRow(b"f%d" % index, False, 0o644, size) for index, size in enumerate(sizes)])
    )
    socket.send_fds(served.daemon.sock, [b"\0"], descriptors)


@pytest.mark.parametrize(
    "case", ["fewer", "more", "far more", "smaller", "larger", "a directory", "a pipe", "a device"]
)
def test_what_is_lent_must_be_what_was_announced(target: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "object").write_bytes(b"12345")
    real = os.open(tmp_path / "object", os.O_RDONLY)
    (tmp_path / "object").unlink()
    readable, writable = os.pipe()
    null = os.open("/dev/zero", os.O_RDONLY)
    place = os.open("/", os.O_RDONLY)
    sizes, lent = {
        "fewer": ([5, 5], [real]),
        "more": ([5, 5], [real, real, real]),
        "far more": ([5], [real] * 200),
        "smaller": ([5, 6], [real, real]),
        "larger": ([5, 4], [real, real]),
        "a directory": ([5], [place]),
        "a pipe": ([5], [readable]),
        "a device": ([5], [null]),
    }[case]
    before = open_descriptors()
    with client_end(target, create=True) as served:
        lend(served, sizes, lent)
        assert isinstance(served.join(), ProtocolError)
    assert open_descriptors() == before
    for descriptor in (real, readable, writable, null, place):
        os.close(descriptor)
    assert untouched(target)


def test_descriptors_that_nobody_announced_are_dropped(target: Path) -> None:
    before = open_descriptors()
    with client_end(target, create=True) as served:
        socket.send_fds(served.daemon.sock, [bytes(encode_frame(Check([])))], [0] * 64)
        served.daemon.body()
        served.end(CancelledEvent())
    assert open_descriptors() == before


def test_nothing_goes_on_after_the_publication(target: Path) -> None:
    with client_end(target, create=True) as served:
        served.daemon.ask(Publish(), Published)
        served.daemon.send(Write([MemberRow(b"f", False, 0o644, 0)]))
        assert isinstance(served.join(), ProtocolError)
    assert untouched(target)


def test_one_name_twice_is_refused(target: Path) -> None:
    with client_end(target, create=True) as served:
        member = MemberRow(b"f", False, 0o644, 0)
        served.daemon.send(Write([member, member]))
        served.daemon.any_answer()
        served.end()
    assert untouched(target)
