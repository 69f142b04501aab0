"""The daemon as a process: how it starts, what it refuses, how it ends."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from fakes.daemon import clean_environment

from kitd_client.api.kits import Status, Version
from kitd_client.transport import Transport

SECONDS = 15.0


def _until(so: Callable[[], bool], what: str) -> None:
    """Another process tells nobody when it is so far."""
    deadline = time.monotonic() + SECONDS
    while not so():
        assert time.monotonic() < deadline, f"waited too long until {what}"
        time.sleep(0.02)  # noqa: TID251 - see above


class Daemon:
    """One `kitd` of a user whose home is `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = home / "run" / "kitd" / "kitd.sock"
        self.config = home / "config" / "kitd" / "kitd.toml"
        self.log = home / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        return clean_environment(self.home) | {"KITD_LOG__FORMAT": "text"}

    def start(self, *flags: str, **environ: str) -> "Daemon":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kitd", *flags], env=self.environ | environ, stdout=log, stderr=log
            )
        _until(
            lambda: self.process is None or self.process.poll() is not None or self.answers(), "it answers"
        )
        return self

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.socket))
        except OSError:
            return False
        return True

    def get(self, target: str) -> bytes:
        return Transport(str(self.socket), autostart=False, environ={}).call("GET", target)

    def text(self) -> str:
        return self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        assert self.process is not None
        return self.process.wait(SECONDS)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "run").mkdir(mode=0o700)
    found = Daemon(tmp_path)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.wait()


def _run(daemon: Daemon, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kitd", *flags],
        env=daemon.environ | environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_it_serves_until_it_is_told_to_end_and_leaves_no_socket(daemon: Daemon) -> None:
    daemon.start()
    version = msgspec.json.decode(daemon.get("/v1/version"), type=Version)
    status = msgspec.json.decode(daemon.get("/v1/status"), type=Status)
    assert daemon.process is not None
    assert version.pid == status.pid == daemon.process.pid
    assert status.store == str(daemon.home / "cache" / "kitd")
    assert status.socket == str(daemon.socket)
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 0
    assert list(daemon.socket.parent.iterdir()) == []


def test_a_second_daemon_names_the_first_and_changes_nothing(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.process is not None
    second = _run(daemon, "--socket", str(daemon.home / "other.sock"))
    assert second.returncode == 69
    assert str(daemon.process.pid) in second.stderr
    assert str(daemon.socket) in second.stderr
    third = _run(daemon, "--cache-dir", str(daemon.home / "other"))
    assert third.returncode == 69
    assert f"the daemon with pid {daemon.process.pid} answers there" in third.stderr
    assert daemon.answers()


def test_after_a_kill_the_next_daemon_takes_the_socket_over(daemon: Daemon) -> None:
    daemon.start()
    daemon.signal(signal.SIGKILL)
    daemon.ended()
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.get("/v1/healthz") == b"ok\n"


def test_a_wrong_configuration_ends_with_78_and_one_sentence(daemon: Daemon) -> None:
    daemon.config.parent.mkdir(parents=True)
    daemon.config.write_text("[transfer]\nmemroy = 1\n")
    done = _run(daemon)
    assert done.returncode == 78
    assert done.stderr == (
        f"kitd: {daemon.config}: unknown key transfer.memroy\n  hint: did you mean transfer.memory?\n"
    )
    done = _run(daemon, "--config", "/dev/null", "--registry", "0.0.0.0:5000")
    assert (done.returncode, "--registry: registry.listen" in done.stderr) == (78, True)
    assert _run(daemon, "--nonsense").returncode == 2
    assert _run(daemon, "--version").stdout.startswith("kitd ")


def test_a_socket_path_of_any_length(daemon: Daemon) -> None:
    daemon.socket = daemon.home / ("long" * 40) / "kitd.sock"
    daemon.process = subprocess.Popen(
        [sys.executable, "-m", "kitd", "--socket", str(daemon.socket)], env=daemon.environ
    )
    _until(daemon.socket.exists, "the socket is there")
    assert daemon.get("/v1/healthz") == b"ok\n"


def test_it_reads_its_configuration_again_and_rejects_a_bad_one(daemon: Daemon) -> None:
    daemon.config.parent.mkdir(parents=True)
    daemon.config.write_text("")
    daemon.start()
    daemon.signal(signal.SIGHUP)
    _until(lambda: "the configuration was read again" in daemon.text(), "it has read it")
    daemon.config.write_text("[log]\nlevel = 'loud'\n")
    _until(lambda: "the configuration is rejected" in daemon.text(), "it has seen the bad file")
    daemon.config.write_text("[log]\nlevel = 'debug'\n[transfer]\nmemory = '64MiB'\n")
    _until(lambda: "take effect at the next start: transfer.memory" in daemon.text(), "it takes the good one")
    assert daemon.get("/v1/healthz") == b"ok\n"


def test_it_ends_when_idle_and_not_before(daemon: Daemon) -> None:
    daemon.start("--idle", "600ms")
    for _ in range(6):
        time.sleep(0.2)  # noqa: TID251 - it is the passing of time that is tested
        daemon.get("/v1/healthz")
    assert daemon.ended() == 0
    assert "nothing to do for 0.6 s" in daemon.text()
    assert not daemon.socket.exists()


def test_it_ends_when_its_socket_is_gone_or_taken(daemon: Daemon) -> None:
    daemon.start()
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
        assert daemon.ended() == 0
        assert daemon.socket.exists()
    assert f"its socket {daemon.socket} is gone" in daemon.text()


@contextmanager
def _silent_registry() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _start_pull(daemon: Daemon, registry: str) -> str:
    body = {"reference": f"{registry}/a/b:c", "context": {"plain_http": True}}
    transport = Transport(str(daemon.socket), autostart=False, environ={})
    started = json.loads(transport.call("POST", "/v1/pull", json.dumps(body).encode()))
    return str(started["id"])


def test_running_jobs_end_with_daemon_stopping_and_their_followers_hear_it(daemon: Daemon) -> None:
    daemon.start()
    with _silent_registry() as registry:
        job = _start_pull(daemon, registry)
        transport = Transport(str(daemon.socket), autostart=False, environ={})
        lines = transport.lines(f"/v1/jobs/{job}/events")
        before = time.monotonic()
        _until(lambda: json.loads(daemon.get("/v1/status"))["jobs_running"] == 1, "the job runs")
        daemon.signal(signal.SIGTERM)
        events = [json.loads(line) for line in lines if line]
        assert daemon.ended() == 0
    assert events[-1]["event"] == "failed"
    assert events[-1]["problem"]["code"] == "daemon_stopping"
    assert time.monotonic() - before < 10
    daemon.start()
    with pytest.raises(Exception, match="ended when kitd was restarted"):
        daemon.get(f"/v1/jobs/{job}")


def test_a_daemon_with_work_is_not_idle(daemon: Daemon) -> None:
    daemon.start("--idle", "300ms")
    with _silent_registry() as registry:
        _start_pull(daemon, registry)
        time.sleep(1.2)  # noqa: TID251 - it is the passing of time that is tested
        assert daemon.answers()


@contextmanager
def _notify_socket(path: Path) -> Iterator[Callable[[str], None]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(SECONDS)

        def expect(assignment: str) -> None:
            while assignment not in listener.recv(4096).decode().split("\n"):
                pass

        yield expect


def test_systemd_is_told(daemon: Daemon) -> None:
    with _notify_socket(daemon.home / "notify") as expect:
        daemon.start(NOTIFY_SOCKET=str(daemon.home / "notify"), WATCHDOG_USEC="400000")
        expect("READY=1")
        expect("WATCHDOG=1")
        expect("STATUS=ready, 0 jobs running")
        expect("WATCHDOG=1")
        daemon.signal(signal.SIGHUP)
        expect("RELOADING=1")
        expect("READY=1")
        daemon.signal(signal.SIGTERM)
        expect("STOPPING=1")
        assert daemon.ended() == 0


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd-socket-activate")
def test_a_passed_socket_is_used_and_left_where_it_is(daemon: Daemon) -> None:
    activate = shutil.which("systemd-socket-activate")
    assert activate
    passed = daemon.home / "passed.sock"
    daemon.process = subprocess.Popen(
        [
            activate,
            "-l",
            str(passed),
            "--fdname=api",
            "-E",
            f"HOME={daemon.home}",
            sys.executable,
            "-m",
            "kitd",
        ],
        env=daemon.environ,
        stderr=subprocess.DEVNULL,
    )
    daemon.socket = passed
    _until(passed.exists, "it listens")
    status = msgspec.json.decode(daemon.get("/v1/status"), type=Status)
    assert (status.socket, status.pid) == (str(passed), daemon.process.pid)
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 0
    assert passed.exists()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd-socket-activate")
def test_a_passed_socket_of_an_unknown_name_is_refused(daemon: Daemon) -> None:
    activate = shutil.which("systemd-socket-activate")
    assert activate
    passed = daemon.home / "passed.sock"
    with subprocess.Popen(
        [activate, "-l", str(passed), "--fdname=web", sys.executable, "-m", "kitd"],
        env=daemon.environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _until(passed.exists, "it listens")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(passed))
            _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 78
    assert "systemd passed a socket named web" in said
