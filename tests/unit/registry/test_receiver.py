"""Bodies long enough to be received past the HTTP client; a server that counts its connections."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import anyio
import pytest
import trustme

from kitd.registry import receiver
from kitd.registry.body import Body, BodyInterrupted
from kitd.registry.clock import SystemClock
from kitd.registry.receiver import LEAST

DATA = bytes(range(256)) * (3 * LEAST // 256) + b"the end"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
Get = Callable[[], AbstractAsyncContextManager[aiohttp.ClientResponse]]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


class Server:
    """Answers every request with the head of `length` bytes and what `send` writes after it."""

    def __init__(self, send: Answer, length: int) -> None:
        self.connections = 0
        self._send = send
        self._length = length

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._length)
                await self._send(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(DATA)
    await writer.drain()


@asynccontextmanager
async def served(
    send: Answer,
    tls: ssl.SSLContext | None = None,
    trust: ssl.SSLContext | None = None,
    length: int = len(DATA),
) -> AsyncIterator[tuple[Server, Get]]:
    server = Server(send, length)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}/"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust or True), timeout=aiohttp.ClientTimeout(sock_read=5)
    ) as session:
        yield server, lambda: session.get(url)
    listening.close()


def body(response: aiohttp.ClientResponse, stall: float = 5.0, length: int = len(DATA)) -> Body:
    return Body(response, length, "blob", stall, [], SystemClock())


async def read(body: Body) -> bytes:
    return b"".join([piece async for piece in body])


async def test_a_client_library_that_lacks_what_this_needs_reads_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver, "_STOP_CLOCK", None)
    async with served(whole) as (server, get):
        for _ in range(2):
            async with get() as response:
                coming = body(response)
                assert await read(coming) == DATA
                assert coming._receiver is None
        assert server.connections == 1


async def test_it_comes_whole_and_the_connection_is_used_again() -> None:
    async with served(whole) as (server, get):
        for _ in range(3):
            async with get() as response:
                assert await read(body(response)) == DATA
        async with get() as response:
            assert await response.read() == DATA
        assert server.connections == 1


async def test_over_tls_too() -> None:
    authority = trustme.CA()
    tls, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(trust)
    async with served(whole, tls, trust) as (server, get):
        for _ in range(2):
            async with get() as response:
                assert await read(body(response)) == DATA
        assert server.connections == 1


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_what_came_before_a_broken_connection_is_handed_out(end: str) -> None:
    async def half(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA[: 2 * LEAST])
        await writer.drain()
        if end == "abort":
            await asyncio.sleep(0.1)
            writer.transport.abort()
        raise ConnectionError

    async with served(half) as (server, get):
        got = b""
        async with get() as response:
            with pytest.raises(BodyInterrupted, match=r"ended early|broke off"):  # noqa: PT012 (what came counts)
                async for piece in body(response):
                    got += piece
        assert got == DATA[: 2 * LEAST]
        async with get():
            assert server.connections == 2


async def test_silence_is_a_stall_and_what_came_is_handed_out_before_it() -> None:
    async def some(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA[:LEAST])
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(60)

    async with served(some) as (_, get):
        got = 0
        async with get() as response:
            with pytest.raises(BodyInterrupted, match="stalled"):  # noqa: PT012 (what came counts)
                async for piece in body(response, stall=0.3):
                    got += len(piece)
        assert got == LEAST + 1


async def test_a_connection_with_bytes_behind_the_body_is_not_used_again() -> None:
    noticed = anyio.Event()

    async def too_much(writer: asyncio.StreamWriter) -> None:
        await whole(writer)
        try:
            while True:
                writer.write(b"more" * LEAST)
                await writer.drain()
        except ConnectionError:
            noticed.set()
            raise

    async with served(too_much) as (server, get):
        async with get() as response:
            assert await read(body(response)) == DATA
        await noticed.wait()
        async with get() as response:
            assert await read(body(response)) == DATA
        assert server.connections == 2


async def test_a_reader_that_does_not_read_makes_the_peer_wait() -> None:
    held = anyio.Event()

    async def until_held(writer: asyncio.StreamWriter) -> None:
        with anyio.move_on_after(0.5):
            writer.write(bytes(64 * LEAST))
            await writer.drain()
            return
        held.set()

    async with served(until_held, length=64 * LEAST) as (_, get), get() as response:
        pieces = body(response, length=64 * LEAST)
        await anext(pieces)
        with anyio.fail_after(10):
            await held.wait()


async def test_a_body_left_in_the_middle_costs_its_connection_only() -> None:
    async with served(whole) as (server, get):
        async with get() as response:
            await anext(body(response))
        async with get() as response:
            assert await read(body(response)) == DATA
        assert server.connections == 2
