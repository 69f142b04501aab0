"""An OCI registry in this process, scripted per request: every fault a network or a registry has shown.

async with ScriptedRegistry() as registry:          # or: with ScriptedRegistry().in_thread() as registry
    digest = put_layout(registry, path, "team/kit", "v1")
    registry.script(faults.drop(1000), path="/blobs/", skip=2)
    ...
    assert registry.sent("/blobs/") == ...
"""

import asyncio
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import trustme
from aiohttp import web
from fakes.delivery import Delivery
from fakes.exchange import Ask, Body, Exchange, Gate, Journal, Origin, Reply, error
from fakes.faults import Action, Rule
from fakes.redirects import Redirects
from fakes.shelves import MANIFEST, Repository, Shelves, digest_of
from fakes.tokens import Access, Bearer, Open
from fakes.uploads import UploadQuirks, Uploads
from multidict import CIMultiDict

_TARGET = re.compile(
    r"/v2/(?P<name>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"/(?P<rest>(?:blobs|manifests|tags|referrers)/.*)"
)
_VERSION = CIMultiDict(
    {"Docker-Distribution-Api-Version": "registry/2.0", "Content-Type": "application/json"}
)


class ScriptedRegistry:
    """Two origins on loopback (the registry, and one for redirects), their content, rules and journal.

    Args:
        access: who may come in; `Basic` and `Bearer` of `fakes.tokens`.
        quirks: manners of uploads.
        tls: https on both origins, with a certificate authority of its own (`ca_pem`).
        mtls: a client certificate is wanted too (`client_pem`: certificate and key).
        strict: leaving the context without another error fails if the client did what a good one would not.
    """

    def __init__(
        self,
        *,
        access: Access | None = None,
        quirks: UploadQuirks | None = None,
        tls: bool = False,
        mtls: bool = False,
        strict: bool = True,
        referrers: bool = False,
    ) -> None:
        self.journal = Journal()
        self.access: Access = access or Open()
        self.uploads = Uploads(quirks or UploadQuirks())
        self.shelves = Shelves(self.journal, self.uploads, referrers=referrers)
        self.redirects = Redirects()
        self.host = ""
        self.other_host = ""
        self.scheme = "https" if tls or mtls else "http"
        self.ca_pem = ""
        self.client_pem = ""
        self._strict = strict
        self._rules: list[Rule] = []
        self._tls = self._make_tls(mtls=mtls) if tls or mtls else None
        self._runners: list[web.ServerRunner] = []

    def _make_tls(self, *, mtls: bool) -> ssl.SSLContext:
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost", "::1").configure_cert(context)
        self.client_pem = (
            authority.issue_cert("client@example.com").private_key_and_cert_chain_pem.bytes().decode()
        )
        if mtls:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    # -- its life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.host = await self._listen("registry")
        self.other_host = await self._listen("other")
        self.redirects.base = self.uploads.other_base = self.other_url
        if isinstance(self.access, Bearer):
            self.access.other_base = self.other_url
        return self

    async def _listen(self, origin: Origin) -> str:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self._handle(request, origin)

        server = web.Server(handle, handler_cancellation=True, access_log=None, lingering_time=0.0)
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for rule in self._rules:
            if rule.action.gate is not None:
                rule.action.gate.open()
        while self._runners:
            await self._runners.pop().cleanup()
        if kind is None and self._strict and self.journal.violations:
            raise AssertionError("\n".join(self.journal.violations))

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """The same registry on an event loop in a thread of its own, for tests that run subprocesses."""
        started, stop = threading.Event(), asyncio.Event()
        failures: list[BaseException] = []
        loop = asyncio.new_event_loop()

        async def live() -> None:
            async with self:
                started.set()
                await stop.wait()

        def run() -> None:
            try:
                loop.run_until_complete(live())
            except BaseException as problem:  # noqa: BLE001 - carried over to the test's thread
                failures.append(problem)
            finally:
                started.set()
                loop.close()

        thread = threading.Thread(target=run, name="scripted registry")
        thread.start()
        started.wait()
        try:
            if not failures:
                yield self
        finally:
            if thread.is_alive():
                loop.call_soon_threadsafe(stop.set)
            thread.join()
        if failures:
            raise failures[0]

    # -- addresses -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def other_url(self) -> str:
        """The second origin: redirects, foreign realms, foreign upload locations."""
        return f"{self.scheme}://{self.other_host}"

    # -- content ---------------------------------------------------------------------------------

    def put_blob(self, name: str, data: Body) -> str:
        digest = digest_of(data)
        self.shelves.repository(name).blobs[digest] = data
        return digest

    def put_manifest(self, name: str, data: bytes, tag: str = "", media_type: str = MANIFEST) -> str:
        """No checks: hostile manifests come in this way too."""
        return self.shelves.put_manifest(name, data, media_type, tag)

    def move_tag(self, name: str, tag: str, digest: str) -> None:
        self.shelves.repository(name).tags[tag] = digest

    def repository(self, name: str) -> Repository:
        return self.shelves.repository(name)

    def redirect_blobs(
        self, status: int = 307, *, uses: int | None = None, ranged_only: bool = False
    ) -> Redirects:
        """From now on blob GETs are sent to signed URLs of the second origin; `.expire()` ends them."""
        self.redirects.status, self.redirects.uses = status, uses
        self.redirects.ranged_only = ranged_only
        self.shelves.redirects = self.redirects
        return self.redirects

    # -- the script ------------------------------------------------------------------------------

    def script(
        self,
        action: Action,
        *,
        method: str | None = None,
        path: str = "",
        covers: int | None = None,
        origin: Origin | None = None,
        skip: int = 0,
        times: int | None = 1,
        every: int = 1,
    ) -> Rule:
        """Let an action act on requests that fit (see `Rule`). The first rule that takes a request has it."""
        rule = Rule(action, method, path, covers, origin, skip, times, every)
        self._rules.append(rule)
        return rule

    def drop_script(self) -> None:
        """All is well again."""
        self._rules.clear()

    # -- the journal -----------------------------------------------------------------------------

    def select(
        self,
        method: str | None = None,
        path: str = "",
        *,
        origin: Origin | None = None,
        status: int | None = None,
    ) -> list[Exchange]:
        return self.journal.select(method, path, origin=origin, status=status)

    def count(self, method: str | None = None, path: str = "", *, origin: Origin | None = None) -> int:
        return len(self.select(method, path, origin=origin))

    def sent(self, path: str = "", *, origin: Origin | None = None) -> int:
        """Bytes of reply bodies handed to sockets."""
        return sum(exchange.sent for exchange in self.select(None, path, origin=origin))

    def received(self, path: str = "") -> int:
        """Bytes of request bodies read."""
        return sum(exchange.received for exchange in self.select(None, path))

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until a predicate over this registry holds; asked again as bytes move."""
        await self.journal.bell.until(predicate)

    def wait(self, predicate: Callable[[], bool]) -> None:
        """The same for a plain thread."""
        self.journal.bell.wait(predicate)

    # -- one request -----------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        base = self.url if origin == "registry" else self.other_url
        ask = Ask(origin, request.method, path, query, request.headers, base)
        exchange = self.journal.opened(ask)
        rule = next((rule for rule in self._rules if rule.takes(ask)), None)
        try:
            await self._read_body(request, ask, exchange, rule.action if rule else None)
            reply = self._answer(ask, exchange, rule)
            return await Delivery(request, reply, exchange, self.journal).send()
        finally:
            exchange.finished = True
            self.journal.bell.ring()

    def _answer(self, ask: Ask, exchange: Exchange, rule: Rule | None) -> Reply:
        if rule is None:
            return self._serve(ask)
        exchange.fault = rule.action.name
        return rule.action.act(ask, lambda: self._serve(ask))

    async def _read_body(
        self, request: web.BaseRequest, ask: Ask, exchange: Exchange, action: Action | None
    ) -> None:
        """Read as much as the rule wants; 100 Continue goes out only if anything is read at all."""
        if action is not None and action.take == 0 and action.gate is None:
            ask.whole = request.content.is_eof()
            return
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        limit, gate = (action.take, action.gate) if action is not None else (None, None)
        data = bytearray()
        try:
            ask.whole = False
            while not (
                request.content.at_eof() or (limit is not None and len(data) >= limit and gate is None)
            ):
                if gate is not None and limit is not None and len(data) >= limit:
                    await gate.pass_through()
                    gate = limit = None
                wanted = 256 * 1024 if limit is None else limit - len(data)
                piece = await request.content.read(wanted)
                data += piece
                exchange.received += len(piece)
                self.journal.bell.ring()
            ask.whole = request.content.at_eof()
        finally:
            ask.body = bytes(data)
            if (
                not ask.whole
                and self.uploads.quirks.keep_partial
                and ask.method == "PATCH"
                and action is None
            ):
                self._serve(ask)

    def _serve(self, ask: Ask) -> Reply:
        if ask.origin == "other" and ask.path.startswith("/signed/"):
            return self._serve_signed(ask)
        token = self.access.serve(ask)
        if token is not None:
            return token
        if ask.path in {"/v2/", "/v2"}:
            return self.access.refuse(ask, []) or Reply(200, _VERSION, b"{}")
        match = _TARGET.fullmatch(ask.path)
        if match is None:
            return error(404, "NAME_UNKNOWN")
        name, rest = match["name"], match["rest"]
        if ask.origin == "other":
            if "Authorization" in ask.headers:
                self.journal.violation(ask, "Authorization sent to an origin that never asked for it")
        else:
            refused = self.access.refuse(ask, _scopes(ask, name))
            if refused is not None:
                return refused
        return self.shelves.serve(ask, name, rest)

    def _serve_signed(self, ask: Ask) -> Reply:
        refused = self.redirects.refuse(ask)
        if refused is not None:
            return refused
        digest = ask.path.removeprefix("/signed/").replace("%3A", ":")
        data = self.shelves.find_blob(digest)
        if data is None:
            return error(404, "NOSUCHKEY")
        return self.shelves.blob_reply(ask, digest, data)


def _scopes(ask: Ask, name: str) -> list[str]:
    if ask.method in {"GET", "HEAD"} and "/blobs/uploads/" not in ask.path:
        return [f"repository:{name}:pull"]
    scopes = [f"repository:{name}:pull,push"]
    if ask.method == "POST" and ask.first("from"):
        scopes.append(f"repository:{ask.first('from')}:pull")
    return scopes


__all__ = ["Gate", "Redirects", "ScriptedRegistry", "UploadQuirks"]
