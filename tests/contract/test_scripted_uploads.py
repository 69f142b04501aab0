"""Uploads at the scripted registry: by the specification, and with the manners of real ones."""

import asyncio

import aiohttp
import pytest
from fakes import faults
from fakes.bare import bare_session, get
from fakes.exchange import Gate
from fakes.kits import small_kit, some_bytes
from fakes.registry import ScriptedRegistry
from fakes.shelves import MANIFEST, digest_of
from fakes.tokens import Basic
from fakes.uploads import UploadQuirks
from yarl import URL

DATA = some_bytes(300_000)


async def _start(http: aiohttp.ClientSession, query: str = "") -> tuple[int, str]:
    async with http.post(f"/v2/a/b/blobs/uploads/{query}") as answer:
        return answer.status, answer.headers["Location"]


async def _patch(
    http: aiohttp.ClientSession, location: str, first: int, data: bytes
) -> aiohttp.ClientResponse:
    headers = {"Content-Range": f"{first}-{first + len(data) - 1}"}
    answer = await http.patch(URL(location, encoded=True), data=data, headers=headers)
    await answer.read()
    return answer


async def _finish(http: aiohttp.ClientSession, location: str, data: bytes, digest: str) -> int:
    async with http.put(URL(f"{location}&digest={digest}", encoded=True), data=data) as answer:
        return answer.status


