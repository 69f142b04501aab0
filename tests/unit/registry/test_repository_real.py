"""The same against Debian's docker-registry (distribution 2.8)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import pytest
from fakes.kits import small_kit, some_bytes
from fakes.real import RealRegistry

from kitd.registry.repository import Repository
from kitd.registry.retry import Backoff
from kitd.registry.settings import TransportSettings
from kitd.registry.transport import Access, Transport
from kitd.registry.upload import BlobsMissing, push_blob, push_manifest
from kitd.spec.digest import digest_of, parse_digest
from kitd.spec.media_types import MANIFEST
from kitd.spec.oci import Descriptor
from kitd_client.api.errors import NotFound, TlsFailed, Unauthorized
from kitd_client.api.jobs import Context, Credential

pytestmark = pytest.mark.registry

_REGISTRIES = ["plain_registry", "password_registry", "tls_registry"]
_LARGE = some_bytes(2_000_000)
_KIT = small_kit()


@pytest.fixture(params=_REGISTRIES)
def real(request: pytest.FixtureRequest) -> RealRegistry:
    found: RealRegistry = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def quick(settings: TransportSettings, anyio_backend: object) -> AsyncIterator[Transport]:
    """As the others, with a real clock and hardly a wait."""
    hasty = msgspec.structs.replace(settings, backoff=Backoff(base=0.001))
    async with Transport.opened(hasty) as opened:
        yield opened


def _context(real: RealRegistry) -> Context:
    credentials = {real.host: Credential(real.user, real.password)} if real.user else {}
    return Context(ca_pem=real.ca_pem, credentials=credentials)


def _descriptor(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


class _Source:
    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


async def _work(function: Callable[[int, int], bytes], offset: int, length: int) -> bytes:
    return await anyio.to_thread.run_sync(function, offset, length)


async def _push(repository: Repository, data: bytes, *mount_from: str) -> int:
    sent: list[int] = []
    await push_blob(
        repository,
        _descriptor(data),
        _Source(data),
        work=_work,
        mount_from=mount_from,
        turn=anyio.lowlevel.checkpoint,
        sent=sent.append,
    )
    return sum(sent)


async def test_a_kit_goes_there_and_back(quick: Transport, real: RealRegistry) -> None:
    repository = quick.repository(real.host, "round/trip", Access(1, _context(real)))
    for blob in (*_KIT.layers, _KIT.config, b"", _LARGE):
        assert await _push(repository, blob) == len(blob)
        assert await _push(repository, blob) == 0
    await push_manifest(repository, "v1", _KIT.manifest, MANIFEST)
    assert await repository.resolve("v1") == _KIT.digest
    assert await repository.fetch_manifest(parse_digest(_KIT.digest)) == _KIT.manifest
    assert await repository.fetch_bytes(_descriptor(_KIT.config), 2**20) == _KIT.config
    async with repository.open_blob(_descriptor(_LARGE), 1_000_000, 1_500_000) as remote:
        assert remote.ranged
        assert b"".join([piece async for piece in remote.body]) == _LARGE[1_000_000:1_500_000]


async def test_a_blob_of_another_repository_is_mounted(quick: Transport, real: RealRegistry) -> None:
    access = Access(1, _context(real))
    data = some_bytes(50_000, seed=1)
    await _push(quick.repository(real.host, "mount/source", access), data)
    target = quick.repository(real.host, "mount/target", access)
    assert await _push(target, data, "mount/nothing", "mount/source") == 0
    assert await target.fetch_bytes(_descriptor(data), 2**20) == data


async def test_what_is_not_there_is_named(quick: Transport, real: RealRegistry) -> None:
    repository = quick.repository(real.host, "no/where", Access(1, _context(real)))
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        await repository.resolve("v1")
    with pytest.raises(NotFound, match="BLOB_UNKNOWN"):
        await repository.fetch_bytes(_descriptor(b"nothing"), 100)


async def test_a_manifest_without_its_blobs_is_refused_as_such(quick: Transport, real: RealRegistry) -> None:
    repository = quick.repository(real.host, "missing/blobs", Access(1, _context(real)))
    with pytest.raises(BlobsMissing):
        await push_manifest(repository, "v1", _KIT.manifest, MANIFEST)


async def test_a_wrong_password_is_said_so(quick: Transport, password_registry: RealRegistry) -> None:
    wrong = Context(credentials={password_registry.host: Credential("kitd", "wrong")})
    with pytest.raises(Unauthorized):
        await quick.check(password_registry.host, Access(1, wrong))
    with pytest.raises(Unauthorized, match="wants credentials"):
        await quick.repository(password_registry.host, "x", Access(1)).resolve("v1")
    await quick.check(password_registry.host, Access(1, _context(password_registry)))


async def test_its_own_authority_must_be_named(quick: Transport, tls_registry: RealRegistry) -> None:
    with pytest.raises(TlsFailed):
        await quick.check(tls_registry.host, Access(1))
    await quick.check(tls_registry.host, Access(1, _context(tls_registry)))


@asynccontextmanager
async def _cutting(host: str, after: list[int]) -> AsyncIterator[str]:
    """A way to `host` on which the next connections end after so many bytes sent."""
    target, _, port = host.rpartition(":")

    async def pass_on(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream, left: int) -> None:
        try:
            async for data in source:
                await sink.send(data[:left])
                left -= len(data)
                if left <= 0:
                    break
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async def serve(client: anyio.abc.SocketStream) -> None:
        server = await anyio.connect_tcp(target, int(port))
        async with client, server, anyio.create_task_group() as group:

            async def one_way(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream, left: int) -> None:
                await pass_on(source, sink, left)
                group.cancel_scope.cancel()

            group.start_soon(one_way, client, server, after.pop(0) if after else 2**60)
            group.start_soon(one_way, server, client, 2**60)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield f"127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        group.cancel_scope.cancel()


@pytest.mark.parametrize("cuts", [[2**60, 700_000], [2**60, 700_000, 700_000]], ids=["once", "twice"])
async def test_a_connection_that_breaks_in_a_chunk_costs_no_blob(
    quick: Transport, plain_registry: RealRegistry, cuts: list[int]
) -> None:
    data = some_bytes(2_000_000, seed=len(cuts))
    async with _cutting(plain_registry.host, list(cuts)) as host:
        repository = quick.repository(host, f"broken/chunk{len(cuts)}", Access(1, Context(plain_http=True)))
        assert await _push(repository, data) == len(data)
        assert await repository.fetch_bytes(_descriptor(data), len(data)) == data
