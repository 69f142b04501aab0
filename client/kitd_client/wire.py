"""One HTTP/1.1 request and its answer over a Unix socket, by hand.

`http.client` takes longer to import than the whole of `kitctl version` may last, and it cannot hand over its
socket after a 101. What is spoken here is the part of RFC 9112 that a local daemon needs: one request per
connection, answers of a known length or chunked, protocol upgrades.
"""

import _socket
import os
from collections.abc import Iterator, Mapping

LONGEST_PATH = 107
"""Bytes of a path that fit `sun_path` with its final zero (unix(7))."""

_PIECE = 65536
_HEAD_LIMIT = 65536
_LINE_LIMIT = 1 << 20
BODY_LIMIT = 64 << 20
"""Bytes of the largest answer that is read whole."""


class SilentError(Exception):
    """The connection ended and not one byte had been answered."""


class GarbledError(Exception):
    """What came is no answer in HTTP/1.1, or it broke off in the middle."""


def connect(path: str) -> _socket.socket:
    """Connects to a socket whose path may be longer than `sun_path`.

    Raises:
        OSError: nobody listens there, or this user may not connect.
    """
    directory = -1
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        if len(os.fsencode(path)) > LONGEST_PATH:
            parent, _, name = path.rpartition("/")
            directory = os.open(parent or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            path = f"/proc/self/fd/{directory}/{name}"
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    finally:
        if directory >= 0:
            os.close(directory)
    return sock


def exchange(
    sock: _socket.socket, method: str, target: str, body: bytes | None = None, *, upgrade: str = ""
) -> "Answer":
    """Sends a request and reads the head of its answer; the answer owns the socket from here on.

    Args:
        sock: a fresh connection.
        method: the method.
        target: path and query, quoted.
        body: a JSON text, or none.
        upgrade: the protocol to change to, if any.

    Raises:
        SilentError: the peer hung up without a byte of an answer.
        GarbledError: the answer is no HTTP/1.1.
    """
    lines = [f"{method} {target} HTTP/1.1", "Host: kitd", "Accept: application/json"]
    lines.append(f"Connection: Upgrade\r\nUpgrade: {upgrade}" if upgrade else "Connection: close")
    if body is not None:
        lines.append(f"Content-Type: application/json\r\nContent-Length: {len(body)}")
    answer = Answer(sock, precise=bool(upgrade))
    try:
        try:  # noqa: SIM105 -- contextlib costs start-up time
            sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
        except (BrokenPipeError, ConnectionResetError):
            # A daemon that refuses early hangs up early; what it said is still there to be read.
            pass
        answer.read_head()
    except BaseException:
        answer.close()
        raise
    return answer


class Answer:
    """An HTTP answer: `status` and `headers` (names in lower case), then the body, once."""

    def __init__(self, sock: _socket.socket, *, precise: bool = False) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._sock = sock
        self._pending = b""
        # After a 101 the bytes that follow the head are of another protocol and may carry descriptors: then
        # not one byte too many may be received.
        self._head_step = 1 if precise else _PIECE

    def close(self) -> None:
        """Ends the connection."""
        self._sock.close()

    def take_socket(self) -> int:
        """Gives away the descriptor of a connection that has changed its protocol."""
        return self._sock.detach()

    def read_head(self) -> None:
        """Reads status line and headers; an interim answer (1xx but 101) is passed over."""
        while True:
            head = self._until(b"\r\n\r\n", _HEAD_LIMIT, self._head_step)
            first, *rest = head.decode("latin-1").split("\r\n")
            version, _, status = first.partition(" ")
            if not version.startswith("HTTP/1.") or not status[:3].isdigit():
                raise GarbledError("the answer is no HTTP/1.1")
            self.status = int(status[:3])
            fields = (line.partition(":") for line in rest)
            self.headers = {name.strip().lower(): value.strip() for name, _, value in fields}
            if self.status >= 200 or self.status == 101:  # noqa: PLR2004 -- RFC 9110, section 15.2
                return

    def read(self, limit: int = BODY_LIMIT) -> bytes:
        """Reads the whole body and ends the connection.

        Raises:
            GarbledError: the body is longer than `limit`, or broke off.
        """
        pieces = []
        total = 0
        try:
            for piece in self.body():
                pieces.append(piece)
                total += len(piece)
                if total > limit:
                    raise GarbledError(f"the answer is longer than {limit} bytes")
        finally:
            self.close()
        return b"".join(pieces)

    def lines(self) -> Iterator[bytes]:
        """Yields the lines of the body as they come (NDJSON); ends with the connection.

        Raises:
            GarbledError: a line is longer than 1 MiB, or the framing is wrong.
        """
        rest = b""
        try:
            for piece in self.body():
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
                if len(rest) > _LINE_LIMIT:
                    raise GarbledError(f"a line is longer than {_LINE_LIMIT} bytes")
        finally:
            self.close()

    def body(self) -> Iterator[bytes]:
        """Yields the body in pieces as they come.

        Raises:
            GarbledError: it broke off, or the framing is wrong.
        """
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self.headers:
            yield from self._exactly(_number(self.headers["content-length"], 10))
        elif self.status != 204:  # noqa: PLR2004 -- RFC 9110, section 15.3.5: no body
            while self._pending or self._fill(_PIECE):
                piece, self._pending = self._pending, b""
                yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = _number(self._until(b"\r\n", _HEAD_LIMIT, _PIECE).partition(b";")[0].decode("latin-1"), 16)
            if size == 0:
                while self._until(b"\r\n", _HEAD_LIMIT, _PIECE):
                    pass
                return
            yield from self._exactly(size)
            if self._until(b"\r\n", _HEAD_LIMIT, _PIECE):
                raise GarbledError("a chunk is longer than it said")

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count:
            if not self._pending and not self._fill(_PIECE):
                raise GarbledError("the answer broke off")
            piece, self._pending = self._pending[:count], self._pending[count:]
            count -= len(piece)
            yield piece

    def _until(self, mark: bytes, limit: int, step: int) -> bytes:
        while (at := self._pending.find(mark)) < 0:
            if len(self._pending) > limit:
                raise GarbledError("a header is too long")
            if not self._fill(step):
                raise GarbledError("the answer broke off") if self._pending or self.status else SilentError
        found, self._pending = self._pending[:at], self._pending[at + len(mark) :]
        return found

    def _fill(self, step: int) -> bool:
        try:
            piece = self._sock.recv(step)
        except ConnectionResetError:
            return False
        self._pending += piece
        return bool(piece)


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise GarbledError(f"{text!r} is no length")
    return number
