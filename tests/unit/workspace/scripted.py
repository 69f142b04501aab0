"""Two ends of a workspace that say exactly what a test wants said."""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import anyio

from kitd.workspace import DescriptorBudget, Workspace
from kitd_client.api.jobs import CancelledEvent, Event, Terminal
from kitd_client.api.workspace import (
    LENGTH_BYTES,
    VERSION,
    Alive,
    Answer,
    End,
    Hello,
    ReadEnd,
    Ready,
    Request,
    Run,
    decode_answer,
    decode_request,
    encode_frame,
)
from kitd_client.directory import Directory

A = TypeVar("A", bound=Answer)
R = TypeVar("R", bound=Request)


class Peer:
    """A blocking end of the connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        self.sock = sock

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def body(self) -> bytes:
        return self.take(int.from_bytes(self.take(LENGTH_BYTES), "big"))

    def send(self, frame: Request | Answer) -> None:
        self.sock.sendall(encode_frame(frame))

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def at_end(self) -> bool:
        """The other end is closed; a reset means that it had not read all."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


class ClientPeer(Peer):
    """Plays the client for a real daemon end."""

    def asked(self, kind: type[R]) -> R:
        request = decode_request(self.body())
        assert isinstance(request, kind), request
        return request

    def greet(self) -> None:
        self.asked(Hello)
        self.send(Ready(VERSION))


class DaemonPeer(Peer):
    """Plays the daemon for a real client end."""

    def any_answer(self) -> Answer:
        while isinstance(answer := decode_answer(self.body()), Alive):
            pass
        return answer

    def answer(self, kind: type[A]) -> A:
        answer = self.any_answer()
        assert isinstance(answer, kind), answer
        return answer

    def ask(self, request: Request, kind: type[A]) -> A:
        self.send(request)
        return self.answer(kind)

    def read(self, request: Request) -> tuple[bytes, ReadEnd]:
        self.send(request)
        return self.rest()

    def rest(self) -> tuple[bytes, ReadEnd]:
        data = b""
        while isinstance(answer := self.any_answer(), Run):
            data += self.take(answer.length)
        assert isinstance(answer, ReadEnd), answer
        return data, answer


@asynccontextmanager
async def daemon_end(
    script: Callable[[ClientPeer], None], *, silence: float = 10, budget: DescriptorBudget | None = None
) -> AsyncIterator[Workspace]:
    """A real `Workspace` whose client follows the script in a thread; the script must end by itself."""
    ours, theirs = socket.socketpair()

    def play() -> None:
        with theirs:
            script(ClientPeer(theirs))

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, play)
        workspace = Workspace(ours, budget or DescriptorBudget(), silence=silence)
        try:
            yield workspace
        finally:
            await workspace.aclose()


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Served:
    """A directory that is being served to a scripted daemon."""

    def __init__(self, daemon: DaemonPeer, thread: threading.Thread) -> None:
        self.daemon = daemon
        self.events: list[Event] = []
        self.terminal: Terminal | None = None
        self.error: BaseException | None = None
        self._thread = thread

    def end(self, terminal: Terminal | None = None) -> Terminal | None:
        """Ends the job, and answers what the client made of it."""
        self.daemon.send(End(terminal or CancelledEvent()))
        self.join()
        if self.error is not None:
            raise self.error
        return self.terminal

    def join(self) -> BaseException | None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.error


@contextmanager
def client_end(
    path: Path,
    *,
    create: bool = False,
    overwrite: bool = False,
    ignore_existing: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Iterator[Served]:
    """A real `Directory` serving a scripted daemon, in a thread."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with Directory(
                path, create=create, overwrite=overwrite, ignore_existing=ignore_existing
            ) as directory:
                served.terminal = directory.serve(theirs, on_event or served.events.append)
        except BaseException as error:  # noqa: BLE001 - the test looks at whatever it was
            served.error = error
        finally:
            theirs.close()

    thread = threading.Thread(target=serve)
    served = Served(DaemonPeer(ours), thread)
    thread.start()
    try:
        yield served
    finally:
        ours.close()
        thread.join(20)
        assert not thread.is_alive()
