"""What registries and networks do to a pull, counted at the registry.

Each row (R1 to R16) says which fault, then holds: the outcome or the error's code, the requests, the bytes sent again.
"""

from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path

import anyio
import pytest
from fakes import faults
from fakes.exchange import Gate
from fakes.figures import Figures
from fakes.kits import FakeKit, large_kit, put_kit, small_kit
from fakes.node import CONNECTIONS, KIB, LARGEST_REQUEST, RANGE, Node, node
from fakes.registry import ScriptedRegistry
from fakes.stores import read_all
from fakes.tokens import Basic, Bearer

from kitd.jobs.news import News
from kitd.spec.digest import Digest
from kitd_client.api.errors import (
    Denied,
    DigestMismatch,
    KitdError,
    ManifestInvalid,
    NotFound,
    RealmUntrusted,
    RedirectBlocked,
    RegistryProtocol,
    RegistryUnavailable,
    SizeMismatch,
    Unauthorized,
)
from kitd_client.api.jobs import Context, Credential

LAYER = 1024 * KIB
BLOBS = "/blobs/"
SUITE = "network faults (R1 to R16)"


@pytest.fixture
async def pulling(anyio_backend: object, store_root: Path) -> AsyncIterator[Node]:
    async with node(store_root) as opened:
        yield opened


@pytest.fixture
def kit() -> FakeKit:
    return large_kit(LAYER)


@pytest.fixture
def reference(registry: ScriptedRegistry, kit: FakeKit) -> str:
    put_kit(registry, kit, "team/kit")
    return f"{registry.host}/team/kit:v1"


def layer_path(kit: FakeKit) -> str:
    return f"/blobs/{kit.layer_digests[0]}"


async def assert_here(node: Node, reference: str, kit: FakeKit) -> None:
    """Invariants 1 and 2: named, and every layer reads back as what it is."""
    assert await node.has(reference)
    for digest, data in zip(kit.layer_digests, kit.layers, strict=True):
        assert await read_all(node.store, Digest(digest)) == data


async def assert_fails(
    node: Node, reference: str, error: type[KitdError], *, context: Context | None = None
) -> KitdError:
    with pytest.raises(error) as caught:
        await node.pull(reference, context=context)
    assert not await node.has(reference)
    assert caught.value.message
    return caught.value


def ranges_of(size: int) -> int:
    return -(-size // RANGE)


async def test_a_good_pull_asks_for_each_byte_once(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    size = len(kit.layers[0])
    result = await pulling.pull(reference)
    await assert_here(pulling, reference, kit)
    asked = registry.select("GET", layer_path(kit))
    assert len({exchange.range for exchange in asked}) == len(asked) <= ranges_of(size)
    assert registry.sent(layer_path(kit)) == size
    assert sum(result.fetched.values()) == size
    before = registry.count()
    again = await pulling.pull(reference)
    assert again.fetched == {}
    assert again.present == size
    # Resolving and the manifest: the proof of access, nothing else.
    assert registry.count() - before == 2


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(500),
        faults.status(502),
        faults.status(503),
        faults.status(504),
        faults.status(408),
        faults.too_many("3"),
        faults.too_many(formatdate(1_800_001_003, usegmt=True)),
        faults.too_many(None),
        faults.too_many("99999999999"),
        faults.hang_up(),
        faults.hang_up(reset=True),
        faults.drop(40_000),
        faults.drop(40_000, reset=True),
        faults.chunked(cut=1000),
        faults.length_claimed(7),
        faults.close_delimited(cut=500),
        faults.shifted_range(1),
        faults.content_range(None),
        faults.content_range("bytes 0-9/abc"),
        faults.multipart(),
        faults.partial_as_200(),
        faults.unsatisfiable(),
        faults.wrong_byte(77),
    ],
    ids=lambda fault: fault.name,
)
@pytest.mark.parametrize("place", ["first range", "a later range"])
async def test_a_passing_fault_costs_little(
    pulling: Node,
    registry: ScriptedRegistry,
    kit: FakeKit,
    reference: str,
    fault: faults.Action,
    place: str,
    figures: Figures,
) -> None:
    """R1, R2, R5, R6, R8, R9, R12: the pull ends well; a fault costs a request, wrong bytes cost the blob once."""
    size = len(kit.layers[0])
    registry.script(fault, path=layer_path(kit), covers=0 if place == "first range" else 5 * RANGE + 5)
    with anyio.fail_after(20):
        await pulling.pull(reference)
    await assert_here(pulling, reference, kit)
    again = registry.sent(layer_path(kit)) - size
    # No registry says which range lied: the whole blob comes once more.
    allowed = size + (1 + CONNECTIONS) * RANGE if fault.name.startswith("wrong") else LARGEST_REQUEST
    figures.tried(SUITE)
    if again > allowed:
        figures.violated(SUITE, f"{fault.name} at {place}: {again} bytes sent again, {allowed} allowed")


