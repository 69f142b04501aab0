"""Manifests and blobs of a scripted registry, with every fault of the network it can show."""

import anyio
import msgspec
import pytest
from fakes import faults
from fakes.clock import StillClock
from fakes.exchange import Gate
from fakes.faults import Action
from fakes.kits import FakeKit, put_kit, small_kit, some_bytes
from fakes.registry import ScriptedRegistry

from kitd.registry.body import BodyInterrupted
from kitd.registry.repository import RemoteBlob, Repository
from kitd.registry.settings import TransportSettings
from kitd.registry.transport import Access, Transport
from kitd.spec.digest import digest_of, parse_digest
from kitd.spec.oci import Descriptor
from kitd_client.api.errors import (
    Denied,
    DigestMismatch,
    KitdError,
    ManifestInvalid,
    NotFound,
    RateLimited,
    RedirectBlocked,
    RegistryProtocol,
    RegistryUnavailable,
    SizeMismatch,
    Unsupported,
)

_NAME = "team/kit"
_DATA = some_bytes(600_000)
_START, _STOP = 100_000, 400_000


@pytest.fixture
def kit(registry: ScriptedRegistry) -> FakeKit:
    kit = small_kit()
    put_kit(registry, kit, _NAME)
    return kit


@pytest.fixture
def blob(registry: ScriptedRegistry) -> Descriptor:
    return Descriptor("application/octet-stream", parse_digest(registry.put_blob(_NAME, _DATA)), len(_DATA))


@pytest.fixture
def repository(registry: ScriptedRegistry, transport: Transport) -> Repository:
    return transport.repository(registry.host, _NAME, Access(1000))


async def _read(remote: RemoteBlob) -> bytes:
    return b"".join([piece async for piece in remote.body])


# -- tags and manifests --------------------------------------------------------------------------


