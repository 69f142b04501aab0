"""The real daemon and the real kitctl, interrupted in every way a user knows."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import faults
from fakes.daemon import Daemon, StartDaemon
from fakes.exchange import Gate
from fakes.figures import Figures
from fakes.kits import FakeKit, large_kit, put_kit
from fakes.registry import ScriptedRegistry

MIB = 1 << 20
LAYER = 24 * MIB
MEMORY = 4 * MIB
RANGE = 256 << 10
SUITE = "interrupted daemons"
SMALL_WINDOW = {
    "KITD_TRANSFER__MEMORY": "4MiB",
    "KITD_TRANSFER__RANGE_SIZE": "256KiB",
    "KITD_TRANSFER__CONNECTIONS": "4",
}


@pytest.fixture(scope="module")
def kit() -> FakeKit:
    return large_kit(LAYER)


@pytest.fixture
def reference(threaded_registry: ScriptedRegistry, kit: FakeKit) -> str:
    put_kit(threaded_registry, kit, "team/kit")
    return f"{threaded_registry.host}/team/kit:v1"


@pytest.fixture
def windowed(start_daemon: StartDaemon) -> Daemon:
    return start_daemon(environment=SMALL_WINDOW)


def layer_path(kit: FakeKit) -> str:
    return f"/blobs/{kit.layer_digests[0]}"


def stalled_at(registry: ScriptedRegistry, kit: FakeKit, share: float) -> Gate:
    """Ranges from this share of the layer on are not answered."""
    gate = Gate()
    registry.script(
        faults.stall(gate), path=layer_path(kit), covers=int(len(kit.layers[0]) * share) // RANGE * RANGE
    )
    return gate


class Clients:
    """Processes of kitctl that a test holds in its own hands; none outlives the test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, daemon: Daemon, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            daemon.kitctl_command(*arguments),
            env=daemon.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process


@pytest.fixture
def clients() -> Iterator[Clients]:
    found = Clients()
    yield found
    for process in found.processes:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def verify(daemon: Daemon, reference: str, kit: FakeKit, out: Path) -> None:
    daemon.kitctl("unpack", reference, "-d", out)
    for name, data in kit.files.items():
        assert (out / name).read_bytes() == data


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_kill_9_costs_at_most_the_ranges_under_way(
    clients: Clients,
    windowed: Daemon,
    threaded_registry: ScriptedRegistry,
    kit: FakeKit,
    reference: str,
    share: float,
    tmp_path: Path,
    figures: Figures,
) -> None:
    """Counted at the registry: what was appended is never sent again (invariant 6)."""
    size = len(kit.layers[0])
    gate = stalled_at(threaded_registry, kit, share)
    client = clients.start(windowed, "pull", reference)
    gate.wait_held()
    threaded_registry.wait(lambda: threaded_registry.sent(layer_path(kit)) >= size * share - MEMORY / 2)
    windowed.kill()
    client.communicate(timeout=30)
    assert client.returncode == 69
    before = threaded_registry.sent(layer_path(kit))
    threaded_registry.drop_script()
    gate.open()
    windowed.start()
    answer = json.loads(windowed.kitctl("pull", reference, "--format", "json").stdout)
    again = threaded_registry.sent(layer_path(kit)) - before
    figures.tried(SUITE)
    figures.note(SUITE, f"kill -9 at {share:.0%}: {again / size:.1%} of the layer sent afterwards")
    assert again == sum(answer["fetched"].values())
    assert again <= size * (1 - share) + MEMORY
    verify(windowed, reference, kit, tmp_path / "out")


def test_the_first_ctrl_c_cancels_and_says_what_is_kept(
    clients: Clients,
    windowed: Daemon,
    threaded_registry: ScriptedRegistry,
    kit: FakeKit,
    reference: str,
    figures: Figures,
) -> None:
    size = len(kit.layers[0])
    gate = stalled_at(threaded_registry, kit, 0.5)
    client = clients.start(windowed, "pull", reference)
    gate.wait_held()
    threaded_registry.wait(lambda: threaded_registry.sent(layer_path(kit)) >= size * 0.5 - MEMORY / 2)
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=30)
    assert client.returncode == 130
    assert "kept" in said
    assert f"kitctl pull {reference}" in said
    before = threaded_registry.sent(layer_path(kit))
    threaded_registry.drop_script()
    gate.open()
    windowed.kitctl("pull", reference)
    assert threaded_registry.sent(layer_path(kit)) - before <= size * 0.5 + MEMORY
    figures.tried(SUITE)


def test_sigterm_drains_and_tells_the_client(
    clients: Clients,
    windowed: Daemon,
    threaded_registry: ScriptedRegistry,
    kit: FakeKit,
    reference: str,
    figures: Figures,
) -> None:
    gate = stalled_at(threaded_registry, kit, 0.5)
    client = clients.start(windowed, "pull", reference)
    gate.wait_held()
    assert windowed.terminate(within=15) == 0
    _, said = client.communicate(timeout=30)
    assert client.returncode == 75
    assert "stop" in said
    gate.open()
    threaded_registry.drop_script()
    windowed.start()
    windowed.kitctl("pull", reference)
    figures.tried(SUITE)


