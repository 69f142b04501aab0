"""What passes between a client and a scripted registry: the request, the reply, and the journal of both."""

import asyncio
import dataclasses
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import parse_qs

from multidict import CIMultiDict, CIMultiDictProxy

Body = bytes | memoryview
Origin = Literal["registry", "other"]

_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")


class Bell:
    """Wakes whoever waits for a condition, on any event loop and in any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def ring(self) -> None:
        with self._condition:
            self._condition.notify_all()
            for loop, event in self._waiters:
                loop.call_soon_threadsafe(event.set)

    async def until(self, predicate: Callable[[], bool], *, within: float = 30.0) -> None:
        """Return once the predicate holds; asked again at each ring; AssertionError after `within` s."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._condition:
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout(within):
                while not predicate():
                    await event.wait()
                    event.clear()
        except TimeoutError:
            raise AssertionError(f"what was waited for did not happen within {within} s") from None
        finally:
            with self._condition:
                self._waiters.remove(waiter)

    def wait(self, predicate: Callable[[], bool], *, within: float = 30.0) -> None:
        """The same for a plain thread: a test that runs subprocesses."""
        with self._condition:
            if not self._condition.wait_for(predicate, within):
                raise AssertionError(f"what was waited for did not happen within {within} s")


@dataclasses.dataclass(slots=True)
class Ask:
    """A request as the registry sees it."""

    origin: Origin
    method: str
    path: str
    """As sent, without the query."""
    query_string: str
    """As sent, not decoded: signatures are compared byte for byte."""
    headers: CIMultiDictProxy[str]
    base: str
    """`scheme://host:port` of the origin that was asked."""
    body: bytes = b""
    whole: bool = True
    """The whole body was read; false when a fault ended it early or the client went away."""

    @property
    def query(self) -> Mapping[str, list[str]]:
        return parse_qs(self.query_string, keep_blank_values=True)

    def first(self, name: str) -> str:
        """The first value of a query parameter, or an empty string."""
        return self.query.get(name, [""])[0]

    @property
    def range(self) -> tuple[int, int | None] | None:
        """First and last byte of a single `bytes=a-b` or `bytes=a-`."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None:
            return None
        return int(match[1]), int(match[2]) if match[2] else None


class Gate:
    """Holds replies (or the reading of bodies) until a test opens it; from any thread."""

    def __init__(self) -> None:
        self.held = 0
        """How many requests were ever held here."""
        self.opened = False
        self._bell = Bell()

    def open(self) -> None:
        self.opened = True
        self._bell.ring()

    async def pass_through(self) -> None:
        """For the registry: wait until the gate is open."""
        self.held += 1
        self._bell.ring()
        await self._bell.until(lambda: self.opened, within=600)

    async def until_held(self, count: int = 1) -> None:
        """For a test: wait until so many requests stand (or stood) at the gate."""
        await self._bell.until(lambda: self.held >= count)

    def wait_held(self, count: int = 1) -> None:
        """The same for a plain thread."""
        self._bell.wait(lambda: self.held >= count)


@dataclasses.dataclass(slots=True)
class Reply:
    """An answer and how it is put on the wire; the faults change both."""

    status: int
    headers: CIMultiDict[str] = dataclasses.field(default_factory=CIMultiDict)
    body: Body = b""
    framing: Literal["length", "chunked", "close"] = "length"
    length: int | None = None
    """The Content-Length to claim, if not the true one."""
    cut: int | None = None
    """The connection ends after so many bytes of the body."""
    reset: bool = False
    """The connection ends with RST, not with FIN."""
    silent: bool = False
    """Not even a head: the connection just ends."""
    gate: Gate | None = None
    gate_at: int | None = None
    """The gate stands after so many bytes of the body; None: before the head."""
    piece: int = 256 * 1024
    pause: float = 0.0
    """Seconds between two pieces."""


def error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    """An error as the distribution spec wants it; underscores of header names become dashes."""
    text = json.dumps({"errors": [{"code": code, "message": message or code.lower().replace("_", " ")}]})
    fields = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    fields["Content-Type"] = "application/json"
    return Reply(status, fields, text.encode())


@dataclasses.dataclass(slots=True)
class Exchange:
    """One line of the journal. Counters move while the exchange runs."""

    number: int
    origin: Origin
    method: str
    path: str
    query: str
    range: tuple[int, int | None] | None
    headers: CIMultiDictProxy[str] = dataclasses.field(repr=False)
    """All request headers, Authorization included: tests assert who was sent what."""
    status: int = 0
    """0 until a head is sent, and for ever if none was."""
    received: int = 0
    """Bytes of the request's body that were read."""
    sent: int = 0
    """Bytes of the reply's body handed to the socket."""
    finished: bool = False
    fault: str = ""
    """Name of the action that had a hand in it."""
    reply_headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


class Journal:
    """Every request in order of arrival."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.violations: list[str] = []
        """What a well-behaved client would not have asked."""
        self.bell = Bell()

    def opened(self, ask: Ask) -> Exchange:
        exchange = Exchange(
            len(self.exchanges), ask.origin, ask.method, ask.path, ask.query_string, ask.range, ask.headers
        )
        self.exchanges.append(exchange)
        self.bell.ring()
        return exchange

    def violation(self, ask: Ask, text: str) -> None:
        self.violations.append(f"{ask.method} {ask.path}: {text}")

    def select(
        self,
        method: str | None = None,
        path: str = "",
        *,
        origin: Origin | None = None,
        status: int | None = None,
    ) -> list[Exchange]:
        """Exchanges with that method, whose path has a match of the regular expression, and so on."""
        return [
            exchange
            for exchange in self.exchanges
            if (method is None or exchange.method == method)
            and re.search(path, exchange.path)
            and (origin is None or exchange.origin == origin)
            and (status is None or exchange.status == status)
        ]
