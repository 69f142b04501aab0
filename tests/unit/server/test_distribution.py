import io
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
import anyio.to_thread
import msgspec
import pytest
from fakes.kits import FakeKit, FakeLayer, make_kit, some_bytes

from kitd.config.settings import Address
from kitd.content.reader import BlobReader
from kitd.content.store import ContentStore
from kitd.server.connections import ConnectionLimit
from kitd.server.distribution import blobs as blobs_module
from kitd.server.distribution import uploads as uploads_module
from kitd.server.distribution.app import make_registry
from kitd.server.distribution.refusal import refuse
from kitd.server.distribution.uploads import Uploads
from kitd.server.listening import bind_loopback, listening
from kitd.server.middleware import Activity
from kitd.spec.digest import digest_of
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import ObjectDamaged

if TYPE_CHECKING:
    from unit.server.conftest import Eventually

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Face:
    base: str
    port: int
    store: ContentStore
    uploads: Uploads
    activity: Activity
    client: aiohttp.ClientSession

    async def ask(
        self, method: str, target: str, data: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, "dict[str, str]"]:
        body = None if data is None else io.BytesIO(data)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, self.base + target, data=body, headers=sent) as response:
            return response.status, await response.read(), dict(response.headers)

    async def push_blob(self, name: str, data: bytes) -> None:
        target = f"/v2/{name}/blobs/uploads/?digest={digest_of(data)}"
        assert (await self.ask("POST", target, data))[0] == 201

    async def push_kit(self, name: str, tag: str, kit: FakeKit) -> None:
        for blob in (kit.config, *kit.layers):
            await self.push_blob(name, blob)
        status, _, headers = await self.put_manifest(name, tag, kit.manifest)
        assert (status, headers["Docker-Content-Digest"]) == (201, kit.digest)

    async def put_manifest(self, name: str, tag: str, data: bytes) -> tuple[int, bytes, dict[str, str]]:
        return await self.ask("PUT", f"/v2/{name}/manifests/{tag}", data, Content_Type=MANIFEST)


@pytest.fixture
async def face(tmp_path: Path) -> AsyncIterator[Face]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(ContentStore.opened(tmp_path / "store", socket="s"))
        uploads = await stack.enter_async_context(Uploads(store))
        activity = Activity()
        sock = bind_loopback(Address("127.0.0.1", 0))
        port = sock.getsockname()[1]
        app = make_registry(store, uploads, activity)
        await stack.enter_async_context(listening(app, sock, ConnectionLimit().guarding, refuse))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Face(f"http://127.0.0.1:{port}", port, store, uploads, activity, client)
        await client.close()


def _kit(seed: int = 0) -> FakeKit:
    return make_kit(
        [
            FakeLayer("model", "./m.bin", {"m.bin": some_bytes(3_000_000, seed)}, format="raw"),
            FakeLayer("code", "src", {"src/a.py": b"print()\n", "src/b.py": b"pass\n"}),
        ]
    )


def _code(body: bytes) -> str:
    match = re.search(rb'"code":"([A-Z_]+)"', body)
    assert match is not None, body
    return match[1].decode()


async def test_a_kit_that_is_pushed_can_be_pulled_and_is_a_local_kit(face: Face) -> None:
    kit = _kit()
    assert (await face.ask("GET", "/v2/"))[0] == 200
    await face.push_kit("team/demo", "v1", kit)
    for reference in ("v1", kit.digest):
        status, body, headers = await face.ask("GET", f"/v2/team/demo/manifests/{reference}")
        assert (status, body) == (200, kit.manifest)
        assert headers["Content-Type"] == MANIFEST
        assert headers["Docker-Content-Digest"] == kit.digest
    status, body, headers = await face.ask("HEAD", "/v2/team/demo/manifests/v1")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(kit.manifest)))
    for blob in (kit.config, *kit.layers):
        status, body, headers = await face.ask("GET", f"/v2/team/demo/blobs/{digest_of(blob)}")
        assert (status, body, headers["Docker-Content-Digest"]) == (200, blob, digest_of(blob))
        status, body, headers = await face.ask("HEAD", f"/v2/team/demo/blobs/{digest_of(blob)}")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(blob)))
    record = await face.store.resolve(parse_reference("team/demo:v1"))
    assert record is not None
    assert record.complete
    assert set(record.selected) == set(kit.layer_digests)


