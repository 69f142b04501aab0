"""What jobs share and what they must not: TLS, gates, routes, proxies, the rate limit."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import aiohttp
import anyio
import msgspec
import pytest
from aiohttp import web
from fakes import faults
from fakes.clock import StillClock
from fakes.exchange import Gate
from fakes.kits import put_kit, small_kit, some_bytes
from fakes.registry import ScriptedRegistry
from fakes.tools import free_port
from yarl import URL

from kitd.registry.line import Call, Line
from kitd.registry.lines import Lines
from kitd.registry.redirect import Reach
from kitd.registry.route import Route, Trust
from kitd.registry.settings import TransportSettings
from kitd.registry.tls import tls_context
from kitd.registry.transport import Access, RateLimit, Transport
from kitd.spec.digest import parse_digest
from kitd.spec.oci import Descriptor
from kitd_client.api.errors import (
    InvalidRequest,
    RateLimited,
    RedirectBlocked,
    RegistryUnavailable,
    TlsFailed,
)
from kitd_client.api.jobs import Context

_NAME = "team/kit"
_KIT = small_kit()
_DIGEST = parse_digest(_KIT.digest)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is at 127.0.0.1: names that are not of this machine can be tried."""

    async def resolve(
        _self: object, host: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[dict[str, object]]:
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)


# -- TLS or not ----------------------------------------------------------------------------------


