"""Where the blobs of a repository really are, and the bytes of one from there."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus

import anyio
import msgspec
from yarl import URL

from kitd.registry.answer import other_bytes, read_refusal
from kitd.registry.body import Body
from kitd.registry.clock import Clock
from kitd.registry.endpoint import Answer, Endpoint
from kitd.registry.line import Call
from kitd.registry.ranges import Part, Wanted, judge
from kitd.registry.rate import RateLimit
from kitd.spec.digest import Buffer, Digest
from kitd_client.api.errors import Denied, KitdError, RegistryProtocol

_BODIES = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})
_EXPIRED = frozenset({400, 401, 403, 404, 410})
"""What a storage host answers to a signed URL that is no longer good; the registry makes a new one."""


class RemoteBlob(msgspec.Struct, frozen=True):
    """Bytes of a blob on their way."""

    ranged: bool
    """False: the registry takes no ranges, the body is the whole blob."""
    host: str
    """Where the bytes come from."""
    body: AsyncIterator[Buffer]
    begins_at: int
    """Offset of the body's first byte."""


class Blobs:
    """The blobs of one repository, for one job.

    Storage on another host, to which the registry sends us, is asked directly from then on; signed URLs run
    out, then the registry is asked again.
    """

    def __init__(
        self, endpoint: Endpoint, name: str, rates: Sequence[RateLimit], stall_timeout: float, clock: Clock
    ) -> None:
        self._endpoint = endpoint
        self._name = name
        self._rates = rates
        self._stall_timeout = stall_timeout
        self._clock = clock
        self._scopes = (f"repository:{name}:pull",)
        self._targets: dict[Digest, URL] = {}
        self._renewals: dict[Digest, anyio.Lock] = {}

    @contextlib.asynccontextmanager
    async def opened(self, digest: Digest, wanted: Wanted) -> AsyncIterator[RemoteBlob]:
        """The bytes that are wanted of a blob, or all of it.

        Raises:
            KitdError: as `Repository.open_blob` says.
        """
        async with contextlib.AsyncExitStack() as stack:
            answer, part = await self._part(stack, digest, wanted)
            body = Body(
                answer.response, part.length, wanted.what, self._stall_timeout, self._rates, self._clock
            )
            yield RemoteBlob(part.ranged, answer.route.name, body, part.begins_at)

    async def _part(
        self, stack: contextlib.AsyncExitStack, digest: Digest, wanted: Wanted
    ) -> tuple[Answer, Part]:
        """The answer, and what it holds. A range whose answer is none is asked for twice, then the whole blob.

        One odd answer would else cost all the ranges under way, and the blob once more.
        """
        whole = msgspec.structs.replace(wanted, plain=True)
        attempts = [whole] if wanted.plain else [wanted, wanted, whole]
        while True:
            attempt = attempts.pop(0)
            answer = await self._located(stack, digest, attempt)
            response = answer.response
            if response.status not in _BODIES:
                raise await self._refused(answer, wanted.what)
            _check_body(answer, digest, wanted.what)
            part = judge(
                attempt,
                response.status,
                response.headers.get("Content-Type", ""),
                response.headers.get("Content-Range"),
                response.headers.get("Content-Length"),
            )
            if part is not None:
                return answer, part
            if not attempts:
                raise RegistryProtocol(
                    f"{wanted.what}: {answer.route.name} does not send it ({response.status} for all of it)",
                    host=answer.route.name,
                )
            response.release()

    async def _located(self, stack: contextlib.AsyncExitStack, digest: Digest, wanted: Wanted) -> Answer:
        """Ask where the blob was last served; once that is over, one renewed URL serves all ranges."""
        for _ in range(2):
            known = self._targets.get(digest)
            if known is None:
                break
            call = Call("GET", known, wanted.header(), bulk=True)
            answer = await stack.enter_async_context(self._endpoint.asked(call, self._scopes))
            if answer.response.status not in _EXPIRED:
                return answer
            answer.response.release()
            async with self._renewals.setdefault(digest, anyio.Lock()):
                if self._targets.get(digest) == known:
                    return await self._from_registry(stack, digest, wanted)
        return await self._from_registry(stack, digest, wanted)

    async def _from_registry(
        self, stack: contextlib.AsyncExitStack, digest: Digest, wanted: Wanted
    ) -> Answer:
        call = Call("GET", self._endpoint.url(f"/v2/{self._name}/blobs/{digest}"), wanted.header(), bulk=True)
        answer = await stack.enter_async_context(self._endpoint.followed(call, self._scopes))
        if self._endpoint.owns(answer.url):
            self._targets.pop(digest, None)
        elif answer.response.status in _BODIES:
            self._targets[digest] = answer.url
        return answer

    async def _refused(self, answer: Answer, what: str) -> KitdError:
        refusal = await read_refusal(answer.response, answer.route)
        if not self._endpoint.owns(answer.url) and refusal.status in _EXPIRED - {404, 410}:
            return Denied(
                f"{what}: the storage host {refusal.host} answered {refusal.words}", host=refusal.host
            )
        return refusal.error(what)


def _check_body(answer: Answer, digest: Digest, what: str) -> None:
    headers = answer.response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RegistryProtocol(
            f"{what}: {answer.route.name} sent it compressed, unasked", host=answer.route.name
        )
    stated = headers.get("Docker-Content-Digest", "")
    if stated.startswith("sha256:") and stated != digest:
        raise other_bytes(what, digest, stated)