async def test_the_same_kit_is_found_in_the_name_space_of_its_registry(face: Face) -> None:
    kit = _kit()
    await face.push_kit("demo", "v1", kit)
    record = await face.store.resolve(parse_reference("demo:v1"))
    assert record is not None
    await face.store.tag(parse_reference("reg.example:5000/team/demo:v2"), record)
    ask = face.ask
    assert (await ask("GET", "/v2/team/demo/manifests/v2?ns=reg.example:5000"))[1] == kit.manifest
    assert (await ask("HEAD", f"/v2/team/demo/blobs/{kit.layer_digests[0]}?ns=reg.example:5000"))[0] == 200
    status, body, _ = await ask("GET", "/v2/team/demo/tags/list?ns=reg.example:5000")
    assert (status, b'"v2"' in body) == (200, True)
    assert _code((await ask("GET", "/v2/team/demo/manifests/v2"))[1]) == "MANIFEST_UNKNOWN"
    assert _code((await ask("GET", "/v2/demo/manifests/v1?ns=other.example"))[1]) == "MANIFEST_UNKNOWN"
    for method, target in (
        ("PUT", "/v2/demo/manifests/v1?ns=reg.example"),
        ("POST", "/v2/demo/blobs/uploads/?ns=reg.example"),
    ):
        status, body, _ = await ask(method, target, kit.manifest, Content_Type=MANIFEST)
        assert (status, _code(body)) == (405, "UNSUPPORTED")


async def test_nobody_plants_a_kit_under_the_name_of_another_registry(face: Face) -> None:
    kit = _kit()
    status, body, _ = await face.put_manifest("reg.example/team", "v1", kit.manifest)
    assert (status, _code(body)) == (400, "NAME_INVALID")
    assert (await face.ask("POST", "/v2/reg.example:5000/team/blobs/uploads/", b""))[0] == 400
    assert await face.store.tags() == []


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-1999999", 10, 1_999_999),
        ("bytes=2999990-9999999", 2_999_990, 2_999_999),
        ("bytes=1500000-", 1_500_000, 2_999_999),
        ("bytes=-7", 2_999_993, 2_999_999),
    ],
)
async def test_a_range_of_a_blob(face: Face, asked: str, first: int, last: int) -> None:
    data = some_bytes(3_000_000)
    await face.push_blob("x", data)
    status, body, headers = await face.ask("GET", f"/v2/x/blobs/{digest_of(data)}", Range=asked)
    assert status == 206
    assert headers["Content-Range"] == f"bytes {first}-{last}/3000000"
    assert body == data[first : last + 1]


async def test_other_ranges(face: Face) -> None:
    data = some_bytes(1000)
    await face.push_blob("x", data)
    target = f"/v2/x/blobs/{digest_of(data)}"
    for outside in ("bytes=1000-", "bytes=-0", "bytes=5000-6000"):
        status, body, headers = await face.ask("GET", target, Range=outside)
        assert (status, _code(body), headers["Content-Range"]) == (416, "RANGE_INVALID", "bytes */1000")
    for ignored in ("bytes=0-1,5-6", "bytes=9-3", "lines=1-2", "bytes=-", "bytes=x-y"):
        assert (await face.ask("GET", target, Range=ignored))[:2] == (200, data)


async def test_an_empty_blob(face: Face) -> None:
    await face.push_blob("x", b"")
    target = f"/v2/x/blobs/{digest_of(b'')}"
    assert (await face.ask("GET", target))[:2] == (200, b"")
    assert (await face.ask("GET", target, Range="bytes=0-0"))[0] == 416


