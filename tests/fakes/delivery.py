"""How a reply gets on the wire, spoiled where the reply says so."""

import asyncio
import itertools
import socket
import struct
from http import HTTPStatus

from aiohttp import web
from fakes.exchange import Body, Exchange, Journal, Reply

_NO_LINGER = struct.pack("ii", 1, 0)


class Delivery:
    """One reply on its way; counts the bytes of its body as they go."""

    def __init__(self, request: web.BaseRequest, reply: Reply, exchange: Exchange, journal: Journal) -> None:
        self._request = request
        self._reply = reply
        self._exchange = exchange
        self._journal = journal
        self._transport = request.transport

    async def send(self) -> web.StreamResponse:
        """Send what is to be sent; whatever is returned, aiohttp only finishes it."""
        reply = self._reply
        if reply.gate is not None and reply.gate_at is None:
            await reply.gate.pass_through()
        if reply.silent:
            self._end()
            return web.Response()
        self._exchange.status = reply.status
        self._exchange.reply_headers = reply.headers
        if reply.framing == "close":
            return await self._send_close_delimited()
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        if reply.framing == "chunked":
            response.enable_chunked_encoding()
        else:
            response.content_length = len(reply.body) if reply.length is None else reply.length
        await response.prepare(self._request)
        if self._request.method != "HEAD":
            await self._send_body(response)
        return response

    async def _send_body(self, response: web.StreamResponse) -> None:
        reply = self._reply
        claimed = reply.length if reply.length is not None else len(reply.body)
        for piece in self._pieces(reply.body[:claimed]):
            await self._stand_at_gate()
            await response.write(piece)
            self._count(piece)
            if reply.pause:
                await asyncio.sleep(reply.pause)
        await self._stand_at_gate()
        if reply.cut is not None or claimed > len(reply.body):
            self._end()
        elif claimed < len(reply.body) and self._transport is not None:
            self._transport.write(bytes(reply.body[claimed:]))

    async def _send_close_delimited(self) -> web.StreamResponse:
        reply, transport = self._reply, self._transport
        assert transport is not None
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        for piece in self._pieces(reply.body):
            await self._stand_at_gate()
            transport.write(piece)
            self._count(piece)
        self._end()
        return web.Response()

    def _pieces(self, body: Body) -> list[memoryview]:
        """The body up to the cut, split so that a border lies where the gate stands."""
        reply = self._reply
        view = memoryview(body)
        if reply.cut is not None:
            view = view[: reply.cut]
        borders = set(range(0, len(view), reply.piece)) | {len(view)}
        if reply.gate_at is not None:
            borders.add(min(reply.gate_at, len(view)))
        ordered = sorted(borders)
        return [view[start:stop] for start, stop in itertools.pairwise(ordered)]

    async def _stand_at_gate(self) -> None:
        reply = self._reply
        if reply.gate is not None and reply.gate_at is not None and self._exchange.sent >= reply.gate_at:
            gate, reply.gate = reply.gate, None
            await gate.pass_through()

    def _count(self, piece: memoryview) -> None:
        self._exchange.sent += len(piece)
        self._journal.bell.ring()

    def _end(self) -> None:
        """End the connection: FIN after what was written, or RST."""
        if self._transport is None:
            return
        if self._reply.reset:
            peer: socket.socket = self._transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()
        else:
            self._transport.close()
