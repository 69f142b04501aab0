"""Round trips through the real docker-registry, and through what skopeo makes of our kits."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.daemon import Daemon
from fakes.kits import large_kit, put_kit
from fakes.node import KIB, node
from fakes.real import RealRegistry, Skopeo
from fakes.registry import ScriptedRegistry
from fakes.stores import read_all
from interop.trees import contents_of, make_tree

from kitd.spec.digest import Digest
from kitd_client.api.errors import TlsFailed, Unauthorized

pytestmark = pytest.mark.registry

KITFILE = """manifestVersion: 1.0.0
package: {name: demo, authors: [Data Team]}
model: {name: weights, path: model}
code: [{path: src}]
docs: [{path: README.md}]
"""
FILES: dict[str, bytes | str] = {
    "Kitfile": KITFILE,
    "model/a.bin": bytes(range(256)) * 1500,
    "model/empty": b"",
    "src/main.py": "print('hi')\n",
    "README.md": "# demo\n",
}


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Where kits are packed and pushed from."""
    with Daemon(tmp_path_factory.mktemp("builder")) as daemon:
        yield daemon


@pytest.fixture
def tree(source: Path) -> Path:
    return make_tree(source, FILES)


@pytest.fixture(params=["plain", "password", "tls"])
def registry(request: pytest.FixtureRequest) -> RealRegistry:
    found: RealRegistry = request.getfixturevalue(f"{request.param}_registry")
    return found


@pytest.fixture
def flags(registry: RealRegistry) -> list[str]:
    """What kitctl must be told to talk to this registry."""
    return ["--ca-file", str(registry.root / "ca" / "ca.crt")] if registry.ca_pem else []