async def test_an_upload_in_chunks_goes_on_where_it_is(face: Face) -> None:
    data = some_bytes(100_000)
    status, _, headers = await face.ask("POST", "/v2/x/blobs/uploads/", b"")
    assert (status, headers["Range"]) == (202, "0-0")
    where = headers["Location"]
    status, _, headers = await face.ask("PATCH", where, data[:60_000], Content_Range="0-59999")
    assert (status, headers["Range"]) == (202, "0-59999")
    status, body, headers = await face.ask("PATCH", where, data[70_000:], Content_Range="70000-99999")
    assert (status, _code(body), headers["Range"]) == (416, "BLOB_UPLOAD_INVALID", "0-59999")
    status, body, _ = await face.ask("PATCH", where, data[60_000:], Content_Range="60000-60001")
    assert (status, _code(body)) == (400, "SIZE_INVALID")
    status, body, _ = await face.ask("PATCH", where, data[60_000:], Content_Range="60000")
    assert (status, _code(body)) == (400, "BLOB_UPLOAD_INVALID")
    status, _, headers = await face.ask("GET", where)
    assert (status, headers["Range"]) == (204, "0-59999")
    digest = digest_of(data)
    last = {"Content_Range": "60000-99999"}
    status, _, headers = await face.ask("PUT", f"{where}?digest={digest}", data[60_000:], **last)
    assert (status, headers["Location"]) == (201, f"/v2/x/blobs/{digest}")
    assert (await face.ask("GET", headers["Location"]))[1] == data
    assert _code((await face.ask("GET", where))[1]) == "BLOB_UPLOAD_UNKNOWN"


