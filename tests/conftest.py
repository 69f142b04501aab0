"""Fixtures for all tests. How to use the test doubles is said in the head of each module of `fakes`."""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from fakes.registry import ScriptedRegistry
from fakes.tools import need_root, need_tool

pytest_plugins = ("fakes.bare", "fakes.daemon", "fakes.figures", "fakes.real")

if threading.current_thread() is threading.main_thread():
    # A shell starts what it puts in the background with SIGINT ignored, and every child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root"):
        need_root()
    if item.get_closest_marker("registry"):
        need_tool("docker-registry")
    if item.get_closest_marker("skopeo"):
        need_tool("skopeo")


@pytest.fixture(params=[pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """uvloop as in production; `parametrize("anyio_backend", ["asyncio"])` takes plain asyncio."""
    backend: tuple[str, dict[str, bool]] = request.param
    return backend


@pytest.fixture
async def registry(anyio_backend: object) -> AsyncIterator[ScriptedRegistry]:
    """A scripted registry on this test's event loop: open, plain http, empty."""
    async with ScriptedRegistry() as opened:
        yield opened


@pytest.fixture
def threaded_registry() -> Iterator[ScriptedRegistry]:
    """A scripted registry in a thread of its own, for tests that run subprocesses."""
    with ScriptedRegistry().in_thread() as opened:
        yield opened


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    """Where a content store may be made; it does not exist yet."""
    return tmp_path / "store"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name (107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="kitd-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def no_blocking() -> Iterator[BlockBuster]:
    """Blocking calls of kitd on the event loop are errors while the test runs."""
    with blockbuster_ctx("kitd") as found:
        yield found
