import io
import json
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import anyio.to_thread
import msgspec
import pytest

from kitd.jobs.jobs import Jobs
from kitd.progress import Progress
from kitd.server import jobs as job_routes
from kitd.server import middleware, peers
from kitd_client.api.errors import NoSpace
from kitd_client.api.jobs import (
    Context,
    Credential,
    PathRequest,
    Pulled,
    PullRequest,
    RegistryCheck,
    TagRequest,
)
from kitd_client.api.kits import KitList
from kitd_client.api.problem import Problem

if TYPE_CHECKING:
    from unit.server.conftest import Api, Eventually

UID = os.geteuid()


async def _for_ever(progress: Progress) -> Pulled:
    progress.began("model", 100, 0)
    await anyio.sleep_forever()
    raise AssertionError


async def test_every_answer_says_which_api_it_is_of(api: "Api") -> None:
    for target, status in (("/v1/version", 200), ("/v1/healthz", 200), ("/v1/nothing", 404)):
        async with api.client.get(f"http://kitd{target}") as response:
            assert (response.status, response.headers["Kitd-Api-Version"]) == (status, "1")
    assert (await api.ask("GET", "/v1/version"))[1] == {"version": "9.9.9", "api": 1, "pid": 1}
    assert (await api.ask("GET", "/v1/status"))[1]["mode"] == "user"


async def test_kit_routes_pass_references_whole(api: "Api") -> None:
    reference = "reg.example:5000/a/b@sha256:" + "0" * 64
    quoted = quote(reference, safe="")
    status, inspection, _ = await api.ask("GET", f"/v1/kits/{quoted}")
    assert (status, inspection["manifest"]) == (200, {"a": 1})
    assert (await api.ask("GET", f"/v1/kits/{quoted}/info"))[1] == {"kitfile": "manifestVersion: 1.0.0\n"}
    assert (await api.ask("DELETE", f"/v1/kits/{quoted}?force=1"))[1]["untagged"] == [reference]
    await api.ask("DELETE", "/v1/kits/x%3At1,t2")
    assert (await api.ask("DELETE", "/v1/kits"))[1]["removed"] == ["x@sha256:aa"]
    await api.ask("DELETE", "/v1/kits?force=1")
    await api.ask("GET", "/v1/kits?repository=reg.example%3A5000%2Fa")
    await api.ask("GET", "/v1/kits")
    await api.ask("POST", "/v1/tag", {"source": "a:1", "destination": "b:2"})
    await api.ask("POST", "/v1/path", {"reference": "a:1", "filters": ["model"]})
    assert api.verbs.asked == [
        reference,
        reference,
        (reference, True),
        ("x:t1,t2", False),
        ("all", False),
        ("all", True),
        "reg.example:5000/a",
        "",
        TagRequest(source="a:1", destination="b:2"),
        PathRequest(reference="a:1", filters=["model"]),
    ]


async def test_a_registry_is_checked_with_the_callers_credential(api: "Api") -> None:
    context = {"credentials": {"reg": {"username": "ada", "password": "s"}}}
    status, _, _ = await api.ask("POST", "/v1/check-registry", {"registry": "reg", "context": context})
    assert status == 204
    wanted = Context(credentials={"reg": Credential(username="ada", password="s")})
    assert api.verbs.asked == [(RegistryCheck(registry="reg", context=wanted), UID)]


async def test_errors_travel_as_problems(api: "Api") -> None:
    status, problem, response = await api.ask("DELETE", "/v1/kits/missing%3Alatest")
    assert (status, response.content_type) == (404, "application/problem+json")
    assert (problem["code"], problem["title"], problem["hint"]) == (
        "not_found",
        "missing:latest is not here",
        "kitctl list",
    )
    status, problem, _ = await api.ask("DELETE", "/v1/kits/a%3Ab?force=maybe")
    assert (status, problem["code"]) == (400, "invalid_request")
    assert (await api.ask("DELETE", "/v1/kits?force=yes"))[0] == 400
    status, problem, response = await api.ask("PATCH", "/v1/tag", {})
    assert (status, problem["title"], response.headers["Allow"]) == (405, "/v1/tag takes POST", "POST")


