"""The API as a stranger meets it: HTTP by hand on the socket of a real daemon, honest and otherwise."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from fakes import faults
from fakes.daemon import Daemon
from fakes.exchange import Gate
from fakes.kits import put_kit, small_kit
from fakes.registry import ScriptedRegistry

from kitd_client.api.jobs import Began, Event, Failed, JobStarted, Pulled, Succeeded, Terminal
from kitd_client.api.kits import KitList
from kitd_client.api.problem import Problem
from kitd_client.transport import Transport

SECONDS = 30.0
CLIENTS = 300
LOOPBACK = b'"127.0.0.1:1/a/b:c"'


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for the module; after each test it must still be well."""
    with Daemon(tmp_path_factory.mktemp("daemon")) as started:
        yield started


@pytest.fixture(autouse=True)
def _well(daemon: Daemon) -> Iterator[None]:
    """Whatever a client does: the daemon answers afterwards, and its log has neither errors nor traces."""
    pid = daemon.pid
    yield
    assert json.loads(speak(daemon, request("GET", "/v1/version")).body)["pid"] == pid
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    assert [line for line in lines if line["level"] in {"warning", "error"} or "trace" in line] == []


class Heard(NamedTuple):
    """What came back before the daemon hung up."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> Problem:
        assert self.headers["content-type"] == "application/problem+json", self
        return msgspec.json.decode(self.body, type=Problem)


def request(method: str, target: str, body: bytes | None = None, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: kitd", "Connection: close", *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def connect(daemon: Daemon) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    # It waits in the backlog, as kitctl does: with a time limit Linux would answer EAGAIN.
    sock.connect(str(daemon.socket))
    sock.settimeout(SECONDS)
    return sock


def speak(daemon: Daemon, data: bytes, *, hang_up: bool = False) -> Heard:
    """Sends bytes, and hears what comes until the daemon hangs up."""
    with connect(daemon) as sock:
        # Who is refused early still hears what was said of it.
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        if hang_up:
            sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answer:
            return heard(answer.read())


def heard(data: bytes) -> Heard:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in rest)
    status = int(first.split()[1]) if first else 0
    return Heard(status, {name.lower(): value.strip() for name, _, value in fields}, body)


def unchunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            assert body == b"\r\n"
            return b"".join(pieces)
        pieces.append(body[: int(size, 16)])
        assert body[int(size, 16) :][:2] == b"\r\n"
        body = body[int(size, 16) + 2 :]


# -- the honest case -----------------------------------------------------------------------------


def test_a_job_is_followed_by_hand(daemon: Daemon, threaded_registry: ScriptedRegistry) -> None:
    kit = small_kit()
    put_kit(threaded_registry, kit, "hand/kit")
    reference = f"{threaded_registry.host}/hand/kit:v1"
    gate = Gate()
    threaded_registry.script(faults.stall(gate), path=kit.layer_digests[0])
    started = speak(daemon, request("POST", "/v1/pull", json.dumps({"reference": reference}).encode()))
    assert (started.status, started.headers["kitd-api-version"]) == (202, "1")
    job = msgspec.json.decode(started.body, type=JobStarted).id
    gate.wait_held(1)
    with connect(daemon) as sock:
        sock.sendall(request("GET", f"/v1/jobs/{job}/events"))
        first = sock.recv(65536)
        gate.open()
        with sock.makefile("rb") as rest:
            live = heard(first + rest.read())
    later = speak(daemon, request("GET", f"/v1/jobs/{job}/events"))
    for stream in (live, later):
        assert (stream.status, stream.headers["kitd-api-version"]) == (200, "1")
        assert stream.headers["content-type"] == "application/x-ndjson"
        *before, last = [
            msgspec.json.decode(line, type=Event) for line in unchunked(stream.body).splitlines() if line
        ]
        assert not [event for event in before if isinstance(event, Terminal)]
        assert isinstance(last, Succeeded)
        assert isinstance(last.result, Pulled)
        assert (last.result.reference, last.result.digest) == (reference, kit.digest)
        assert {event.item for event in before if isinstance(event, Began)} >= {"model tiny"}


def test_a_failed_job_has_one_last_word_too(daemon: Daemon, threaded_registry: ScriptedRegistry) -> None:
    body = json.dumps({"reference": f"{threaded_registry.host}/no/kit:v1"}).encode()
    job = msgspec.json.decode(speak(daemon, request("POST", "/v1/pull", body)).body, type=JobStarted).id
    answer = speak(daemon, request("GET", f"/v1/jobs/{job}/events"))
    *before, last = [msgspec.json.decode(line, type=Event) for line in unchunked(answer.body).splitlines()]
    assert not [event for event in before if isinstance(event, Terminal)]
    assert isinstance(last, Failed)
    assert (last.problem.code, last.problem.status) == ("not_found", 404)


def test_three_hundred_clients_at_once(daemon: Daemon) -> None:
    together = threading.Barrier(CLIENTS)

    def ask(_: int) -> KitList:
        transport = Transport(str(daemon.socket), environ={})
        together.wait(SECONDS)
        return msgspec.json.decode(transport.call("GET", "/v1/kits"), type=KitList)

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(CLIENTS)))
    assert answers == [answers[0]] * CLIENTS


def test_three_hundred_connections_that_say_nothing_stop_nobody(daemon: Daemon) -> None:
    idle = [connect(daemon) for _ in range(CLIENTS)]
    try:
        for sock in idle[::2]:
            sock.sendall(b"GET /v1/kits HTTP/1.1\r\nHos")
        assert daemon.kitctl("list").returncode == 0
    finally:
        for sock in idle:
            sock.close()


# -- abuse ---------------------------------------------------------------------------------------

PULL = b'{"reference": %b}'
ABUSE = {
    "deep JSON": (request("POST", "/v1/pull", PULL % (b"[" * 500_000)), 400, "invalid_request"),
    "deep credentials": (
        request("POST", "/v1/pull", b'{"context": {"credentials": ' + b'{"a":' * 100_000),
        400,
        "invalid_request",
    ),
    "NaN": (request("POST", "/v1/pull", PULL % b"NaN"), 400, "invalid_request"),
    "an infinite rate": (
        request("POST", "/v1/pull", b'{"limit_rate": 1e400, "reference": %b}' % LOOPBACK),
        400,
        "invalid_request",
    ),
    "a negative rate": (
        request("POST", "/v1/pull", b'{"limit_rate": -1, "reference": %b}' % LOOPBACK),
        400,
        "invalid_request",
    ),
    "an unknown field": (
        request("POST", "/v1/pull", b'{"reference": %b, "referense": 1}' % LOOPBACK),
        400,
        "invalid_request",
    ),
    "no field": (request("POST", "/v1/pull", b"{}"), 400, "invalid_request"),
    "no object": (request("POST", "/v1/pull", b"[]"), 400, "invalid_request"),
    "nothing": (request("POST", "/v1/pull", b""), 400, "invalid_request"),
    "no UTF-8": (request("POST", "/v1/pull", PULL % b'"\xff"'), 400, "invalid_request"),
    "half a character": (request("POST", "/v1/pull", PULL % b'"\\ud800"'), 400, "invalid_request"),
    "a long reference": (
        request("POST", "/v1/pull", PULL % (b'"%b"' % (b"a" * 1001))),
        400,
        "invalid_request",
    ),
    "two documents": (request("POST", "/v1/pull", (PULL % LOOPBACK) * 2), 400, "invalid_request"),
    "2 MiB": (request("POST", "/v1/pull", PULL % (b'"%b"' % (b"a" * (2 << 20)))), 413, "invalid_request"),
    "2 MiB in chunks": (
        request("POST", "/v1/pull", None, "Transfer-Encoding: chunked")
        + (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 32
        + b"0\r\n\r\n",
        413,
        "invalid_request",
    ),
    "a wrong method": (request("PUT", "/v1/pull", b"{}"), 405, "invalid_request"),
    "an unknown path": (request("GET", "/v1/kit"), 404, "not_found"),
    "another version": (request("GET", "/v2/kits"), 404, "not_found"),
    "a path upwards": (request("GET", "/v1/kits/../../etc/passwd"), 404, "not_found"),
    "a quoted path upwards": (request("GET", "/v1/kits/..%2F..%2Fetc%2Fpasswd"), 400, "invalid_reference"),
    "a zero byte": (request("GET", "/v1/kits/a%00b"), 400, "invalid_reference"),
    "another zero byte": (request("GET", "/v1/kits?repository=a%00b"), 400, "invalid_reference"),
    "a job of no form": (request("GET", "/v1/jobs/%1B%5B2J"), 404, "not_found"),
    "a job of another life": (request("DELETE", "/v1/jobs/000000-1"), 410, "daemon_restarted"),
    "some force": (request("DELETE", "/v1/kits/a%3Ab?force=yes"), 400, "invalid_request"),
    "pack without the upgrade": (request("POST", "/v1/pack", b"{}"), 400, "invalid_request"),
    "unpack with another upgrade": (
        request("POST", "/v1/unpack", b'{"reference": "a:b"}', "Upgrade: websocket"),
        400,
        "invalid_request",
    ),
    "pack of nothing": (
        request("POST", "/v1/pack", b"[]", "Upgrade: kitd-workspace/1"),
        400,
        "invalid_request",
    ),
}


@pytest.mark.parametrize("name", ABUSE)
def test_abuse_is_answered_with_a_problem(daemon: Daemon, name: str) -> None:
    data, status, code = ABUSE[name]
    answer = speak(daemon, data)
    problem = answer.problem
    assert (answer.status, problem.status, problem.code) == (status, status, code)
    assert answer.headers["kitd-api-version"] == "1"
    assert 0 < len(problem.title) < 300
    assert problem.title[0].islower() or problem.title[0] in "/'", problem.title


NO_HTTP = {
    "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a field of 70 kB": request("GET", "/v1/kits", None, f"X: {'a' * 70_000}"),
    "a target of 70 kB": request("GET", f"/v1/kits/{'a' * 70_000}"),
    "ten thousand fields": request("GET", "/v1/kits", None, *(f"X-{number}: 1" for number in range(10_000))),
    "two lengths": request("POST", "/v1/pull", b"{}", "Content-Length: 3"),
    "a length and chunks": request("POST", "/v1/pull", b"{}", "Transfer-Encoding: chunked"),
    "a negative length": request("POST", "/v1/pull", None, "Content-Length: -1"),
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_http_is_refused_and_the_connection_closed(daemon: Daemon, name: str) -> None:
    answer = speak(daemon, NO_HTTP[name] + request("GET", "/v1/version"))
    assert answer.status in {400, 431}
    assert b"pid" not in answer.body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /v1/ver",
        b"GET /v1/version HTTP/1.1\r\nHost: ki",
        request("POST", "/v1/pull", b"{}")[:-1],
        request("POST", "/v1/pack", b"{}", "Upgrade: kitd-workspace/1")[:-1],
        request("POST", "/v1/pull", None, "Transfer-Encoding: chunked") + b"10\r\nabc",
    ],
)
def test_a_client_that_leaves_in_the_middle_leaves_nothing(daemon: Daemon, data: bytes) -> None:
    descriptors = Path(f"/proc/{daemon.pid}/fd")
    speak(daemon, request("GET", "/v1/version"))
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        assert speak(daemon, data, hang_up=True).status in {0, 400}
    speak(daemon, request("GET", "/v1/version"))
    assert len(list(descriptors.iterdir())) <= before + 2
