"""Who of many blobs is sent when."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from fakes import faults
from fakes.exchange import Gate
from fakes.kits import large_kit, put_kit
from fakes.node import Node, node
from fakes.registry import ScriptedRegistry

from kitd.transfer import push

LAYERS = 6
LAYER = 5 << 18
"""Bytes: in chunks, so that a registry that answers no chunk has not got them all."""


@pytest.fixture
async def pushing(tmp_path: Path) -> AsyncIterator[tuple[Node, str]]:
    """A node with a kit of several layers, and the kit's name."""
    async with ScriptedRegistry() as registry, node(tmp_path / "store", stall_timeout=30) as here:
        put_kit(registry, large_kit(LAYER, LAYERS), "team/kit")
        name = f"{registry.host}/team/kit:v1"
        await here.pull(name)
        yield here, name


def descriptors() -> list[str]:
    """What this process has open."""
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(str(path.readlink()))
    return links


async def test_while_the_registry_stores_blobs_the_next_are_sent(pushing: tuple[Node, str]) -> None:
    here, name = pushing
    async with ScriptedRegistry() as target, anyio.create_task_group() as group:
        gate = Gate()
        target.script(faults.stall(gate), method="PUT", path="/uploads/", times=None)
        group.start_soon(here.push, name, f"{target.host}/team/kit:v1")
        await gate.until_held(LAYERS)
        gate.open()
    assert target.repository("team/kit").manifests


async def test_two_are_sent_at_once_and_the_uploads_of_the_next_are_open(
    pushing: tuple[Node, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_SLOW", 600)
    here, name = pushing
    async with ScriptedRegistry() as target, anyio.create_task_group() as group:
        gate = Gate()
        target.script(faults.stall(gate), method="PATCH", times=None)
        group.start_soon(here.push, name, f"{target.host}/team/kit:v1")
        await target.until(lambda: target.uploads.open_sessions == LAYERS + 1)
        await gate.until_held(push.SENT_AT_ONCE)
        assert target.count("PATCH") == push.SENT_AT_ONCE
        gate.open()
    assert target.repository("team/kit").manifests


async def test_more_are_sent_at_once_where_connections_are_slow(
    pushing: tuple[Node, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_SLOW", 0.01)
    here, name = pushing
    async with ScriptedRegistry() as target, anyio.create_task_group() as group:
        gate = Gate()
        target.script(faults.stall(gate), method="PATCH", times=None)
        group.start_soon(here.push, name, f"{target.host}/team/kit:v1")
        await gate.until_held(LAYERS)
        gate.open()
    assert target.repository("team/kit").manifests


async def test_a_cancelled_push_lets_go_of_its_blobs(pushing: tuple[Node, str]) -> None:
    here, name = pushing
    gate = Gate()
    async with ScriptedRegistry() as target, anyio.create_task_group() as group:
        target.script(faults.stall(gate), method="PATCH", times=None)
        group.start_soon(here.push, name, f"{target.host}/team/kit:v1")
        await gate.until_held(push.SENT_AT_ONCE)
        assert here.store._leases.held()
        group.cancel_scope.cancel()
    assert here.store._leases.held() == set()
    assert not [link for link in descriptors() if "/objects/" in link]
