"""One repository of one registry, as one job sees it."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from yarl import URL

from kitd.registry.answer import other_bytes, read_limited, read_refusal
from kitd.registry.blobs import Blobs, RemoteBlob
from kitd.registry.body import BodyInterrupted
from kitd.registry.endpoint import Answer, Endpoint
from kitd.registry.line import Call
from kitd.registry.lines import Lines
from kitd.registry.ranges import Wanted
from kitd.registry.rate import RateLimit
from kitd.registry.retry import RETRYABLE
from kitd.spec import media_types
from kitd.spec.digest import Digest, digest_of, parse_digest
from kitd.spec.oci import MANIFEST_LIMIT, Descriptor
from kitd_client.api.errors import InvalidDigest, ManifestInvalid, RegistryProtocol

__all__ = ["RemoteBlob", "Repository"]

T = TypeVar("T")

_DOCKER = "application/vnd.docker.distribution.manifest"
_ACCEPT = f"{media_types.MANIFEST}, {media_types.INDEX}, {_DOCKER}.v2+json, {_DOCKER}.list.v2+json"


class Repository:
    """Fetches manifests and blobs of one repository. Made for one job; `upload` pushes through it.

    Every method raises, beside what it names: Unauthorized, Denied, RealmUntrusted, RateLimited, TlsFailed,
    RegistryUnavailable, RedirectBlocked, RegistryProtocol. What may go better is tried again before.
    """

    def __init__(self, lines: Lines, endpoint: Endpoint, name: str, rates: Sequence[RateLimit]) -> None:
        self.registry = endpoint.registry
        """As in the reference."""
        self.name = name
        self.endpoint = endpoint
        self.rates = rates
        """Every byte of a blob passes all of them, in either direction."""
        self.settings = lines.settings
        self.clock = lines.clock
        self.push_scopes = (f"repository:{name}:pull,push",)
        self._scopes = (f"repository:{name}:pull",)
        self._blobs = Blobs(endpoint, name, rates, self.settings.stall_timeout, self.clock)

    @property
    def source(self) -> str:
        """`registry/name`."""
        return f"{self.registry}/{self.name}"

    def ready(self) -> bool:
        """Whether a request would go out at once.

        It would not while the registry, or a host it sent this job to, asked to wait or is out of reach.
        """
        return self.endpoint.ready()

    async def until_ready(self) -> None:
        """Wait for that: before taking what others could use meanwhile."""
        await self.endpoint.until_ready()

    def url(self, path: str) -> URL:
        """An absolute URL below this repository (`manifests/latest`)."""
        return self.endpoint.url(f"/v2/{self.name}/{path}")

    async def resolve(self, tag: str) -> Digest:
        """What a tag points to now. HEAD; GET where that does not tell.

        Raises:
            NotFound: there is no such tag.
            DigestMismatch: the registry sends another manifest than it says.
            Unsupported: the registry names it by another digest than SHA-256.
        """
        call = Call("HEAD", self.url(f"manifests/{tag}"), {"Accept": _ACCEPT})
        what = f"{self.source}:{tag}"
        async with self.endpoint.followed(call, self._scopes) as answer:
            if answer.response.status == HTTPStatus.OK:
                digest = _stated(answer, what)
                if digest is not None:
                    return digest
            elif answer.response.status in RETRYABLE:
                raise (await read_refusal(answer.response, answer.route)).error(what)
        data, stated = await self._retried(partial(self._manifest, tag, what))
        digest = digest_of(data)
        if stated not in {None, digest}:
            raise other_bytes(what, stated, digest)
        return digest

    async def fetch_manifest(self, digest: Digest) -> bytes:
        """The bytes of a manifest, verified.

        Raises:
            NotFound: the repository has no such manifest.
            DigestMismatch: other bytes came.
            Unsupported: the registry names it by another digest than SHA-256.
        """
        what = f"manifest {self.source}@{digest}"
        data, stated = await self._retried(partial(self._manifest, digest, what))
        for found in (stated, digest_of(data)):
            if found not in {None, digest}:
                raise other_bytes(what, digest, found)
        return data

    async def fetch_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, verified.

        Raises:
            NotFound: the repository has no such blob.
            ManifestInvalid: it is said to be larger than `limit` bytes.
            SizeMismatch, DigestMismatch: it is not what its descriptor says.
        """
        what = self._blob(descriptor.digest)
        if descriptor.size > limit:
            raise ManifestInvalid(
                f"{what} is said to have {descriptor.size} bytes; at most {limit} are taken"
            )
        data = await self._retried(partial(self._whole, descriptor)) if descriptor.size else b""
        if digest_of(data) != descriptor.digest:
            raise other_bytes(what, descriptor.digest, digest_of(data))
        return data

    @contextlib.asynccontextmanager
    async def open_blob(self, descriptor: Descriptor, start: int, stop: int) -> AsyncIterator[RemoteBlob]:
        """Bytes `start` to `stop` (exclusive) of a blob, or all of it where no ranges are taken.

        The first request for a blob shows which of the two; later ones may still come back unranged. Where
        storage on another host serves it, later requests of this job go there until its URL expires.

        Raises:
            NotFound: the repository has no such blob.
            SizeMismatch: it has another size than its descriptor says.
            DigestMismatch: the registry says that it sends another blob.
        """
        what = self._blob(descriptor.digest)
        everything = start == 0 and stop == descriptor.size
        wanted = Wanted(start, stop, descriptor.size, what, plain=everything)
        async with self._blobs.opened(descriptor.digest, wanted) as remote:
            yield remote

    async def _retried(self, fetch: Callable[[], Awaitable[T]]) -> T:
        """Fetch something small again when its body breaks off."""
        backoff = self.settings.backoff
        for failures in itertools.count(1):
            try:
                return await fetch()
            except BodyInterrupted:
                if failures >= backoff.attempts:
                    raise
                await self.clock.sleep(backoff.delay(failures))
        raise AssertionError

    async def _manifest(self, reference: str, what: str) -> tuple[bytes, Digest | None]:
        call = Call("GET", self.url(f"manifests/{reference}"), {"Accept": _ACCEPT})
        async with self.endpoint.followed(call, self._scopes) as answer:
            if answer.response.status != HTTPStatus.OK:
                raise (await read_refusal(answer.response, answer.route)).error(what)
            data = await read_limited(answer.response, MANIFEST_LIMIT, what, answer.route)
            return data, _stated(answer, what)

    async def _whole(self, descriptor: Descriptor) -> bytes:
        async with self.open_blob(descriptor, 0, descriptor.size) as blob:
            return b"".join([piece async for piece in blob.body])

    def _blob(self, digest: Digest) -> str:
        return f"blob {digest} of {self.source}"


def _stated(answer: Answer, what: str) -> Digest | None:
    """The digest that the registry says it sends."""
    text = answer.response.headers.get("Docker-Content-Digest")
    if text is None:
        return None
    try:
        return parse_digest(text)
    except InvalidDigest:
        raise RegistryProtocol(
            f"{what}: {answer.route.name} names it by something that is no digest"
        ) from None
