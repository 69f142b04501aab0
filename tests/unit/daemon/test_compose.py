"""The whole daemon in this process; as a process of its own it is tested in `integration`."""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import anyio
import pytest
from fakes.daemon import clean_environment
from fakes.kits import FakeLayer, make_kit, some_bytes

from kitd.config.load import load_settings
from kitd.config.settings import Settings
from kitd.daemon import faces
from kitd.daemon.compose import serve
from kitd.spec.digest import digest_of
from kitd_client.api.errors import ConfigurationInvalid


@asynccontextmanager
async def _daemon(tmp_path: Path, path: Path, **flags: str) -> AsyncIterator[aiohttp.ClientSession]:
    config = tmp_path / "kitd.toml"
    config.touch()
    given = {"config": str(config), "daemon.socket": str(path), "cache.dir": str(tmp_path / "store")} | {
        key.replace("_", ".", 1): value for key, value in flags.items()
    }

    def load() -> Settings:
        return load_settings({"HOME": str(tmp_path)}, given, uid=os.geteuid())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, load(), load, [config], {})
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession(connector=connector) as client:
            with anyio.fail_after(10):
                while not await _answers(client):  # noqa: ASYNC110 - it comes up in tasks of its own
                    await anyio.sleep(0.02)
            yield client
        os.kill(os.getpid(), signal.SIGTERM)


async def _answers(client: aiohttp.ClientSession) -> bool:
    try:
        async with client.get("http://kitd/v1/healthz") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def _get(client: aiohttp.ClientSession, target: str) -> dict[str, object]:
    async with client.get(f"http://kitd{target}") as response:
        answer: dict[str, object] = await response.json()
        return answer


async def test_what_is_pushed_to_the_registry_face_is_a_kit_of_the_daemon(tmp_path: Path) -> None:
    kit = make_kit([FakeLayer("model", "./m.bin", {"m.bin": some_bytes(5000)}, format="raw")])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with _daemon(tmp_path, tmp_path / "k.sock", registry_listen=f"127.0.0.1:{port}") as client:
        assert (await _get(client, "/v1/status"))["registry_listen"] == f"127.0.0.1:{port}"
        base = f"http://127.0.0.1:{port}/v2/demo"
        async with aiohttp.ClientSession() as pusher:
            for blob in (kit.config, *kit.layers):
                target = f"{base}/blobs/uploads/?digest={digest_of(blob)}"
                async with pusher.post(target, data=blob) as response:
                    assert response.status == 201
            headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
            async with pusher.put(f"{base}/manifests/v1", data=kit.manifest, headers=headers) as response:
                assert response.status == 201
        (row,) = cast("list[dict[str, object]]", (await _get(client, "/v1/kits"))["kits"])
        assert (row["repository"], row["digest"], row["complete"]) == ("demo", kit.digest, True)
        assert (await _get(client, "/v1/kits/demo%3Av1"))["digest"] == kit.digest
        async with client.post("http://kitd/v1/path", json={"reference": "demo:v1"}) as response:
            tree = Path((await response.json())["path"])
            assert (tree / "m.bin").read_bytes() == some_bytes(5000)
        async with client.delete("http://kitd/v1/kits/demo%3Av1") as response:
            assert (response.status, (await response.json())["code"]) == (409, "in_use")
        async with client.delete("http://kitd/v1/kits/demo%3Av1?force=1") as response:
            assert response.status == 200


async def test_a_registry_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with _daemon(tmp_path, tmp_path / "k.sock") as client:
        body = {"registry": f"127.0.0.1:{port}", "context": {"plain_http": True}}
        async with client.post("http://kitd/v1/check-registry", json=body) as response:
            problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["code"], problem["retryable"]) == (503, "registry_unavailable", True)


async def test_a_socket_that_another_daemon_has_ends_the_start_and_leaves_nothing_open(
    tmp_path: Path,
) -> None:
    path = tmp_path / "k.sock"
    # In a process of its own: signals are one process's.
    other = [
        sys.executable,
        "-W",
        "default",
        "-m",
        "kitd",
        "--socket",
        str(path),
        "--cache-dir",
        str(tmp_path / "b"),
    ]
    async with _daemon(tmp_path, path):
        done = await anyio.run_process(other, check=False, env=clean_environment(tmp_path))
    assert done.returncode == 69
    assert b"answers there" in done.stderr
    assert b"ResourceWarning" not in done.stderr


async def test_sockets_from_systemd_are_used_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "passed.sock"
    api, registry = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
    port = registry.getsockname()[1]
    api.bind(str(path))
    api.listen()
    monkeypatch.setattr(faces, "take_listen_sockets", lambda _: {"api": api, "registry": registry})
    async with _daemon(tmp_path, path) as client:
        status = await _get(client, "/v1/status")
        assert (status["socket"], status["registry_listen"]) == (str(path), f"127.0.0.1:{port}")
        async with aiohttp.ClientSession() as other, other.get(f"http://127.0.0.1:{port}/v2/") as response:
            assert response.status == 200
    assert path.exists()


def test_sockets_that_cannot_be_meant_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({}, {"config": "/dev/null"}, uid=1)
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        for passed, said in (
            ({"registry": everywhere}, "a registry socket at 0.0.0.0"),
            ({"web": everywhere}, "a socket named web"),
        ):
            monkeypatch.setattr(faces, "take_listen_sockets", lambda _, passed=passed: passed)
            with pytest.raises(ConfigurationInvalid, match=said):
                faces.Faces(settings, {})


async def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {"config": "/dev/null", "cache.dir": str(tmp_path / "s"), "registry.listen": listen}
        settings = load_settings({"HOME": str(tmp_path)}, flags, uid=1)
        with pytest.raises(
            ConfigurationInvalid, match=f"cannot serve the registry at {listen}: address already"
        ):
            await serve(settings, lambda: settings, [], {})