@asynccontextmanager
async def _plain_server(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers everything alike, and tells how each connection began."""
    firsts: list[bytes] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with anyio.move_on_after(10):
                first = await stream.receive()
                firsts.append(first[:1])
                if answer is None and first[:1] == b"\x16":
                    await anyio.sleep(10)
                await stream.send(answer or b"")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"127.0.0.1:{port}", firsts
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"",
        None,
    ],
    ids=["answers", "hangs up", "waits"],
)
async def test_on_this_machine_tls_is_tried_once(
    transport: Transport, answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitd.registry.line._NEAR", 0.2)
    async with _plain_server(answer) as (host, firsts):
        for _ in range(2):
            with pytest.raises(Exception, match=host):
                await transport.repository(host, _NAME, Access(1)).fetch_manifest(_DIGEST)
        assert firsts[0] == b"\x16"
        assert set(firsts[1:]) == {b"G"}


async def test_on_this_machine_tls_is_used_where_it_is_spoken(transport: Transport) -> None:
    async with ScriptedRegistry(tls=True) as registry:
        put_kit(registry, _KIT, _NAME)
        access = Access(1, Context(ca_pem=registry.ca_pem))
        assert await transport.repository(registry.host, _NAME, access).resolve("v1") == _DIGEST


async def test_a_certificate_that_is_not_trusted_ends_it_even_on_this_machine(transport: Transport) -> None:
    async with ScriptedRegistry(tls=True) as registry:
        with pytest.raises(TlsFailed, match="certificate") as caught:
            await transport.repository(registry.host, _NAME, Access(1)).resolve("v1")
        assert "--ca-file" in (caught.value.hint or "")
        assert registry.count() == 0


async def test_verification_can_be_switched_off(transport: Transport) -> None:
    async with ScriptedRegistry(tls=True) as registry:
        put_kit(registry, _KIT, _NAME)
        access = Access(1, Context(tls_verify=False))
        assert await transport.repository(registry.host, _NAME, access).resolve("v1") == _DIGEST
        with pytest.raises(TlsFailed):
            await transport.repository(registry.host, _NAME, Access(1)).resolve("v1")


async def test_a_client_certificate_is_shown_where_it_is_wanted(transport: Transport) -> None:
    async with ScriptedRegistry(mtls=True) as registry:
        put_kit(registry, _KIT, _NAME)
        shown = Context(ca_pem=registry.ca_pem, client_certificate_pem=registry.client_pem)
        assert await transport.repository(registry.host, _NAME, Access(1, shown)).resolve("v1") == _DIGEST
        hidden = Context(ca_pem=registry.ca_pem)
        with pytest.raises((TlsFailed, RegistryUnavailable)) as caught:
            await transport.repository(registry.host, _NAME, Access(1, hidden)).resolve("v1")
        assert "--cert" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "context",
    [Context(ca_pem="nonsense"), Context(client_certificate_pem="nonsense"), Context(ca_pem="-----BEGIN")],
)
async def test_certificates_that_cannot_be_read_are_said_so(transport: Transport, context: Context) -> None:
    with pytest.raises(InvalidRequest, match="PEM"):
        await transport.repository("127.0.0.1:1", _NAME, Access(1, context)).resolve("v1")


async def test_elsewhere_plain_http_is_never_guessed(
    transport: Transport, registry: ScriptedRegistry, everywhere: None
) -> None:
    put_kit(registry, _KIT, _NAME)
    host = registry.host.replace("127.0.0.1", "registry.example")
    with pytest.raises(TlsFailed) as caught:
        await transport.repository(host, _NAME, Access(1)).resolve("v1")
    assert "--plain-http" in (caught.value.hint or "")
    assert registry.count() == 0
    plain = Access(1, Context(plain_http=True))
    assert await transport.repository(host, _NAME, plain).resolve("v1") == _DIGEST


# -- addresses -----------------------------------------------------------------------------------


async def test_a_name_that_turns_out_to_be_here_is_not_connected_to(
    settings: TransportSettings, clock: StillClock, registry: ScriptedRegistry, everywhere: None
) -> None:
    port = int(registry.host.rpartition(":")[2])
    lines = Lines(settings, clock)
    route = Route("http", "cdn.example", port, "", Trust(), Reach.PRIVATE)
    line = Line(route, lines.gate(route), settings, tls_context(Trust()))
    try:
        with pytest.raises(RedirectBlocked, match=r"cdn\.example"):
            await line.send(Call("GET", URL(f"http://cdn.example:{port}/")), None)
    finally:
        await line.close()
    assert registry.count() == 0


async def test_a_registry_here_may_send_to_a_name_that_is_here(
    transport: Transport, registry: ScriptedRegistry, everywhere: None
) -> None:
    data = b"the bytes"
    blob = Descriptor("x", parse_digest(registry.put_blob(_NAME, data)), len(data))
    other = registry.other_url.replace("127.0.0.1", "cdn.example")
    registry.script(faults.redirect(f"{other}/v2/{_NAME}/blobs/{blob.digest}"), origin="registry")
    repository = transport.repository(registry.host, _NAME, Access(1))
    assert await repository.fetch_bytes(blob, 100) == data


# -- gates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7), (formatdate(1_800_000_000 + 1000 + 300, usegmt=True), 300), ("1000000000", 600)],
    ids=["seconds", "date", "absurd"],
)
async def test_a_pause_that_a_host_asks_for_holds_every_job_there(
    transport: Transport,
    registry: ScriptedRegistry,
    clock: StillClock,
    status: int,
    retry_after: str,
    seconds: int,
) -> None:
    put_kit(registry, _KIT, _NAME)
    told: list[tuple[str, float]] = []
    registry.script(faults.status(status, headers={"Retry-After": retry_after}))
    repository = transport.repository(
        registry.host, _NAME, Access(1), waiting=lambda reason, left: told.append((reason, left))
    )
    assert await repository.fetch_manifest(_DIGEST) == _KIT.manifest
    assert clock.slept == [seconds]
    assert told == [(f"{registry.host} asks to wait ({status})", seconds)]


async def test_the_pause_holds_back_other_jobs_but_not_other_routes(
    transport: Transport, registry: ScriptedRegistry, clock: StillClock
) -> None:
    put_kit(registry, _KIT, _NAME)
    one = transport.repository(registry.host, _NAME, Access(1))
    other = transport.repository(registry.host, _NAME, Access(2))
    elsewhere = transport.repository(
        registry.host, _NAME, Access(1, Context(plain_http=True, tls_verify=False))
    )
    registry.script(faults.too_many("30"))
    ready: list[bool] = []

    async def sleep(seconds: float) -> None:
        ready.extend([one.ready(), other.ready(), elsewhere.ready()])
        clock.time += seconds

    clock.sleep = sleep  # type: ignore[method-assign] # looks at the gates while somebody waits
    await one.fetch_manifest(_DIGEST)
    assert ready == [False, False, True]
    assert other.ready()


async def test_too_many_requests_without_a_time_is_a_pause_too(
    transport: Transport, registry: ScriptedRegistry, clock: StillClock
) -> None:
    registry.script(faults.too_many(), times=None)
    with pytest.raises(RateLimited, match="TOOMANYREQUESTS"):
        await transport.repository(registry.host, _NAME, Access(1)).fetch_manifest(_DIGEST)
    assert registry.count() == 6


async def test_a_storage_host_that_pauses_makes_the_job_not_ready(
    transport: Transport, registry: ScriptedRegistry, clock: StillClock
) -> None:
    data = b"the bytes"
    blob = Descriptor("x", parse_digest(registry.put_blob(_NAME, data)), len(data))
    registry.redirect_blobs()
    registry.script(faults.too_many("30"), origin="other", times=None)
    repository = transport.repository(registry.host, _NAME, Access(1))
    with pytest.raises(RateLimited):
        await repository.fetch_bytes(blob, 100)
    assert not repository.ready()
    assert transport.repository(registry.host, _NAME, Access(2)).ready()


async def test_a_dead_host_backs_off_for_all_jobs_at_once(transport: Transport, clock: StillClock) -> None:
    host = f"127.0.0.1:{free_port()}"
    failed: list[RegistryUnavailable] = []

    async def ask() -> None:
        try:
            await transport.repository(host, _NAME, Access(1)).resolve("v1")
        except RegistryUnavailable as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
    assert len(failed) == 10
    assert all("refused" in error.message and host in error.message for error in failed)
    clock.slept.clear()
    await ask()
    assert len(clock.slept) == 1


async def test_a_host_that_comes_back_is_served_at_once(transport: Transport, clock: StillClock) -> None:
    port = free_port()
    host = f"127.0.0.1:{port}"
    async with ScriptedRegistry() as registry:
        put_kit(registry, _KIT, _NAME)
        with pytest.raises(RegistryUnavailable):
            await transport.repository(host, _NAME, Access(1)).resolve("v1")
        assert not transport.repository(host, _NAME, Access(2)).ready()
        assert await transport.repository(registry.host, _NAME, Access(1)).resolve("v1") == _DIGEST


async def test_an_unknown_host_is_named(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    with pytest.raises(RegistryUnavailable, match=r"nowhere\.example: no such host"):
        await transport.repository("nowhere.example", _NAME, Access(1)).resolve("v1")


# -- proxies -------------------------------------------------------------------------------------


@asynccontextmanager
async def _proxy(status: int = 200) -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    seen: list[web.BaseRequest] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request)
        return web.Response(status=status, headers={"Docker-Content-Digest": _DIGEST})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


async def test_a_proxy_is_asked_for_the_registry_and_knows_its_user(transport: Transport) -> None:
    async with _proxy() as (proxy, seen):
        context = Context(proxy=f"http://user:secret@{proxy}", plain_http=True)
        repository = transport.repository("registry.example:5000", _NAME, Access(1, context))
        assert await repository.resolve("v1") == _DIGEST
        (request,) = seen
        assert request.raw_path == f"http://registry.example:5000/v2/{_NAME}/manifests/v1"
        assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpzZWNyZXQ="
        assert "Authorization" not in request.headers


async def test_a_proxy_that_lets_nothing_through_is_said_to_be_the_proxy(transport: Transport) -> None:
    async with _proxy(407) as (proxy, seen):
        context = Context(proxy=f"http://user:secret@{proxy}")
        with pytest.raises(RegistryUnavailable, match="proxy answered 407") as caught:
            await transport.repository("registry.example", _NAME, Access(1, context)).resolve("v1")
        assert "secret" not in caught.value.message
        assert seen[0].method == "CONNECT"


async def test_a_proxy_that_is_not_there_is_said_to_be_the_proxy(transport: Transport) -> None:
    context = Context(proxy=f"http://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(RegistryUnavailable, match="the proxy cannot be reached") as caught:
        await transport.repository("registry.example", _NAME, Access(1, context)).resolve("v1")
    assert "secret" not in str(caught.value.problem())


# -- connections ---------------------------------------------------------------------------------


async def test_blobs_never_starve_manifests(
    settings: TransportSettings, clock: StillClock, registry: ScriptedRegistry
) -> None:
    put_kit(registry, _KIT, _NAME)
    data = some_bytes(200_000)
    blob = Descriptor("x", parse_digest(registry.put_blob(_NAME, data)), len(data))
    few = msgspec.structs.replace(settings, connections_per_host=2)
    gate = Gate()
    registry.script(faults.stall(gate, 1000), path="/blobs/", times=None)
    async with Transport.opened(few, clock=clock) as transport:
        repository = transport.repository(registry.host, _NAME, Access(1))

        async def fetch() -> None:
            assert await repository.fetch_bytes(blob, 10**6) == data

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(fetch)
            await gate.until_held(2)
            assert await repository.resolve("v1") == _DIGEST
            assert await repository.fetch_manifest(_DIGEST) == _KIT.manifest
            assert registry.count(None, "/blobs/") == 2
            gate.open()


async def test_connections_are_used_again(transport: Transport) -> None:
    peers: set[object] = set()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(headers={"Docker-Content-Digest": _DIGEST}, body=b"a manifest")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host = f"127.0.0.1:{runner.addresses[0][1]}"
        for _ in range(5):
            await transport.repository(host, _NAME, Access(1)).resolve("v1")
        assert len(peers) == 1
    finally:
        await runner.cleanup()


async def test_authorities_are_read_once_for_all_who_ask_together(
    settings: TransportSettings, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Trust] = []

    def make(trust: Trust) -> ssl.SSLContext:
        made.append(trust)
        return tls_context(trust)

    monkeypatch.setattr("kitd.registry.lines.tls_context", make)
    lines = Lines(settings, clock)
    async with anyio.create_task_group() as tasks:
        for port in range(1, 9):
            route = Route("https", "registry.example", port, "", Trust(), Reach.ANYWHERE)
            tasks.start_soon(lines.line, route)
    assert made == [Trust()]
    await lines.close()


async def test_lines_that_nobody_uses_go_when_there_are_many(
    settings: TransportSettings, clock: StillClock
) -> None:
    lines = Lines(settings, clock)
    routes = [Route("http", "registry.example", port, "", Trust(), Reach.ANYWHERE) for port in range(1, 80)]
    used = await lines.line(routes[0])
    with used.used():
        for route in routes:
            await lines.line(route)
        assert await lines.line(routes[0]) is used
        assert await lines.line(routes[1]) is not None
    await lines.close()


# -- rate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["the daemon's", "the job's"])
async def test_received_bytes_keep_to_the_limit(
    transport: Transport, registry: ScriptedRegistry, clock: StillClock, whose: str
) -> None:
    data = some_bytes(1_000_000)
    blob = Descriptor("x", parse_digest(registry.put_blob(_NAME, data)), len(data))
    if whose == "the daemon's":
        transport.rate.bytes_per_second = 100_000
    limit = 0 if whose == "the daemon's" else 100_000
    repository = transport.repository(registry.host, _NAME, Access(1), limit_rate=limit)
    assert await repository.fetch_bytes(blob, 10**6) == data
    assert clock.time - 1000 == pytest.approx(10, abs=0.2)


async def test_repositories_of_one_job_share_its_limit(
    transport: Transport, registry: ScriptedRegistry, clock: StillClock
) -> None:
    data = some_bytes(100_000)
    limit: RateLimit = transport.limit(100_000)
    for name in ("a", "b"):
        blob = Descriptor("x", parse_digest(registry.put_blob(name, data)), len(data))
        repository = transport.repository(registry.host, name, Access(1), limit_rate=limit)
        await repository.fetch_bytes(blob, 10**6)
    assert clock.time - 1000 == pytest.approx(2, abs=0.2)