@pytest.fixture
def logged_in(registry: RealRegistry, builder: Daemon, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who may use this registry, with a credentials file of his own."""
    environment = {"KITOPS_HOME": str(tmp_path / "kitops")}
    if registry.user:
        builder.kitctl(
            "login",
            registry.host,
            "-u",
            registry.user,
            "--password-stdin",
            environment=environment,
            stdin=registry.password,
        )
    return environment


@pytest.mark.skopeo
def test_a_kit_goes_there_and_back_and_through_a_layout(
    registry: RealRegistry,
    flags: list[str],
    logged_in: dict[str, str],
    builder: Daemon,
    shared: Daemon,
    tree: Path,
    skopeo: Skopeo,
    tmp_path: Path,
) -> None:
    reference = f"{registry.host}/round/trip:v1"
    packed = json.loads(builder.kitctl("pack", tree, "-t", reference, "--format", "json").stdout)
    builder.kitctl("push", reference, *flags, environment=logged_in)
    # Somebody else's program takes it to a layout and to another repository.
    layout, copied = f"oci:{tmp_path / 'layout'}:v1", f"{registry.host}/round/copied:v1"
    skopeo.copy(f"docker://{reference}", layout, registry=registry)
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == packed["digest"]
    blobs = {path.name for path in (tmp_path / "layout" / "blobs" / "sha256").iterdir()}
    assert {layer["digest"][7:] for layer in packed["layers"]} <= blobs
    skopeo.copy(layout, f"docker://{copied}", registry=registry)
    # Another daemon pulls that copy, and has the same kit.
    pulled = shared.kitctl("pull", copied, *flags, "--format", "json", environment=logged_in)
    result = json.loads(pulled.stdout)
    assert result["digest"] == packed["digest"]
    assert result["size"] == packed["size"]
    shared.kitctl("unpack", copied, "-d", tmp_path / "out")
    assert contents_of(tmp_path / "out", without="Kitfile") == contents_of(tree, without="Kitfile")
    again = shared.kitctl("pull", copied, *flags, "--format", "json", environment=logged_in)
    assert json.loads(again.stdout)["fetched"] == {}


def test_a_second_push_sends_nothing_and_a_second_repository_mounts(
    plain_registry: RealRegistry, builder: Daemon, tree: Path
) -> None:
    first, second = (f"{plain_registry.host}/mounting/{name}:v1" for name in ("first", "second"))
    for path in (tree / "model" / "a.bin", tree / "src" / "main.py", tree / "README.md"):
        path.write_text(f"{path.name} that no other test pushes\n" * 5000)
    builder.kitctl("pack", tree, "-t", first)
    sent = json.loads(builder.kitctl("push", first, "--format", "json").stdout)
    assert sent["sent"] >= sent["size"]
    assert json.loads(builder.kitctl("push", first, "--format", "json").stdout)["sent"] == 0
    mounted = json.loads(builder.kitctl("push", first, second, "--format", "json").stdout)
    assert (mounted["sent"], mounted["digest"]) == (0, sent["digest"])


def test_without_a_login_nobody_comes_in(
    password_registry: RealRegistry, builder: Daemon, tree: Path, tmp_path: Path
) -> None:
    reference = f"{password_registry.host}/closed/kit:v1"
    nobody = {"KITOPS_HOME": str(tmp_path / "nobody")}
    builder.kitctl("pack", tree, "-t", reference)
    for verb in ("push", "pull"):
        failed = builder.kitctl(verb, reference, "--format", "json", environment=nobody, check=False)
        problem = json.loads(failed.stderr.splitlines()[-1])
        assert (problem["code"], failed.returncode) == (Unauthorized.code, 77)
        assert password_registry.host in problem["title"]


def test_a_wrong_password_is_not_stored(
    password_registry: RealRegistry, builder: Daemon, tmp_path: Path
) -> None:
    home = {"KITOPS_HOME": str(tmp_path / "kitops")}
    command = ("login", password_registry.host, "-u", password_registry.user, "--password-stdin")
    failed = builder.kitctl(*command, environment=home, stdin="guessed", check=False)
    assert failed.returncode == 77
    assert "guessed" not in failed.stderr + failed.stdout + builder.log
    assert not (tmp_path / "kitops" / "credentials.json").exists()
    done = builder.kitctl(*command, environment=home, stdin=f"{password_registry.password}\n")
    assert password_registry.password not in done.stderr + done.stdout
    stored = tmp_path / "kitops" / "credentials.json"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(stored.read_bytes())["auths"]) == [password_registry.host]
    builder.kitctl("logout", password_registry.host, environment=home)
    assert json.loads(stored.read_bytes())["auths"] == {}


def test_tls_needs_its_authority_or_an_order_to_do_without(
    tls_registry: RealRegistry, builder: Daemon, tree: Path
) -> None:
    reference = f"{tls_registry.host}/secret/kit:v1"
    builder.kitctl("pack", tree, "-t", reference)
    failed = builder.kitctl("push", reference, "--format", "json", check=False)
    problem = json.loads(failed.stderr.splitlines()[-1])
    assert (problem["code"], failed.returncode) == (TlsFailed.code, TlsFailed.exit_code)
    builder.kitctl("push", reference, "--tls-verify=false")
    builder.kitctl("pull", reference, "--ca-file", tls_registry.root / "ca" / "ca.crt")


async def test_a_large_blob_goes_up_in_chunks(
    shelf: ScriptedRegistry, plain_registry: RealRegistry, store_root: Path
) -> None:
    kit = large_kit(3000 * KIB, 2, seed=11)
    put_kit(shelf, kit, "team/large")
    destination = f"{plain_registry.host}/chunked/large:v1"
    before = plain_registry.log
    # This node sends blobs over 1 MiB in chunks of 256 KiB.
    async with node(store_root, real_time=True, stall_timeout=30) as here:
        await here.pull(f"{shelf.host}/team/large:v1")
        pushed = await here.push(f"{shelf.host}/team/large:v1", destination)
        assert pushed.sent >= kit.size
    log = plain_registry.log.removeprefix(before)
    assert log.count('"PATCH /v2/chunked/large/') >= sum(len(layer) // (256 * KIB) for layer in kit.layers)
    async with node(store_root.with_name("other"), real_time=True, stall_timeout=30) as there:
        await there.pull(destination)
        for digest, data in zip(kit.layer_digests, kit.layers, strict=True):
            assert await read_all(there.store, Digest(digest)) == data