async def test_a_tag_is_resolved_by_one_head(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    assert await repository.resolve("v1") == kit.digest
    assert [exchange.method for exchange in registry.journal.exchanges] == ["HEAD"]


@pytest.mark.parametrize(
    "action",
    [
        faults.status(405),
        faults.status(404),
        faults.status(403),
        faults.without("Docker-Content-Digest"),
    ],
)
async def test_a_registry_without_a_useful_head_is_asked_for_the_manifest(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit, action: Action
) -> None:
    registry.script(action, method="HEAD")
    assert await repository.resolve("v1") == kit.digest
    assert [exchange.method for exchange in registry.journal.exchanges] == ["HEAD", "GET"]


async def test_a_digest_in_no_header_at_all_is_computed(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    registry.script(faults.without("Docker-Content-Digest"), times=None)
    assert await repository.resolve("v1") == kit.digest


async def test_a_missing_tag_is_named_with_the_registry_s_own_words(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    with pytest.raises(NotFound) as caught:
        await repository.resolve("v9")
    assert f"{registry.host}/{_NAME}:v9" in caught.value.message
    assert "MANIFEST_UNKNOWN" in caught.value.message


async def test_a_tag_whose_manifest_is_another_one_is_refused(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    registry.script(faults.status(405), method="HEAD")
    registry.script(faults.body(b"{}"), method="GET")
    with pytest.raises(DigestMismatch):
        await repository.resolve("v1")


@pytest.mark.parametrize(
    ("header", "error"),
    [("sha512:" + "0" * 128, Unsupported), ("nonsense", RegistryProtocol), ("sha256:0", RegistryProtocol)],
)
async def test_a_digest_that_is_none_of_ours_is_an_error(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit, header: str, error: type[KitdError]
) -> None:
    registry.script(faults.with_headers({"Docker-Content-Digest": header}))
    with pytest.raises(error):
        await repository.resolve("v1")


async def test_a_manifest_comes_byte_for_byte(repository: Repository, kit: FakeKit) -> None:
    assert await repository.fetch_manifest(parse_digest(kit.digest)) == kit.manifest


@pytest.mark.parametrize(
    "action",
    [
        faults.wrong_byte(),
        faults.body(b"{}"),
        faults.with_headers({"Docker-Content-Digest": "sha256:" + "0" * 64}),
    ],
)
async def test_a_manifest_of_another_digest_is_refused(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit, action: Action
) -> None:
    registry.script(action)
    with pytest.raises(DigestMismatch, match="manifest"):
        await repository.fetch_manifest(parse_digest(kit.digest))
    assert registry.count() == 1


async def test_a_huge_manifest_is_given_up_at_its_limit(
    registry: ScriptedRegistry, repository: Repository
) -> None:
    digest = registry.put_manifest(_NAME, bytes(40 * 2**20))
    with pytest.raises(RegistryProtocol, match="4194304"):
        await repository.fetch_manifest(parse_digest(digest))
    assert registry.sent("/manifests/") < 16 * 2**20


async def test_a_compressed_answer_is_refused(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    registry.script(faults.with_headers({"Content-Encoding": "gzip"}))
    with pytest.raises(RegistryProtocol, match="compressed"):
        await repository.fetch_manifest(parse_digest(kit.digest))


async def test_a_manifest_that_breaks_off_is_fetched_again(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    registry.script(faults.drop(10), times=2)
    assert await repository.fetch_manifest(parse_digest(kit.digest)) == kit.manifest
    assert registry.count("GET") == 3


async def test_a_manifest_behind_a_redirect_is_found(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    path = f"/v2/{_NAME}/manifests/{kit.digest}"
    registry.script(faults.redirect(registry.other_url + path), origin="registry")
    assert await repository.fetch_manifest(parse_digest(kit.digest)) == kit.manifest


# -- trying again --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_go_better_is_tried_again(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit, clock: StillClock, status: int
) -> None:
    registry.script(faults.status(status), times=2)
    assert await repository.fetch_manifest(parse_digest(kit.digest)) == kit.manifest
    assert registry.count() == 3
    assert clock.slept == [0.25, 0.5]


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, RegistryUnavailable), (503, RegistryUnavailable), (429, RateLimited), (408, RegistryUnavailable)],
)
async def test_it_is_given_up_after_six_attempts(
    registry: ScriptedRegistry,
    repository: Repository,
    clock: StillClock,
    status: int,
    error: type[KitdError],
) -> None:
    registry.script(faults.status(status, oci_code="SORRY", message="not now"), times=None)
    with pytest.raises(error, match="not now") as caught:
        await repository.fetch_manifest(digest_of(b"x"))
    assert caught.value.retryable
    assert registry.count() == 6
    assert clock.slept[:5] == [0.25, 0.5, 1, 2, 4]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RegistryProtocol),
        (403, Denied),
        (404, NotFound),
        (405, RegistryProtocol),
        (410, NotFound),
        (501, RegistryUnavailable),
    ],
)
async def test_what_will_not_go_better_is_asked_once(
    registry: ScriptedRegistry, repository: Repository, status: int, error: type[KitdError]
) -> None:
    registry.script(faults.status(status), times=None)
    with pytest.raises(error):
        await repository.fetch_manifest(digest_of(b"x"))
    assert registry.count() == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_ends_before_the_answer_is_tried_again(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit, *, reset: bool
) -> None:
    registry.script(faults.hang_up(reset=reset), times=2)
    assert await repository.fetch_manifest(parse_digest(kit.digest)) == kit.manifest
    assert registry.count() == 3


