import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from unit.client.scripted_daemon import ScriptedDaemon, answer, events, problem, struct
from unit.client.test_client import DIGEST, PULLED, QUOTED, REF, pulls, workspace

from kitd_client import __version__
from kitd_client.api.errors import NoSpace, NotFound, Unauthorized
from kitd_client.api.jobs import (
    Began,
    CancelledEvent,
    Failed,
    JobInfo,
    JobList,
    JobStarted,
    Packed,
    PackedLayer,
    Pulled,
    Pushed,
    Succeeded,
    Unpacked,
    Warned,
)
from kitd_client.api.kits import (
    Info,
    Inspection,
    KitList,
    KitSummary,
    PathAnswer,
    Removed,
    Status,
    Tagged,
    Version,
)
from kitd_client.api.workspace import End
from kitd_client.cli import COMMANDS, main

Out = pytest.CaptureFixture[str]


def printed(capsys: Out, *words: str) -> tuple[str, str]:
    """Standard output and error of a command that succeeds."""
    assert main(words) == 0
    got = capsys.readouterr()
    return got.out, got.err


# -- transfers -------------------------------------------------------------------------------------


def test_pull_prints_the_reference_with_its_digest_and_nothing_else(
    daemon: ScriptedDaemon, capsys: Out
) -> None:
    result = Pulled(reference=REF, digest=DIGEST, size=3 << 30, fetched={"r.io": 1 << 30}, present=2 << 30)
    pulls(daemon, Succeeded(result))
    out, err = printed(capsys, "pull", REF)
    assert out == f"{REF}@{DIGEST}\n"
    assert err == ("kitctl: pulled 3.0 GiB in less than a second: 1.0 GiB from r.io, 2.0 GiB were here\n")


