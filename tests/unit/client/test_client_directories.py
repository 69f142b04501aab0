import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.client.scripted_daemon import (
    HEAD,
    ScriptedDaemon,
    drop,
    problem,
    struct,
)
from unit.client.test_client import DIGEST, PULLED, REF, pulls

from kitd_client import Client
from kitd_client.api.errors import (
    ConfigurationInvalid,
    DaemonUnreachable,
    KitIncomplete,
    NotFound,
    ProtocolError,
    SourceUnreadable,
)
from kitd_client.api.jobs import (
    Event,
    Failed,
    Moved,
    Packed,
    Succeeded,
    Unpacked,
)
from kitd_client.api.kits import PathAnswer
from kitd_client.api.workspace import End, EventFrame, Hello, Publish, encode_frame


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
    assert daemon.body("POST", "/v1/unpack") == {"reference": REF, "filters": ["docs"]}


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


def test_a_pack_in_the_backlog_of_a_daemon_that_ended_is_asked_again(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    packed = Packed(references=[], digest=DIGEST, size=0)
    daemon.on("POST", "/v1/pack", drop, workspace(End(Succeeded(packed))))
    assert Client().pack(tmp_path) == packed
