"""Real daemons, shared by the tests of one module where they do not mind each other."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.daemon import Daemon, clean_environment
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


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A second daemon for the module, which knows nothing of the first."""
    with Daemon(tmp_path_factory.mktemp("other")) as daemon:
        yield daemon


@pytest.fixture
def clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Clients in this process find nothing of this machine's user: no credentials, no proxy."""
    for name in os.environ:
        if name not in {"PATH", "LANG", "PYTEST_CURRENT_TEST"} and not name.startswith("COV"):
            monkeypatch.delenv(name)
    for name, value in clean_environment(tmp_path_factory.mktemp("home")).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def client(shared: Daemon, clean_environ: None) -> Client:
    """A client of the shared daemon, in this process."""
    return Client(str(shared.socket), autostart=False)


@pytest.fixture
def other_client(other: Daemon, clean_environ: None) -> Client:
    """A client of the second daemon, in this process."""
    return Client(str(other.socket), autostart=False)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """kit's golden trees were unpacked under umask 022."""
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


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a kit can be unpacked; it does not exist yet."""
    return tmp_path / "out"