def test_quiet_leaves_standard_error_empty_but_for_warnings(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("POST", "/v1/pull", struct(JobStarted("j1"), 202))
    stream = events(Began("a", 1, 0), Warned("mind this"), Succeeded(PULLED))
    daemon.on("GET", "/v1/jobs/j1/events", stream)
    assert printed(capsys, "pull", "-q", REF) == (f"{REF}@{DIGEST}\n", "kitctl: warning: mind this\n")


def test_kit_s_flags_reach_the_daemon(daemon: ScriptedDaemon, home: Path, capsys: Out) -> None:
    pulls(daemon, Succeeded(PULLED))
    (home / "ca").write_text("-----BEGIN CERTIFICATE-----\n")
    (home / "key").write_text("-----BEGIN PRIVATE KEY-----\n")
    words = f"pull --plain-http --tls-verify=false --tls-cert {home}/ca --cert {home}/ca --key {home}/key"
    words += f" --proxy http://p:1 -f model,docs --filter kitfile --limit-rate 2MiB/s {REF}"
    printed(capsys, *words.split())
    assert daemon.body("POST", "/v1/pull") == {
        "reference": REF,
        "filters": ["model,docs", "kitfile"],
        "limit_rate": 2 << 20,
        "context": {
            "plain_http": True,
            "tls_verify": False,
            "ca_pem": "-----BEGIN CERTIFICATE-----\n",
            "client_certificate_pem": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n",
            "proxy": "http://p:1",
        },
    }


def test_the_bare_tls_verify_takes_no_word_after_it(daemon: ScriptedDaemon, capsys: Out) -> None:
    pulls(daemon, Succeeded(PULLED))
    printed(capsys, "pull", "--tls-verify", REF)
    assert daemon.body("POST", "/v1/pull") == {"reference": REF}


def test_an_authfile_is_the_source_of_credentials(daemon: ScriptedDaemon, home: Path, capsys: Out) -> None:
    pulls(daemon, Succeeded(PULLED))
    (home / "auth").write_text('{"auths":{"registry.example.com":{"auth":"dTpw"}}}')
    printed(capsys, "pull", "--authfile", f"{home}/auth", REF)
    context = daemon.body("POST", "/v1/pull")["context"]
    assert context == {"credentials": {"registry.example.com": {"username": "u", "password": "p"}}}


def test_detached_prints_the_job_alone(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("POST", "/v1/pull", struct(JobStarted("j7"), 202))
    daemon.on("POST", "/v1/push", struct(JobStarted("j8"), 202))
    assert printed(capsys, "pull", "-d", "-q", REF) == ("j7\n", "")
    out, err = printed(capsys, "push", "--detach", REF)
    assert out == "j8\n"
    assert "kitctl attach j8" in err
    assert printed(capsys, "pull", "-d", "-q", "--format", "json", REF)[0] == '{"id":"j7"}\n'


def test_push_prints_where_it_went(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("POST", "/v1/push", struct(JobStarted("j1"), 202))
    pushed = Pushed(reference=REF, digest=DIGEST, size=2048, sent=1024)
    daemon.on("GET", "/v1/jobs/j1/events", events(Succeeded(pushed)))
    out, err = printed(capsys, "push", "mine:1", REF)
    assert out == f"{REF}@{DIGEST}\n"
    assert err == "kitctl: pushed 2.0 KiB in less than a second: 1.0 KiB sent\n"


def test_a_result_in_json_is_the_api_s(daemon: ScriptedDaemon, capsys: Out) -> None:
    pulls(daemon, Succeeded(PULLED))
    out, _ = printed(capsys, "pull", "--format", "json", REF)
    assert msgspec.json.decode(out, type=Pulled) == PULLED


# -- errors ----------------------------------------------------------------------------------------


def test_an_error_says_what_was_kept_and_what_to_do(daemon: ScriptedDaemon, capsys: Out) -> None:
    pulls(daemon, Failed(NoSpace("no space for x", kept="6 bytes", hint="free some").problem()))
    assert main(["pull", REF]) == 73
    got = capsys.readouterr()
    assert (got.out, got.err) == ("", "kitctl: no space for x\nkept: 6 bytes\nhint: free some\n")


def test_an_error_in_json_is_the_problem_in_a_line(daemon: ScriptedDaemon, capsys: Out) -> None:
    error = Unauthorized("r.io wants credentials", hint="log in", host="r.io")
    pulls(daemon, Failed(error.problem()))
    assert main(["pull", REF, "--format=json", "--progress", "none"]) == 77
    assert json.loads(capsys.readouterr().err) == {
        "code": "unauthorized",
        "title": "r.io wants credentials",
        "status": 401,
        "hint": "log in",
        "detail": {"host": "r.io"},
    }


def test_a_cancelled_pull_ends_with_130(daemon: ScriptedDaemon, capsys: Out) -> None:
    pulls(daemon, CancelledEvent("6 of 9 bytes"))
    assert main(["pull", REF]) == 130
    assert "kept: 6 of 9 bytes\n" in capsys.readouterr().err


def test_no_daemon_ends_with_69_and_the_command(home: Path, capsys: Out) -> None:
    assert main(["list", "--no-autostart"]) == 69
    assert capsys.readouterr().err.endswith("hint: start it with 'kitd'\n")


@pytest.mark.parametrize(
    "words",
    [
        ["pull"],
        ["pull", "a", "b"],
        ["pull", "--limit-rate", "fast", REF],
        ["pull", "--tls-verify=maybe", REF],
        ["pack", ".", "--compression", "lzma"],
        ["list", "--format", "yaml"],
        ["pull", "--plain", REF],
    ],
)
def test_wrong_usage_ends_with_2(words: list[str], capsys: Out) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: kitctl" in capsys.readouterr().err


def test_a_mistyped_command_is_guessed(capsys: Out) -> None:
    assert main(["pul", REF]) == 2
    assert "did you mean 'pull'?" in capsys.readouterr().err


def test_the_overview_names_every_command(capsys: Out) -> None:
    out, _ = printed(capsys, "--help")
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main([]) == 2
    assert printed(capsys, "--version")[0] == f"kitctl {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: Out) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"usage: kitctl {name}" in capsys.readouterr().out


def test_flags_may_stand_before_the_command(daemon: ScriptedDaemon, home: Path, capsys: Out) -> None:
    with ScriptedDaemon(home / "other.sock") as other:
        other.on("GET", "/v1/version", struct(Version(version="9", api=1, pid=7)))
        out, _ = printed(capsys, "--socket", str(other.path), "--format=json", "version")
    assert json.loads(out)["daemon"]["version"] == "9"


def test_a_reader_that_goes_away_is_no_failure_to_report(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    daemon.on("GET", "/v1/kits", struct(KitList([])))
    duplicated: list[int] = []
    monkeypatch.setattr("os.dup2", lambda _source, target: duplicated.append(target))

    def gone(_text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", gone)
    assert main(["list"]) == 141
    assert duplicated == [1]


# -- directories -----------------------------------------------------------------------------------


def test_pack_prints_every_name(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    layer = PackedLayer(digest=DIGEST, diff_id=DIGEST, media_type="m", path="p", size=9, already_present=True)
    packed = Packed(references=["kit:1", "kit:2"], digest=DIGEST, size=9, layers=[layer])
    daemon.on("POST", "/v1/pack", workspace(End(Succeeded(packed))))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"manifestVersion: 1.0.0\n")))
    words = [
        "pack",
        str(tmp_path),
        "-f",
        "-",
        "-t",
        "kit:1,2",
        "--compression",
        "gzip",
        "--layer-format",
        "raw",
    ]
    out, err = printed(capsys, *words)
    assert out == f"kit:1@{DIGEST}\nkit:2@{DIGEST}\n"
    assert err == "kitctl: packed 1 layers, 9 B in less than a second; 1 were here\n"
    assert daemon.body("POST", "/v1/pack") == {
        "tags": ["kit:1", "kit:2"],
        "kitfile": "manifestVersion: 1.0.0\n",
        "compression": "gzip",
        "layer_format": "raw",
    }


def test_a_kit_without_a_name_prints_its_digest(daemon: ScriptedDaemon, tmp_path: Path, capsys: Out) -> None:
    daemon.on("POST", "/v1/pack", workspace(End(Succeeded(Packed(references=[], digest=DIGEST, size=9)))))
    assert printed(capsys, "pack", str(tmp_path))[0] == f"{DIGEST}\n"


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        pytest.param(None, 66, "cannot be read", id="absent"),
        pytest.param(b"\xff\xfe", 65, "no UTF-8", id="another encoding"),
        pytest.param(b"#" * ((1 << 20) + 1), 65, "larger than", id="huge"),
    ],
)
def test_a_kitfile_that_is_none(
    daemon: ScriptedDaemon, tmp_path: Path, capsys: Out, content: bytes | None, status: int, said: str
) -> None:
    if content is not None:
        (tmp_path / "K").write_bytes(content)
    assert main(["pack", str(tmp_path), "-f", str(tmp_path / "K")]) == status
    assert said in capsys.readouterr().err
    assert not daemon.asked


def test_unpack_prints_no_data(daemon: ScriptedDaemon, tmp_path: Path, capsys: Out) -> None:
    unpacked = Unpacked(reference=REF, digest=DIGEST, files=3, size=9, skipped=2)
    daemon.on("POST", "/v1/unpack", workspace(End(Succeeded(unpacked))))
    out, err = printed(capsys, "unpack", REF, "-d", str(tmp_path / "to"), "-i", "-f", "code")
    assert out == ""
    assert err == (
        f"kitctl: unpacked 3 files, 9 B in less than a second; 2 left as they were, into {tmp_path}/to\n"
    )
    body = {"reference": REF, "filters": ["code"], "ignore_existing": True}
    assert daemon.body("POST", "/v1/unpack") == body


def test_path_prints_exactly_the_path(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("POST", "/v1/path", struct(PathAnswer("/store/snapshots/x")))
    assert printed(capsys, "path", REF) == ("/store/snapshots/x\n", "")
    assert printed(capsys, "path", REF, "--format=json")[0] == '{"path":"/store/snapshots/x"}\n'


def test_path_of_an_absent_kit_pulls_and_still_prints_exactly_the_path(
    daemon: ScriptedDaemon, capsys: Out
) -> None:
    daemon.on("POST", "/v1/path", problem(NotFound("not here")), struct(PathAnswer("/store/x")))
    pulls(daemon, Succeeded(PULLED))
    out, err = printed(capsys, "path", REF)
    assert out == "/store/x\n"
    assert "pulling it first" in err


# -- kits ------------------------------------------------------------------------------------------

ROW = KitSummary(
    repository="r.io/kit",
    tags=["1", "two"],
    digest=DIGEST,
    model_name="m",
    author="",
    size=1536,
    complete=True,
)


@pytest.mark.parametrize("words", [["list"], ["list", "--no-autostart"]])
def test_list_has_kit_s_columns(daemon: ScriptedDaemon, capsys: Out, words: list[str]) -> None:
    untagged = msgspec.structs.replace(ROW, repository="x", tags=[], model_name="", author="me")
    daemon.on("GET", "/v1/kits", struct(KitList([ROW, untagged])))
    out, _ = printed(capsys, *words)
    assert out == (
        "REPOSITORY   TAG      MAINTAINER   NAME     SIZE      DIGEST\n"
        f"r.io/kit     1        <none>       m        1.5 KiB   {DIGEST}\n"
        f"r.io/kit     two      <none>       m        1.5 KiB   {DIGEST}\n"
        f"x            <none>   me           <none>   1.5 KiB   {DIGEST}\n"
    )


def test_list_in_json_has_kit_s_fields(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("GET", "/v1/kits?repository=r.io%2Fkit", struct(KitList([ROW])))
    out, _ = printed(capsys, "list", "r.io/kit", "--format", "json")
    assert json.loads(out) == [
        {
            "repo": "r.io/kit",
            "digest": DIGEST,
            "tags": ["1", "two"],
            "modelName": "m",
            "size": "1.5 KiB",
            "author": "<none>",
            "bytes": 1536,
            "complete": True,
        }
    ]


@pytest.mark.parametrize("body", [b"[]", b'{"kits":[{}]}', b"{", b'{"kits":[7]}'])
def test_a_list_that_is_none_is_a_protocol_error(daemon: ScriptedDaemon, capsys: Out, body: bytes) -> None:
    daemon.on("GET", "/v1/kits", answer(200, body))
    assert main(["list"]) == 69
    assert "cannot be understood" in capsys.readouterr().err


def test_inspect_prints_kit_s_json_and_keeps_order_and_digits(daemon: ScriptedDaemon, capsys: Out) -> None:
    kit = Inspection(
        digest=DIGEST,
        cli_version="1.17.0",
        kitfile=msgspec.Raw(b'{"z":1.50,"a":1e3}'),
        manifest=msgspec.Raw(b'{"schemaVersion":2}'),
    )
    daemon.on("GET", f"/v1/kits/{QUOTED}", struct(kit))
    out, _ = printed(capsys, "inspect", REF)
    assert list(json.loads(out)) == ["digest", "cliVersion", "kitfile", "manifest"]
    assert '"z": 1.50,\n    "a": 1e3\n' in out


def test_info_prints_the_kitfile(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("GET", f"/v1/kits/{QUOTED}/info", struct(Info("manifestVersion: 1.0.0\n")))
    assert printed(capsys, "info", REF)[0] == "manifestVersion: 1.0.0\n"
    assert json.loads(printed(capsys, "info", REF, "--format=json")[0]) == {
        "kitfile": "manifestVersion: 1.0.0\n"
    }


def test_tag_and_remove_tell_people_what_they_did(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("POST", "/v1/tag", struct(Tagged(REF, DIGEST)))
    assert printed(capsys, "tag", "mine:1", REF) == ("", f"kitctl: {REF} is {DIGEST}\n")
    removed = Removed(untagged=[REF], digest=DIGEST, freed=2048)
    daemon.on("DELETE", f"/v1/kits/{QUOTED}?force=1", struct(removed))
    assert printed(capsys, "remove", "-f", REF) == ("", f"kitctl: removed {REF}\nkitctl: 2.0 KiB freed\n")
    out, err = printed(capsys, "remove", "-f", REF, "--format=json", "-q")
    assert (msgspec.json.decode(out, type=Removed), err) == (removed, "")


# -- jobs and the daemon ---------------------------------------------------------------------------

JOB = JobInfo(
    id="j1", verb="pull", reference=REF, state="running", uid=0, started="2026-01-02", total=2048, done=1024
)


def test_jobs_are_a_table(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("GET", "/v1/jobs", struct(JobList([JOB])))
    out, _ = printed(capsys, "jobs")
    assert out == (
        "JOB   VERB   REFERENCE                         STATE     DONE                 STARTED\n"
        f"j1    pull   {REF}   running   1.0 KiB of 2.0 KiB   2026-01-02\n"
    )
    assert [job["id"] for job in json.loads(printed(capsys, "jobs", "--format=json")[0])] == ["j1"]


def test_attach_ends_as_the_job_does(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("GET", "/v1/jobs/j1", struct(JOB))
    daemon.on(
        "GET",
        "/v1/jobs/j1/events",
        events(Succeeded(PULLED)),
        events(Failed(NotFound("no such tag").problem())),
    )
    assert printed(capsys, "attach", "-q", "j1")[0] == f"{REF}@{DIGEST}\n"
    assert main(["attach", "j1"]) == 66


def test_cancel_asks_for_it(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("DELETE", "/v1/jobs/j1", struct(JOB, 202))
    assert "being cancelled" in printed(capsys, "cancel", "j1")[1]


def test_nobody_starts_a_daemon_to_hear_that_it_has_no_jobs(home: Path, capsys: Out) -> None:
    assert [main([name]) for name in ("jobs", "status")] == [69, 69]


def test_status_tells_what_a_person_wants_to_know(daemon: ScriptedDaemon, capsys: Out) -> None:
    status = Status(
        version="1.2",
        pid=7,
        uid=5,
        mode="user",
        socket="/s",
        store="/store",
        registry_listen="",
        uptime_seconds=61,
        jobs_running=3,
        kits=2,
        store_bytes=1 << 30,
        free_bytes=2 << 30,
    )
    daemon.on("GET", "/v1/status", struct(status))
    out, _ = printed(capsys, "status")
    assert "process   pid 7, uid 5, up 1m01s\n" in out
    assert "kits      2, 1.0 GiB stored, 2.0 GiB free\n" in out
    assert json.loads(printed(capsys, "status", "--format=json")[0])["store"] == "/store"


@pytest.mark.parametrize("words", [["version"], ["version", "--no-autostart"]])
def test_version_prints_both(daemon: ScriptedDaemon, capsys: Out, words: list[str]) -> None:
    daemon.on("GET", "/v1/version", struct(Version(version="9.8", api=1, pid=7)))
    assert printed(capsys, *words)[0] == f"kitctl {__version__}\nkitd 9.8 (API 1, pid 7)\n"


def test_version_without_a_daemon_is_the_client_s(home: Path, capsys: Out) -> None:
    out, err = printed(capsys, "version")
    assert out == f"kitctl {__version__}\n"
    assert "no daemon answers" in err
    assert json.loads(printed(capsys, "version", "--format=json")[0])["daemon"] is None


def test_version_of_something_else_is_an_error(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("GET", "/v1/version", answer(200, b"{", head=""))
    assert main(["version"]) == 69
    daemon.on("GET", "/v1/version", answer(200, b"{"))
    assert main(["version"]) == 69


# -- login -----------------------------------------------------------------------------------------


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def stored(home: Path) -> dict[str, object]:
    path = home / ".local" / "share" / "kitops" / "credentials.json"
    content: dict[str, dict[str, object]] = json.loads(path.read_text())
    return content["auths"]


def test_a_login_is_checked_then_stored(
    daemon: ScriptedDaemon, home: Path, stdin: Callable[[str], None], capsys: Out
) -> None:
    daemon.on("POST", "/v1/check-registry", answer(204))
    stdin("secret\n")
    out, err = printed(capsys, "login", "https://r.io/", "-u", "me", "--password-stdin", "--plain-http")
    assert out == ""
    assert err.startswith("kitctl: logged in to r.io; the credential is in ")
    assert stored(home) == {"r.io": {"auth": "bWU6c2VjcmV0"}}
    body = daemon.body("POST", "/v1/check-registry")
    credentials = {"r.io": {"username": "me", "password": "secret"}}
    assert body == {"registry": "r.io", "context": {"credentials": credentials, "plain_http": True}}
    assert "logged out of r.io" in printed(capsys, "logout", "r.io")[1]
    assert stored(home) == {}
    assert "has no credential for r.io" in printed(capsys, "logout", "r.io")[1]


def test_a_login_that_the_registry_refuses_is_not_stored(
    daemon: ScriptedDaemon, home: Path, stdin: Callable[[str], None], capsys: Out
) -> None:
    daemon.on("POST", "/v1/check-registry", problem(Unauthorized("r.io does not accept the credentials")))
    stdin("secret")
    assert main(["login", "r.io", "-u", "me", "--password-stdin"]) == 77
    assert not (home / ".local").exists()


def test_a_login_can_be_stored_without_asking(home: Path, stdin: Callable[[str], None], capsys: Out) -> None:
    stdin("token")
    printed(capsys, "login", "r.io", "--password-stdin", "--no-verify", "--authfile", f"{home}/a")
    assert json.loads((home / "a").read_text()) == {"auths": {"r.io": {"identitytoken": "token"}}}


def test_a_password_on_the_command_line_is_warned_about(home: Path, capsys: Out) -> None:
    _, err = printed(capsys, "login", "r.io", "-u", "me", "-p", "secret", "--no-verify")
    assert "use --password-stdin" in err
    assert stored(home) == {"r.io": {"auth": "bWU6c2VjcmV0"}}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-p", "x", "--password-stdin"], "y"),
        (["--password-stdin"], "\n"),
        ([], ""),
    ],
)
def test_a_login_needs_one_password(
    home: Path, stdin: Callable[[str], None], capsys: Out, words: list[str], text: str
) -> None:
    stdin(text)
    assert main(["login", "r.io", "--no-verify", *words]) == 2
    assert not (home / ".local").exists()
