"""Pushes to a scripted registry with the manners of every real one."""

import hashlib
from collections.abc import AsyncIterator, Callable

import anyio
import anyio.lowlevel
import msgspec
import pytest
from aiohttp import web
from fakes import faults
from fakes.clock import StillClock
from fakes.exchange import Gate
from fakes.kits import put_kit, small_kit, some_bytes
from fakes.registry import ScriptedRegistry
from fakes.tokens import Basic, Bearer
from fakes.uploads import UploadQuirks

from kitd.registry.pieces import BlobSource
from kitd.registry.repository import Repository
from kitd.registry.settings import TransportSettings
from kitd.registry.transport import Access, Transport
from kitd.registry.upload import BlobsMissing, push_blob, push_manifest
from kitd.spec.digest import digest_of
from kitd.spec.media_types import MANIFEST
from kitd.spec.oci import Descriptor
from kitd_client.api.errors import (
    Denied,
    DigestMismatch,
    KitdError,
    ObjectDamaged,
    PushRejected,
    RateLimited,
    RedirectBlocked,
    RegistryUnavailable,
    StorageIo,
    Unauthorized,
)
from kitd_client.api.jobs import Context, Credential

_NAME = "team/kit"
_CHUNK = 2**18
_SMALL = some_bytes(200_000)
_LARGE = some_bytes(5 * _CHUNK + 1000)
"""Above the limit of one piece of these tests: six chunks."""


