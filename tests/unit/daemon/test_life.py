import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from kitd.config.load import load_settings
from kitd.config.settings import Settings
from kitd.daemon import life as module
from kitd.daemon.life import Life
from kitd.jobs.jobs import Jobs
from kitd.server.middleware import Activity
from kitd.server.sockets import ApiSocket
from kitd.systemd import Notifier
from kitd_client.api.errors import ConfigurationInvalid

HOME = {"HOME": "/home/ada"}


def _settings(**flags: str) -> Settings:
    named = {"config": "/dev/null"} | {key.replace("_", ".", 1): value for key, value in flags.items()}
    return load_settings(HOME, named, uid=54321)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ApiSocket]:
    bound = ApiSocket.bind(tmp_path / "kitd.sock", 0o600, "")
    yield bound
    bound.close()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "_BACKLOG_SECONDS", 0.05)


@asynccontextmanager
async def _life(own: ApiSocket | None, settings: Settings) -> AsyncIterator[tuple[Life, Jobs, Activity]]:
    async with Jobs() as jobs:
        activity = Activity()
        yield Life(settings, own, jobs, activity, Notifier({})), jobs, activity


@pytest.fixture
async def stack() -> AsyncIterator[ExitStack]:
    """Receivers of signals; open until after the test."""
    with ExitStack() as opened:
        yield opened


async def _nothing() -> None:
    pass


async def test_the_first_signal_ends_in_order_the_second_at_once(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ApiSocket.bind(tmp_path / "kitd.sock", 0o600, "")
    died: list[int] = []
    monkeypatch.setattr(os, "_exit", died.append)
    async with _life(own, _settings()) as (life, _, _), anyio.create_task_group() as tasks:
        signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        tasks.start_soon(life.obey_signals, signals, _nothing)
        os.kill(os.getpid(), signal.SIGTERM)
        with anyio.fail_after(5):
            await life.wait()
        assert died == []
        assert own.is_there
        os.kill(os.getpid(), signal.SIGINT)
        with anyio.fail_after(5):
            while not died:  # noqa: ASYNC110 - the end of a process has no event
                await anyio.sleep(0.01)
        assert died == [130]
        assert not own.path.exists()
        tasks.cancel_scope.cancel()


async def test_a_hangup_reloads(own: ApiSocket, stack: ExitStack) -> None:
    reloaded = anyio.Event()

    async def reload() -> None:
        reloaded.set()

    async with _life(own, _settings()) as (life, _, _), anyio.create_task_group() as tasks:
        signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGHUP))
        tasks.start_soon(life.obey_signals, signals, reload)
        os.kill(os.getpid(), signal.SIGHUP)
        with anyio.fail_after(5):
            await reloaded.wait()
        tasks.cancel_scope.cancel()


async def test_a_client_of_the_last_moment_is_served_and_the_daemon_stays(own: ApiSocket) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        async with _life(own, _settings(daemon_idle="100ms")) as (life, _, activity):
            withdrew = anyio.Event()
            withdraw = own.withdraw

            def withdrawing() -> None:
                client.connect(str(own.path))
                withdraw()
                withdrew.set()

            own.withdraw = withdrawing  # type: ignore[method-assign]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(life.end_when_idle)
                with anyio.fail_after(5):
                    await withdrew.wait()
                assert not own.path.exists()
                with activity.request():
                    await anyio.sleep(0.2)
                    assert own.path.exists()
                own.withdraw = withdraw  # type: ignore[method-assign]
                with anyio.fail_after(5):
                    await life.wait()
                assert not own.path.exists()


async def test_without_an_idle_time_and_with_a_socket_it_lives_on(own: ApiSocket) -> None:
    async with _life(own, _settings()) as (life, _, _), anyio.create_task_group() as tasks:
        tasks.start_soon(life.end_when_idle)
        tasks.start_soon(life.end_without_name)
        with anyio.move_on_after(0.3) as waited:
            await life.wait()
        assert waited.cancelled_caught
        own.path.unlink()
        with anyio.fail_after(5):
            await life.wait()
        tasks.cancel_scope.cancel()


async def test_a_passed_socket_is_not_looked_after() -> None:
    async with _life(None, _settings(daemon_idle="50ms")) as (life, _, _):
        await life.end_without_name()
        with anyio.fail_after(5):
            await life.end_when_idle()
            await life.wait()


async def test_a_reload_takes_over_what_can_change_and_names_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "set_up_logging", lambda *_: None)
    caplog.set_level("INFO")
    rates: list[int] = []
    new = _settings(daemon_idle="5m", log_level="debug")
    async with _life(None, _settings()) as (life, _, _):
        await life.reload(lambda: new, rates.append)
        assert life.settings == new
        assert rates == [0]
        assert "next start" not in caplog.text
        moved = _settings(cache_dir="/elsewhere", daemon_socket="/run/other.sock")
        await life.reload(lambda: moved, rates.append)
        assert "next start: daemon.socket, cache.dir" in caplog.text


async def test_a_bad_configuration_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bad() -> Settings:
        raise ConfigurationInvalid("/etc/kitd/kitd.toml: unknown key x")

    rates: list[int] = []
    old = _settings()
    async with _life(None, old) as (life, _, _):
        await life.reload(bad, rates.append)
        assert life.settings is old
    assert rates == []
    assert "rejected, the old one stays: /etc/kitd/kitd.toml: unknown key x" in caplog.text


async def test_a_configuration_that_breaks_its_reader_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Brackets 20 000 deep: tomllib recurses; a SIGHUP must not take running jobs along."""

    def too_deep() -> Settings:
        raise RecursionError

    old = _settings()
    async with _life(None, old) as (life, _, _):
        await life.reload(too_deep, lambda _rate: None)
        assert life.settings is old
    assert "the old one stays" in caplog.text
