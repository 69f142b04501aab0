import shutil
import socket
from pathlib import Path

import pytest
from unit.client.scripted_daemon import ScriptedDaemon, answer, drop, problem

from kitd_client.api.errors import DaemonUnreachable, NoSpace, PermissionDenied, ProtocolError
from kitd_client.failures import silent, unusable
from kitd_client.paths import sockets
from kitd_client.transport import Transport


def test_without_settings_the_user_s_daemon_is_found(daemon: ScriptedDaemon) -> None:
    daemon.on("GET", "/v1/version", answer(200, b"hello"))
    assert Transport().call("GET", "/v1/version") == b"hello"


def test_the_socket_that_was_named_goes_before_the_usual_ones(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedDaemon(tmp_path / "a.sock") as first, ScriptedDaemon(tmp_path / "b.sock") as second:
        daemon.on("GET", "/", answer(200, b"usual"))
        first.on("GET", "/", answer(200, b"flag"))
        second.on("GET", "/", answer(200, b"environment"))
        monkeypatch.setenv("KITD_SOCKET", f"unix://{second.path}")
        assert Transport().call("GET", "/") == b"environment"
        assert Transport(str(first.path)).call("GET", "/") == b"flag"


def test_without_a_runtime_directory_the_socket_is_beside_the_cache() -> None:
    assert sockets({"HOME": "/home/u"})[0] == "/home/u/.cache/kitd/run/kitd.sock"
    assert sockets({"HOME": "/home/u", "XDG_RUNTIME_DIR": "relative"})[0] == (
        "/home/u/.cache/kitd/run/kitd.sock"
    )
    assert sockets({"XDG_RUNTIME_DIR": "/run/user/7"}) == (
        "/run/user/7/kitd/kitd.sock",
        "/run/kitd/kitd.sock",
    )


def test_a_daemon_that_just_ended_is_asked_once_more(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/tag", drop, answer(200, b"done"))
    assert Transport().call("POST", "/v1/tag", b"{}") == b"done"
    assert [asked.body for asked in daemon.asked] == [b"{}", b"{}"]


def test_a_daemon_that_stays_silent_is_not_asked_for_ever(daemon: ScriptedDaemon) -> None:
    daemon.on("GET", "/", drop)
    with pytest.raises(DaemonUnreachable, match="without an answer"):
        Transport().call("GET", "/")
    assert len(daemon.asked) == 2


@pytest.mark.parametrize("log", [True, False])
def test_a_daemon_that_stays_silent_has_a_log(daemon: ScriptedDaemon, home: Path, *, log: bool) -> None:
    path = home / ".local" / "state" / "kitd" / "kitd.log"
    if log:
        path.parent.mkdir(parents=True)
        path.touch()
    daemon.on("GET", "/", drop)
    with pytest.raises(DaemonUnreachable) as caught:
        Transport().call("GET", "/")
    assert caught.value.hint == f"look into its log{f' {path}' if log else ''}, then try again"


def test_the_log_of_the_system_s_daemon_is_in_the_journal() -> None:
    assert "journalctl -u kitd" in str(silent("/run/kitd/kitd.sock", {}).hint)


# -- another store than the one that was named ------------------------------------------------------


def test_a_store_that_is_not_the_daemons_is_warned_of_once(
    daemon: ScriptedDaemon, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.on("GET", "/", answer(200, b"hello"))
    daemon.on("GET", "/v1/status", answer(200, b'{"store":"/var/cache/kitd"}'))
    monkeypatch.setenv("KITD_CACHE_DIR", str(home / "big"))
    said: list[str] = []
    transport = Transport(notice=said.append)
    assert transport.call("GET", "/") == transport.call("GET", "/") == b"hello"
    [line] = said
    assert line.startswith("warning: KITD_CACHE_DIR ")
    assert f"{home}/big" in line
    assert "/var/cache/kitd" in line
    assert str(daemon.path) in line


@pytest.mark.parametrize("how", ["by its lock", "by asking", "it does not tell", "unset"])
def test_nothing_is_said_of_the_daemons_own_store(
    daemon: ScriptedDaemon, home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store = home / "store"
    store.mkdir()
    daemon.on("GET", "/", answer(200, b"hello"))
    if how == "by its lock":
        (store / "lock").write_text(f"77\n{daemon.path}\n")
    elif how != "it does not tell":
        daemon.on("GET", "/v1/status", answer(200, f'{{"store":"{store}"}}'.encode()))
    (home / "link").symlink_to(store)
    if how != "unset":
        monkeypatch.setenv("KITD_CACHE_DIR", str(home / "link"))
    said: list[str] = []
    assert Transport(notice=said.append).call("GET", "/") == b"hello"
    assert said == []
    assert len(daemon.asked_for("GET", "/v1/status")) == (how in {"by asking", "it does not tell"})


def test_an_answer_that_breaks_off_is_not_asked_for_again(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/v1/tag", answer(200, b"0123456789")[:-3])
    with pytest.raises(ProtocolError, match="broke off"):
        Transport().call("POST", "/v1/tag", b"{}")
    assert len(daemon.asked) == 1


def test_the_daemon_s_error_is_raised_as_what_it_is(daemon: ScriptedDaemon) -> None:
    daemon.on(
        "GET", "/", problem(NoSpace("no space for x", kept="all of y", hint="free some", needed=7, free=1))
    )
    with pytest.raises(NoSpace) as caught:
        Transport().call("GET", "/")
    error = caught.value
    assert (error.message, error.kept, error.hint) == ("no space for x", "all of y", "free some")
    assert error.detail == {"needed": 7, "free": 1}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        pytest.param(answer(200, b"<html>", head=""), "is no kitd", id="another program"),
        pytest.param(
            answer(200, b"{}", head="Kitd-Api-Version: 2\r\n"), "speaks version 2", id="another version"
        ),
        pytest.param(answer(500, b"oops"), "status 500", id="no problem document"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP/1.1", id="another protocol"),
    ],
)
def test_what_is_not_understood_is_a_protocol_error(daemon: ScriptedDaemon, reply: bytes, said: str) -> None:
    daemon.on("GET", "/", reply)
    with pytest.raises(ProtocolError, match=said):
        Transport().call("GET", "/")


def test_without_a_daemon_the_message_says_the_command(home: Path) -> None:
    with pytest.raises(DaemonUnreachable) as caught:
        Transport(autostart=False).call("GET", "/")
    assert caught.value.hint == "start it with 'kitd'"
    assert str(home / "run" / "kitd" / "kitd.sock") in caught.value.message


def test_a_daemon_whose_socket_was_named_is_never_started(home: Path) -> None:
    path = str(home / "mine.sock")
    with pytest.raises(DaemonUnreachable) as caught:
        Transport(path).call("GET", "/")
    assert caught.value.hint == f"start it with 'KITD_SOCKET={path} kitd'"


def test_the_system_s_daemon_is_started_by_systemd(home: Path) -> None:
    with pytest.raises(DaemonUnreachable) as caught:
        Transport("/run/kitd/kitd.sock").call("GET", "/")
    assert caught.value.hint == "start it with 'sudo systemctl start kitd.socket'"


def test_a_socket_file_that_outlived_its_daemon_is_no_daemon(home: Path) -> None:
    path = home / "run" / "kitd" / "kitd.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(DaemonUnreachable):
        Transport(autostart=False).call("GET", "/")


def test_who_is_not_in_the_group_is_told_how_to_get_in() -> None:
    error = unusable("/run/kitd/kitd.sock", PermissionError(13, "Permission denied"))
    assert isinstance(error, PermissionDenied)
    assert "usermod -aG kitd" in str(error.hint)


@pytest.mark.root
@pytest.mark.parametrize(("mode", "hint"), [(0o660, "usermod -aG users $USER"), (0o600, "only its owner")])
def test_a_socket_elsewhere_says_whose_it_is(tmp_path: Path, mode: int, hint: str) -> None:
    path = tmp_path / "kitd.sock"
    path.touch()
    path.chmod(mode)
    shutil.chown(path, group="users")
    assert hint in str(unusable(str(path), PermissionError(13, "Permission denied")).hint)