@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        (faults.status(503), RegistryUnavailable, 6),
        (faults.hang_up(), RegistryUnavailable, 6),
        (faults.status(404, oci_code="BLOB_UNKNOWN"), NotFound, 1),
        (faults.status(403, oci_code="DENIED"), Denied, 1),
        (faults.status(400), RegistryProtocol, 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_a_lasting_fault_is_told_by_its_code(
    pulling: Node,
    registry: ScriptedRegistry,
    kit: FakeKit,
    reference: str,
    fault: faults.Action,
    error: type[KitdError],
    requests: int,
    figures: Figures,
) -> None:
    """R1: a budget of requests, then an error that names the host; what must not be retried is not."""
    registry.script(fault, path=layer_path(kit), times=None)
    caught = await assert_fails(pulling, reference, error)
    assert registry.count("GET", layer_path(kit)) == requests
    assert registry.host in str(caught)
    figures.tried(SUITE)


async def test_retry_after_holds_back_the_whole_host(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R2: seconds and dates are honoured, absurd ones capped at ten minutes, and the user is told."""
    registry.script(faults.too_many("30"), path="/manifests/")
    registry.script(faults.too_many("999999999"), path=layer_path(kit))
    news = News()
    await pulling.pull(reference, news=news)
    assert 30 in pulling.clock.slept
    assert max(pulling.clock.slept) == 600
    await assert_here(pulling, reference, kit)


@pytest.mark.parametrize("after", [None, 10_000], ids=["headers", "body"])
async def test_a_stalled_range_is_asked_for_on_another_connection(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str, after: int | None
) -> None:
    """R3: silence is no answer, wherever it begins."""
    gate = Gate()
    registry.script(faults.stall(gate, after), path=layer_path(kit), covers=3 * RANGE)
    with anyio.fail_after(20):
        await pulling.pull(reference)
    await assert_here(pulling, reference, kit)
    assert registry.sent(layer_path(kit)) - len(kit.layers[0]) <= RANGE
    gate.open()


async def test_a_drip_is_a_stall(
    store_root: Path, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R4: a byte now and then keeps timers quiet and people waiting."""
    registry.script(faults.drip(1, 0.02), path=layer_path(kit), covers=2 * RANGE)
    async with node(store_root, real_time=True) as pulling:
        with anyio.fail_after(20):
            await pulling.pull(reference)
        await assert_here(pulling, reference, kit)


async def test_wrong_bytes_twice_are_the_registrys_fault(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R6: once more from the start as one stream, then it is said; nothing of it stays."""
    registry.script(faults.wrong_byte(123), path=layer_path(kit), covers=0, times=None)
    registry.script(faults.wrong_byte(123), path=layer_path(kit), times=None)
    caught = await assert_fails(pulling, reference, DigestMismatch)
    assert not caught.retryable
    assert registry.sent(layer_path(kit)) <= 2 * len(kit.layers[0]) + CONNECTIONS * RANGE
    registry.drop_script()
    await pulling.pull(reference)
    await assert_here(pulling, reference, kit)


async def test_a_registry_without_ranges_is_asked_once(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R7: sixteen ranges would cost a cache sixteen whole fetches."""
    registry.script(faults.ignore_range(), path=BLOBS, times=None)
    await pulling.pull(reference)
    await assert_here(pulling, reference, kit)
    assert registry.count("GET", layer_path(kit)) == 1


async def test_a_registry_that_stops_taking_ranges_goes_on_as_one_stream(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R7, in the middle."""
    registry.script(faults.ignore_range(), path=layer_path(kit), skip=6, times=None)
    with anyio.fail_after(20):
        await pulling.pull(reference)
    await assert_here(pulling, reference, kit)
    assert registry.sent(layer_path(kit)) <= (2 + CONNECTIONS) * len(kit.layers[0])


async def test_another_size_than_the_descriptors_is_refused(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R8: the total of a range answers for the whole blob."""
    size = len(kit.layers[0])
    registry.script(faults.content_range(f"bytes 0-{RANGE - 1}/{size + 1}"), path=layer_path(kit), times=None)
    await assert_fails(pulling, reference, SizeMismatch)


async def test_signed_urls_expire_in_the_middle(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R10: the registry is asked for a new one, and nothing is fetched twice."""
    redirects = registry.redirect_blobs(uses=5)
    await pulling.pull(reference)
    await assert_here(pulling, reference, kit)
    assert sum(each.sent for each in registry.select(origin="other", status=206)) == len(kit.layers[0])
    assert redirects.issued <= 2 + ranges_of(len(kit.layers[0])) // 5 + CONNECTIONS


async def test_tokens_expire_in_the_middle(store_root: Path, kit: FakeKit) -> None:
    """R11: one refresh serves everyone who waits for it."""
    access = Bearer(users={"ann": "secret"}, uses=7)
    async with ScriptedRegistry(access=access) as registry, node(store_root) as pulling:
        put_kit(registry, kit, "team/kit")
        reference = f"{registry.host}/team/kit:v1"
        context = Context(credentials={registry.host: Credential(username="ann", password="secret")})
        await pulling.pull(reference, context=context)
        await assert_here(pulling, reference, kit)
        served = registry.select("GET", layer_path(kit), status=206)
        assert sum(each.sent for each in served) == len(kit.layers[0])
        assert registry.count("GET", layer_path(kit)) > len(served)


async def test_credentials_that_are_wrong_end_in_unauthorized(store_root: Path, kit: FakeKit) -> None:
    """R11: two tries, then the host is named and the login command."""
    async with ScriptedRegistry(access=Basic({"ann": "secret"})) as registry, node(store_root) as pulling:
        put_kit(registry, kit, "team/kit")
        reference = f"{registry.host}/team/kit:v1"
        context = Context(credentials={registry.host: Credential(username="ann", password="wrong")})
        caught = await assert_fails(pulling, reference, Unauthorized, context=context)
        assert registry.host in str(caught)
        assert "login" in str(caught.hint)


async def test_a_manifest_that_is_another_is_refused(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R13: nothing of it is stored."""
    other = small_kit(9)
    registry.script(faults.body(other.manifest), method="GET", path="/manifests/sha256", times=None)
    await assert_fails(pulling, reference, DigestMismatch)
    assert (await pulling.store.usage()).store_bytes == 0


async def test_a_tag_that_moves_does_not_mix_two_kits(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """R14: resolved once; the rest of the pull is by digest."""
    other = put_kit(registry, small_kit(9), "team/kit", "v2")
    registry.script(
        faults.then(lambda: registry.move_tag("team/kit", "v1", other)), method="GET", path="/manifests/"
    )
    result = await pulling.pull(reference)
    assert result.digest == kit.digest
    await assert_here(pulling, reference, kit)


@pytest.mark.parametrize(
    "target",
    ["", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "gopher://x/"],
    ids=["itself", "metadata", "file", "gopher"],
)
async def test_redirects_lead_nowhere_they_must_not(
    pulling: Node, registry: ScriptedRegistry, kit: FakeKit, reference: str, target: str
) -> None:
    """R15: endless, to link-local addresses (refused before anything is sent), to other schemes."""
    registry.script(faults.redirect(target), path=layer_path(kit), times=None)
    caught = await assert_fails(pulling, reference, RedirectBlocked)
    assert registry.count("GET", layer_path(kit)) <= 6
    assert registry.host.partition(":")[0] in str(caught)


async def test_a_realm_on_another_host_never_sees_the_password(store_root: Path, kit: FakeKit) -> None:
    """R16: the token service is named, and the password stays here."""
    access = Bearer(users={"ann": "secret"})
    async with ScriptedRegistry(access=access) as registry, node(store_root) as pulling:
        put_kit(registry, kit, "team/kit")
        access.realm = registry.other_url.replace("127.0.0.1", "localhost") + "/token"
        context = Context(credentials={registry.host: Credential(username="ann", password="secret")})
        await assert_fails(pulling, f"{registry.host}/team/kit:v1", RealmUntrusted, context=context)
        assert all(not each.authorization for each in registry.select(origin="other"))


HOSTILE_MANIFESTS: dict[str, Callable[[], bytes]] = {
    "too large": lambda: b'{"schemaVersion":2,"x":"' + b"y" * (5 << 20) + b'"}',
    "deep": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "negative size": lambda: (
        b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.kitops.modelkit.config.v1+json",'
        b'"digest":"sha256:' + b"0" * 64 + b'","size":-1},"layers":[]}'
    ),
    "bad utf-8": lambda: b'{"schemaVersion":2,"\xff":1}',
    "not json": lambda: b"<html>",
    "a list": lambda: b"[]",
}


@pytest.mark.parametrize("name", HOSTILE_MANIFESTS)
async def test_hostile_manifests_are_refused_before_they_hurt(
    pulling: Node, registry: ScriptedRegistry, name: str
) -> None:
    """R17, as far as this version goes: bounded before parsing (invariant 5)."""
    registry.put_manifest("team/kit", HOSTILE_MANIFESTS[name](), "v1")
    with anyio.fail_after(20):
        await assert_fails(pulling, f"{registry.host}/team/kit:v1", (ManifestInvalid, RegistryProtocol))  # type: ignore[arg-type]
