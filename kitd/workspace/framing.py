"""Frames, raw bytes and descriptors on the event loop; no thread ever waits on the socket."""

import asyncio
import mmap
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from kitd_client.api.errors import WorkspaceBroken
from kitd_client.api.workspace import (
    ANSWER_LIMIT,
    LENGTH_BYTES,
    REQUEST_LIMIT,
    SILENCE_SECONDS,
    Answer,
    Request,
    decode_answer,
    encode_frame,
)

_RING_BYTES: Final = 4 * (LENGTH_BYTES + ANSWER_LIMIT)
"""Four frames of the longest kind: the memory of those that nobody sends is never touched."""
_CHUNK_BYTES: Final = _RING_BYTES // 2
"""One half is received into while the other is worked on."""


class Channel:
    """The daemon's end of one connection; owns the socket. Made and used on the running loop.

    It always listens, as far as its ring has room: so bytes arrive while earlier ones are worked on, and the
    end of the client is known at once.

    Args:
        sock: a connected Unix stream socket.
        silence: seconds without one byte after which a client that is due is gone.
    """

    def __init__(self, sock: socket.socket, *, silence: float = SILENCE_SECONDS) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.sending = False
        """A frame is out in part: nothing else may be sent any more."""
        self._silence = silence
        self._ring = memoryview(mmap.mmap(-1, _RING_BYTES))
        self._start = 0
        self._held = 0
        """Bytes from `_start` on that the caller still looks at."""
        self._count = 0
        """Bytes behind those that nobody has seen."""
        self._wanted = 1
        """How many unseen bytes are news: a waiter for half a ring is not called for each of its parts."""
        self._ended = False
        self._listening = False
        self._news = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._listen()

    @property
    def stirred(self) -> bool:
        """The client has said something that was not taken yet, or has hung up."""
        return self._count > 0 or self._ended

    async def news(self) -> None:
        """Returns when something arrives, the end included."""
        await self._news.wait()

    async def send(self, frame: Request) -> None:
        """Raises `WorkspaceBroken` when the client is gone or does not take it."""
        encoded = encode_frame(frame)
        if len(encoded) > LENGTH_BYTES + REQUEST_LIMIT:
            raise WorkspaceBroken(f"a request of {len(encoded)} bytes is over the limit of a frame")
        view = memoryview(encoded)
        self.sending = True
        while view:
            view = view[await self._try(partial(self.sock.send, view)) :]
        self.sending = False

    async def send_descriptors(self, descriptors: Sequence[int]) -> None:
        """One byte with the descriptors; the caller still owns and closes its own."""
        self.sending = True
        await self._try(partial(socket.send_fds, self.sock, [b"\0"], descriptors))
        self.sending = False

    async def receive(self) -> Answer:
        """The next frame; raises `WorkspaceBroken` for silence, the end, and what is no frame."""
        await checkpoint()
        length = int.from_bytes(await self._take(LENGTH_BYTES), "big")
        if length > ANSWER_LIMIT:
            raise WorkspaceBroken(f"the client sent a frame of {length} bytes; the limit is {ANSWER_LIMIT}")
        body = await self._take(length)
        try:
            return decode_answer(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise WorkspaceBroken(f"the client sent something that is no answer: {error}") from error

    async def chunk(self, limit: int) -> memoryview:
        """Raw bytes, at least one and at most `limit`; the view is valid until the next call."""
        self._let_go()
        wanted = min(limit, _CHUNK_BYTES, len(self._ring) - self._start)
        await self._until(wanted)
        self._held = min(self._count, limit, len(self._ring) - self._start)
        self._count -= self._held
        return self._ring[self._start : self._start + self._held]

    def refuse_more(self) -> None:
        """The client's sends fail from now on, so it comes to read what it is told."""
        try:
            self.sock.shutdown(socket.SHUT_RD)
        except OSError:
            return

    def close(self) -> None:
        """The peer sees the end after what was sent, even while someone holds a duplicate of our socket."""
        if self.sock.fileno() < 0:
            return
        self._pause()
        self._end()
        anyio.notify_closing(self.sock)
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            self.sock.close()

    async def _take(self, count: int) -> bytes:
        """Exactly `count` bytes, at most what the ring holds."""
        self._let_go()
        await self._until(count)
        head = self._ring[self._start : self._start + count]
        taken = bytes(head) + bytes(self._ring[: count - len(head)])
        self._held = count
        self._count -= count
        return taken

    def _let_go(self) -> None:
        self._start = (self._start + self._held) % len(self._ring)
        self._held = 0
        if not self._count:
            self._start = 0
        self._listen()

    async def _until(self, count: int) -> None:
        self._wanted = count
        try:
            while self._count < count:
                if self._ended:
                    raise _hung_up()
                before = self._count
                with anyio.move_on_after(self._silence):
                    await self.news()
                if self._count == before and not self._ended:
                    raise WorkspaceBroken(f"the client did not answer for {self._silence:g} s")
        finally:
            self._wanted = 1

    async def _try(self, send: Callable[[], int]) -> int:
        while True:
            try:
                return send()
            except BlockingIOError:
                pass
            except OSError as error:
                raise _hung_up() from error
            try:
                with anyio.fail_after(self._silence):
                    await anyio.wait_writable(self.sock)
            except TimeoutError as error:
                raise WorkspaceBroken(
                    f"the client did not take what it was sent for {self._silence:g} s"
                ) from error
            except (OSError, anyio.ClosedResourceError) as error:
                raise _hung_up() from error

    # -- what the loop calls ---------------------------------------------------------------------

    def _listen(self) -> None:
        if not (self._listening or self._ended) and self._room():
            self._loop.add_reader(self.sock, self._arrived)
            self._listening = True

    def _pause(self) -> None:
        if self._listening:
            self._loop.remove_reader(self.sock)
            self._listening = False

    def _room(self) -> memoryview:
        used = self._held + self._count
        stop = (self._start + used) % len(self._ring)
        if used == len(self._ring):
            return self._ring[:0]
        return self._ring[stop : self._start if stop < self._start else len(self._ring)]

    def _arrived(self) -> None:
        try:
            count = self.sock.recv_into(self._room())
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self._count += count
        if not count:
            self._end()
        if not (count and self._room()):
            self._pause()
        if self._count >= self._wanted:
            self._tell()

    def _end(self) -> None:
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()


def _hung_up() -> WorkspaceBroken:
    return WorkspaceBroken("the client hung up before the job ended", hint="run the command again")
