import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from unit.client.scripted_daemon import ScriptedDaemon, answer

from kitd_client.wire import Answer, GarbledError, SilentError, connect, exchange

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def replying() -> Iterator[Callable[..., Answer]]:
    """Asks a peer that answers with these pieces and hangs up."""
    threads = []

    def ask(*pieces: bytes, upgrade: str = "") -> Answer:
        ours, theirs = socket.socketpair()

        def reply() -> None:
            with theirs, suppress(BrokenPipeError, ConnectionResetError):
                theirs.recv(65536)
                for piece in pieces:
                    theirs.sendall(piece)

        thread = threading.Thread(target=reply)
        threads.append(thread)
        thread.start()
        return exchange(ours, "GET", "/", upgrade=upgrade)

    yield ask
    for thread in threads:
        thread.join(10)


def test_a_body_of_a_known_length_may_come_in_any_pieces(replying: Callable[..., Answer]) -> None:
    got = replying(b"HTTP/1.1 200 OK\r\nConte", b"nt-Length: 5\r\n", b"\r\nhe", b"llo")
    assert (got.status, got.read()) == (200, b"hello")


def test_chunks_are_joined_and_trailers_passed_over(replying: Callable[..., Answer]) -> None:
    assert replying(HEAD, b"3\r\nabc\r\n1", b"0;x=y\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\n").read() == (
        b"abc0123456789abcdef"
    )


def test_a_body_of_no_known_length_ends_with_the_connection(replying: Callable[..., Answer]) -> None:
    assert replying(b"HTTP/1.0 200 OK\r\n\r\nall", b" of it").read() == b"all of it"


def test_no_content_has_no_body(replying: Callable[..., Answer]) -> None:
    assert replying(b"HTTP/1.1 204 No Content\r\n\r\n").read() == b""


def test_an_interim_answer_is_passed_over(replying: Callable[..., Answer]) -> None:
    assert replying(b"HTTP/1.1 100 Continue\r\n\r\n", answer(200, b"x")).read() == b"x"


def test_lines_come_one_by_one_however_they_are_chunked(replying: Callable[..., Answer]) -> None:
    got = replying(HEAD, b"2\r\na\n\r\n3\r\nb\nc\r\n", b"3\r\nd\n\n\r\n0\r\n\r\n")
    assert list(got.lines()) == [b"a", b"b", b"cd", b""]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n"], id="another protocol"),
        pytest.param([b"HTTP/1.1 OK\r\n\r\n"], id="no status"),
        pytest.param([b"HTTP/1.1 200 OK\r\nA: b"], id="head breaks off"),
        pytest.param([b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20000], id="head without end"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"], id="body breaks off"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\nabc"], id="negative length"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc"], id="length in words"),
        pytest.param([HEAD, b"zz\r\nabc\r\n"], id="chunk length in words"),
        pytest.param([HEAD, b"2\r\nabc\r\n0\r\n\r\n"], id="chunk too long"),
        pytest.param([HEAD, b"5\r\nabc"], id="chunk breaks off"),
    ],
)
def test_what_is_no_whole_answer_is_garbled(replying: Callable[..., Answer], pieces: list[bytes]) -> None:
    with pytest.raises(GarbledError):
        replying(*pieces).read()


def test_a_body_is_read_up_to_a_limit(replying: Callable[..., Answer]) -> None:
    with pytest.raises(GarbledError, match="longer than 9 bytes"):
        replying(answer(200, b"0123456789")).read(limit=9)


def test_a_line_is_read_up_to_a_limit(replying: Callable[..., Answer]) -> None:
    with pytest.raises(GarbledError, match="line is longer"):
        list(replying(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1_200_000).lines())


def test_not_one_byte_is_silence(replying: Callable[..., Answer]) -> None:
    with pytest.raises(SilentError):
        replying()


def test_after_an_upgrade_not_one_byte_of_the_new_protocol_is_taken(replying: Callable[..., Answer]) -> None:
    got = replying(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nFRAME", upgrade="x")
    with socket.socket(fileno=got.take_socket()) as sock:
        assert sock.recv(100, socket.MSG_WAITALL) == b"FRAME"


def test_a_path_longer_than_the_kernel_takes_is_reached(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / ("e" * 100) / "kitd.sock"
    with ScriptedDaemon(path) as daemon:
        daemon.on("GET", "/", answer(200, b"here"))
        assert exchange(connect(str(path)), "GET", "/").read() == b"here"


def test_an_answer_given_before_the_request_was_read_is_heard(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer(503, b"full"))
                connection.shutdown(socket.SHUT_RD)

        thread = threading.Thread(target=refuse)
        thread.start()
        got = exchange(connect(str(tmp_path / "s")), "POST", "/", b"x" * 10_000_000)
        assert (got.status, got.read()) == (503, b"full")
        thread.join(10)
