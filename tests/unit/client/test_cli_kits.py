import json
from pathlib import Path

import msgspec
import pytest
from unit.client.scripted_daemon import ScriptedDaemon, answer, events, struct
from unit.client.test_cli import Out, printed
from unit.client.test_client import DIGEST, PULLED, QUOTED, REF

from kitd_client import __version__
from kitd_client.api.errors import NoSpace, NotFound
from kitd_client.api.jobs import (
    Failed,
    JobInfo,
    JobList,
    Succeeded,
)
from kitd_client.api.kits import (
    Info,
    Inspection,
    KitList,
    KitSummary,
    Removed,
    RemovedAll,
    Status,
    Tagged,
    Version,
)
from kitd_client.cli import main

# -- kits -------------------------------------------------------------------------------------------

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
    nameless = msgspec.structs.replace(untagged, repository="", complete=False)
    daemon.on("GET", "/v1/kits", struct(KitList([ROW, untagged, nameless])))
    out, _ = printed(capsys, *words)
    assert out == (
        "REPOSITORY   TAG      MAINTAINER   NAME     SIZE                DIGEST\n"
        f"r.io/kit     1        <none>       m        1.5 KiB             {DIGEST}\n"
        f"r.io/kit     two      <none>       m        1.5 KiB             {DIGEST}\n"
        f"x            <none>   me           <none>   1.5 KiB             {DIGEST}\n"
        f"<none>       <none>   me           <none>   1.5 KiB (partial)   {DIGEST}\n"
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
    daemon.on("DELETE", f"/v1/kits/{QUOTED}", struct(Removed(untagged=[], freed=9)))
    told = printed(capsys, "remove", REF)[1]
    assert told == f"kitctl: removed what was fetched of {REF}\nkitctl: 9 B freed\n"


def test_remove_all_tells_what_went_and_what_stays(daemon: ScriptedDaemon, capsys: Out) -> None:
    kits = [f"x@{DIGEST}", f"y@{DIGEST}"]
    removed = RemovedAll(removed=kits[:1], in_use=kits[1:], freed=2048)
    daemon.on("DELETE", "/v1/kits", struct(removed))
    daemon.on("DELETE", "/v1/kits?force=1", struct(RemovedAll(removed=[])))
    out, err = printed(capsys, "remove", "--all")
    assert (out, err.splitlines()) == (
        "",
        [
            f"kitctl: removed {kits[0]}",
            f"kitctl: {kits[1]} stays: 'kitctl path' gave it out; --force removes it too",
            "kitctl: 2.0 KiB freed",
        ],
    )
    assert printed(capsys, "remove", "-a", "-f") == ("", "kitctl: there is nothing to remove\n")
    out, err = printed(capsys, "remove", "-a", "--format=json", "-q")
    assert (msgspec.json.decode(out, type=RemovedAll), err) == (removed, "")


@pytest.mark.parametrize(
    ("words", "said"), [([], "a reference is needed, or --all"), (["-a", REF], "--all takes no reference")]
)
def test_remove_takes_a_reference_or_all(
    daemon: ScriptedDaemon, capsys: Out, words: list[str], said: str
) -> None:
    assert main(["remove", *words]) == 2
    assert f"kitctl: {said}\n" in capsys.readouterr().err
    assert not daemon.asked


# -- jobs and the daemon ----------------------------------------------------------------------------

JOB = JobInfo(
    id="j1", verb="pull", reference=REF, state="running", uid=0, started="2026-01-02", total=2048, done=1024
)


def test_jobs_are_a_table(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("GET", "/v1/jobs", struct(JobList([JOB])))
    out, _ = printed(capsys, "jobs")
    assert out == (
        "JOB   VERB   REFERENCE                         STATE     DONE                 STARTED      ERROR\n"
        f"j1    pull   {REF}   running   1.0 KiB of 2.0 KiB   2026-01-02\n"
    )
    assert [job["id"] for job in json.loads(printed(capsys, "jobs", "--format=json")[0])] == ["j1"]


def test_a_job_that_failed_says_why(daemon: ScriptedDaemon, capsys: Out) -> None:
    problem = NoSpace("no room for model weights: " + "x" * 200, kept="1 MiB", hint="free some").problem()
    failed = msgspec.structs.replace(JOB, state="failed", problem=problem)
    daemon.on("GET", "/v1/jobs", struct(JobList([failed])))
    _, row = printed(capsys, "jobs")[0].splitlines()
    assert "2026-01-02   no_space: no room for model weights: xxx" in row
    assert row.endswith("xxx...")
    assert len(row) < 200
    [job] = json.loads(printed(capsys, "jobs", "--format=json")[0])
    assert (job["problem"]["title"], job["problem"]["kept"]) == (problem.title, "1 MiB")


def test_attach_ends_as_the_job_does(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("GET", "/v1/jobs/j1", struct(JOB))
    daemon.on(
        "GET",
        "/v1/jobs/j1/events",
        events(Succeeded(PULLED)),
        events(Failed(NotFound("no such tag").problem())),
    )
    assert printed(capsys, "attach", "j1") == (f"{REF}@{DIGEST}\n", "kitctl: pulled 9 B\n")
    assert main(["attach", "j1"]) == 66


def test_cancel_asks_for_it(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("DELETE", "/v1/jobs/j1", struct(JOB, 202))
    assert "being cancelled" in printed(capsys, "cancel", "j1")[1]
    out, err = printed(capsys, "cancel", "j1", "--format=json", "-q")
    assert (msgspec.json.decode(out, type=JobInfo), err) == (JOB, "")


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
    assert capsys.readouterr().out == f"kitctl {__version__}\n"
    daemon.on("GET", "/v1/version", answer(200, b"{"))
    assert main(["version"]) == 69
