"""One registry as one job sees it: scheme, credentials, redirects."""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

import aiohttp
import msgspec
from yarl import URL

from kitd.registry.answer import read_refusal
from kitd.registry.auth import Authority
from kitd.registry.exchange import Courier
from kitd.registry.failures import PeerSpeaksNoTls, Unreachable
from kitd.registry.gate import Gate, Waiting
from kitd.registry.line import Call, Line
from kitd.registry.lines import Lines
from kitd.registry.redirect import MAXIMUM_HOPS, Reach, resolve_location, same_origin
from kitd.registry.route import Route, credential_for, foreign_route, is_loopback, own_route
from kitd_client.api.errors import RedirectBlocked, RegistryProtocol
from kitd_client.api.jobs import Context

REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Access(msgspec.Struct, frozen=True):
    """Who asks, and with what."""

    uid: int
    context: Context = Context()


class Answer(msgspec.Struct, frozen=True):
    """An answer and where it came from."""

    response: aiohttp.ClientResponse
    route: Route
    url: URL


class Endpoint:
    """Sends requests to one registry, and to where it points.

    Credentials go to the registry's own origin only. Off loopback the scheme is what the context says; on
    loopback TLS is tried first, and plain http when the peer speaks no TLS.
    """

    def __init__(self, lines: Lines, registry: str, access: Access, waiting: Waiting | None) -> None:
        self.registry = registry
        self._lines = lines
        self._access = access
        self._courier = Courier(lines.clock, lines.settings.backoff, waiting)
        self._tls = own_route(registry, access.context, "https")
        self._plain = own_route(registry, access.context, "http")
        self._reach = Reach.PUBLIC
        self._met: set[Gate] = set()
        self._may_be_plain = is_loopback(registry) and not access.context.plain_http

    @property
    def route(self) -> Route:
        """The route to the registry, as far as its scheme is known."""
        plain = self._access.context.plain_http or (
            self._may_be_plain and self._lines.speaks_plain(self._tls)
        )
        return self._plain if plain else self._tls

    def ready(self) -> bool:
        """Whether no gate that this job met would hold a request back."""
        return self._lines.gate(self.route).ready() and all(gate.ready() for gate in self._met)

    async def until_ready(self) -> None:
        """Wait while one of those gates would hold a request back."""
        while not self.ready():
            for gate in (self._lines.gate(self.route), *self._met):
                await gate.passed(self._courier.waiting)

    def url(self, path: str) -> URL:
        """An absolute URL of the registry; `path` is encoded already."""
        return URL(f"{self.route.origin}{path}", encoded=True)

    def owns(self, url: URL) -> bool:
        """Whether a URL is of the registry's own origin: credentials may go there.

        On loopback both schemes are its own: which one it speaks may be found out anew between two answers.
        """
        routes = (self._tls, self._plain) if self._may_be_plain else (self.route,)
        return any(same_origin(url, route.origin) for route in routes)

    @contextlib.asynccontextmanager
    async def asked(
        self, call: Call, scopes: tuple[str, ...], *, again: bool = True
    ) -> AsyncIterator[Answer]:
        """The answer to one request, whatever its status, but for a 401 of the registry itself.

        Redirects are not followed.

        Args:
            call: to the registry (`url`), or to where it pointed (`target`).
            scopes: what a token for it must allow.
            again: try again what may go better; without, the request is sent once, but for a renewed token.

        Raises:
            Unauthorized, RealmUntrusted: the registry does not let us in.
            KitdError: as `Courier.carried` says.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self.owns(call.url):
                yield await self._let_in(stack, call, scopes, again=again)
            else:
                line = await self.line_to(call.url)
                response = await stack.enter_async_context(
                    self._courier.carried(line, call, None, again=again)
                )
                yield Answer(response, line.route, call.url)

    @contextlib.asynccontextmanager
    async def followed(self, call: Call, scopes: tuple[str, ...]) -> AsyncIterator[Answer]:
        """Like `asked`, and on to where it points, up to 5 hops.

        Raises:
            RedirectBlocked: a redirect that must not be followed, or too many.
        """
        for _ in range(MAXIMUM_HOPS + 1):
            async with self.asked(call, scopes) as answer:
                if answer.response.status not in REDIRECTS:
                    yield answer
                    return
                call = msgspec.structs.replace(call, url=self.target(answer))
        raise RedirectBlocked(f"{self.registry} redirects more than {MAXIMUM_HOPS} times", host=self.registry)

    def target(self, answer: Answer) -> URL:
        """Where the `Location` of an answer points.

        Raises:
            RegistryProtocol: it has none.
            RedirectBlocked: it must not be followed.
        """
        location = answer.response.headers.get("Location")
        if location is None:
            raise RegistryProtocol(
                f"{answer.route.name} answered {answer.response.status} without a Location",
                host=answer.route.name,
            )
        return resolve_location(answer.url, location, self._reach)

    async def _let_in(
        self, stack: contextlib.AsyncExitStack, call: Call, scopes: tuple[str, ...], *, again: bool
    ) -> Answer:
        authority = self._authority()
        grant = await authority.authorization(scopes, self._at_realm)
        rejected = False
        while True:
            header = None if grant is None else grant.header
            answer = await self._answer(stack, call, header, again=again)
            if answer.response.status != HTTPStatus.UNAUTHORIZED:
                return answer
            if grant is not None and (grant.fresh or rejected):
                refusal = await read_refusal(answer.response, answer.route)
                raise authority.refused(refusal.words)
            rejected = grant is not None
            values = answer.response.headers.getall("WWW-Authenticate", [])
            answer.response.release()
            grant = await authority.challenged(
                values, answer.url, self._reach, scopes, header, self._at_realm
            )

    async def _answer(
        self, stack: contextlib.AsyncExitStack, call: Call, authorization: str | None, *, again: bool
    ) -> Answer:
        """Ask the registry, in the scheme it speaks."""
        route = self.route
        call = msgspec.structs.replace(call, url=call.url.with_scheme(route.scheme))
        line = await self._lines.line(route)
        try:
            response = await stack.enter_async_context(
                self._courier.carried(line, call, authorization, again=again)
            )
        except PeerSpeaksNoTls:
            if not self._may_be_plain:
                raise
            self._lines.remember_plain(self._tls)
            return await self._answer(stack, call, authorization, again=again)
        except Unreachable:
            self._lines.forget_plain(self._tls)
            raise
        self._reach = line.reach
        if response.status == HTTPStatus.BAD_REQUEST:
            # what TLS servers answer to plain http: the guess may have been wrong
            self._lines.forget_plain(self._tls)
        return Answer(response, route, call.url)

    @contextlib.asynccontextmanager
    async def _at_realm(self, call: Call) -> AsyncIterator[tuple[aiohttp.ClientResponse, Route]]:
        line = await self.line_to(call.url)
        async with self._courier.carried(line, call, None) as response:
            yield response, line.route

    async def line_to(self, url: URL) -> Line:
        """The line that requests to a URL take."""
        route = self.route if self.owns(url) else foreign_route(self.route, url, self._reach)
        line = await self._lines.line(route)
        self._met.add(line.gate)
        return line

    def _authority(self) -> Authority:
        context = self._access.context
        route = self._plain if context.plain_http else self._tls
        return self._lines.authority(
            self.registry, route, self._access.uid, credential_for(self.registry, context)
        )
