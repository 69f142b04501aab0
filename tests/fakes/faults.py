"""What can go wrong at a registry, one action each, and the rules that say at which request.

An action gets the request and a function that serves it truly. One that answers by itself never calls it, so
a 500 to a PUT stores nothing; one that spoils a reply calls it and changes what comes back.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

from fakes.exchange import Ask, Gate, Origin, Reply, error
from multidict import CIMultiDict

Serve = Callable[[], Reply]


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    name: str
    act: Callable[[Ask, Serve], Reply]
    take: int | None = None
    """So many bytes of the request's body are read (None: all of it)."""
    gate: Gate | None = None
    """Stands there while the body is read; then the rest is read too."""


@dataclasses.dataclass(slots=True)
class Rule:
    """When an action acts. A rule counts the requests it fits and lets `skip` of them pass."""

    action: Action
    method: str | None = None
    path: str = ""
    """A regular expression, searched in path and query."""
    covers: int | None = None
    """Only a range request that has this byte of the blob."""
    origin: Origin | None = None
    skip: int = 0
    times: int | None = 1
    """How often it acts; None: for ever."""
    every: int = 1
    """After `skip`, it acts on every n-th request that fits."""
    seen: int = 0
    acted: int = 0

    def takes(self, ask: Ask) -> bool:
        """Whether this request is the rule's; counts it."""
        if not self._fits(ask):
            return False
        self.seen += 1
        number = self.seen - self.skip
        if number < 1 or number % self.every or (self.times is not None and self.acted >= self.times):
            return False
        self.acted += 1
        return True

    def _fits(self, ask: Ask) -> bool:
        target = f"{ask.path}?{ask.query_string}" if ask.query_string else ask.path
        return (
            (self.method is None or ask.method == self.method)
            and (self.origin is None or ask.origin == self.origin)
            and re.search(self.path, target) is not None
            and (self.covers is None or _covers(ask, self.covers))
        )


def _covers(ask: Ask, offset: int) -> bool:
    if ask.range is None:
        return False
    first, last = ask.range
    return first <= offset and (last is None or offset <= last)


def _spoiled(name: str, change: Callable[[Ask, Reply], Reply]) -> Action:
    return Action(name, lambda ask, serve: change(ask, serve()))


# -- answers that are not the true one -----------------------------------------------------------


def status(
    code: int,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    oci_code: str = "UNKNOWN",
    message: str = "",
    take: int | None = None,
) -> Action:
    """Any status; without a body of its own it has an error document. `take=0` answers before the body."""

    def act(ask: Ask, serve: Serve) -> Reply:
        reply = error(code, oci_code, message)
        if body is not None:
            reply.body = body
            reply.headers["Content-Type"] = "text/html"
        reply.headers.update(headers or {})
        return reply

    return Action(f"status {code}", act, take)


def too_many(retry_after: str | None = None) -> Action:
    """429; Retry-After as given: seconds, an HTTP date, nonsense, or none at all."""
    return status(
        429, headers={} if retry_after is None else {"Retry-After": retry_after}, oci_code="TOOMANYREQUESTS"
    )


def redirect(location: str, *, code: int = 307) -> Action:
    """To any address: forbidden ones, another scheme. An empty location redirects to the request itself."""

    def act(ask: Ask, serve: Serve) -> Reply:
        target = location or f"{ask.base}{ask.path}"
        return Reply(code, CIMultiDict(Location=target))

    return Action(f"redirect {location}", act)


def unsatisfiable(total: int | str | None = None) -> Action:
    """416, with `Content-Range: bytes */total` if one is given."""
    headers = {} if total is None else {"Content-Range": f"bytes */{total}"}
    return status(416, headers=headers, oci_code="RANGE_INVALID")


def body(data: bytes, **headers: str) -> Action:
    """The true status and headers with another body: a changed or a huge manifest."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.body = data
        reply.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        return reply

    return _spoiled("body", change)


def without(*names: str) -> Action:
    """The true answer without some headers (Docker-Content-Digest, Content-Range, Accept-Ranges ...)."""

    def change(ask: Ask, reply: Reply) -> Reply:
        for name in names:
            reply.headers.popall(name, None)
        return reply

    return _spoiled(f"without {names}", change)


def with_headers(headers: Mapping[str, str]) -> Action:
    """The true answer with some headers changed or added (a wrong Content-Range, a wrong digest)."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.headers.update(headers)
        return reply

    return _spoiled("headers", change)


def then(effect: Callable[[], object]) -> Action:
    """The true answer; after it was made, something happens: a tag moves, tokens are revoked, URLs expire."""

    def change(ask: Ask, reply: Reply) -> Reply:
        effect()
        return reply

    return _spoiled("then", change)


# -- broken connections and bodies ---------------------------------------------------------------


