import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from unit.client.scripted_daemon import (
    HEAD,
    STREAM,
    ScriptedDaemon,
    answer,
    chunk,
    drop,
    events,
    problem,
    struct,
)

from kitd_client import Client, Network
from kitd_client.api.errors import (
    Cancelled,
    ConfigurationInvalid,
    DaemonStopping,
    DaemonUnreachable,
    InvalidReference,
    KitIncomplete,
    NotFound,
    ProtocolError,
    SourceUnreadable,
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
    Moved,
    Packed,
    Pulled,
    Pushed,
    Succeeded,
    Unpacked,
)
from kitd_client.api.kits import Info, KitList, KitSummary, PathAnswer, Removed, Status, Tagged, Version
from kitd_client.api.workspace import End, EventFrame, Hello, Publish, encode_frame

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


# -- credentials -----------------------------------------------------------------------------------


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


# -- directories -----------------------------------------------------------------------------------


def workspace(*frames: Hello | Publish | EventFrame | End) -> Callable[[socket.socket], None]:
    """A daemon's end of a workspace that waits for no answers but reads them."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 101 Switching\r\n{HEAD}Upgrade: kitd-workspace/1\r\n\r\n".encode())
        for frame in frames:
            connection.sendall(encode_frame(frame))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return serve


UNPACKED = Unpacked(reference=REF, digest=DIGEST, files=1, size=9)


def test_pack_opens_a_workspace_and_returns_the_result(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Packed(references=["kit:1", "kit:2"], digest=DIGEST, size=9)
    moved = Moved("pack model", "workspace", 9)
    daemon.on("POST", "/v1/pack", workspace(EventFrame(moved), End(Succeeded(packed))))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    seen: list[Event] = []
    got = Client().pack(
        tmp_path,
        tags=["kit:1,2"],
        kitfile="manifestVersion: 1.0.0",
        compression="zstd",
        layer_format="raw",
        on_event=seen.append,
    )
    assert got == packed
    assert seen == [moved, Succeeded(packed)]
    assert daemon.body("POST", "/v1/pack") == {
        "tags": ["kit:1", "kit:2"],
        "kitfile": "manifestVersion: 1.0.0",
        "compression": "zstd",
        "layer_format": "raw",
        "source_date_epoch": 1700000000,
    }
    headers = daemon.asked[-1].headers
    assert (headers["connection"], headers["upgrade"]) == ("Upgrade", "kitd-workspace/1")


def test_a_directory_that_cannot_be_packed_is_no_request(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable):
        Client().pack(tmp_path / "absent")
    assert not daemon.asked


def test_a_date_that_is_none_is_refused(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigurationInvalid, match="SOURCE_DATE_EPOCH"):
        Client().pack(tmp_path)


def test_unpack_makes_its_directory_and_returns_the_result(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.on("POST", "/v1/unpack", workspace(End(Succeeded(UNPACKED))))
    assert Client().unpack(REF, tmp_path / "a" / "b", overwrite=True, filters=["docs"]) == UNPACKED
    assert daemon.body("POST", "/v1/unpack") == {"reference": REF, "filters": ["docs"], "overwrite": True}


@pytest.mark.parametrize("lack", [NotFound("not here"), KitIncomplete("lacks a layer")])
def test_unpack_pulls_what_is_not_here(
    daemon: ScriptedDaemon, tmp_path: Path, lack: NotFound | KitIncomplete
) -> None:
    daemon.on(
        "POST", "/v1/unpack", workspace(End(Failed(lack.problem()))), workspace(End(Succeeded(UNPACKED)))
    )
    pulls(daemon, Succeeded(PULLED))
    jobs: list[str | None] = []
    notices: list[str] = []
    got = Client(notice=notices.append).unpack(REF, tmp_path / "to", filters=["model"], on_job=jobs.append)
    assert got == UNPACKED
    assert daemon.body("POST", "/v1/pull") == {"reference": REF, "filters": ["model"]}
    assert jobs == ["j1", None]
    assert notices == [f"{REF} is not wholly here: pulling it first"]


def test_unpack_of_a_kit_without_a_registry_pulls_nothing(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.on("POST", "/v1/unpack", workspace(End(Failed(NotFound("not here").problem()))))
    with pytest.raises(NotFound):
        Client().unpack("mine:1", tmp_path)
    assert not daemon.asked_for("POST", "/v1/pull")


def test_a_workspace_that_breaks_off_is_a_failure(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.on("POST", "/v1/unpack", workspace(Hello(1)))
    with pytest.raises(DaemonUnreachable):
        Client().unpack("mine:1", tmp_path)


def test_the_result_of_another_verb_is_a_protocol_error(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.on("POST", "/v1/unpack", workspace(End(Succeeded(PULLED))))
    with pytest.raises(ProtocolError):
        Client().unpack("mine:1", tmp_path)


def test_path_pulls_what_is_not_here(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/path", problem(KitIncomplete("lacks a layer")), struct(PathAnswer("/store/x")))
    pulls(daemon, Succeeded(PULLED))
    assert Client().path(REF) == Path("/store/x")


# -- the rest --------------------------------------------------------------------------------------


def test_kits_are_listed_tagged_removed_and_shown(daemon: ScriptedDaemon) -> None:
    row = KitSummary(
        repository="kit", tags=["1"], digest=DIGEST, model_name="m", author="a", size=9, complete=True
    )
    daemon.on("GET", "/v1/kits", struct(KitList([row])))
    daemon.on("GET", "/v1/kits?repository=registry.example.com%2Fteam%2Fkit", struct(KitList([])))
    daemon.on("POST", "/v1/tag", struct(Tagged(REF, DIGEST)))
    daemon.on("DELETE", f"/v1/kits/{QUOTED}", struct(Removed(untagged=[REF])))
    daemon.on("DELETE", f"/v1/kits/{QUOTED}?force=1", struct(Removed(untagged=[REF], freed=9)))
    daemon.on("GET", f"/v1/kits/{QUOTED}/info", struct(Info("manifestVersion: 1.0.0\n")))
    kit = b'{"digest":"d","cliVersion":"v","kitfile":{"b":1.50,"a":1},"manifest":{}}'
    daemon.on("GET", f"/v1/kits/{QUOTED}", answer(200, kit))
    with Client() as client:
        assert client.list() == [row]
        assert client.list("registry.example.com/team/kit") == []
        assert client.tag("kit:1", REF) == Tagged(REF, DIGEST)
        assert client.remove(REF).freed == 0
        assert client.remove(REF, force=True).freed == 9
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
        client.cancel("j1")
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


def test_an_answer_of_another_shape_is_a_protocol_error(daemon: ScriptedDaemon) -> None:
    daemon.on("GET", "/v1/version", answer(200, b'{"version":7}'))
    with pytest.raises(ProtocolError, match="version"):
        Client().version()


def test_a_pack_in_the_backlog_of_a_daemon_that_ended_is_asked_again(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    packed = Packed(references=[], digest=DIGEST, size=0)
    daemon.on("POST", "/v1/pack", drop, workspace(End(Succeeded(packed))))
    assert Client().pack(tmp_path) == packed
