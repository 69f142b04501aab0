"""A daemon of a few threads that answers what a test tells it to."""

import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from kitd_client.api.errors import KitdError
from kitd_client.api.jobs import Event

Answer = bytes | Callable[[socket.socket], None]

HEAD = "Kitd-Api-Version: 1\r\n"


class Asked(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: bytes = b"", *, head: str = HEAD) -> bytes:
    return f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def struct(value: msgspec.Struct, status: int = 200) -> bytes:
    return answer(status, msgspec.json.encode(value))


def problem(error: KitdError) -> bytes:
    return answer(error.status, msgspec.json.encode(error.problem()))


def chunk(event: Event) -> bytes:
    line = msgspec.json.encode(event) + b"\n"
    return f"{len(line):x}\r\n".encode() + line + b"\r\n"


STREAM = f"HTTP/1.1 200 OK\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()


def events(*some: Event) -> bytes:
    return STREAM + b"".join(chunk(event) for event in some) + b"0\r\n\r\n"


class ScriptedDaemon:
    """Answers in the order given; the last answer to a request is given for ever."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Asked] = []
        self._script: dict[tuple[str, str], list[Answer]] = defaultdict(list)
        self._any: list[Answer] = []
        self._threads: list[threading.Thread] = []
        self._news = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        # By way of the directory's descriptor: a test's path may be longer than the kernel takes.
        directory = os.open(path.parent, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        self._listener.listen(16)
        self._loop = threading.Thread(target=self._accept)
        self._loop.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on(self, method: str, target: str, *answers: Answer) -> Self:
        self._script[method, target] = list(answers)
        return self

    def first(self, *answers: Answer) -> Self:
        """Answers whatever comes first with these."""
        self._any = list(answers)
        return self

    def asked_for(self, method: str, target: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.target) == (method, target)]

    def wait_for(self, target: str) -> None:
        """Waits until somebody has asked for it."""
        with self._news:
            assert self._news.wait_for(lambda: any(asked.target == target for asked in self.asked), 30)

    def body(self, method: str, target: str) -> dict[str, object]:
        """The body of the last such request, without a context that says nothing."""
        decoded: dict[str, object] = msgspec.json.decode(self.asked_for(method, target)[-1].body)
        return {name: value for name, value in decoded.items() if (name, value) != ("context", {})}

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._loop.join(10)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            asked = _read(connection)
            if asked is None:
                return
            with self._news:
                self.asked.append(asked)
                self._news.notify_all()
            reply = self._any.pop(0) if self._any else self._scripted(asked)
            try:
                if callable(reply):
                    reply(connection)
                else:
                    connection.sendall(reply)
            except (BrokenPipeError, ConnectionResetError):
                pass

    def _scripted(self, asked: Asked) -> Answer:
        answers = self._script[asked.method, asked.target]
        if not answers:
            return answer(404, b'{"code":"not_found","title":"not in the script","status":404}')
        return answers.pop(0) if len(answers) > 1 else answers[0]


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Asked(method, target, headers, body)


def drop(connection: socket.socket) -> None:
    """Hangs up without a word."""
    connection.shutdown(socket.SHUT_RDWR)