def drop(after: int = 0, *, reset: bool = False) -> Action:
    """The connection ends after so many bytes of the reply's body, Content-Length being the true one."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.cut, reply.reset = after, reset
        return reply

    return _spoiled(f"drop after {after}", change)


def hang_up(*, take: int | None = 0, reset: bool = False) -> Action:
    """No answer at all: the connection ends after `take` bytes of the request's body; nothing is stored.

    With an upload and the quirk `keep_partial`, the bytes taken are in the session.
    """

    def act(ask: Ask, serve: Serve) -> Reply:
        if ask.body and not ask.whole:
            serve()
        return Reply(500, silent=True, reset=reset)

    return Action(f"hang up after {take}", act, take)


def lose_reply() -> Action:
    """The request is done, but the client never hears of it."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.silent = True
        return reply

    return _spoiled("lose reply", change)


def stall(gate: Gate, after: int | None = None) -> Action:
    """The reply stands still after so many bytes of its body (None: before its head) until the gate opens."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.gate, reply.gate_at = gate, after
        return reply

    return _spoiled(f"stall after {after}", change)


def stall_upload(gate: Gate, after: int = 0) -> Action:
    """The request's body is not read beyond so many bytes until the gate opens; then all is well."""
    return Action(f"stall upload after {after}", lambda ask, serve: serve(), after, gate)


def drip(piece: int = 1, pause: float = 0.05) -> Action:
    """The body comes in tiny pieces: enough to keep a read timeout quiet."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.piece, reply.pause = piece, pause
        return reply

    return _spoiled("drip", change)


def wrong_byte(at: int = 0) -> Action:
    """One byte of the body differs; `at` counts in this reply (negative: from its end)."""

    def change(ask: Ask, reply: Reply) -> Reply:
        data = bytearray(reply.body)
        data[at] ^= 0xFF
        reply.body = bytes(data)
        return reply

    return _spoiled("wrong byte", change)


def length_claimed(difference: int) -> Action:
    """Content-Length is off by that much. The connection stays open after a short claim (extra bytes follow),
    and ends early after a long one."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.length = len(reply.body) + difference
        return reply

    return _spoiled(f"length off by {difference}", change)


def two_lengths(other: int = 1) -> Action:
    """Two Content-Length fields that differ (RFC 9112, section 6.3: the client must not believe either)."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.headers.add("Content-Length", str(len(reply.body)))
        reply.headers.add("Content-Length", str(other))
        reply.framing = "close"
        return reply

    return _spoiled("two lengths", change)


def chunked(cut: int | None = None) -> Action:
    """Transfer-Encoding: chunked; with `cut`, the connection ends there, without the last chunk."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.framing, reply.cut = "chunked", cut
        return reply

    return _spoiled("chunked", change)


def close_delimited(cut: int | None = None) -> Action:
    """No length at all, the end of the connection is the end of the body: cutting it is not seen by HTTP."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.framing, reply.cut = "close", cut
        return reply

    return _spoiled("close delimited", change)


# -- ranges --------------------------------------------------------------------------------------


def ignore_range() -> Action:
    """200 with the whole blob to a range request, as a cold pull-through cache answers."""

    def act(ask: Ask, serve: Serve) -> Reply:
        fields = CIMultiDict(ask.headers)
        fields.popall("Range", None)
        asked, ask.headers = ask.headers, type(ask.headers)(fields)
        try:
            reply = serve()
        finally:
            ask.headers = asked
        reply.headers.popall("Accept-Ranges", None)
        return reply

    return Action("ignore range", act)


def partial_as_200() -> Action:
    """200 with a Content-Range and only the range as its body, as old Dragonfly clients answer."""

    def change(ask: Ask, reply: Reply) -> Reply:
        reply.status = 200
        return reply

    return _spoiled("partial as 200", change)


def multipart() -> Action:
    """A single range answered as multipart/byteranges."""

    def change(ask: Ask, reply: Reply) -> Reply:
        part = reply.headers.pop("Content-Range")
        head = f"\r\n--SEP\r\nContent-Type: application/octet-stream\r\nContent-Range: {part}\r\n\r\n"
        reply.body = head.encode() + bytes(reply.body) + b"\r\n--SEP--\r\n"
        reply.headers["Content-Type"] = "multipart/byteranges; boundary=SEP"
        return reply

    return _spoiled("multipart", change)


def content_range(text: str | None) -> Action:
    """A wrong Content-Range, or none."""
    return without("Content-Range") if text is None else with_headers({"Content-Range": text})


def shifted_range(by: int) -> Action:
    """Bytes from elsewhere, and a Content-Range that says so: 206, but not what was asked."""

    def change(ask: Ask, reply: Reply) -> Reply:
        span, total = reply.headers["Content-Range"].removeprefix("bytes ").split("/")
        first, last = (int(part) + by for part in span.split("-"))
        reply.headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        return reply

    return _spoiled("shifted range", change)
