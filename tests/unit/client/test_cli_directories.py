import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.client.scripted_daemon import ScriptedDaemon, answer, problem, struct
from unit.client.test_cli import Out, printed
from unit.client.test_client import DIGEST, PULLED, REF, pulls
from unit.client.test_client_directories import workspace

from kitd_client.api.errors import NotFound, ObjectDamaged, ProtocolError, Unauthorized
from kitd_client.api.jobs import (
    Packed,
    PackedLayer,
    Succeeded,
    Unpacked,
)
from kitd_client.api.kits import (
    PathAnswer,
)
from kitd_client.api.workspace import End
from kitd_client.cli import INTERRUPTED, main
from kitd_client.transport import Transport

# -- directories ------------------------------------------------------------------------------------


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
    assert err == "kitctl: packed 1 layer, 9 B in less than a second; 1 were here\n"
    assert daemon.body("POST", "/v1/pack") == {
        "tags": ["kit:1", "kit:2"],
        "kitfile": "manifestVersion: 1.0.0\n",
        "compression": "gzip",
        "layer_format": "raw",
    }


def test_a_kitfile_is_looked_for_here_and_then_in_the_directory(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    tree, here = tmp_path / "tree", tmp_path / "here"
    for place in (tree, here):
        place.mkdir()
    monkeypatch.chdir(here)
    (tree / "K").write_text("# tree")
    for said in ("# tree", "# here"):
        daemon.on("POST", "/v1/pack", workspace(End(Succeeded(Packed(references=[], digest=DIGEST, size=9)))))
        printed(capsys, "pack", str(tree), "-f", "K")
        assert daemon.body("POST", "/v1/pack")["kitfile"] == said
        (here / "K").write_text("# here")


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_link_to_nowhere_is_no_directory_to_unpack_into(
    daemon: ScriptedDaemon, tmp_path: Path, capsys: Out, below: str
) -> None:
    link = tmp_path / "out"
    link.symlink_to("nowhere")
    assert main(["unpack", "kit:1", "-d", f"{link}{below}"]) == 73
    assert capsys.readouterr().err == (
        f"kitctl: cannot unpack into {link}{below}: {link} is a link to nowhere, which does not exist\n"
        "hint: make that directory, or name another one with -d\n"
    )
    assert not daemon.asked
    assert not (tmp_path / "nowhere").exists()


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
    body = {"reference": REF, "filters": ["code"]}
    assert daemon.body("POST", "/v1/unpack") == body


def test_path_prints_exactly_the_path(daemon: ScriptedDaemon, capsys: Out) -> None:
    daemon.on("POST", "/v1/path", struct(PathAnswer("/store/snapshots/x")))
    assert printed(capsys, "path", REF) == ("/store/snapshots/x\n", "")
    assert printed(capsys, "path", REF, "--format=json")[0] == '{"path":"/store/snapshots/x"}\n'


def test_path_of_an_absent_kit_pulls_and_still_prints_exactly_the_path(
    daemon: ScriptedDaemon, capsys: Out
) -> None:
    absent = problem(NotFound("not here"))
    daemon.on("POST", "/v1/path", absent, absent, struct(PathAnswer("/store/x")))
    pulls(daemon, Succeeded(PULLED))
    out, err = printed(capsys, "path", REF)
    assert out == "/store/x\n"
    assert err.count("pulling it first") == 1


def test_path_asks_once_when_the_kit_cannot_be_used(daemon: ScriptedDaemon, capsys: Out) -> None:
    damaged = ObjectDamaged("object x is missing", kept="everything else", hint="pull the kit again")
    daemon.on("POST", "/v1/path", problem(damaged))
    assert main(["path", REF]) == damaged.exit_code
    assert capsys.readouterr() == (
        "",
        "kitctl: object x is missing\nkept: everything else\nhint: pull the kit again\n",
    )
    assert len(daemon.asked_for("POST", "/v1/path")) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{}"])
def test_path_takes_no_answer_for_a_path_that_is_none(
    daemon: ScriptedDaemon, capsys: Out, body: bytes
) -> None:
    daemon.on("POST", "/v1/path", answer(200, body))
    assert main(["path", REF]) == ProtocolError.exit_code
    assert "cannot be understood" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["-f", "model"]])
def test_an_interrupted_path_says_so(capsys: Out, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    def interrupt(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(Transport, "call", interrupt)
    assert main(["path", REF, *flags]) == INTERRUPTED
    assert capsys.readouterr().err.startswith(f"kitctl: path {REF} was interrupted\n")


# -- login ------------------------------------------------------------------------------------------


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
    refusal = Unauthorized("r.io does not accept the credentials", hint="kitctl login r.io")
    daemon.on("POST", "/v1/check-registry", problem(refusal))
    stdin("secret")
    assert main(["login", "r.io", "-u", "me", "--password-stdin"]) == 77
    assert not (home / ".local").exists()
    assert capsys.readouterr().err == (
        "kitctl: r.io does not accept the credentials\n"
        "kept: the logins that were there; this one was not stored\n"
        "hint: check the user name and the password, then log in again\n"
    )


def test_logins_tell_programs_what_they_did(home: Path, stdin: Callable[[str], None], capsys: Out) -> None:
    stdin("token")
    file = home / "a"
    words = ["r.io", "-q", "--format=json", "--authfile", str(file)]
    out, err = printed(capsys, "login", "--password-stdin", "--no-verify", *words)
    assert (json.loads(out), err) == ({"registry": "r.io", "credential": str(file)}, "")
    for forgotten in (True, False):
        out, err = printed(capsys, "logout", *words)
        told = {"registry": "r.io", "credential": str(file), "forgotten": forgotten}
        assert (json.loads(out), err) == (told, "")


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
