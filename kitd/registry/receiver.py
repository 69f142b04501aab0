"""A body received straight into memory of our own, past the HTTP client.

The client's way copies each byte twice more, and brings it in small pieces: half of the processor time of a fast
pull beside the hashes. It is left where its parser has nothing more to decide: a body of known length, as it is.
"""

import asyncio
from collections import deque
from typing import Final, Self

import aiohttp
import anyio
from aiohttp.client_proto import ResponseHandler

from kitd.registry.buffers import Buffers

LEAST = 1 << 20
"""Shorter bodies are not worth the change."""

_STOP_CLOCK = getattr(ResponseHandler, "_drop_timeout", None)
"""Nothing public stops the clock of the client's protocol; without this, every body is left to the client."""

_PIECE = 1 << 20
_PIECES_AHEAD = 2
"""Whole pieces that wait for a slow reader; then the peer has to."""

_MEMORY: Final = Buffers(_PIECE, spare=32)

_PATIENCE = 0.25
"""Seconds after which a reader gets what there is of a piece."""


class Receiver(asyncio.BufferedProtocol):
    """The protocol of a connection while a body comes; then the HTTP client has it again.

    Args:
        response: whose head has been read, and of its body nothing.
        handler: its protocol, the HTTP client's.
        transport: its connection.
        length: bytes of its body.
        silence: seconds without one byte after which the peer is taken for gone.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        handler: ResponseHandler,
        transport: asyncio.Transport,
        length: int,
        silence: float,
    ) -> None:
        self._response = response
        self._handler = handler
        self._transport = transport
        self._silence = silence
        self._full: deque[memoryview] = deque()
        self._room = memoryview(b"")
        """The piece under way."""
        self._filled = 0
        self._over = False
        self._error: BaseException | None = None
        self._news = anyio.Event()
        # The client's parser may hold some of the body back: each read lets it go on.
        while piece := response.content.read_nowait():
            self._full.append(memoryview(piece))
        self._left = length - sum(map(len, self._full))
        self._connect(self)

    @classmethod
    def taking_over(cls, response: aiohttp.ClientResponse, length: int, silence: float) -> Self | None:
        """Takes a body over, if that is possible and worth it; the errors of reading it."""
        connection = response.connection
        handler = connection.protocol if connection is not None else None
        transport = handler.transport if handler is not None else None
        if _STOP_CLOCK is None or handler is None or transport is None or transport.is_closing():
            return None
        headers = response.headers
        plain = "Content-Encoding" not in headers and "Transfer-Encoding" not in headers
        if length < LEAST or not plain or headers.get("Content-Length") != str(length):
            return None
        _STOP_CLOCK(handler)
        return cls(response, handler, transport, length, silence)

    async def readany(self) -> memoryview:
        """The next bytes; none when the peer has ended the connection.

        Raises:
            TimeoutError: the peer has sent nothing for too long.
            OSError: the connection broke.
        """
        began = anyio.current_time()
        while not (self._full or self._over):
            self._news = anyio.Event()
            with anyio.move_on_after(_PATIENCE):
                await self._news.wait()
            waited = anyio.current_time() - began
            if self._filled and waited >= _PATIENCE:
                self._cut()
            elif not self._filled and waited >= self._silence:
                raise TimeoutError
        if self._full:
            piece = self._full.popleft()
            if self._left and not self._over and len(self._full) < _PIECES_AHEAD:
                self._transport.resume_reading()
            return piece
        if self._error is not None:
            raise ConnectionResetError(str(self._error)) from self._error
        return memoryview(b"")

    def give_back(self) -> None:
        """After the last byte: the HTTP client has the connection again; it closes it if more bytes come."""
        if not self._transport.is_closing():
            self._connect(self._handler)
            self._response.content.feed_eof()

    def _connect(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.pause_reading()
        self._transport.set_protocol(protocol)
        self._transport.resume_reading()

    def _cut(self) -> None:
        """What came of the piece under way becomes one, the rest of its memory the next."""
        self._full.append(self._room[: self._filled])
        self._room = self._room[self._filled :]
        self._filled = 0
        self._news.set()

    # -- what the loop calls ---------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the body's length is known)
        if not self._left:
            return memoryview(bytearray(1))
        if not self._room:
            self._room = _MEMORY.take()[: self._left]
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:
            self._transport.abort()
            return
        self._filled += nbytes
        self._left -= nbytes
        if self._filled == len(self._room) or not self._left:
            self._over = not self._left
            self._cut()
            if self._over or len(self._full) >= _PIECES_AHEAD:
                self._transport.pause_reading()

    def eof_received(self) -> None:
        """The connection ends next, `connection_lost` tells."""

    def connection_lost(self, error: BaseException | None) -> None:
        if self._filled:
            self._cut()
        self._over, self._error = True, error
        self._news.set()
        self._handler.connection_lost(error)
