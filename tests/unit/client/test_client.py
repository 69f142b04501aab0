import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from unit.client.scripted_daemon import (
    STREAM,
    ScriptedDaemon,
    answer,
    chunk,
    events,
    problem,
    struct,
)

from kitd_client import Client, KitdError, Network
from kitd_client.api.errors import (
    Cancelled,
    DaemonStopping,
    DaemonUnreachable,
    InvalidReference,
    NotFound,
    ProtocolError,
    RegistryProtocol,
    RegistryUnavailable,
    Unauthorized,
)
from kitd_client.api.jobs import (
    Began,
    CancelledEvent,
    Credential,
    Event,
    Failed,
    JobInfo,
    JobList,
    JobStarted,
    Pulled,
    Pushed,
    Succeeded,
)
from kitd_client.api.kits import Info, KitList, KitSummary, Removed, RemovedAll, Status, Tagged, Version

REF = "registry.example.com/team/kit:1"
QUOTED = "registry.example.com%2Fteam%2Fkit%3A1"
DIGEST = "sha256:" + "a" * 64
PULLED = Pulled(reference=REF, digest=DIGEST, size=9)


def pulls(daemon: ScriptedDaemon, *ends: Event) -> None:
    """Job 1, 2, ... end so, one after the other."""
    numbers = range(1, len(ends) + 1)
    daemon.on("POST", "/v1/pull", *(struct(JobStarted(f"j{number}"), 202) for number in numbers))
    for number, end in zip(numbers, ends, strict=True):
        daemon.on("GET", f"/v1/jobs/j{number}/events", events(Began("config", 9, 0), end))


def test_a_pull_starts_a_job_follows_it_and_returns_its_result(daemon: ScriptedDaemon) -> None:
    pulls(daemon, Succeeded(PULLED))
    seen: list[Event] = []
    jobs: list[str | None] = []
    with Client() as client:
        result = client.pull(REF, filters=["model"], limit_rate=5, on_event=seen.append, on_job=jobs.append)
    assert result == PULLED
    assert seen == [Began("config", 9, 0), Succeeded(PULLED)]
    assert jobs == ["j1", None]
    assert daemon.body("POST", "/v1/pull") == {"reference": REF, "filters": ["model"], "limit_rate": 5}


def test_how_to_reach_the_registry_goes_with_the_request(daemon: ScriptedDaemon) -> None:
    pulls(daemon, Succeeded(PULLED))
    Client().pull(REF, network=Network(plain_http=True, tls_verify=False, proxy="http://p:1"))
    context = {"plain_http": True, "tls_verify": False, "proxy": "http://p:1"}
    assert daemon.body("POST", "/v1/pull") == {"reference": REF, "context": context}


def test_a_push_names_source_and_destination(daemon: ScriptedDaemon) -> None:
    pushed = Pushed(reference=REF, digest=DIGEST, size=9, sent=4)
    daemon.on("POST", "/v1/push", struct(JobStarted("j1"), 202))
    daemon.on("GET", "/v1/jobs/j1/events", events(Succeeded(pushed)))
    assert Client().push("mine:1", REF) == pushed
    assert daemon.body("POST", "/v1/push") == {"source": "mine:1", "destination": REF}


def test_what_fails_is_raised(daemon: ScriptedDaemon) -> None:
    pulls(daemon, Failed(NotFound("no such tag", hint="look").problem()))
    with pytest.raises(NotFound, match="no such tag") as caught:
        Client().pull(REF)
    assert caught.value.hint == "look"