async def test_a_bug_is_answered_with_a_trace_id_and_logged_with_its_trace(
    api: "Api", caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> KitList:
        raise ZeroDivisionError("inner words")

    api.verbs.listing = broken
    status, problem, response = await api.ask("GET", "/v1/kits")
    assert (status, problem["code"], response.content_type) == (500, "internal", "application/problem+json")
    assert "inner" not in str(problem)
    assert str(problem["detail"]["trace"]) in caplog.text  # type: ignore[index]
    assert "ZeroDivisionError: inner words" in caplog.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request's body: input data was truncated"),
        (b'{"reference": 3}', "expected `str`, got `int` - at `$.reference`"),
        (b'{"reference": "a", "filtres": []}', "unknown field `filtres`"),
        (b'{"reference": "a", "limit_rate": NaN}', "JSON is malformed"),
        (b'{"reference": "a", "context": {"tls_verify": "no"}}', "at `$.context.tls_verify`"),
        (
            b'{"reference": "a", "filters": ' + b"[" * 200_000,
            "expected `str`, got `array` - at `$.filters[0]`",
        ),
        (b'{"reference": "\xff"}', "UTF-8"),
        (b"\x1f\x8b\x08\x00", "JSON is malformed"),
        (b'"' + b"x" * (1 << 20), "larger than 1048576 bytes"),
    ],
)
async def test_a_bad_body_is_refused_with_the_path_of_what_is_wrong(
    api: "Api", body: bytes, message: str
) -> None:
    async with api.client.post("http://kitd/v1/pull", data=io.BytesIO(body)) as response:
        problem = await response.json(content_type="application/problem+json")
    assert response.status in {400, 413}
    assert problem["code"] == "invalid_request"
    assert message.lower() in problem["title"].lower()
    assert api.verbs.asked == []


async def test_a_compressed_body_is_not_opened(api: "Api") -> None:
    headers = {"Content-Encoding": "gzip"}
    async with api.client.post("http://kitd/v1/pull", data=b"\x1f\x8b", headers=headers) as response:
        assert response.status == 400


async def test_a_body_that_does_not_come_is_not_waited_for(
    api: "Api", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_BODY_SECONDS", 0.05)
    head = b"POST /v1/tag HTTP/1.1\r\nHost: kitd\r\nContent-Length: 100\r\n\r\n{"

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(api.path))
            client.sendall(head)
            return client.recv(65536)

    answer = await anyio.to_thread.run_sync(talk)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"did not come within" in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : kitd\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["TLS", "words", "header", "long"],
)
async def test_what_is_no_http_gets_a_problem_too(api: "Api", sent: bytes) -> None:
    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(api.path))
            client.sendall(sent)
            return b"".join(iter(lambda: client.recv(65536), b""))

    head, _, body = (await anyio.to_thread.run_sync(talk)).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"application/problem+json" in head
    assert b"Kitd-Api-Version: 1" in head
    problem = msgspec.json.decode(body, type=Problem)
    assert (problem.code, problem.status) == ("invalid_request", 400)
    assert "\n" not in problem.title
    assert (await api.ask("GET", "/v1/version"))[0] == 200


async def test_a_job_is_started_listed_followed_and_cancelled(api: "Api") -> None:
    api.verbs.pulling = _for_ever
    status, started, _ = await api.ask("POST", "/v1/pull", {"reference": "reg/x:1", "limit_rate": 5})
    assert status == 202
    assert api.verbs.asked == [(PullRequest(reference="reg/x:1", limit_rate=5), UID)]
    job = f"/v1/jobs/{started['id']}"
    assert (await api.ask("GET", job))[1]["state"] == "running"
    assert [row["id"] for row in (await api.ask("GET", "/v1/jobs"))[1]["jobs"]] == [started["id"]]  # type: ignore[attr-defined]
    async with api.client.get(f"http://kitd{job}/events") as stream:
        assert stream.content_type == "application/x-ndjson"
        assert json.loads(await stream.content.readline())["event"] == "began"
        assert (await api.ask("DELETE", job))[0] == 202
        last = json.loads(await stream.content.readline())
        assert last["event"] == "cancelled"
        assert "goes on from there" in last["kept"]
        assert await stream.content.readline() == b""
    assert (await api.ask("GET", job))[1]["state"] == "cancelled"
    assert (await api.ask("GET", "/v1/jobs/nonsense"))[1]["code"] == "not_found"
    assert (await api.ask("GET", "/v1/jobs/ffffff-1/events"))[1]["code"] == "daemon_restarted"


async def test_push_is_a_job_too(api: "Api") -> None:
    _, started, _ = await api.ask("POST", "/v1/push", {"source": "a:1", "destination": "reg/a:1"})
    async with api.client.get(f"http://kitd/v1/jobs/{started['id']}/events") as stream:
        events = [json.loads(line) async for line in stream.content]
    assert events[-1]["event"] == "succeeded"
    assert events[-1]["result"]["type"] == "pushed"
    assert events[-1]["result"]["reference"] == "reg/a:1"


async def test_a_failed_job_ends_its_events_with_the_problem(api: "Api") -> None:
    async def full(_: Progress) -> Pulled:
        raise NoSpace("no room", needed=2, free=1)

    api.verbs.pulling = full
    _, started, _ = await api.ask("POST", "/v1/pull", {"reference": "reg/x:1"})
    async with api.client.get(f"http://kitd/v1/jobs/{started['id']}/events") as stream:
        (event,) = [json.loads(line) async for line in stream.content]
    assert (event["event"], event["problem"]["code"]) == ("failed", "no_space")


