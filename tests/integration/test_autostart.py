"""A user without a daemon: kitctl starts one, finds one, or says why not. Real processes on both sides."""

import ctypes
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest
from fakes.daemon import Daemon, clean_environment
from fakes.figures import Figures
from fakes.kits import put_kit, small_kit
from fakes.registry import ScriptedRegistry

from kitd_client import autostart
from kitd_client.api.kits import Status, Version
from kitd_client.transport import Transport

SECONDS = 40.0
KITCTL = ["-c", "import sys; from kitd_client.cli import main; sys.exit(main())"]
HEAD = "REPOSITORY"
"""Of the table that `kitctl list` prints."""
Done = subprocess.CompletedProcess[str]


class User:
    """A home, and every process that lives in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = home / "cache" / "kitd"
        self.socket = home / "run" / "kitd" / "kitd.sock"
        self.config = home / "config" / "kitd" / "kitd.toml"
        self.log = home / ".local" / "state" / "kitd" / "kitd.log"
        for directory in (home, home / "run", home / "bin", self.config.parent):
            directory.mkdir(parents=True, exist_ok=True)
        for name, words in (("kitd", ["-m", "kitd"]), ("kitctl", KITCTL)):
            program = home / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n')
            program.chmod(0o755)
        clean = clean_environment(home)
        self.environment = clean | {
            "KITD_LOG__FORMAT": "text",
            "PATH": f"{home / 'bin'}:{clean['PATH']}",
        }

    def run(
        self,
        words: Sequence[str | Path],
        environ: Mapping[str, str] = MappingProxyType({}),
        *,
        pass_fds: Sequence[int] = (),
    ) -> Done:
        return subprocess.run(
            list(map(str, words)),
            env=self.environment | dict(environ),
            cwd=self.home,
            capture_output=True,
            pass_fds=pass_fds,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def kitctl(self, *words: str | Path, **environ: str) -> Done:
        return self.run([sys.executable, *KITCTL, *words], environ)

    @contextmanager
    def kitd(self, *flags: str, **environ: str) -> Iterator[Daemon]:
        """A daemon of this home that was started by hand."""
        own = {"KITD_SOCKET": "", "KITD_CACHE_DIR": "", "KITD_LOG__FORMAT": "text"}
        with Daemon(self.home, environment=own | environ, arguments=flags) as daemon:
            yield daemon

    def status(self) -> Status:
        """Of the daemon that `kitctl` finds; it is told to start none."""
        done = self.kitctl("status", "--format", "json")
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout, type=Status)

    def daemons(self) -> list[int]:
        """The processes that are a kitd of this home."""
        return [pid for pid, words in self._processes() if b"\0-m\0kitd\0" in words]

    def end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid, _ in self._processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                    wait_end(pid)

    def _processes(self) -> Iterator[tuple[int, bytes]]:
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if (
                    entry.name.isdigit()
                    and f"HOME={self.home}\0".encode() in (entry / "environ").read_bytes()
                ):
                    yield int(entry.name), (entry / "cmdline").read_bytes()


def wait_end(pid: int, within: float = SECONDS / 2) -> bool:
    """Whether a process ended meanwhile."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], within)[0])
    finally:
        os.close(pidfd)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    found = User(tmp_path / "home")
    yield found
    found.end_all()
    assert found.daemons() == []


def started(done: Done) -> int:
    """The process that this kitctl says it has started, in its one line."""
    [line] = done.stderr.splitlines()
    match = re.fullmatch(
        r"kitctl: started kitd \(pid (\d+), by default it ends after 15m without work; log: .*\)", line
    )
    assert match, line
    return int(match[1])


# -- the first command ---------------------------------------------------------------------------


def test_the_first_command_starts_a_daemon_and_later_ones_use_it(user: User) -> None:
    first = user.kitctl("list")
    assert (first.returncode, first.stdout.split()[0]) == (0, HEAD), first.stderr
    pid = started(first)
    second = user.kitctl("list")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    status = user.status()
    assert (status.pid, status.mode, status.socket) == (pid, "user", str(user.socket))
    assert status.store == str(user.store)
    assert user.daemons() == [pid]