async def test_an_upload_in_one_and_in_chunks(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    data = some_bytes(5000, 1)
    _, location = await _start(http)
    assert await _finish(http, location, data, digest_of(data)) == 201
    assert registry.repository("a/b").blobs[digest_of(data)] == data
    _, location = await _start(http)
    other = some_bytes(5000, 2)
    answer = await _patch(http, location, 0, other[:3000])
    assert (answer.status, answer.headers["Range"]) == (202, "0-2999")
    assert (await _patch(http, location, 3000, other[3000:])).status == 404  # not the latest Location
    location = answer.headers["Location"]
    refused = await _patch(http, location, 4000, other[3000:])
    assert (refused.status, refused.headers["Range"]) == (416, "0-2999")
    async with http.get(URL(location, encoded=True)) as status:
        assert (status.status, status.headers["Range"]) == (204, "0-2999")
    answer = await _patch(http, location, 3000, other[3000:])
    assert await _finish(http, answer.headers["Location"], b"", digest_of(other)) == 201
    assert await _finish(http, answer.headers["Location"], b"", digest_of(other)) == 404
    assert registry.received("/uploads/") == 5000 + 3000 + 2000 * 3
    assert registry.uploads.open_sessions == 0


async def test_a_wrong_digest_ends_the_session(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    _, location = await _start(http)
    assert await _finish(http, location, b"x", digest_of(b"y")) == 400
    assert await _finish(http, location, b"x", digest_of(b"x")) == 404


@pytest.mark.parametrize(
    ("quirks", "statuses", "told"),
    [
        (UploadQuirks(early_201=True), [201, 404], None),
        (UploadQuirks(stale_range=True), [202, 202], "0-99"),
        (UploadQuirks(short_range=10, out_of_order=True), [202, 202], "0-179"),
        (UploadQuirks(chunk_limit=50), [416, 416], None),
        (UploadQuirks(too_large=50), [413, 413], None),
        (UploadQuirks(no_chunks=True), [405, 405], None),
        (UploadQuirks(chunk_min=200), [416, 416], None),
        (UploadQuirks(relative=True), [202, 202], "0-199"),
    ],
)
async def test_manners_of_registries(quirks: UploadQuirks, statuses: list[int], told: str | None) -> None:
    quirks.state = False
    async with ScriptedRegistry(quirks=quirks) as registry, bare_session(registry) as http:
        _, location = await _start(http)
        assert location.startswith("/v2/" if quirks.relative else registry.url)
        answers = [await _patch(http, location, first, bytes(100)) for first in (0, 100)]
        assert [answer.status for answer in answers] == statuses
        assert told is None or answers[1].headers["Range"] == told


async def test_an_upload_at_a_foreign_origin_takes_no_authorization() -> None:
    quirks = UploadQuirks(location_base="{other}")
    access = Basic({"u": "p"})
    async with (
        ScriptedRegistry(quirks=quirks, access=access, strict=False) as registry,
        bare_session(registry) as http,
    ):
        async with http.post(
            "/v2/a/b/blobs/uploads/", headers={"Authorization": aiohttp.encode_basic_auth("u", "p")}
        ) as answer:
            location = answer.headers["Location"]
        assert location.startswith(registry.other_url)
        async with http.patch(
            URL(location, encoded=True), data=b"x", headers={"Authorization": "Basic x"}
        ) as answer:
            location = answer.headers["Location"]
        assert await _finish(http, location, b"y", digest_of(b"xy")) == 201
        assert len(registry.journal.violations) == 1


@pytest.mark.parametrize(
    ("mount", "status", "there"), [(201, 201, True), (202, 202, False), (401, 401, False)]
)
async def test_mounts(mount: int, status: int, *, there: bool) -> None:
    async with ScriptedRegistry(quirks=UploadQuirks(mount=mount)) as registry, bare_session(registry) as http:
        digest = registry.put_blob("c/d", DATA)
        async with http.post(f"/v2/a/b/blobs/uploads/?mount={digest}&from=c/d") as answer:
            assert (answer.status, digest in registry.repository("a/b").blobs) == (status, there)


async def test_an_upload_broken_in_the_middle(
    http: aiohttp.ClientSession, registry: ScriptedRegistry
) -> None:
    registry.script(faults.hang_up(take=1000), method="PATCH", times=2)
    for kept, told in ((False, "0-0"), (True, "0-999")):
        registry.uploads.quirks.keep_partial = kept
        _, location = await _start(http)
        with pytest.raises(aiohttp.ClientError):
            await _patch(http, location, 0, DATA)
        async with http.get(URL(location, encoded=True)) as answer:
            assert answer.headers["Range"] == told
    assert [exchange.received for exchange in registry.select("PATCH")] == [1000, 1000]


async def test_an_answer_before_the_body(http: aiohttp.ClientSession, registry: ScriptedRegistry) -> None:
    registry.script(faults.status(413, take=0), method="PUT")
    _, location = await _start(http)
    headers = {"Expect": "100-continue"}
    url = URL(f"{location}&digest={digest_of(DATA)}", encoded=True)
    async with http.put(url, data=DATA, headers=headers) as answer:
        assert answer.status == 413
    assert registry.received() == 0
    async with http.put(url, data=DATA, headers=headers) as answer:
        assert answer.status == 201


async def test_a_stalled_upload(http: aiohttp.ClientSession, registry: ScriptedRegistry) -> None:
    gate = Gate()
    registry.script(faults.stall_upload(gate, after=1000), method="PUT")
    _, location = await _start(http)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(_finish(http, location, DATA, digest_of(DATA)))
        await gate.until_held()
        assert registry.received() == 1000
        gate.open()
    assert sending.result() == 201


async def test_a_manifest_needs_its_blobs(http: aiohttp.ClientSession, registry: ScriptedRegistry) -> None:
    kit = small_kit()

    async def put() -> tuple[int, str]:
        headers = {"Content-Type": MANIFEST}
        async with http.put("/v2/a/b/manifests/v1", data=kit.manifest, headers=headers) as answer:
            return answer.status, await answer.text()

    status, text = await put()
    assert (status, "MANIFEST_BLOB_UNKNOWN" in text) == (400, True)
    for blob in (kit.config, *kit.layers):
        registry.put_blob("a/b", blob)
    assert (await put())[0] == 201
    assert await get(http, "/v2/a/b/manifests/v1") == (200, kit.manifest)
