"""Real daemons, shared by the tests of one module where they do not mind each other."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.daemon import Daemon
from fakes.registry import ScriptedRegistry
from fakes.tools import free_port

from kitd_client.client import Client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the module, with the registry face: tests take names of their own."""
    face = f"127.0.0.1:{free_port()}"
    home = tmp_path_factory.mktemp("shared")
    with Daemon(home, arguments=("--registry", face)) as daemon:
        yield daemon


@pytest.fixture
def client(shared: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the shared daemon in this process: nothing of this machine's user, umask 022."""
    with clean_client(shared, monkeypatch) as found:
        yield found


@pytest.fixture
def client_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Daemon], Client]:
    """The same of any daemon."""
    return lambda daemon: clean_client(daemon, monkeypatch)


def clean_client(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Client:
    for name in os.environ:
        if name not in {"PATH", "LANG", "PYTEST_CURRENT_TEST"} and not name.startswith("COV"):
            monkeypatch.delenv(name)
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    return Client(str(daemon.socket), autostart=False)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def shelf() -> Iterator[ScriptedRegistry]:
    """A registry in a thread for the module: plain http, no rules, whatever a test puts there."""
    with ScriptedRegistry().in_thread() as registry:
        yield registry


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a directory to pack can be made; it does not exist yet."""
    return tmp_path / "source"