def test_an_old_job_is_told_from_one_that_never_was(windowed: Daemon, reference: str) -> None:
    job = windowed.kitctl("pull", "--detach", reference).stdout.strip()
    windowed.kitctl("attach", job)
    windowed.kill()
    windowed.start()
    old = windowed.kitctl("attach", job, check=False)
    assert old.returncode == 75
    never = windowed.kitctl("attach", "nonsense", check=False)
    assert never.returncode == 66


def test_remove_after_a_cancelled_pull_gives_the_bytes_back(
    clients: Clients, windowed: Daemon, threaded_registry: ScriptedRegistry, kit: FakeKit, reference: str
) -> None:
    """Cancelled bytes stay until the tag or `remove` (roots of the store)."""
    gate = stalled_at(threaded_registry, kit, 0.5)
    client = clients.start(windowed, "pull", reference)
    gate.wait_held()
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=30)
    ingests = windowed.store / "ingest"
    assert any(ingests.iterdir())
    windowed.kitctl("remove", reference)
    assert not any(ingests.iterdir())
    gate.open()


@pytest.mark.root
def test_a_full_disk_is_told_with_numbers_and_loses_nothing(
    start_daemon: StartDaemon, threaded_registry: ScriptedRegistry, tmp_path: Path, figures: Figures
) -> None:
    """H1: refused before it begins when it cannot fit; what fits later goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", disk], check=True)
    try:
        large, small = large_kit(200 * MIB, seed=1), large_kit(2 * MIB, seed=2)
        put_kit(threaded_registry, large, "team/large")
        put_kit(threaded_registry, small, "team/small")
        daemon = start_daemon(environment={"KITD_CACHE_DIR": str(disk / "store")})
        refused = daemon.kitctl("pull", f"{threaded_registry.host}/team/large:v1", check=False)
        assert refused.returncode == 73
        assert "free" in refused.stderr
        assert threaded_registry.sent(f"/blobs/{large.layer_digests[0]}") == 0
        (disk / "ballast").write_bytes(bytes(80 * MIB))
        daemon.kitctl("pull", f"{threaded_registry.host}/team/small:v1")
        daemon.terminate()
        figures.tried(SUITE)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.root
def test_a_disk_that_fills_up_in_the_middle_keeps_what_is_there(
    clients: Clients,
    start_daemon: StartDaemon,
    threaded_registry: ScriptedRegistry,
    tmp_path: Path,
    figures: Figures,
) -> None:
    """H1: the error comes once, the daemon lives, and after some room was made the rest comes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", disk], check=True)
    try:
        kit = large_kit(100 * MIB, seed=3)
        put_kit(threaded_registry, kit, "team/kit")
        reference = f"{threaded_registry.host}/team/kit:v1"
        gate = stalled_at(threaded_registry, kit, 0.3)
        daemon = start_daemon(environment=SMALL_WINDOW | {"KITD_CACHE_DIR": str(disk / "store")})
        client = clients.start(daemon, "pull", reference)
        gate.wait_held()
        with (disk / "ballast").open("wb") as ballast:
            try:
                while True:
                    ballast.write(bytes(MIB))
                    ballast.flush()
            except OSError:
                pass
        gate.open()
        _, said = client.communicate(timeout=60)
        assert client.returncode == 73, said
        assert "kept" in said
        before = threaded_registry.sent(layer_path(kit))
        (disk / "ballast").unlink()
        daemon.kitctl("pull", reference)
        assert threaded_registry.sent(layer_path(kit)) - before <= 0.75 * len(kit.layers[0]) + MEMORY
        daemon.terminate()
        figures.tried(SUITE)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_tampered_object_is_noticed_before_it_is_used(
    windowed: Daemon, threaded_registry: ScriptedRegistry, kit: FakeKit, reference: str, tmp_path: Path
) -> None:
    """A write through a name moves the time: the use fails clearly, the next pull mends it."""
    windowed.kitctl("pull", reference)
    largest = max((windowed.store / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    with largest.open("r+b") as file:
        file.seek(1000)
        file.write(b"tampered")
    spoiled = windowed.kitctl("unpack", reference, "-d", tmp_path / "bad", check=False)
    if spoiled.returncode:
        assert spoiled.returncode == 65
        assert "pull" in spoiled.stderr
        windowed.kitctl("pull", reference)
    verify(windowed, reference, kit, tmp_path / "good")


@pytest.mark.root
def test_a_hundred_clients_cause_one_transfer(
    clients: Clients,
    windowed: Daemon,
    threaded_registry: ScriptedRegistry,
    kit: FakeKit,
    reference: str,
    figures: Figures,
) -> None:
    waiting = [clients.start(windowed, "pull", reference) for _ in range(100)]
    assert {client.wait(timeout=50) for client in waiting} == {0}
    assert threaded_registry.sent(layer_path(kit)) == len(kit.layers[0])
    figures.tried(SUITE, 100)


@pytest.mark.root
def test_another_users_daemon_and_jobs_are_out_of_reach(
    windowed: Daemon, threaded_registry: ScriptedRegistry, reference: str
) -> None:
    """User mode: own uid and root. Everybody else is told whom to ask."""
    socket = Path(windowed.environment["KITD_SOCKET"])
    socket.parent.chmod(0o755)
    socket.chmod(0o666)
    wrapper = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups")
    refused = windowed.kitctl("list", check=False, wrapper=wrapper, cwd=Path("/"))
    assert refused.returncode == 77, refused.stderr
    assert os.geteuid() == 0