def test_what_is_refused_at_once_is_raised(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/pull", problem(InvalidReference("bad reference")))
    with pytest.raises(InvalidReference):
        Client().pull("BAD")


def test_a_cancelled_pull_says_what_is_kept_and_how_to_go_on(daemon: ScriptedDaemon) -> None:
    pulls(daemon, CancelledEvent("6 of 9 bytes"))
    with pytest.raises(Cancelled) as caught:
        Client().pull(REF)
    assert caught.value.kept == "6 of 9 bytes"
    assert f"'kitctl pull {REF}'" in str(caught.value.hint)


def test_a_daemon_that_stops_says_what_is_kept_and_how_to_go_on(daemon: ScriptedDaemon) -> None:
    pulls(daemon, Failed(DaemonStopping("kitd is stopping", kept="6 of 9 bytes").problem()))
    with pytest.raises(DaemonStopping) as caught:
        Client().pull(REF)
    assert (caught.value.kept, caught.value.exit_code) == ("6 of 9 bytes", 75)
    assert f"'kitctl pull {REF}'" in str(caught.value.hint)


HOST = "registry.example.com"


@pytest.mark.parametrize(
    ("error", "plain_http", "logged_in", "hint"),
    [
        (NotFound("answered 404", host=HOST), False, False, f"'kitctl login {HOST}' first"),
        (NotFound("answered 404", host=HOST), False, True, "whether this account may see them"),
        (NotFound("a blob is gone", kept="6 bytes", host=HOST), False, False, None),
        (RegistryProtocol("answered 400", host=HOST), True, False, "leave --plain-http out"),
        (RegistryUnavailable("closed", host=HOST), True, False, "leave --plain-http out"),
        (RegistryUnavailable("closed", kept="6 bytes", host=HOST), True, False, "goes on from there"),
        (RegistryUnavailable("closed", host=HOST), False, False, "look at the name, then try again"),
        (RegistryProtocol("answered 400", host=HOST), False, False, None),
        (RegistryProtocol("answered 400", hint="its own", host=HOST), True, False, "its own"),
    ],
)
def test_a_failure_without_a_hint_gets_the_one_that_only_the_client_knows(
    daemon: ScriptedDaemon,
    home: Path,
    *,
    error: KitdError,
    plain_http: bool,
    logged_in: bool,
    hint: str | None,
) -> None:
    if logged_in:
        log_in(home, HOST)
    pulls(daemon, Failed(error.problem()))
    with pytest.raises(type(error)) as caught:
        Client().pull(REF, network=Network(plain_http=plain_http))
    assert caught.value.hint is None if hint is None else hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(events(Began("config", 9, 0)), id="ended in order"),
        pytest.param(STREAM + chunk(Began("config", 9, 0)), id="broke off between events"),
        pytest.param((STREAM + chunk(Began("config", 9, 0)))[:-9], id="broke off in an event"),
    ],
)
def test_a_stream_without_a_terminal_event_is_a_failure(daemon: ScriptedDaemon, stream: bytes) -> None:
    daemon.on("POST", "/v1/pull", struct(JobStarted("j1"), 202)).on("GET", "/v1/jobs/j1/events", stream)
    with pytest.raises(DaemonUnreachable, match="went away during pull"):
        Client().pull(REF)


