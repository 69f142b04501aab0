"""`kitctl` in a terminal of its own, synchronised on what it writes."""

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.client.scripted_daemon import HEAD, STREAM, ScriptedDaemon, answer, chunk, struct
from unit.client.test_client import DIGEST, PULLED, REF

from kitd_client.api.jobs import Began, CancelledEvent, JobInfo, JobStarted, Moved, Succeeded
from kitd_client.api.workspace import Hello, encode_frame

_START = """
import os, sys
os.open(sys.argv.pop(1), os.O_RDWR)  # a session's leader takes the first terminal it opens
from kitd_client.cli import main
sys.exit(main())
"""
CTRL_C = b"\x03"
BEGUN = chunk(Began("model weights", 10 << 20, 0))
MOVED = chunk(Moved("model weights", "r.io", 6 << 20))


class Terminal:
    """A terminal of 80 columns in which one command runs; its standard output is a pipe."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, os.ttyname(theirs), *words],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"},
        )
        os.close(theirs)

    def until(self, text: str) -> None:
        """Reads until the text was written."""
        while text.encode() not in self.shown:
            self.shown += os.read(self._ours, 65536)

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def end(self) -> tuple[int, str, str]:
        """Status, standard output, and all that the terminal was sent."""
        try:
            while piece := os.read(self._ours, 65536):
                self.shown += piece
        except OSError:
            pass  # the last process has closed it
        output, _ = self.process.communicate()
        return self.process.returncode, output.decode(), self.shown.decode().replace("\r\n", "\n")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        os.close(self._ours)


class Scene:
    """A pull that has begun and waits for what the test decides."""

    def __init__(self, daemon: ScriptedDaemon) -> None:
        self.daemon = daemon
        self.cancelled = threading.Event()
        self.released = threading.Event()
        self.left = threading.Event()
        self.last = Succeeded(PULLED)
        self.terminals: list[Terminal] = []
        daemon.on("POST", "/v1/pull", struct(JobStarted("j1"), 202))
        daemon.on("GET", "/v1/jobs/j1/events", self._stream)
        daemon.on("DELETE", "/v1/jobs/j1", self._cancel)

    def run(self, *words: str) -> Terminal:
        terminal = Terminal(*words)
        self.terminals.append(terminal)
        return terminal

    def _stream(self, connection: socket.socket) -> None:
        connection.sendall(STREAM + BEGUN)
        while not self.released.wait(0.05):
            connection.sendall(MOVED)
        last = CancelledEvent("6.0 MiB of 10.0 MiB") if self.cancelled.is_set() else self.last
        connection.sendall(chunk(last) + b"0\r\n\r\n")

    def _cancel(self, connection: socket.socket) -> None:
        connection.sendall(answer(202, b"{}"))
        self.cancelled.set()

    def workspace(self, connection: socket.socket) -> None:
        head = f"HTTP/1.1 101 Switching\r\n{HEAD}Upgrade: kitd-workspace/1\r\n\r\n"
        try:
            connection.sendall(head.encode() + encode_frame(Hello(1)))
            while connection.recv(65536):
                pass
        finally:
            self.left.set()


@pytest.fixture
def scene(daemon: ScriptedDaemon) -> Iterator[Scene]:
    scene = Scene(daemon)
    yield scene
    scene.released.set()
    for terminal in scene.terminals:
        terminal.close()


def test_bars_come_and_go_and_the_data_is_on_standard_output(scene: Scene) -> None:
    terminal = scene.run("pull", REF)
    terminal.until("r.io")
    scene.released.set()
    status, output, shown = terminal.end()
    assert (status, output) == (0, f"{REF}@{DIGEST}\n")
    assert " 60 %  6.0 MiB of 10.0 MiB" in shown
    assert "\x1b[Jkitctl: pulled 9 B in " in shown


def test_the_first_interrupt_cancels_a_pull_and_tells_what_is_kept(scene: Scene) -> None:
    terminal = scene.run("pull", REF)
    terminal.until("r.io")
    terminal.press(CTRL_C)
    assert scene.cancelled.wait(30)
    scene.released.set()
    status, output, shown = terminal.end()
    assert (status, output) == (130, "")
    assert shown.endswith(
        f"kitctl: pull {REF} was cancelled\n"
        "kept: 6.0 MiB of 10.0 MiB\n"
        f"hint: 'kitctl pull {REF}' goes on from there, 'kitctl pull --detach {REF}' in the background\n"
    )
    assert len(scene.daemon.asked_for("DELETE", "/v1/jobs/j1")) == 1


def test_the_second_interrupt_leaves_at_once(scene: Scene) -> None:
    terminal = scene.run("pull", REF)
    terminal.until("r.io")
    terminal.press(CTRL_C)
    assert scene.cancelled.wait(30)
    terminal.press(CTRL_C)
    status, output, _ = terminal.end()
    assert (status, output) == (130, "")
    assert not scene.released.is_set()


def test_an_interrupt_detaches_from_a_job_that_was_attached_to(scene: Scene) -> None:
    job = JobInfo(id="j1", verb="pull", reference=REF, state="running", uid=0, started="", total=1, done=0)
    scene.daemon.on("GET", "/v1/jobs/j1", struct(job))
    terminal = scene.run("attach", "j1")
    terminal.until("r.io")
    terminal.press(CTRL_C)
    status, output, shown = terminal.end()
    assert (status, output) == (130, "")
    assert "goes on in the daemon" in shown
    assert "kitctl cancel j1" in shown
    assert not scene.daemon.asked_for("DELETE", "/v1/jobs/j1")


@pytest.mark.parametrize("verb", ["pack", "unpack"])
def test_an_interrupt_ends_the_connection_of_a_workspace(scene: Scene, tmp_path: Path, verb: str) -> None:
    scene.daemon.on("POST", f"/v1/{verb}", scene.workspace)
    subject = str(tmp_path) if verb == "pack" else "kit:1"
    terminal = scene.run(verb, subject, *([] if verb == "pack" else ["-d", str(tmp_path)]))
    scene.daemon.wait_for(f"/v1/{verb}")
    terminal.press(CTRL_C)
    status, output, shown = terminal.end()
    assert (status, output) == (130, "")
    assert f"kitctl: {verb} {subject} was interrupted\n" in shown
    assert scene.left.wait(30)


def test_an_interrupt_while_unpack_pulls_cancels_the_pull(scene: Scene, tmp_path: Path) -> None:
    lacking = b'{"code":"kit_incomplete","title":"lacks a layer","status":409}'
    scene.daemon.on("POST", "/v1/unpack", answer(409, lacking))
    terminal = scene.run("unpack", REF, "-d", str(tmp_path))
    terminal.until("r.io")
    terminal.press(CTRL_C)
    assert scene.cancelled.wait(30)
    scene.released.set()
    assert terminal.end()[0] == 130
    assert len(scene.daemon.asked_for("POST", "/v1/unpack")) == 1


def test_where_interrupts_are_ignored_they_stay_ignored(scene: Scene) -> None:
    script = f"trap '' INT; exec {sys.executable} -c 'from kitd_client.cli import main; main()' pull {REF}"
    process = subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ
    )
    scene.daemon.wait_for("/v1/jobs/j1/events")
    process.send_signal(signal.SIGINT)
    scene.released.set()
    output, _ = process.communicate(timeout=30)
    assert output.decode() == f"{REF}@{DIGEST}\n"


def test_a_login_asks_for_what_is_missing(scene: Scene, home: Path) -> None:
    terminal = scene.run("login", "r.io", "--no-verify")
    terminal.until("Username: ")
    terminal.press(b"me\n")
    terminal.until("Password: ")
    terminal.press(b"secret\n")
    status, _, shown = terminal.end()
    assert status == 0
    assert "secret" not in shown
    assert "bWU6c2VjcmV0" in (home / ".local/share/kitops/credentials.json").read_text()
