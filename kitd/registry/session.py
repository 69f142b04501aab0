"""One upload session at a registry (OCI distribution specification, "Pushing blobs")."""

import contextlib
import urllib.parse
from http import HTTPStatus

import anyio
import msgspec
from yarl import URL

from kitd.registry.answer import Refusal, read_refusal
from kitd.registry.endpoint import Answer
from kitd.registry.line import Call
from kitd.registry.pieces import Feed, Pieces
from kitd.registry.repository import Repository
from kitd.registry.upload_rules import told
from kitd.spec.digest import Digest
from kitd_client.api.errors import (
    Denied,
    KitdError,
    RealmUntrusted,
    RegistryProtocol,
    RegistryUnavailable,
    Unauthorized,
)

_ABANDON = 5.0
"""Seconds for telling a registry that an upload is given up."""
_CONTINUE = 5.0
"""Seconds for a registry to say that it wants a body that was announced."""
_NO_EXPECTATION = 417


class Said(msgspec.Struct, frozen=True):
    """What a registry answered to a part of an upload."""

    status: int
    range: str | None
    refusal: Refusal


class UploadSession:
    """Moves bytes into one session; follows its Location from answer to answer."""

    def __init__(self, repository: Repository, location: URL, minimum: str | None) -> None:
        self.minimum = minimum
        """`OCI-Chunk-Min-Length`."""
        self._repository = repository
        self._location = location

    @property
    def what(self) -> str:
        return f"upload to {self._repository.source}"

    async def put(self, digest: Digest, feed: Feed, start: int) -> Said:
        """Send the bytes from `start` on, if there are any, and close the session."""
        text = str(self._location)
        url = URL(f"{text}{'&' if '?' in text else '?'}digest={digest}", encoded=True)
        return await self._send("PUT", url, feed, start, feed.size, {})

    async def patch(self, feed: Feed, start: int, stop: int) -> Said:
        """Append a chunk."""
        return await self._send(
            "PATCH", self._location, feed, start, stop, {"Content-Range": f"{start}-{stop - 1}"}
        )

    async def status(self, expected: int) -> int | None:
        """Bytes that the registry has by now; None: the session is gone, or it does not say."""
        repository = self._repository
        async with repository.endpoint.asked(Call("GET", self._location), repository.push_scopes) as answer:
            response = answer.response
            if response.status not in {HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.ACCEPTED}:
                return None
            self._follow(answer)
            return told(response.headers.get("Range"), expected)

    async def abandon(self) -> None:
        """Tell the registry that nothing more comes; in the end it finds out by itself."""
        with anyio.move_on_after(_ABANDON, shield=True), contextlib.suppress(KitdError):
            call = Call("DELETE", self._location)
            async with self._repository.endpoint.asked(call, self._repository.push_scopes, again=False):
                pass

    async def _send(
        self, method: str, url: URL, feed: Feed, start: int, stop: int, headers: dict[str, str]
    ) -> Said:
        settings = self._repository.settings
        line = await self._repository.endpoint.line_to(url)
        expect = line.takes_expect and stop - start > settings.upload.ask_above
        said = await self._attempt(method, url, feed, start, stop, headers, expect=expect)
        if said is None or said.status == _NO_EXPECTATION:
            line.takes_expect = False
            said = await self._attempt(method, url, feed, start, stop, headers, expect=False)
        if said is None:
            raise RegistryUnavailable(f"{self.what}: the registry took no bytes")
        return said

    async def _attempt(
        self,
        method: str,
        url: URL,
        feed: Feed,
        start: int,
        stop: int,
        headers: dict[str, str],
        *,
        expect: bool,
    ) -> Said | None:
        """One request; None: its announced body was never asked for."""
        settings = self._repository.settings
        made: list[Pieces] = []
        with anyio.CancelScope() as scope:

            def body() -> Pieces:
                pieces = Pieces(feed, start, stop, scope, settings.stall_timeout, settings.commit_timeout)
                made.append(pieces)
                if expect:
                    scope.deadline = anyio.current_time() + settings.connect_timeout + _CONTINUE
                return pieces

            headers = headers | {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(stop - start),
            }
            call = Call(
                method,
                url,
                headers,
                body if stop > start else None,
                bulk=True,
                expect=expect,
                patience=settings.commit_timeout,
            )
            try:
                async with self._repository.endpoint.asked(
                    call, self._repository.push_scopes, again=False
                ) as answer:
                    return await self._said(answer)
            except RegistryUnavailable:
                failure = made[-1].failure if made else None
                if failure is None:
                    raise
                raise failure from None
        if expect and not (made and made[-1].begun):
            return None
        raise RegistryUnavailable(
            f"{self.what}: it took no byte for {settings.stall_timeout:g} s", host=url.host or ""
        )

    async def _said(self, answer: Answer) -> Said:
        response = answer.response
        if response.status == HTTPStatus.ACCEPTED:
            self._follow(answer)
        good = response.status < HTTPStatus.MULTIPLE_CHOICES
        refusal = (
            Refusal(response.status, answer.route.name, ())
            if good
            else await read_refusal(response, answer.route)
        )
        return Said(response.status, response.headers.get("Range"), refusal)

    def _follow(self, answer: Answer) -> None:
        if "Location" in answer.response.headers:
            self._location = self._repository.endpoint.target(answer)


async def open_session(repository: Repository, digest: Digest, mount_from: list[str]) -> UploadSession | None:
    """Begin an upload; None: the blob was in one of the repositories `mount_from`, and is mounted now.

    Raises:
        Denied, PushRejected, RateLimited, RegistryUnavailable, RegistryProtocol: it cannot begin.
    """
    session: UploadSession | None = None
    for source in mount_from:
        mounted, opened = await _mount(repository, digest, source)
        if session is not None and (mounted or opened is not None):
            await session.abandon()
        if mounted:
            return None
        session = opened or session
    if session is not None:
        return session
    call = Call("POST", repository.url("blobs/uploads/"))
    async with repository.endpoint.asked(call, repository.push_scopes) as answer:
        if answer.response.status == HTTPStatus.ACCEPTED:
            return _session(repository, answer)
        refusal = await read_refusal(answer.response, answer.route)
        raise refusal.rejection(f"push to {repository.source}")


async def _mount(repository: Repository, digest: Digest, source: str) -> tuple[bool, UploadSession | None]:
    """Whether the blob is mounted; otherwise the session that the registry opened instead, if it did.

    A token service may give less than both repositories: no mount is no error.
    """
    query = urllib.parse.urlencode({"mount": digest, "from": source}, safe=":/")
    call = Call("POST", repository.url(f"blobs/uploads/?{query}"))
    scopes = (*repository.push_scopes, f"repository:{source}:pull")
    try:
        async with repository.endpoint.asked(call, scopes) as answer:
            if answer.response.status == HTTPStatus.ACCEPTED:
                return False, _session(repository, answer)
            return answer.response.status == HTTPStatus.CREATED, None
    except (Unauthorized, Denied, RealmUntrusted, RegistryProtocol):
        return False, None


def _session(repository: Repository, answer: Answer) -> UploadSession:
    location = repository.endpoint.target(answer)
    return UploadSession(repository, location, answer.response.headers.get("OCI-Chunk-Min-Length"))