def test_the_daemon_has_nothing_of_its_callers_terminal(user: User) -> None:
    reader, writer = os.pipe()
    try:
        done = user.run([sys.executable, *KITCTL, "list"], pass_fds=[writer])
    finally:
        os.close(writer)
    process = Path("/proc", str(started(done)))
    links = {entry.name: str(entry.readlink()) for entry in (process / "fd").iterdir()}
    assert [links[number] for number in "012"] == ["/dev/null", str(user.log), str(user.log)]
    assert str((process / "cwd").readlink()) == "/"
    assert os.getsid(int(process.name)) == os.getpgid(int(process.name)) == int(process.name)
    # Nobody holds the caller's pipe any more.
    assert select.select([reader], [], [], SECONDS)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert f"serves {user.store} at {user.socket}" in user.log.read_text()
    assert user.log.parent.stat().st_mode & 0o077 == 0
    assert str(user.log) in done.stderr


def test_a_command_substitution_with_pipes_comes_back(user: User) -> None:
    script = 'kits=$(kitctl list 2>&1 | cat); kitctl list | tail -n +2 | wc -l; echo "$kits" | head -1'
    done = user.run(["sh", "-c", f"{script}; kitctl status | grep mode"])
    count, story, mode = done.stdout.splitlines()
    assert (count.strip(), mode.split()[1]) == ("0", "user")
    assert story.startswith("kitctl: started kitd")
    assert len(user.daemons()) == 1


def test_eight_first_commands_at_once_have_one_daemon(user: User) -> None:
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: user.kitctl("list"), range(8)))
    assert [(done.returncode, done.stdout[: len(HEAD)]) for done in ends] == [(0, HEAD)] * 8, ends
    stories = [line for done in ends for line in done.stderr.splitlines()]
    starts = [line for line in stories if line.startswith("kitctl: started kitd")]
    finds = [line for line in stories if line.startswith("kitctl: found kitd just started by another")]
    assert len(starts) == 1
    assert len(stories) == len(starts) + len(finds)
    pid = user.status().pid
    assert all(f"pid {pid}," in line for line in stories)
    for other in user.daemons():
        assert other == pid or wait_end(other)
    assert user.daemons() == [pid]


def test_a_runtime_directory_with_a_long_path(user: User) -> None:
    runtime = user.home / ("long-" * 30)
    runtime.mkdir(mode=0o700)
    assert len(str(runtime)) > 107
    done = user.kitctl("list", XDG_RUNTIME_DIR=str(runtime))
    assert (done.returncode, done.stdout[: len(HEAD)]) == (0, HEAD), done.stderr
    again = user.kitctl("list", XDG_RUNTIME_DIR=str(runtime))
    assert (again.returncode, again.stderr) == (0, "")
    assert (runtime / "kitd" / "kitd.sock").is_socket()
    assert user.daemons() == [started(done)]


def test_without_a_runtime_directory_the_cache_has_the_socket(user: User) -> None:
    del user.environment["XDG_RUNTIME_DIR"]
    done = user.kitctl("list")
    assert done.returncode == 0, done.stderr
    assert user.status().socket == str(user.store / "run" / "kitd.sock")
    assert user.daemons() == [started(done)]