class Source:
    """Bytes as a reader of the store has them."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self._data[offset : offset + length]


async def _work(function: Callable[[int, int], bytes], offset: int, length: int) -> bytes:
    return await anyio.to_thread.run_sync(function, offset, length)


def _opened(
    transport: Transport, registry: ScriptedRegistry, context: Context | None = None, name: str = _NAME
) -> Repository:
    return transport.repository(registry.host, name, Access(1, context or Context()))


async def _push(
    repository: Repository, data: bytes, *, mount_from: tuple[str, ...] = (), reader: BlobSource | None = None
) -> int:
    """Push one blob; the bytes it is said to have cost."""
    sent: list[int] = []
    descriptor = Descriptor("application/octet-stream", digest_of(data), len(data))
    await push_blob(
        repository,
        descriptor,
        reader or Source(data),
        work=_work,
        mount_from=mount_from,
        turn=anyio.lowlevel.checkpoint,
        sent=sent.append,
    )
    return sum(sent)


def _stored(registry: ScriptedRegistry, data: bytes, name: str = _NAME) -> bool:
    return registry.repository(name).blobs.get(digest_of(data)) == data


def _methods(registry: ScriptedRegistry) -> list[str]:
    return [exchange.method for exchange in registry.journal.exchanges]


# -- one piece -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [_SMALL, b"x", b""], ids=["200 KB", "one byte", "empty"])
async def test_a_blob_goes_up_in_one_piece(
    transport: Transport, registry: ScriptedRegistry, data: bytes
) -> None:
    assert await _push(_opened(transport, registry), data) == len(data)
    assert _stored(registry, data)
    assert _methods(registry) == ["HEAD", "POST", "PUT"]
    put = registry.journal.exchanges[-1]
    assert put.headers["Content-Length"] == str(len(data))
    assert put.headers["Content-Type"] == "application/octet-stream"
    assert "Content-Range" not in put.headers
    assert "Transfer-Encoding" not in put.headers


async def test_a_blob_that_is_there_is_not_sent(transport: Transport, registry: ScriptedRegistry) -> None:
    registry.put_blob(_NAME, _SMALL)
    assert await _push(_opened(transport, registry), _SMALL) == 0
    assert _methods(registry) == ["HEAD"]


@pytest.mark.parametrize("relative", [False, True])
async def test_the_state_in_a_location_is_sent_back_as_it_is(transport: Transport, *, relative: bool) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(relative=relative)) as registry:
        assert await _push(_opened(transport, registry), _SMALL) == len(_SMALL)
        put = registry.journal.exchanges[-1]
        assert put.query == f"_state=0&digest={digest_of(_SMALL)}"


async def test_a_location_elsewhere_gets_the_bytes_but_no_credentials(transport: Transport) -> None:
    users = {"alice": "open sesame"}
    quirks = UploadQuirks(location_base="{other}")
    async with ScriptedRegistry(access=Basic(users), quirks=quirks) as registry:
        context = Context(credentials={registry.host: Credential("alice", "open sesame")})
        await _push(_opened(transport, registry, context), _SMALL)
        (put,) = registry.select("PUT")
        assert (put.origin, put.authorization, put.received) == ("other", "", len(_SMALL))


async def test_a_location_at_the_metadata_service_is_blocked(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    headers = {"Location": "http://169.254.169.254/upload"}
    registry.script(faults.status(202, headers=headers), method="POST")
    with pytest.raises(RedirectBlocked):
        await _push(_opened(transport, registry), _SMALL)


async def test_bytes_are_read_in_worker_threads_in_growing_pieces(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    source = Source(_SMALL)
    await _push(_opened(transport, registry), _SMALL, reader=source)
    assert source.reads == [(0, 65536), (65536, 131072), (196608, 3392)]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_failed_upload_is_begun_again(
    transport: Transport, registry: ScriptedRegistry, status: int
) -> None:
    registry.script(faults.status(status), method="PUT")
    assert await _push(_opened(transport, registry), _SMALL) == len(_SMALL)
    assert _stored(registry, _SMALL)
    assert registry.count("POST") == 2


async def test_each_byte_counts_once_however_often_it_is_sent(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    registry.script(faults.hang_up(take=100_000), method="PUT", times=2)
    assert await _push(_opened(transport, registry), _SMALL) == len(_SMALL)
    assert registry.received() > len(_SMALL)


async def test_a_finished_upload_whose_answer_was_lost_is_not_repeated(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    registry.script(faults.lose_reply(), method="PUT")
    await _push(_opened(transport, registry), _SMALL)
    assert registry.count("PUT") == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, RegistryUnavailable), (429, RateLimited)],
)
async def test_an_upload_that_always_fails_is_given_up(
    transport: Transport, registry: ScriptedRegistry, status: int, error: type[KitdError]
) -> None:
    registry.script(faults.status(status, message="so sorry"), method="PUT", times=None)
    with pytest.raises(error, match="so sorry"):
        await _push(_opened(transport, registry), _SMALL)
    assert registry.count("PUT") == 6
    assert registry.uploads.open_sessions == 0


@pytest.mark.parametrize(
    ("status", "error"), [(400, PushRejected), (403, Denied), (405, PushRejected), (413, PushRejected)]
)
async def test_a_refused_upload_is_not_repeated_and_its_session_is_closed(
    transport: Transport, registry: ScriptedRegistry, status: int, error: type[KitdError]
) -> None:
    registry.script(faults.status(status, message="quota exceeded"), method="PUT", times=None)
    with pytest.raises(error, match="quota exceeded"):
        await _push(_opened(transport, registry), _SMALL)
    assert registry.count("PUT") == registry.count("DELETE") == 1
    assert registry.uploads.open_sessions == 0


@pytest.mark.parametrize(
    ("status", "error"), [(404, PushRejected), (403, Denied), (405, PushRejected), (500, RegistryUnavailable)]
)
async def test_a_push_that_may_not_even_begin_says_why(
    transport: Transport, registry: ScriptedRegistry, status: int, error: type[KitdError]
) -> None:
    registry.script(faults.status(status, message="no such project"), method="POST", times=None)
    with pytest.raises(error, match="no such project"):
        await _push(_opened(transport, registry), _SMALL)


async def test_a_look_that_fails_is_no_answer(transport: Transport, registry: ScriptedRegistry) -> None:
    registry.script(faults.status(503), method="HEAD", times=None)
    with pytest.raises(RegistryUnavailable):
        await _push(_opened(transport, registry), _SMALL)
    assert set(_methods(registry)) == {"HEAD"}


# -- mounts --------------------------------------------------------------------------------------


async def test_a_blob_of_another_repository_is_mounted(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    registry.put_blob("team/base", _SMALL)
    assert await _push(_opened(transport, registry), _SMALL, mount_from=(_NAME, "team/base")) == 0
    assert _stored(registry, _SMALL)
    assert _methods(registry) == ["HEAD", "POST"]


async def test_a_mount_that_becomes_a_session_is_used_as_one(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    assert await _push(_opened(transport, registry), _SMALL, mount_from=("team/base",)) == len(_SMALL)
    assert _methods(registry) == ["HEAD", "POST", "PUT"]


async def test_every_repository_that_may_have_it_is_tried_and_no_session_is_left_open(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    registry.put_blob("team/c", _SMALL)
    repository = _opened(transport, registry)
    assert await _push(repository, _SMALL, mount_from=("team/a", "team/b", "team/c", "team/d")) == 0
    assert registry.count("POST") == 3
    assert registry.uploads.open_sessions == 0
    assert await _push(repository, b"other", mount_from=("team/a", "team/b", "team/c")) == 5
    assert registry.uploads.open_sessions == 0


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_mount_that_is_refused_is_no_obstacle(transport: Transport, status: int) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(mount=status)) as registry:
        await _push(_opened(transport, registry), _SMALL, mount_from=("team/base",))
        assert _stored(registry, _SMALL)
        assert _methods(registry) == ["HEAD", "POST", "POST", "PUT"]


async def test_a_mount_asks_for_a_token_of_both_repositories(transport: Transport) -> None:
    users = {"alice": "open sesame"}
    async with ScriptedRegistry(access=Bearer(users=users)) as registry:
        registry.put_blob("team/base", _SMALL)
        context = Context(credentials={registry.host: Credential("alice", "open sesame")})
        repository = _opened(transport, registry, context)
        assert await _push(repository, _SMALL, mount_from=("team/base",)) == 0
        asked = registry.select(None, "/token")[-1].query
        assert f"scope=repository:team/base:pull&scope=repository:{_NAME}:pull,push" in asked


async def test_a_token_without_the_other_repository_is_no_obstacle(transport: Transport) -> None:
    users = {"alice": "open sesame"}
    access = Bearer(users=users, grant=lambda scopes: {scope for scope in scopes if _NAME in scope})
    async with ScriptedRegistry(access=access) as registry:
        registry.put_blob("team/base", _SMALL)
        context = Context(credentials={registry.host: Credential("alice", "open sesame")})
        await _push(_opened(transport, registry, context), _SMALL, mount_from=("team/base",))
        assert _stored(registry, _SMALL)


# -- chunks --------------------------------------------------------------------------------------


async def test_a_large_blob_goes_up_in_chunks(transport: Transport, registry: ScriptedRegistry) -> None:
    assert await _push(_opened(transport, registry), _LARGE) == len(_LARGE)
    assert _stored(registry, _LARGE)
    assert _methods(registry) == ["HEAD", "POST", *["PATCH"] * 6, "PUT"]
    first = registry.select("PATCH")[0]
    assert first.headers["Content-Range"] == f"0-{_CHUNK - 1}"
    assert first.headers["Content-Length"] == str(_CHUNK)


async def test_a_registry_s_smallest_chunk_is_kept_to(transport: Transport) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(chunk_min=2 * _CHUNK)) as registry:
        data = some_bytes(8 * _CHUNK)
        await _push(_opened(transport, registry), data)
        assert [exchange.received for exchange in registry.select("PATCH")] == [2 * _CHUNK] * 4


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_after_a_refused_chunk_it_goes_on_behind_the_last_one(
    transport: Transport, registry: ScriptedRegistry, status: int
) -> None:
    registry.script(faults.status(status), method="PATCH", skip=3)
    assert await _push(_opened(transport, registry), _LARGE) == len(_LARGE)
    assert registry.count("POST") == 1
    assert registry.count("GET", "/uploads/") == 1
    assert registry.received() == len(_LARGE) + _CHUNK


@pytest.mark.parametrize("keep", [False, True], ids=["dropped", "kept"])
async def test_after_a_broken_chunk_it_goes_on_where_the_registry_says(
    transport: Transport, *, keep: bool
) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(keep_partial=keep)) as registry:
        registry.script(faults.hang_up(take=100_000), method="PATCH", skip=3)
        assert await _push(_opened(transport, registry), _LARGE) == len(_LARGE)
        assert _stored(registry, _LARGE)
        assert registry.count("POST") == 1
        assert registry.received() == len(_LARGE) + (0 if keep else 100_000)


async def test_a_chunk_whose_answer_was_lost_is_not_sent_twice(transport: Transport) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(state=False)) as registry:
        registry.script(faults.lose_reply(), method="PATCH", skip=2)
        await _push(_opened(transport, registry), _LARGE)
        assert _stored(registry, _LARGE)
        assert registry.received() == len(_LARGE)


async def test_a_session_that_is_gone_is_begun_again(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    registry.script(faults.then(registry.uploads.forget), method="PATCH", skip=2)
    assert await _push(_opened(transport, registry), _LARGE) == len(_LARGE)
    assert _stored(registry, _LARGE)
    assert registry.count("POST") == 2


async def test_a_piece_that_broke_off_is_followed_by_chunks(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    data = some_bytes(3 * _CHUNK)
    registry.script(faults.hang_up(take=100_000), method="PUT")
    assert await _push(_opened(transport, registry), data) == len(data)
    assert _stored(registry, data)
    assert registry.count("PATCH") == 3


async def test_a_piece_that_is_too_large_is_followed_by_chunks(transport: Transport) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(too_large=_CHUNK)) as registry:
        data = some_bytes(3 * _CHUNK)
        await _push(_opened(transport, registry), data)
        assert _stored(registry, data)


@pytest.fixture
async def mebibytes(
    settings: TransportSettings, clock: StillClock, anyio_backend: object
) -> AsyncIterator[Transport]:
    upload = msgspec.structs.replace(settings.upload, chunk=2**22, monolithic_max=2**20)
    async with Transport.opened(msgspec.structs.replace(settings, upload=upload), clock=clock) as opened:
        yield opened


@pytest.mark.parametrize(
    "quirks", [UploadQuirks(chunk_limit=3 * 2**19), UploadQuirks(too_large=2**21)], ids=["416", "413"]
)
async def test_chunks_that_are_too_large_become_smaller(mebibytes: Transport, quirks: UploadQuirks) -> None:
    async with ScriptedRegistry(quirks=quirks) as registry:
        data = some_bytes(6 * 2**20)
        assert await _push(_opened(mebibytes, registry), data) == len(data)
        assert _stored(registry, data)
        assert registry.count("POST") == 1


@pytest.mark.parametrize(
    "quirks",
    [UploadQuirks(no_chunks=True), UploadQuirks(early_201=True), UploadQuirks(chunk_limit=2**10)],
    ids=["Google", "Amazon", "a tiny limit"],
)
async def test_a_registry_that_takes_no_chunks_gets_one_piece(
    transport: Transport, quirks: UploadQuirks
) -> None:
    async with ScriptedRegistry(quirks=quirks) as registry:
        assert await _push(_opened(transport, registry), _LARGE) == len(_LARGE)
        assert _stored(registry, _LARGE)
        assert _methods(registry) == [
            "HEAD", "POST", "PATCH", "DELETE", "HEAD", "POST", "PUT",
        ]  # fmt: skip


async def test_a_registry_that_counts_the_first_chunk_only_is_seen_through(transport: Transport) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(stale_range=True)) as registry:
        await _push(_opened(transport, registry), _LARGE)
        assert _stored(registry, _LARGE)
        assert registry.count("POST") == 1
        assert registry.received() <= len(_LARGE) + _CHUNK


async def test_a_registry_that_keeps_less_than_it_got_gets_the_rest_again(transport: Transport) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(short_range=1000)) as registry:
        await _push(_opened(transport, registry), _LARGE)
        assert _stored(registry, _LARGE)
        assert registry.received() < 2 * len(_LARGE) + 20 * _CHUNK


async def test_chunks_that_do_not_add_up_are_followed_by_one_piece(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    registry.script(faults.status(500), method="PATCH", skip=1)
    registry.script(faults.status(400, oci_code="DIGEST_INVALID"), method="PUT")
    await _push(_opened(transport, registry), _LARGE)
    assert _stored(registry, _LARGE)
    assert registry.select("PUT")[-1].received == len(_LARGE)


async def test_a_digest_that_is_wrong_without_a_reason_is_an_error(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    registry.script(faults.status(400, oci_code="DIGEST_INVALID"), method="PUT", times=None)
    with pytest.raises(PushRejected, match="DIGEST_INVALID"):
        await _push(_opened(transport, registry), _LARGE)
    assert registry.count("PUT") == 1


# -- announced bodies ----------------------------------------------------------------------------


@pytest.fixture
async def announcing(
    settings: TransportSettings, clock: StillClock, anyio_backend: object
) -> AsyncIterator[Transport]:
    upload = msgspec.structs.replace(settings.upload, ask_above=100_000)
    quick = msgspec.structs.replace(settings, upload=upload, connect_timeout=0.1, stall_timeout=0.5)
    async with Transport.opened(quick, clock=clock) as opened:
        yield opened


async def test_a_large_body_is_announced_and_a_refusal_costs_no_bytes(announcing: Transport) -> None:
    async with ScriptedRegistry() as registry:
        registry.script(faults.status(413, take=0), method="PUT", times=None)
        with pytest.raises(PushRejected):
            await _push(_opened(announcing, registry), _SMALL)
        (put,) = registry.select("PUT")
        assert put.headers["Expect"] == "100-continue"
        assert registry.received() == 0


async def test_an_announced_body_that_is_wanted_is_sent(announcing: Transport) -> None:
    async with ScriptedRegistry() as registry:
        assert await _push(_opened(announcing, registry), _SMALL) == len(_SMALL)
        assert registry.count("PUT") == 1


async def test_a_registry_that_knows_no_announcements_gets_none(announcing: Transport) -> None:
    async with ScriptedRegistry() as registry:
        registry.script(faults.status(417, take=0), method="PUT")
        for data in (_SMALL, _SMALL[1:]):
            await _push(_opened(announcing, registry), data)
        assert ["Expect" in put.headers for put in registry.select("PUT")] == [True, False, False]


async def test_a_registry_that_waits_in_silence_gets_the_body_unannounced(
    announcing: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitd.registry.session._CONTINUE", 0.1)
    announced: list[bool] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "PUT":
            announced.append("Expect" in request.headers)
            return web.Response(status=201 if await request.read() == _SMALL else 400)
        return web.Response(status=202 if request.method == "POST" else 404, headers={"Location": "/session"})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host = f"127.0.0.1:{runner.addresses[0][1]}"
        await _push(announcing.repository(host, _NAME, Access(1)), _SMALL)
    finally:
        await runner.cleanup()
    assert announced == [True, False]


# -- who pushes ----------------------------------------------------------------------------------


async def test_a_token_that_ends_between_chunks_is_renewed(transport: Transport) -> None:
    access = Bearer(users={"alice": "open sesame"}, uses=3)
    async with ScriptedRegistry(access=access) as registry:
        context = Context(credentials={registry.host: Credential("alice", "open sesame")})
        await _push(_opened(transport, registry, context), _LARGE)
        assert _stored(registry, _LARGE)
        assert access.issued > 2


async def test_who_may_only_pull_is_told_so(transport: Transport) -> None:
    access = Bearer(users={"alice": "open sesame"}, grant=lambda _: {f"repository:{_NAME}:pull"})
    async with ScriptedRegistry(access=access) as registry:
        context = Context(credentials={registry.host: Credential("alice", "open sesame")})
        with pytest.raises(Unauthorized) as caught:
            await _push(_opened(transport, registry, context), _SMALL)
        assert caught.value.hint == f"kitctl login {registry.host}"


# -- the sender's own troubles -------------------------------------------------------------------


async def test_an_error_of_the_reader_is_the_one_that_is_told(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    class Damaged(Source):
        def read(self, offset: int, length: int) -> bytes:
            if offset:
                raise ObjectDamaged("object sha256:0 was changed")
            return super().read(offset, length)

    with pytest.raises(ObjectDamaged):
        await _push(_opened(transport, registry), _SMALL, reader=Damaged(_SMALL))
    assert registry.count("PUT") <= 1
    assert registry.uploads.open_sessions == 0


async def test_a_disk_that_fails_is_told(transport: Transport, registry: ScriptedRegistry) -> None:
    class Broken(Source):
        def read(self, offset: int, length: int) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageIo, match="Input/output error"):
        await _push(_opened(transport, registry), _SMALL, reader=Broken(_SMALL))


async def test_a_blob_that_is_shorter_than_it_says_is_an_error(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    class Short(Source):
        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, length) if offset < 1000 else b""

    with pytest.raises(StorageIo, match="ends at byte"):
        await _push(_opened(transport, registry), _SMALL, reader=Short(_SMALL))


async def test_a_cancelled_push_closes_its_session(transport: Transport, registry: ScriptedRegistry) -> None:
    gate = Gate()
    registry.script(faults.stall_upload(gate, 1000), method="PUT")
    async with anyio.create_task_group() as group:
        group.start_soon(_push, _opened(transport, registry), _SMALL)
        await gate.until_held()
        group.cancel_scope.cancel()
    assert registry.count("DELETE") == 1
    assert registry.uploads.open_sessions == 0


async def test_a_registry_that_stops_reading_is_given_up(
    settings: TransportSettings, clock: StillClock
) -> None:
    backoff = msgspec.structs.replace(settings.backoff, attempts=2)
    quick = msgspec.structs.replace(settings, stall_timeout=0.5, backoff=backoff)
    data = some_bytes(30 * 2**20)
    upload = msgspec.structs.replace(settings.upload, monolithic_max=2**40, ask_above=2**40, chunk=2**40)
    quick = msgspec.structs.replace(quick, upload=upload)
    async with ScriptedRegistry() as registry, Transport.opened(quick, clock=clock) as transport:
        gate = Gate()
        registry.script(faults.stall_upload(gate, 1000), method="PUT", times=None)
        with pytest.raises(RegistryUnavailable, match="took no byte"):
            await _push(_opened(transport, registry), data)
        gate.open()


async def test_sent_bytes_keep_to_the_limit(
    transport: Transport, registry: ScriptedRegistry, clock: StillClock
) -> None:
    repository = transport.repository(registry.host, _NAME, Access(1), limit_rate=50_000)
    await _push(repository, _SMALL)
    assert clock.time - 1000 == pytest.approx(4, abs=0.2)


# -- manifests -----------------------------------------------------------------------------------


async def test_a_manifest_is_stored_byte_for_byte(transport: Transport, registry: ScriptedRegistry) -> None:
    kit = small_kit()
    put_kit(registry, kit, _NAME)
    registry.repository(_NAME).manifests.clear()
    repository = _opened(transport, registry)
    await push_manifest(repository, "v2", kit.manifest, MANIFEST)
    await push_manifest(repository, digest_of(kit.manifest), kit.manifest, MANIFEST)
    assert registry.repository(_NAME).manifests[kit.digest] == (kit.manifest, MANIFEST)
    assert registry.repository(_NAME).tags["v2"] == kit.digest


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"])
async def test_missing_blobs_are_an_error_of_their_own(
    transport: Transport, registry: ScriptedRegistry, status: int, code: str
) -> None:
    registry.script(faults.status(status, oci_code=code), method="PUT")
    with pytest.raises(BlobsMissing, match=code):
        await push_manifest(_opened(transport, registry), "v1", b"{}", MANIFEST)


async def test_a_manifest_that_is_stored_as_another_is_an_error(
    transport: Transport, registry: ScriptedRegistry
) -> None:
    other = {"Docker-Content-Digest": "sha256:" + hashlib.sha256(b"other").hexdigest()}
    registry.script(faults.status(201, headers=other), method="PUT")
    with pytest.raises(DigestMismatch):
        await push_manifest(_opened(transport, registry), "v1", b"{}", MANIFEST)


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [(400, PushRejected, 1), (403, Denied, 1), (413, PushRejected, 1), (500, RegistryUnavailable, 6)],
)
async def test_a_manifest_that_is_refused_says_why(
    transport: Transport, registry: ScriptedRegistry, status: int, error: type[KitdError], requests: int
) -> None:
    registry.script(faults.status(status, message="tag is immutable"), method="PUT", times=None)
    with pytest.raises(error, match="tag is immutable") as caught:
        await push_manifest(_opened(transport, registry), "v1", b"{}", MANIFEST)
    assert not isinstance(caught.value, BlobsMissing)
    assert registry.count("PUT") == requests
