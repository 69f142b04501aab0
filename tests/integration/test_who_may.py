"""Who may talk to a daemon: real processes of several users."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.daemon import Daemon
from fakes.tools import need_root, need_tool

DAEMON, MEMBER, STRANGER, GROUP = 64001, 64002, 64003, 100
"""The group is `users`, which every Debian has."""

pytestmark = pytest.mark.root


@pytest.fixture
def places() -> Iterator[Path]:
    """The daemon's home, where other users can reach it: what is below `tmp_path` is closed to them."""
    need_root()
    need_tool("setpriv")
    with tempfile.TemporaryDirectory(prefix="kitd-") as top:
        home = Path(top)
        home.chmod(0o755)
        os.chown(home, DAEMON, DAEMON)
        yield home


def _as(uid: int, *, groups: str = "") -> list[str]:
    chosen = [f"--groups={groups}"] if groups else ["--clear-groups"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", *chosen, "--inh-caps=-all", "--bounding-set=-all"]


def _daemon(home: Path, config: str) -> Daemon:
    (home / "kitd.toml").write_text(config)
    daemon = Daemon(
        home, arguments=["--config", str(home / "kitd.toml")], wrapper=_as(DAEMON, groups=str(GROUP))
    )
    for directory in (daemon.socket.parent, home / "run", home / "cache", home / "config"):
        os.chown(directory, DAEMON, DAEMON)
    daemon.socket.parent.chmod(0o755)
    return daemon


def _ask(
    socket: Path, wrapper: list[str], method: str, target: str, body: object = None
) -> tuple[int, object]:
    """A request by another process; status 0: it cannot even connect."""
    command = [
        *wrapper,
        need_tool("curl"),
        "-s",
        "--unix-socket",
        str(socket),
        "-X",
        method,
        "-w",
        "\n%{http_code}",
    ]
    if body is not None:
        command += ["-d", json.dumps(body)]
    done = subprocess.run([*command, f"http://kitd{target}"], capture_output=True, text=True, check=False)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text) if text.startswith("{") else text


def test_a_users_daemon_serves_him_and_root_alone(places: Path) -> None:
    with _daemon(places, "[daemon]\nsocket_mode = '0666'\n") as daemon:
        assert _ask(daemon.socket, _as(DAEMON), "GET", "/v1/version")[0] == 200
        assert _ask(daemon.socket, [], "GET", "/v1/version")[0] == 200
        status, problem = _ask(daemon.socket, _as(STRANGER), "GET", "/v1/version")
        assert (status, problem["code"]) == (403, "permission_denied")  # type: ignore[index]


def test_a_users_socket_is_closed_to_others(places: Path) -> None:
    with _daemon(places, "") as daemon:
        assert _ask(daemon.socket, _as(STRANGER), "GET", "/v1/version")[0] == 0


def test_a_group_shares_the_kits_and_not_the_jobs(places: Path) -> None:
    with _daemon(places, "[daemon]\nsocket_group = 'users'\n") as daemon:
        member, other = _as(MEMBER, groups=str(GROUP)), _as(STRANGER, groups=str(GROUP))
        assert _ask(daemon.socket, _as(STRANGER), "GET", "/v1/version")[0] == 0
        assert _ask(daemon.socket, member, "GET", "/v1/kits")[0] == 200
        _, started = _ask(daemon.socket, member, "POST", "/v1/pull", {"reference": "reg.invalid/x:1"})
        job = f"/v1/jobs/{started['id']}"  # type: ignore[index]
        assert _ask(daemon.socket, member, "GET", job)[0] == 200
        assert _ask(daemon.socket, [], "GET", job)[0] == 200
        for method, target in (("GET", job), ("GET", f"{job}/events"), ("DELETE", job)):
            assert _ask(daemon.socket, other, method, target)[0] == 404
        assert _ask(daemon.socket, other, "GET", "/v1/jobs")[1] == {"jobs": []}