async def test_an_answer_that_is_no_http_is_said_so(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    registry.script(faults.two_lengths(), times=None)
    with pytest.raises(RegistryProtocol):
        await repository.fetch_manifest(parse_digest(kit.digest))


async def test_an_html_error_page_is_no_trouble(registry: ScriptedRegistry, repository: Repository) -> None:
    registry.script(faults.status(403, body=b"<html>" + b"x" * 300_000))
    with pytest.raises(Denied, match=r"answered 403$"):
        await repository.fetch_manifest(digest_of(b"x"))


# -- ranges of blobs -----------------------------------------------------------------------------


async def test_a_range_comes_as_a_range(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    async with repository.open_blob(blob, _START, _STOP) as remote:
        assert (remote.ranged, remote.begins_at, remote.host) == (True, _START, registry.host)
        assert await _read(remote) == _DATA[_START:_STOP]
    (exchange,) = registry.journal.exchanges
    assert exchange.range == (_START, _STOP - 1)


async def test_a_whole_blob_is_asked_for_without_a_range(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    async with repository.open_blob(blob, 0, blob.size) as remote:
        assert (remote.ranged, remote.begins_at) == (False, 0)
        assert await _read(remote) == _DATA
    assert "Range" not in registry.journal.exchanges[0].headers


async def test_a_registry_without_ranges_is_asked_once(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.ignore_range())
    async with repository.open_blob(blob, _START, _STOP) as remote:
        assert (remote.ranged, remote.begins_at) == (False, 0)
        assert await _read(remote) == _DATA
    assert registry.count() == 1


async def test_a_part_that_comes_as_200_is_a_part(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.partial_as_200())
    async with repository.open_blob(blob, _START, _STOP) as remote:
        assert (remote.ranged, remote.begins_at) == (True, _START)
        assert await _read(remote) == _DATA[_START:_STOP]


ODD = [
    faults.content_range(None),
    faults.content_range("bytes 0-9/600000"),
    faults.content_range("nonsense"),
    faults.shifted_range(5),
    faults.length_claimed(7),
    faults.length_claimed(-7),
    faults.multipart(),
    faults.unsatisfiable(),
    faults.unsatisfiable(len(_DATA)),
]


@pytest.mark.parametrize("action", ODD, ids=lambda action: action.name)
async def test_a_range_whose_answer_is_odd_is_asked_for_again(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, action: Action
) -> None:
    registry.script(action)
    async with repository.open_blob(blob, _START, _STOP) as remote:
        assert (remote.ranged, remote.begins_at) == (True, _START)
        assert await _read(remote) == _DATA[_START:_STOP]
    assert [exchange.range for exchange in registry.journal.exchanges] == [(_START, _STOP - 1)] * 2


@pytest.mark.parametrize("action", ODD, ids=lambda action: action.name)
async def test_two_odd_answers_are_followed_by_one_request_for_all(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, action: Action
) -> None:
    registry.script(action, times=2)
    async with repository.open_blob(blob, _START, _STOP) as remote:
        assert (remote.ranged, remote.begins_at) == (False, 0)
        assert await _read(remote) == _DATA
    assert [exchange.range for exchange in registry.journal.exchanges] == [
        *[(_START, _STOP - 1)] * 2,
        None,
    ]


async def test_a_registry_that_gives_neither_range_nor_blob_is_an_error(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.unsatisfiable(), times=None)
    with pytest.raises(RegistryProtocol, match="416"):
        async with repository.open_blob(blob, _START, _STOP):
            pass
    assert registry.count() == 3


@pytest.mark.parametrize("size", [len(_DATA) - 1, len(_DATA) + 1])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_blob_of_another_size_is_refused_before_a_byte_is_taken(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, size: int, *, whole: bool
) -> None:
    claimed = Descriptor(blob.media_type, blob.digest, size)
    with pytest.raises(SizeMismatch):
        async with repository.open_blob(claimed, 0 if whole else 10, size if whole else 20):
            pass
    assert registry.count() == 1


async def test_a_descriptor_that_claims_more_than_there_is_gets_a_416(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    claimed = Descriptor(blob.media_type, blob.digest, 2 * blob.size)
    with pytest.raises(SizeMismatch, match=str(blob.size)):
        async with repository.open_blob(claimed, blob.size + 10, 2 * blob.size):
            pass


async def test_a_registry_that_says_it_sends_another_blob_is_believed(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.with_headers({"Docker-Content-Digest": "sha256:" + "0" * 64}))
    with pytest.raises(DigestMismatch):
        async with repository.open_blob(blob, 0, 10):
            pass


async def test_a_missing_blob_is_named(registry: ScriptedRegistry, repository: Repository) -> None:
    missing = Descriptor("x", digest_of(b"nothing"), 7)
    with pytest.raises(NotFound, match=missing.digest):
        async with repository.open_blob(missing, 0, 7):
            pass


# -- bodies that break ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        faults.drop(100_000),
        faults.drop(100_000, reset=True),
        faults.chunked(cut=100_000),
        faults.close_delimited(cut=100_000),
    ],
    ids=lambda action: action.name,
)
async def test_a_body_that_breaks_off_is_noticed_and_what_came_is_good(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, action: Action
) -> None:
    registry.script(action)
    got = b""
    async with repository.open_blob(blob, _START, _STOP) as remote:
        with pytest.raises(BodyInterrupted) as caught:  # noqa: PT012 - what came before it counts
            while True:
                got += await anext(remote.body)
    assert caught.value.retryable
    assert got == _DATA[_START : _START + len(got)]
    assert len(got) <= 100_000


@pytest.mark.parametrize("action", [faults.chunked(), faults.close_delimited()], ids=["chunked", "close"])
async def test_a_body_without_a_length_is_taken_when_it_is_complete(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, action: Action
) -> None:
    registry.script(action)
    async with repository.open_blob(blob, _START, _STOP) as remote:
        assert await _read(remote) == _DATA[_START:_STOP]


async def test_a_chunked_body_of_too_many_bytes_is_an_error(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.chunked())
    long = Descriptor(blob.media_type, parse_digest(registry.put_blob(_NAME, _DATA + b"more")), blob.size)
    with pytest.raises(SizeMismatch):
        async with repository.open_blob(long, 0, blob.size) as remote:
            await _read(remote)


async def test_surplus_bytes_do_not_harm_the_next_request(
    registry: ScriptedRegistry, repository: Repository, kit: FakeKit
) -> None:
    registry.script(faults.length_claimed(-3))
    with pytest.raises((DigestMismatch, RegistryProtocol)) as caught:
        await repository.fetch_manifest(parse_digest(kit.digest))
    assert len(caught.value.message) < 300
    assert await repository.fetch_manifest(parse_digest(kit.digest)) == kit.manifest


async def test_an_abandoned_body_costs_its_connection_only(
    repository: Repository, blob: Descriptor, kit: FakeKit
) -> None:
    async with repository.open_blob(blob, 0, blob.size) as remote:
        async for _ in remote.body:
            break
    assert await repository.fetch_bytes(blob, blob.size) == _DATA


# -- small blobs ---------------------------------------------------------------------------------


async def test_a_small_blob_is_verified(repository: Repository, blob: Descriptor) -> None:
    assert await repository.fetch_bytes(blob, blob.size) == _DATA


async def test_a_small_blob_that_breaks_off_is_fetched_again(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, clock: StillClock
) -> None:
    registry.script(faults.drop(1000), times=2)
    assert await repository.fetch_bytes(blob, blob.size) == _DATA
    assert registry.count() == 3
    assert clock.slept == [0.25, 0.5]


async def test_a_small_blob_with_a_wrong_byte_is_refused(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.wrong_byte(-1))
    with pytest.raises(DigestMismatch, match=blob.digest):
        await repository.fetch_bytes(blob, blob.size)


async def test_a_blob_over_its_limit_is_not_even_asked_for(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    with pytest.raises(ManifestInvalid, match="600000"):
        await repository.fetch_bytes(blob, 2**16)
    assert registry.count() == 0


async def test_the_empty_blob_needs_no_request(registry: ScriptedRegistry, repository: Repository) -> None:
    assert await repository.fetch_bytes(Descriptor("x", digest_of(b""), 0), 10) == b""
    with pytest.raises(DigestMismatch):
        await repository.fetch_bytes(Descriptor("x", digest_of(b"x"), 0), 10)
    assert registry.count() == 0


# -- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_storage_elsewhere_is_asked_directly_after_the_first_time(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, status: int
) -> None:
    registry.redirect_blobs(status)
    for start in range(0, 500_000, 100_000):
        async with repository.open_blob(blob, start, start + 100_000) as remote:
            assert remote.host == registry.other_host
            assert await _read(remote) == _DATA[start : start + 100_000]
    assert registry.count(origin="registry") == 1
    assert registry.count(origin="other") == 5


async def test_expired_urls_are_renewed_once_for_all_ranges(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    redirects = registry.redirect_blobs()
    async with repository.open_blob(blob, 0, 1000) as remote:
        await _read(remote)
    redirects.expire()
    for start in range(1000, 9000, 1000):
        async with repository.open_blob(blob, start, start + 1000) as remote:
            assert await _read(remote) == _DATA[start : start + 1000]
    assert redirects.issued == 2
    assert registry.count(origin="registry") == 2


async def test_urls_that_serve_once_are_renewed_for_every_range(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.redirect_blobs(uses=1)
    for start in range(0, 4000, 1000):
        async with repository.open_blob(blob, start, start + 1000) as remote:
            assert await _read(remote) == _DATA[start : start + 1000]
    assert registry.count(origin="registry") == 4


@pytest.mark.parametrize(
    ("status", "error"), [(403, Denied), (400, Denied), (404, NotFound), (410, NotFound)]
)
async def test_storage_that_always_refuses_is_asked_twice_a_range(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, status: int, error: type[KitdError]
) -> None:
    registry.redirect_blobs()
    async with repository.open_blob(blob, 0, 10):
        pass
    registry.script(faults.status(status), origin="other", times=None)
    with pytest.raises(error, match=registry.other_host):
        async with repository.open_blob(blob, 10, 20):
            pass
    assert registry.count(origin="registry") == 2
    assert registry.count(origin="other") == 3


async def test_storage_without_ranges_gives_the_blob(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.redirect_blobs()
    registry.script(faults.ignore_range(), origin="other")
    async with repository.open_blob(blob, 10, 20) as remote:
        assert not remote.ranged
        assert await _read(remote) == _DATA


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/x",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1/x",
        "gopher://127.0.0.1/",
        "http://127.0.0.1:999999/",
    ],
)
async def test_a_redirect_to_where_nobody_should_go_is_blocked(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor, location: str
) -> None:
    registry.script(faults.redirect(location), times=None)
    with pytest.raises(RedirectBlocked) as caught:
        async with repository.open_blob(blob, 0, 10):
            pass
    assert "secret" not in caught.value.message
    assert registry.count() == 1


async def test_redirects_end_somewhere(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.redirect(""), times=None)
    with pytest.raises(RedirectBlocked, match="5 times"):
        async with repository.open_blob(blob, 0, 10):
            pass
    assert registry.count() == 6


async def test_a_redirect_to_nowhere_is_a_broken_protocol(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.status(307))
    with pytest.raises(RegistryProtocol, match="Location"):
        async with repository.open_blob(blob, 0, 10):
            pass


async def test_ranges_at_once_renew_an_expired_url_once(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    redirects = registry.redirect_blobs()
    async with repository.open_blob(blob, 0, 1000) as remote:
        await _read(remote)
    redirects.expire()

    async def fetch(start: int) -> None:
        async with repository.open_blob(blob, start, start + 1000) as remote:
            assert await _read(remote) == _DATA[start : start + 1000]

    async with anyio.create_task_group() as group:
        for start in range(0, 16_000, 1000):
            group.start_soon(fetch, start)
    assert redirects.issued == 2


async def test_a_cancelled_request_gives_its_connection_back(
    registry: ScriptedRegistry, settings: TransportSettings, blob: Descriptor
) -> None:
    async with Transport.opened(msgspec.structs.replace(settings, connections_per_host=1)) as transport:
        repository = transport.repository(registry.host, _NAME, Access(1))
        for after in (None, 1000):
            gate = Gate()
            registry.script(faults.stall(gate, after))
            async with anyio.create_task_group() as group:
                group.start_soon(repository.fetch_bytes, blob, blob.size)
                await gate.until_held()
                group.cancel_scope.cancel()
            with anyio.fail_after(5):
                assert await repository.fetch_bytes(blob, blob.size) == _DATA