async def test_a_job_goes_on_when_its_listeners_go_and_silence_is_filled_with_empty_lines(
    api: "Api", monkeypatch: pytest.MonkeyPatch, eventually: "Eventually"
) -> None:
    monkeypatch.setattr(job_routes, "_PULSE_SECONDS", 0.02)
    go_on = anyio.Event()

    async def pulling(progress: Progress) -> Pulled:
        progress.began("model", 1, 0)
        await go_on.wait()
        return Pulled(reference="r", digest="d", size=1)

    api.verbs.pulling = pulling
    _, started, _ = await api.ask("POST", "/v1/pull", {"reference": "reg/x:1"})
    async with api.client.get(f"http://kitd/v1/jobs/{started['id']}/events") as stream:
        await stream.content.readline()
        assert await stream.content.readline() == b"\n"
        stream.close()
    await eventually(lambda: api.activity.idle_seconds > 0)
    go_on.set()
    assert (await api.jobs.get(str(started["id"]), UID).ended()).result.size == 1  # type: ignore[union-attr]


async def test_a_listener_that_takes_nothing_is_let_go_and_the_job_is_not_slowed(
    api: "Api", monkeypatch: pytest.MonkeyPatch, eventually: "Eventually"
) -> None:
    monkeypatch.setattr(job_routes, "_DEAF_SECONDS", 0.1)
    warned = anyio.Event()

    async def pulling(progress: Progress) -> Pulled:
        for number in range(900):
            progress.warned(f"{number:04}" + "x" * 4096)
        warned.set()
        return Pulled(reference="r", digest="d", size=1)

    api.verbs.pulling = pulling
    _, started, _ = await api.ask("POST", "/v1/pull", {"reference": "reg/x:1"})
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(api.path))
        deaf.sendall(f"GET /v1/jobs/{started['id']}/events HTTP/1.1\r\nHost: kitd\r\n\r\n".encode())
        await warned.wait()
        await eventually(lambda: api.activity.idle_seconds > 0)


async def test_only_owner_and_root_are_served_and_nobody_unmapped(
    api: "Api", monkeypatch: pytest.MonkeyPatch
) -> None:
    for uid, status in ((UID, 200), (0, 200), (12345, 403), (65534, 403)):
        monkeypatch.setattr(middleware, "transport_uid", lambda _, uid=uid: uid)
        got, body, _ = await api.ask("GET", "/v1/kits")
        assert got == status
        assert status == 200 or body["code"] == "permission_denied"


async def test_another_users_job_does_not_exist(api: "Api", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.door, "_mode", "system")
    monkeypatch.setattr(middleware, "transport_uid", lambda _: 1000)
    api.verbs.pulling = _for_ever
    _, started, _ = await api.ask("POST", "/v1/pull", {"reference": "reg/x:1"})
    monkeypatch.setattr(middleware, "transport_uid", lambda _: 1001)
    for method, target in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        status, problem, _ = await api.ask(method, f"/v1/jobs/{started['id']}{target}")
        assert (status, problem["code"]) == (404, "not_found")
    assert (await api.ask("GET", "/v1/jobs"))[1] == {"jobs": []}


async def test_connections_of_one_user_are_limited_and_come_free_again(
    api: "Api", monkeypatch: pytest.MonkeyPatch, eventually: "Eventually"
) -> None:
    monkeypatch.setattr(peers, "CONNECTIONS", 4)
    held = []
    try:
        for _ in range(4):
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].connect(str(api.path))
        await eventually(lambda: api.door._inside[UID] == 4)
        status, problem, _ = await api.ask("GET", "/v1/version")
        assert (status, problem["code"]) == (503, "busy")
    finally:
        for connection in held:
            connection.close()
    await eventually(lambda: api.door._inside[UID] <= 1)
    assert (await api.ask("GET", "/v1/version"))[0] == 200


async def test_a_flood_of_connections_is_cut_off(
    api: "Api", monkeypatch: pytest.MonkeyPatch, eventually: "Eventually"
) -> None:
    monkeypatch.setattr(peers, "CONNECTIONS", 2)
    held = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    for connection in held:
        connection.setblocking(False)
        connection.connect(str(api.path))

    def hung_up(connection: socket.socket) -> bool:
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False

    await eventually(lambda: sum(map(hung_up, held)) == 6)
    assert api.door._inside[UID] == 4
    for connection in held:
        connection.close()


async def test_requests_count_as_work(api: "Api") -> None:
    await api.ask("GET", "/v1/version")
    assert api.activity.idle_seconds > 0
    api.verbs.pulling = _for_ever
    _, started, _ = await api.ask("POST", "/v1/pull", {"reference": "reg/x:1"})
    async with api.client.get(f"http://kitd/v1/jobs/{started['id']}/events"):
        assert api.activity.idle_seconds == 0
    assert isinstance(api.jobs, Jobs)
