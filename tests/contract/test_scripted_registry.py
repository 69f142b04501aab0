"""The scripted registry keeps to the protocol where no rule says otherwise."""

import hashlib
import json
import ssl
from urllib.request import Request, urlopen

import aiohttp
import pytest
from fakes.bare import bare_session, get, ranged
from fakes.kits import (
    GOLDEN,
    FakeLayer,
    large_kit,
    make_kit,
    put_golden,
    put_kit,
    small_kit,
    some_bytes,
    tar_of,
)
from fakes.registry import ScriptedRegistry
from fakes.shelves import MANIFEST, digest_of
from yarl import URL

DATA = some_bytes(300_000)
BLOB = f"/v2/a/b/blobs/{digest_of(DATA)}"


@pytest.fixture(autouse=True)
def blob(registry: ScriptedRegistry) -> str:
    return registry.put_blob("a/b", DATA)


# -- content -------------------------------------------------------------------------------------


async def test_a_golden_kit_is_served_as_kit_pushed_it(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    digest = put_golden(registry, "basic", "team/kit")
    async with http.get("/v2/team/kit/manifests/v1") as answer:
        manifest = json.loads(data := await answer.read())
        assert answer.headers["Docker-Content-Digest"] == digest == digest_of(data)
        assert answer.content_type == MANIFEST
    for layer in manifest["layers"]:
        status, blob = await get(http, f"/v2/team/kit/blobs/{layer['digest']}")
        assert (status, len(blob), digest_of(blob)) == (200, layer["size"], layer["digest"])


@pytest.mark.parametrize("kit", ["basic", "parts", "nested"])
def test_layers_are_written_as_kit_writes_them(kit: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    for layer in json.loads((GOLDEN / kit / "expected.json").read_text())["layers"]:
        blob = (GOLDEN / kit / "layout" / "blobs" / "sha256" / layer["digest"][7:]).read_bytes()
        files, modes, offset = {}, {}, 0
        for member in layer["members"]:
            offset += 512
            name = member["name"] + ("/" if member["type"] == "dir" else "")
            modes[member["name"]] = int(member["mode"], 8)
            files[name] = blob[offset : offset + member["size"]]
            offset += -(-member["size"] // 512) * 512
        assert tar_of(files, modes=modes) == blob


def test_a_made_kit_is_sound() -> None:
    kit = make_kit(
        [
            FakeLayer("model", "m.gguf", {"m.gguf": b"weights"}, format="raw", compression="zstd"),
            FakeLayer("dataset", "data", {"data/x": b"1"}, compression="gzip"),
        ]
    )
    manifest, config = json.loads(kit.manifest), json.loads(kit.config)
    assert [layer["digest"] for layer in manifest["layers"]] == kit.layer_digests
    assert config["model"]["diffId"] == digest_of(b"weights") != config["model"]["digest"]
    assert config["datasets"][0]["path"] == "data"
    assert manifest["config"]["digest"] == digest_of(kit.config)


async def test_ranges(registry: ScriptedRegistry, http: aiohttp.ClientSession) -> None:
    async with http.get(BLOB, headers=ranged(10, 19)) as answer:
        assert (answer.status, await answer.read()) == (206, DATA[10:20])
        assert answer.headers["Content-Range"] == "bytes 10-19/300000"
    async with http.get(BLOB, headers=ranged(300_000, 300_001)) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */300000")
    async with http.head(BLOB) as answer:
        assert (answer.status, answer.content_length) == (200, 300_000)
    first, *_ = registry.select("GET", "/blobs/")
    assert (first.range, first.status, first.sent) == ((10, 19), 206, 10)


async def test_manifest_needs_an_accept_header(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    kit = small_kit()
    put_kit(registry, kit, "a/b", "t")
    assert (await get(http, "/v2/a/b/manifests/t", Accept="*/*"))[0] == 404
    assert await get(http, f"/v2/a/b/manifests/{kit.digest}") == (200, kit.manifest)


async def test_tags_come_in_pages(registry: ScriptedRegistry, http: aiohttp.ClientSession) -> None:
    for tag in ("c", "a", "b"):
        registry.put_manifest("a/b", b"{}", tag)
    async with http.get("/v2/a/b/tags/list?n=2") as answer:
        assert (await answer.json())["tags"] == ["a", "b"]
        link = answer.links["next"]["url"]
    async with http.get(link) as answer:
        assert (await answer.json())["tags"] == ["c"]


async def test_what_a_good_client_does_not_do_is_noted() -> None:
    async def ask_badly() -> None:
        async with ScriptedRegistry() as registry, bare_session(registry) as http:
            registry.put_blob("a/b", DATA)
            await get(http, BLOB, **{"Accept-Encoding": "gzip"})

    with pytest.raises(AssertionError, match="Accept-Encoding"):
        await ask_badly()


# -- redirects -----------------------------------------------------------------------------------


async def test_signed_urls(registry: ScriptedRegistry, http: aiohttp.ClientSession) -> None:
    redirects = registry.redirect_blobs(302, uses=2)

    async def location() -> URL:
        async with http.get(BLOB, allow_redirects=False) as answer:
            assert answer.status == 302
            return URL(answer.headers["Location"], encoded=True)

    async def fetch(url: URL, **headers: str) -> int:
        async with http.get(url, headers=headers | ranged(0, 9)) as answer:
            return answer.status

    url = await location()
    assert url.origin() == URL(registry.other_url)
    assert await fetch(url, Authorization="Bearer x") == 400
    assert await fetch(URL(str(url).replace("%2F", "/"), encoded=True)) == 403
    assert [await fetch(url) for _ in range(3)] == [206, 206, 403]
    url = await location()
    redirects.expire()
    assert await fetch(url) == 403
    assert redirects.issued == registry.count("GET", origin="registry") == 2


# -- TLS and threads -----------------------------------------------------------------------------


@pytest.mark.parametrize("mtls", [False, True])
async def test_tls(tmp_path_factory: pytest.TempPathFactory, *, mtls: bool) -> None:
    async with ScriptedRegistry(tls=True, mtls=mtls) as registry, bare_session(registry) as http:
        context = ssl.create_default_context(cadata=registry.ca_pem)
        pem = tmp_path_factory.mktemp("pem") / "client.pem"
        pem.write_text(registry.client_pem)
        with_certificate = ssl.create_default_context(cadata=registry.ca_pem)
        with_certificate.load_cert_chain(pem)
        async with http.get("/v2/", ssl=with_certificate) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"{registry.other_url}/v2/")
        if mtls:
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"{registry.other_url}/v2/", ssl=context)


def test_in_a_thread() -> None:
    with ScriptedRegistry().in_thread() as registry:
        kit = large_kit(1_000_000, 2)
        put_kit(registry, kit, "x")
        blob = f"{registry.url}/v2/x/blobs/{kit.layer_digests[1]}"
        with urlopen(blob) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == kit.layer_digests[1][7:]
        registry.wait(lambda: registry.select()[0].finished)
        assert registry.sent() == len(kit.layers[1])


def test_a_failure_in_the_thread_reaches_the_test() -> None:
    def ask_badly() -> None:
        with ScriptedRegistry().in_thread() as registry:
            url = f"{registry.url}/v2/x/blobs/{registry.put_blob('x', b'data')}"
            with urlopen(Request(url, headers={"Accept-Encoding": "gzip"})) as answer:
                answer.read()

    with pytest.raises(AssertionError, match="identity"):
        ask_badly()