def test_an_event_nobody_knows_is_a_protocol_error(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/pull", struct(JobStarted("j1"), 202))
    daemon.on("GET", "/v1/jobs/j1/events", answer(200, b'{"event":"celebrated"}\n'))
    daemon.on("DELETE", "/v1/jobs/j1", answer(202))
    with pytest.raises(ProtocolError, match="celebrated"):
        Client().pull(REF)


def test_empty_lines_keep_a_quiet_stream_alive(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/pull", struct(JobStarted("j1"), 202))
    daemon.on(
        "GET", "/v1/jobs/j1/events", answer(200, b"\n\n" + msgspec.json.encode(Succeeded(PULLED)) + b"\n")
    )
    assert Client().pull(REF) == PULLED


def test_an_interrupt_in_the_caller_cancels_the_job(daemon: ScriptedDaemon) -> None:
    pulls(daemon, Succeeded(PULLED))
    daemon.on("DELETE", "/v1/jobs/j1", answer(202, b"{}"))

    def interrupt(_event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Client().pull(REF, on_event=interrupt)
    assert len(daemon.asked_for("DELETE", "/v1/jobs/j1")) == 1


# -- credentials ------------------------------------------------------------------------------------


def log_in(home: Path, *registries: str) -> None:
    file = home / ".docker" / "config.json"
    file.parent.mkdir()
    entries = {registry: {"auth": "dTpw"} for registry in registries}
    file.write_bytes(msgspec.json.encode({"auths": entries}))


def test_the_user_s_credentials_for_the_registry_are_sent(daemon: ScriptedDaemon, home: Path) -> None:
    log_in(home, "registry.example.com", "other.example.com")
    pulls(daemon, Succeeded(PULLED))
    Client().pull(REF)
    credentials = {"registry.example.com": {"username": "u", "password": "p"}}
    assert daemon.body("POST", "/v1/pull")["context"] == {"credentials": credentials}


def test_a_registry_nobody_foresaw_is_looked_up_and_the_pull_asked_for_again(
    daemon: ScriptedDaemon, home: Path
) -> None:
    log_in(home, "registry.example.com", "parent.example.com")
    refusal = Unauthorized("parent.example.com wants credentials", host="parent.example.com")
    pulls(daemon, Failed(refusal.problem()), Succeeded(PULLED))
    assert Client().pull(REF) == PULLED
    context = daemon.body("POST", "/v1/pull")["context"]
    assert isinstance(context, dict)
    assert sorted(context["credentials"]) == ["parent.example.com", "registry.example.com"]


@pytest.mark.parametrize("host", ["parent.example.com", "registry.example.com"])
def test_a_registry_without_other_credentials_is_not_asked_again(
    daemon: ScriptedDaemon, home: Path, host: str
) -> None:
    log_in(home, "registry.example.com")
    pulls(daemon, Failed(Unauthorized("no", host=host).problem()))
    with pytest.raises(Unauthorized):
        Client().pull(REF)
    assert len(daemon.asked_for("POST", "/v1/pull")) == 1


def test_it_is_asked_again_once_only(daemon: ScriptedDaemon, home: Path) -> None:
    log_in(home, "a.example.com", "b.example.com")
    pulls(
        daemon,
        Failed(Unauthorized("no", host="a.example.com").problem()),
        Failed(Unauthorized("no", host="b.example.com").problem()),
    )
    with pytest.raises(Unauthorized):
        Client().pull(REF)


# -- the rest ---------------------------------------------------------------------------------------


def test_kits_are_listed_tagged_removed_and_shown(daemon: ScriptedDaemon) -> None:
    row = KitSummary(
        repository="kit", tags=["1"], digest=DIGEST, model_name="m", author="a", size=9, complete=True
    )
    daemon.on("GET", "/v1/kits", struct(KitList([row])))
    daemon.on("GET", "/v1/kits?repository=registry.example.com%2Fteam%2Fkit", struct(KitList([])))
    daemon.on("POST", "/v1/tag", struct(Tagged(REF, DIGEST)))
    daemon.on("DELETE", f"/v1/kits/{QUOTED}", struct(Removed(untagged=[REF])))
    daemon.on("DELETE", f"/v1/kits/{QUOTED}?force=1", struct(Removed(untagged=[REF], freed=9)))
    daemon.on("DELETE", "/v1/kits", struct(RemovedAll(removed=[REF])))
    daemon.on("DELETE", "/v1/kits?force=1", struct(RemovedAll(removed=[])))
    daemon.on("GET", f"/v1/kits/{QUOTED}/info", struct(Info("manifestVersion: 1.0.0\n")))
    kit = b'{"digest":"d","cliVersion":"v","kitfile":{"b":1.50,"a":1},"manifest":{}}'
    daemon.on("GET", f"/v1/kits/{QUOTED}", answer(200, kit))
    with Client() as client:
        assert client.list() == [row]
        assert client.list("registry.example.com/team/kit") == []
        assert client.tag("kit:1", REF) == Tagged(REF, DIGEST)
        assert client.remove(REF).freed == 0
        assert client.remove(REF, force=True).freed == 9
        assert client.remove_all().removed == [REF]
        assert client.remove_all(force=True).in_use == []
        assert client.info(REF) == "manifestVersion: 1.0.0\n"
        assert bytes(client.inspect(REF).kitfile) == b'{"b":1.50,"a":1}'


def test_jobs_are_listed_followed_and_cancelled(daemon: ScriptedDaemon) -> None:
    job = JobInfo(id="j1", verb="pull", reference=REF, state="running", uid=0, started="now", total=9, done=1)
    daemon.on("GET", "/v1/jobs", struct(JobList([job]))).on("GET", "/v1/jobs/j1", struct(job))
    daemon.on("GET", "/v1/jobs/j1/events", events(Began("config", 9, 0), Succeeded(PULLED)))
    daemon.on("DELETE", "/v1/jobs/j1", struct(job, 202))
    with Client() as client:
        assert client.jobs() == [job]
        assert client.job("j1") == job
        assert list(client.attach("j1")) == [Began("config", 9, 0), Succeeded(PULLED)]
        assert client.wait("j1") == PULLED
        assert client.cancel("j1") == job
    assert len(daemon.asked_for("DELETE", "/v1/jobs/j1")) == 1


def test_closing_the_client_ends_a_stream_that_is_still_open(daemon: ScriptedDaemon) -> None:
    ended: list[bytes] = []

    def endless(connection: socket.socket) -> None:
        connection.sendall(STREAM + chunk(Began("config", 9, 0)))
        ended.append(connection.recv(1))

    daemon.on("GET", "/v1/jobs/j1/events", endless)
    with Client() as client:
        stream = client.attach("j1")
        next(stream)
    daemon.close()
    assert ended == [b""]


def test_a_detached_start_returns_the_identifier(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/pull", struct(JobStarted("j1"), 202))
    daemon.on("POST", "/v1/push", struct(JobStarted("j2"), 202))
    assert (Client().start_pull(REF), Client().start_push("mine:1", REF)) == ("j1", "j2")


def test_the_daemon_tells_about_itself(daemon: ScriptedDaemon) -> None:
    status = Status(
        version="1",
        pid=7,
        uid=0,
        mode="user",
        socket="s",
        store="/s",
        registry_listen="",
        uptime_seconds=1,
        jobs_running=0,
        kits=0,
        store_bytes=0,
        free_bytes=9,
    )
    daemon.on("GET", "/v1/status", struct(status))
    daemon.on("GET", "/v1/version", struct(Version(version="1", api=1, pid=7)))
    assert Client().status() == status
    assert Client().version().pid == 7


def test_a_credential_is_checked_with_the_network_flags(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/check-registry", answer(204))
    Client().check_registry("r.example.com", Credential("u", "p"), Network(plain_http=True))
    assert daemon.body("POST", "/v1/check-registry") == {
        "registry": "r.example.com",
        "context": {"credentials": {"r.example.com": {"username": "u", "password": "p"}}, "plain_http": True},
    }


def test_a_check_in_plain_http_at_a_server_that_speaks_tls_says_so(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/check-registry", problem(RegistryProtocol("answered 400", host=HOST)))
    with pytest.raises(RegistryProtocol) as caught:
        Client().check_registry(HOST, Credential("u", "p"), Network(plain_http=True))
    assert "leave --plain-http out" in str(caught.value.hint)


def test_an_answer_of_another_shape_is_a_protocol_error(daemon: ScriptedDaemon) -> None:
    daemon.on("GET", "/v1/version", answer(200, b'{"version":7}'))
    with pytest.raises(ProtocolError, match="version"):
        Client().version()


_TOGETHER = """
import sys
import threading

from kitd_client.api.jobs import JobList
from kitd_client.conversation import Conversation
from kitd_client.transport import Transport

sys.setswitchinterval(1e-9)
together = threading.Barrier(8)


class Answered(Transport):
    def call(self, method, target, body=None, *, start=True):
        together.wait()
        return b'{"jobs": []}'


def ask():
    Conversation(Answered("/nowhere")).get("/v1/jobs", JobList)


threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("_attempt", range(4))
def test_threads_of_one_program_may_ask_for_the_first_time_together(_attempt: int) -> None:
    # msgspec learns a struct at its first use; threads that did so at the same time ended by a signal.
    done = subprocess.run([sys.executable, "-c", _TOGETHER], check=False)
    assert done.returncode == 0