# -- not unasked ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--no-autostart"], ""), (["--socket", "{}"], ""), (["--socket", "unix://{}"], ""), ([], "{}")],
    ids=["--no-autostart", "--socket", "--socket unix://", "KITD_SOCKET"],
)
def test_no_daemon_is_started_unasked_and_the_command_that_is_named_starts_one(
    user: User, words: list[str], named: str
) -> None:
    other = str(user.home / "other dir" / "its.sock")
    words = ["list", *(word.format(other) for word in words)]
    environ = {"KITD_SOCKET": named.format(other)}
    done = user.kitctl(*words, **environ)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("kitctl: no daemon answers at ")
    assert not user.store.exists()
    found = re.search(r"^hint: start it with '(.*)'$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    background = f"exec setsid sh -c {shlex.quote(found[1])} >log 2>&1 </dev/null & echo $!"
    assert user.run(["sh", "-c", background]).returncode == 0
    _wait_log(user.home / "log", "serves ")
    done = user.kitctl(*words, **environ)
    assert (done.returncode, done.stderr) == (0, "")


def _wait_log(path: Path, text: str) -> None:
    """A file cannot be waited for; `tail` can, and its output is a pipe."""
    with subprocess.Popen(["tail", "-F", "-n", "+1", path], stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout
        try:
            while select.select([tail.stdout], [], [], SECONDS)[0]:
                line = tail.stdout.readline()
                if text in line:
                    return
            raise AssertionError(f"no {text!r} in {path}")
        finally:
            tail.kill()


@pytest.mark.parametrize("words", [["status"], ["jobs"], ["attach", "1"], ["cancel", "1"]])
def test_commands_about_what_runs_start_nothing(user: User, words: list[str]) -> None:
    done = user.kitctl(*words)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.endswith("hint: start it with 'kitd'\n")
    assert not user.store.exists()


def test_version_needs_no_daemon(user: User) -> None:
    done = user.kitctl("version")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert "no daemon answers at" in done.stderr
    assert not user.store.exists()


# -- the end and the next beginning --------------------------------------------------------------


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_an_idle_daemon_ends_without_a_trace_and_the_next_command_starts_another(
    user: User, way: str
) -> None:
    flags, environ = (["--idle", "300ms"], {}) if way == "flag" else ([], {"KITD_DAEMON__IDLE": "300ms"})
    with user.kitd(*flags, **environ) as daemon:
        assert user.kitctl("list", "--no-autostart").returncode == 0
        assert daemon.wait() == 0
        daemon.start()
        assert daemon.wait() == 0
    assert list(user.socket.parent.iterdir()) == []
    assert (user.store / "lock").read_bytes() == b""
    assert user.kitctl("list").returncode == 0


def test_the_idle_time_of_the_configuration_goes_before_the_one_kitctl_starts_with(user: User) -> None:
    user.config.write_text('[daemon]\nidle = "300ms"\n')
    assert wait_end(started(user.kitctl("list")))
    assert "nothing to do for 0.3 s" in user.log.read_text()


@pytest.mark.parametrize(("words", "status"), [(["list"], 0), (["path", "not/here:v1"], 66)])
def test_a_store_that_was_named_after_the_start_is_warned_of_once(
    user: User, words: list[str], status: int
) -> None:
    started(user.kitctl("list"))
    done = user.kitctl(*words, KITD_CACHE_DIR="elsewhere")
    assert done.returncode == status
    [line] = [each for each in done.stderr.splitlines() if "warning" in each]
    assert line.startswith(f"kitctl: warning: KITD_CACHE_DIR is {user.home}/elsewhere, but the daemon at ")
    assert line.endswith(f"its store {user.store} is used")
    assert len(user.daemons()) == 1


def test_when_the_socket_is_lost_the_daemon_ends_and_the_next_command_works(user: User) -> None:
    pid = started(user.kitctl("list"))
    user.socket.unlink()
    # The daemon has not noticed yet: it still has the store.
    done = user.kitctl("list")
    assert (done.returncode, done.stdout[: len(HEAD)]) == (0, HEAD), done.stderr
    assert wait_end(pid)
    assert user.daemons() == [started(done)] != [pid]


def test_after_a_kill_the_next_command_works(user: User) -> None:
    pid = started(user.kitctl("list"))
    os.kill(pid, signal.SIGKILL)
    assert wait_end(pid)
    done = user.kitctl("list")
    assert done.returncode == 0, done.stderr
    assert started(done) != pid


def test_a_daemon_at_another_socket_is_found_by_the_lock_of_the_store(
    user: User, threaded_registry: ScriptedRegistry
) -> None:
    put_kit(threaded_registry, small_kit(), "team/kit")
    elsewhere = user.home / "elsewhere.sock"
    with user.kitd("--socket", str(elsewhere)) as daemon:
        done = user.kitctl("pull", "-q", f"{threaded_registry.host}/team/kit:v1")
        assert (done.returncode, done.stderr) == (0, "")
        done = user.kitctl("list", "--no-autostart")
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 2)
        assert user.status().pid == daemon.pid
        assert user.daemons() == [daemon.pid]
        assert not user.socket.exists()
        assert not user.log.exists()


ROUND_THE_END = "calls around an idle exit"
BEFORE = [0.29 + 0.01 * step for step in range(10)]
"""Seconds after a call: a daemon with 300 ms of patience takes its name away sooner or later."""
AFTER = [0.0, 0.05, 0.1, 0.15, 0.19, 0.2, 0.21, 0.23, 0.25, 0.3]
"""Seconds after the name was taken away: for 200 ms the daemon looks who came, then it ends."""


@contextmanager
def name_watch(directory: Path) -> Iterator[int]:
    """Readable when something in the directory was moved or removed (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    assert descriptor >= 0
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(directory), 0x40 | 0x200) >= 0
        yield descriptor
    finally:
        os.close(descriptor)


def _call_around_the_end(user: User, figures: Figures, pauses: Sequence[float], *, after: bool) -> None:
    """Each time a call to a daemon that may be ending, with a start of another one if it is."""
    transport = Transport(environ=user.environment)
    overtaken = 0
    pid = 0
    for pause in [0.0, *pauses]:
        if pid and not wait_end(pid, pause) and not user.socket.exists():
            overtaken += 1
        try:
            assert b'"kits":' in transport.call("GET", "/v1/kits")
            with name_watch(user.socket.parent) as gone:
                pid = msgspec.json.decode(transport.call("GET", "/v1/version"), type=Version).pid
                assert not after or select.select([gone], [], [], SECONDS)[0]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a call that failed
            figures.violated(ROUND_THE_END, f"{pause:.2f} s {'after' if after else 'before'}: {error!r}")
            return
    figures.tried(ROUND_THE_END, len(pauses))
    figures.note(ROUND_THE_END, f"{overtaken} of {len(pauses)} came to a daemon that had gone into hiding")


def test_no_call_fails_at_the_moment_of_an_idle_exit(
    user: User, tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autostart, "IDLE", "300ms")
    other = User(tmp_path / "other")
    try:
        with ThreadPoolExecutor(2) as pool:
            before = pool.submit(_call_around_the_end, user, figures, BEFORE, after=False)
            _call_around_the_end(other, figures, AFTER, after=True)
            before.result()
    finally:
        other.end_all()
        while autostart._started:
            process = autostart._started.pop()
            process.kill()
            process.wait()


# -- a daemon that cannot live -------------------------------------------------------------------


def test_a_daemon_that_rejects_its_configuration_is_quoted(user: User) -> None:
    assert user.kitctl("list").returncode == 0
    user.end_all()
    user.config.write_text("[transfer]\nmemroy = 1\n")
    done = user.kitctl("list")
    assert (done.returncode, done.stdout) == (78, "")
    assert f"{user.config}: unknown key transfer.memroy" in done.stderr
    assert "did you mean transfer.memory?" in done.stderr
    assert str(user.log) in done.stderr
    user.config.write_text("")
    assert user.kitctl("list").returncode == 0


def test_a_daemon_that_refuses_its_store_is_quoted(user: User) -> None:
    user.store.mkdir(parents=True)
    (user.store / "thesis.txt").write_text("precious")
    done = user.kitctl("list")
    assert done.returncode == 78
    assert f"the directory {user.store} is no store of kitd, and it is not empty (thesis.txt)" in done.stderr
    assert [path.name for path in user.store.iterdir()] == ["thesis.txt"]


def test_a_daemon_that_dies_without_a_word_is_not_given_the_words_of_another(user: User) -> None:
    assert user.kitctl("list").returncode == 0
    user.end_all()
    package = user.home / "python" / "kitd"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import os; os.kill(os.getpid(), 9)\n")
    done = user.kitctl("list", PYTHONPATH=str(package.parent))
    assert done.returncode == 69
    assert "ended with status -9: it said nothing" in done.stderr
