"""The store as a registry, for programs that were not made for it."""

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio.to_thread
import pytest
from fakes.tools import need_tool

from kitd.config.settings import Address
from kitd.content.store import ContentStore
from kitd.server.connections import ConnectionLimit
from kitd.server.distribution.app import make_registry
from kitd.server.distribution.refusal import refuse
from kitd.server.distribution.uploads import Uploads
from kitd.server.listening import bind_loopback, listening
from kitd.server.middleware import Activity

KITS = Path(__file__).parents[1] / "data" / "kits"


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(ContentStore.opened(tmp_path / "store", socket="s"))
        uploads = await stack.enter_async_context(Uploads(store))
        sock = bind_loopback(Address("127.0.0.1", 0))
        port = sock.getsockname()[1]
        app = make_registry(store, uploads, Activity())
        await stack.enter_async_context(listening(app, sock, ConnectionLimit().guarding, refuse))
        yield f"127.0.0.1:{port}"


async def _run(*command: str, home: Path) -> str:
    def run() -> str:
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "KITOPS_HOME": str(home / "kitops")}
        done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return await anyio.to_thread.run_sync(run)


@pytest.mark.skopeo
@pytest.mark.parametrize("kit", ["basic", "gz", "many", "names", "kitfile-only"])
async def test_skopeo_copies_a_kit_there_and_back(registry: str, tmp_path: Path, kit: str) -> None:
    skopeo = need_tool("skopeo")
    there, back = f"docker://{registry}/golden/{kit}:v1", f"oci:{tmp_path}/back:v1"
    layout = f"oci:{KITS / kit / 'layout'}:v1"
    await _run(skopeo, "copy", "--dest-tls-verify=false", layout, there, home=tmp_path)
    await _run(skopeo, "copy", "--src-tls-verify=false", there, back, home=tmp_path)
    wanted = await _run(skopeo, "inspect", "--raw", layout, home=tmp_path)
    assert await _run(skopeo, "inspect", "--raw", back, home=tmp_path) == wanted
    tags = await _run(skopeo, "list-tags", "--tls-verify=false", there.rpartition(":")[0], home=tmp_path)
    assert json.loads(tags)["Tags"] == ["v1"]


async def test_kit_pushes_and_pulls(registry: str, tmp_path: Path) -> None:
    kit = shutil.which("kit")
    if kit is None:
        pytest.skip("kit is not on PATH: build it from its public source (`go build -o kit`)")
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.bin").write_bytes(os.urandom(1 << 20))
    (source / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel:\n  name: m\n  path: model.bin\n")
    name = f"{registry}/team/demo:v1"
    await _run(kit, "pack", str(source), "-t", name, home=tmp_path)
    await _run(kit, "push", name, "--plain-http", home=tmp_path)
    shutil.rmtree(tmp_path / "kitops")
    await _run(kit, "pull", name, "--plain-http", home=tmp_path)
    await _run(kit, "unpack", name, "-d", "out", home=tmp_path)
    assert (tmp_path / "out" / "model.bin").read_bytes() == (source / "model.bin").read_bytes()
