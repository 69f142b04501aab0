import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from unit.client.scripted_daemon import ScriptedDaemon, events, struct
from unit.client.test_client import DIGEST, PULLED, REF, pulls

from kitd.spec.filters import FILTER_TYPES
from kitd_client import __version__
from kitd_client.api.errors import NoSpace, Unauthorized
from kitd_client.api.jobs import (
    Began,
    CancelledEvent,
    Failed,
    JobStarted,
    Pulled,
    Pushed,
    Succeeded,
    Warned,
)
from kitd_client.api.kits import (
    KitList,
    Version,
)
from kitd_client.cli import COMMANDS, main

Out = pytest.CaptureFixture[str]


def printed(capsys: Out, *words: str) -> tuple[str, str]:
    """Standard output and error of a command that succeeds."""
    assert main(words) == 0
    got = capsys.readouterr()
    return got.out, got.err


# -- transfers --------------------------------------------------------------------------------------


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


# -- errors -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("failure", "status"),
    [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)],
)
def test_what_the_machine_does_to_a_command_is_its_status(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out, failure: BaseException, status: int
) -> None:
    def fail() -> int:
        raise failure

    monkeypatch.setattr("kitd_client.cli.listing.show_kits", fail)
    assert main(["list"]) == status


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        pytest.param(">&-", 0, "kitctl: no daemon answers at", id="closed"),
        pytest.param(">&- 2>&- <&-", 0, "", id="all closed"),
        pytest.param(
            ">/dev/full",
            73,
            "hint: send the answer where there is space, then run the command again",
            id="full",
        ),
    ],
)
def test_an_output_that_takes_nothing_is_no_traceback(
    home: Path, redirection: str, status: int, said: str
) -> None:
    program = "import sys; from kitd_client.cli import main; sys.exit(main())"
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", program, "version"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=50, check=False)
    assert done.returncode == status
    assert ("".join(done.stderr.splitlines()[-1:])).startswith(said)
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("mode", ["plain", "json"])
@pytest.mark.parametrize("stderr", ["full", "closed"])
def test_a_pull_goes_on_when_nobody_hears_of_it(
    daemon: ScriptedDaemon, capfd: pytest.CaptureFixture[str], mode: str, stderr: str
) -> None:
    daemon.on("POST", "/v1/pull", struct(JobStarted("j1"), 202))
    warnings = [Warned(f"warning number {number}") for number in range(500)]
    daemon.on("GET", "/v1/jobs/j1/events", events(Began("a", 9, 0), *warnings, Succeeded(PULLED)))
    program = "import sys; from kitd_client.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "pull", "--progress", mode, REF]
    if stderr == "full":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=target, text=True, timeout=50, check=False
        )
    finally:
        os.close(target)
    assert (done.returncode, done.stdout) == (0, f"{REF}@{DIGEST}\n")
    assert not daemon.asked_for("DELETE", "/v1/jobs/j1")


def test_an_answer_that_is_lost_does_not_hide_what_was_done(daemon: ScriptedDaemon) -> None:
    pulls(daemon, Succeeded(PULLED))
    program = "import sys; from kitd_client.cli import main; sys.exit(main())"
    with open("/dev/full", "w") as full:  # noqa: PTH123 -- a device
        done = subprocess.run(
            [sys.executable, "-c", program, "pull", REF],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.returncode == 73
    assert done.stderr == (
        "kitctl: cannot write to standard output: No space left on device\n"
        "kept: what the command did; only its answer is lost\n"
        "hint: send the answer where there is space, then run the command again\n"
    )


def test_the_help_shows_flags_as_they_are_written(capsys: Out) -> None:
    with pytest.raises(SystemExit):
        main(["pull", "--help"])
    out = capsys.readouterr().out
    assert "[--tls-verify[=BOOL]]" in out
    assert re.search(r"^  --tls-verify\[=BOOL\]\s+verify certificates", out, re.MULTILINE)
    assert all(name in out for name in FILTER_TYPES)


def test_a_bug_is_not_dressed_up_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("kitd_client.cli.listing.show_kits", fail)
    with pytest.raises(ZeroDivisionError):
        main(["list"])