async def test_an_upload_as_one_stream_without_lengths(face: Face) -> None:
    data = some_bytes(2_500_000)
    where = (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"]

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    async with face.client.patch(face.base + where, data=stream()) as response:
        assert (response.status, response.headers["Range"]) == (202, f"0-{len(data) - 1}")
    assert (await face.ask("PUT", f"{where}?digest={digest_of(data)}", b""))[0] == 201
    assert (await face.ask("GET", f"/v2/x/blobs/{digest_of(data)}"))[1] == data


async def test_wrong_digests_end_an_upload_and_store_nothing(face: Face) -> None:
    wrong = digest_of(b"other")
    where = (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"]
    status, body, _ = await face.ask("PUT", f"{where}?digest={wrong}", b"data")
    assert (status, _code(body)) == (400, "DIGEST_INVALID")
    assert (await face.ask("GET", where))[0] == 404
    status, body, _ = await face.ask("POST", f"/v2/x/blobs/uploads/?digest={wrong}", b"data")
    assert (status, _code(body)) == (400, "DIGEST_INVALID")
    assert (await face.ask("HEAD", f"/v2/x/blobs/{wrong}"))[0] == 404
    for bad in ("?digest=sha256:12", "?digest=", ""):
        assert _code((await face.ask("PUT", f"/v2/x/blobs/uploads/none{bad}", b""))[1]) == "DIGEST_INVALID"
    assert face.uploads._sessions == {}
    assert face.uploads._leases == {}


async def test_an_upload_belongs_to_its_repository_and_can_be_dropped(face: Face) -> None:
    where = (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"]
    assert (await face.ask("GET", where.replace("/x/", "/y/")))[0] == 404
    assert (await face.ask("DELETE", where))[0] == 204
    assert (await face.ask("PATCH", where, b"data"))[0] == 404


async def test_a_mount_needs_the_blob_to_be_here(face: Face) -> None:
    data = some_bytes(1000)
    await face.push_blob("x", data)
    target = f"/v2/y/blobs/uploads/?from=x&mount={digest_of(data)}"
    status, _, headers = await face.ask("POST", target, b"")
    assert (status, headers["Location"]) == (201, f"/v2/y/blobs/{digest_of(data)}")
    status, _, headers = await face.ask("POST", f"/v2/y/blobs/uploads/?mount={digest_of(b'no')}", b"")
    assert status == 202
    assert (await face.ask("GET", headers["Location"]))[0] == 204


async def test_bytes_that_came_before_a_connection_broke_stay(face: Face) -> None:
    where = (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"]

    def break_off() -> None:
        with socket.create_connection(("127.0.0.1", face.port)) as client:
            head = f"PATCH {where} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
            client.sendall(head.encode() + b"x" * 40)

    await anyio.to_thread.run_sync(break_off)
    with anyio.fail_after(5):
        while (await face.ask("GET", where))[2].get("Range") != "0-39":  # noqa: ASYNC110 - no event tells
            await anyio.sleep(0.01)
    digest = digest_of(b"x" * 100)
    assert (await face.ask("PUT", f"{where}?digest={digest}", b"x" * 60, Content_Range="40-99"))[0] == 201


async def test_silence_ends_the_request_and_not_the_upload(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "_SILENCE_SECONDS", 0.05)
    where = (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"]

    def stall() -> bytes:
        with socket.create_connection(("127.0.0.1", face.port)) as client:
            head = f"PATCH {where} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
            client.sendall(head.encode() + b"x" * 40)
            return client.recv(65536)

    assert (await anyio.to_thread.run_sync(stall)).startswith(b"HTTP/1.1 408 ")
    assert (await face.ask("GET", where))[2]["Range"] == "0-39"


async def test_sessions_and_leases_end_after_an_hour_and_what_nothing_names_goes(
    face: Face, monkeypatch: pytest.MonkeyPatch, eventually: "Eventually"
) -> None:
    now = [1e9]
    monkeypatch.setattr(uploads_module, "monotonic", lambda: now[0])
    where = (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"]
    await face.push_blob("x", b"data")
    now[0] += 3000
    await face.ask("GET", where)
    await face.push_blob("x", b"more")
    now[0] += 3000
    await face.uploads._expire(3600)
    assert (await face.ask("GET", where))[0] == 204
    assert list(face.uploads._leases) == [digest_of(b"more")]
    now[0] += 3700
    await face.uploads._expire(3600)
    assert (await face.ask("GET", where))[0] == 404
    assert face.uploads._leases == {}
    left = [digest_of(data) for data in (b"data", b"more")]
    await eventually(lambda: face.store._database.visible().isdisjoint(left))


async def test_uploads_under_way_are_limited(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "_SESSIONS", 2)
    where = [(await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"] for _ in range(2)]
    assert (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[0] == 429
    await face.ask("DELETE", where[0])
    assert (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[0] == 202


async def test_a_manifest_is_taken_only_with_its_blobs_and_only_as_what_it_is(face: Face) -> None:
    kit, other = _kit(), _kit(1)
    status, body, _ = await face.put_manifest("x", "v1", kit.manifest)
    assert (status, _code(body)) == (400, "MANIFEST_BLOB_UNKNOWN")
    for blob in (kit.config, *kit.layers):
        await face.push_blob("x", blob)
    status, body, _ = await face.put_manifest("x", other.digest, kit.manifest)
    assert (status, _code(body)) == (400, "DIGEST_INVALID")
    wrong_size = kit.manifest.replace(b'"size":3000000', b'"size":3000001')
    assert _code((await face.put_manifest("x", "v1", wrong_size))[1]) == "MANIFEST_INVALID"
    status, body, _ = await face.ask("PUT", "/v2/x/manifests/v1", kit.manifest, Content_Type="text/plain")
    assert (status, _code(body)) == (400, "MANIFEST_INVALID")
    for nonsense in (b"", b"{}", b"[" * 100_000, b"x" * (4 << 20)):
        assert _code((await face.put_manifest("x", "v1", nonsense))[1]) in {"MANIFEST_INVALID", "UNSUPPORTED"}
    status, body, _ = await face.put_manifest("x", "v1", b"x" * (5 << 20))
    assert (status, _code(body)) == (413, "MANIFEST_INVALID")
    assert (await face.put_manifest("x", "a" * 200, kit.manifest))[0] == 400
    assert await face.store.tags() == []
    assert (await face.put_manifest("x", kit.digest, kit.manifest))[0] == 201
    assert (await face.ask("GET", f"/v2/x/manifests/{kit.digest}"))[1] == kit.manifest


async def test_a_config_may_be_as_large_as_everywhere(face: Face) -> None:
    kit = _kit()
    config = kit.config + b" " * (3 << 20)
    manifest = msgspec.json.decode(kit.manifest)
    manifest["config"] |= {"digest": digest_of(config), "size": len(config)}
    for blob in (config, *kit.layers):
        await face.push_blob("team/kit", blob)
    assert (await face.put_manifest("team/kit", "v1", msgspec.json.encode(manifest)))[0] == 201


async def test_tags_come_in_order_and_in_pages(face: Face) -> None:
    kit = _kit()
    for tag in ("b", "a", "c", "B"):
        await face.push_kit("team/x", tag, kit)
    await face.push_kit("team/y", "other", kit)
    status, body, headers = await face.ask("GET", "/v2/team/x/tags/list")
    assert (status, body) == (200, b'{"name": "team/x", "tags": ["B", "a", "b", "c"]}')
    assert "Link" not in headers
    _, body, headers = await face.ask("GET", "/v2/team/x/tags/list?n=2")
    assert b'["B", "a"]' in body
    assert headers["Link"] == '</v2/team/x/tags/list?n=2&last=a>; rel="next"'
    _, body, headers = await face.ask("GET", "/v2/team/x/tags/list?n=2&last=a")
    assert b'["b", "c"]' in body
    assert "Link" not in headers
    assert b"[]" in (await face.ask("GET", "/v2/team/x/tags/list?n=0"))[1]
    assert (await face.ask("GET", "/v2/team/x/tags/list?n=many"))[0] == 400
    assert _code((await face.ask("GET", "/v2/nobody/tags/list"))[1]) == "NAME_UNKNOWN"


async def test_what_there_is_not_is_said_in_the_words_of_the_specification(face: Face) -> None:
    for method, target, status, code in (
        ("GET", "/v2/x/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/x/blobs/{digest_of(b'x')}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/x/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("GET", "/v2/X/manifests/v1", 400, "NAME_INVALID"),
        ("DELETE", "/v2/x/manifests/v1", 405, "UNSUPPORTED"),
        ("DELETE", f"/v2/x/blobs/{digest_of(b'x')}", 405, "UNSUPPORTED"),
        ("GET", "/v2/_catalog", 404, "UNSUPPORTED"),
        ("GET", f"/v2/x/referrers/{digest_of(b'x')}", 404, "UNSUPPORTED"),
        ("GET", "/", 404, "UNSUPPORTED"),
    ):
        got, body, _ = await face.ask(method, target)
        assert (got, _code(body)) == (status, code), target


async def test_a_web_page_cannot_use_it_under_a_name_of_its_own(face: Face) -> None:
    for host, status in (
        ("evil.example", 403),
        (f"evil.example:{face.port}", 403),
        ("10.0.0.1", 403),
        (f"localhost:{face.port}", 200),
        ("127.0.0.9", 200),
        ("[::1]:5000", 200),
    ):
        assert (await face.ask("GET", "/v2/", Host=host))[0] == status, host


async def test_the_store_can_be_left_with_an_upload_under_way(face: Face) -> None:
    where = (await face.ask("POST", "/v2/x/blobs/uploads/", b""))[2]["Location"]
    assert (await face.ask("PATCH", where, b"half"))[0] == 202


async def test_a_blob_that_is_damaged_breaks_off_and_is_not_there_any_more(
    face: Face, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = some_bytes(3_000_000)
    await face.push_blob("x", data)
    target = f"/v2/x/blobs/{digest_of(data)}"
    read = BlobReader.read

    def failing(reader: BlobReader, offset: int, length: int) -> bytes:
        if offset:
            raise ObjectDamaged("object lost bytes while it was read")
        return read(reader, offset, length)

    monkeypatch.setattr(BlobReader, "read", failing)
    with pytest.raises(aiohttp.ClientError):
        await face.ask("GET", target)
    assert "broke off: object lost bytes" in caplog.text


async def test_a_client_that_takes_nothing_is_let_go(
    face: Face, monkeypatch: pytest.MonkeyPatch, eventually: "Eventually"
) -> None:
    monkeypatch.setattr(blobs_module, "_DEAF_SECONDS", 0.1)
    data = some_bytes(30_000_000)
    await face.push_blob("x", data)

    def taken(client: socket.socket) -> int:
        got = 0
        try:
            while piece := client.recv(1 << 20):
                got += len(piece)
        except ConnectionError:
            pass
        return got

    with socket.create_connection(("127.0.0.1", face.port)) as client:
        client.sendall(f"GET /v2/x/blobs/{digest_of(data)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await eventually(lambda: face.activity.idle_seconds == 0)
        await eventually(lambda: face.activity.idle_seconds > 0)
        assert await anyio.to_thread.run_sync(taken, client) < len(data)


async def test_a_bug_is_answered_with_a_trace_id_and_logged(
    face: Face, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: ContentStore) -> None:
        raise ZeroDivisionError("inner words")

    monkeypatch.setattr(ContentStore, "tags", broken)
    status, body, _ = await face.ask("GET", "/v2/x/tags/list")
    assert (status, _code(body)) == (500, "UNKNOWN")
    assert b"inner" not in body
    assert "ZeroDivisionError: inner words" in caplog.text


async def test_a_manifest_whose_media_type_is_null(face: Face) -> None:
    """What was taken in is given out: an explicit null says no more than an absent media type."""
    kit = make_kit([FakeLayer("docs", "README.md", {"README.md": b"# demo\n"})], modern=False)
    manifest = b'{"mediaType":null,' + kit.manifest[1:]
    for blob in (kit.config, *kit.layers):
        await face.push_blob("odd", blob)
    assert (await face.put_manifest("odd", "v1", manifest))[0] == 201
    status, body, headers = await face.ask("GET", "/v2/odd/manifests/v1")
    assert (status, body, headers["Content-Type"]) == (200, manifest, MANIFEST)


def _raw(
    port: int, *, send: bytes = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
) -> tuple[socket.socket, bytes]:
    """A connection of its own, and the first that is answered there."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(send)
    return client, client.recv(4096)


async def test_connections_are_limited_and_room_is_made(face: Face, eventually: "Eventually") -> None:
    room = ConnectionLimit(2)
    sock = bind_loopback(Address("127.0.0.1", 0))
    port = sock.getsockname()[1]
    app = make_registry(face.store, face.uploads, face.activity)
    async with listening(app, sock, room.guarding, refuse):
        inside = [await anyio.to_thread.run_sync(_raw, port) for _ in range(2)]
        assert all(answer.startswith(b"HTTP/1.1 200 ") for _, answer in inside)
        outside, answer = await anyio.to_thread.run_sync(_raw, port)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in answer
        outside.close()
        inside[0][0].close()
        await eventually(lambda: room._inside == 1)
        again, answer = await anyio.to_thread.run_sync(_raw, port)
        assert answer.startswith(b"HTTP/1.1 200 ")
        again.close()
        inside[1][0].close()


async def test_what_is_no_http_is_answered_in_the_form_of_registries(face: Face) -> None:
    client, answer = await anyio.to_thread.run_sync(lambda: _raw(face.port, send=b"\x16\x03\x01\0\r\n\r\n"))
    client.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert _code(body) == "UNKNOWN"
