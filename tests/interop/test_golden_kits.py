"""Kits that kit itself made: pulled, unpacked and packed again, they are what kit says they are."""

import json
from pathlib import Path

import pytest
import yaml
from fakes.daemon import Daemon
from fakes.kits import CONFIG, GOLDEN, put_golden
from fakes.real import RealRegistry, Skopeo
from fakes.registry import ScriptedRegistry
from fakes.shelves import MANIFEST, digest_of
from fakes.tools import free_port, need_root
from interop.trees import UMASK_022, Golden, tree_of, without_digests

from kitd.spec.kitfile import encode_config, parse_kitfile
from kitd_client.api.errors import ParentUnreachable
from kitd_client.client import Client

WITH_LAYERS = [
    "basic",
    "parts",
    "nested",
    "ignore",
    "names",
    "links",
    "gz",
    "gz-fastest",
    "wholedir",
    "many",
]
NUMBERS = {
    "basic": ["ctx: 8192", "rows: 1000000"],
    "parts": ["big: 12345678901", "hex: 255"],
}
"""What a person wants to read in the Kitfile: kit writes 1e+06 and 1.2345678901e+10."""


@pytest.fixture(params=WITH_LAYERS)
def golden(request: pytest.FixtureRequest) -> Golden:
    name: str = request.param
    if name == "names":
        # Files of mode 000, and setuid bits that survive the extraction.
        need_root()
    return Golden(name)


def _assert_means_the_same(kitfile: Path, config: bytes) -> None:
    """The file means what the config says, read by our parser and by one that knows nothing of kits."""
    text = kitfile.read_bytes()
    meant = without_digests(json.loads(config))
    read = yaml.safe_load(text)
    read.setdefault("package", {})
    assert read == meant
    parsed, warnings = parse_kitfile(text)
    assert warnings == ()
    assert json.loads(encode_config(parsed)) == meant


def test_pulled_and_unpacked_it_is_the_tree_that_kit_unpacked(
    golden: Golden, shared: Daemon, shelf: ScriptedRegistry, tmp_path: Path
) -> None:
    assert put_golden(shelf, golden.name, f"golden/{golden.name}") == golden.digest
    reference = f"{shelf.host}/golden/{golden.name}:v1"
    assert shared.kitctl("pull", reference).stdout == f"{reference}@{golden.digest}\n"
    unpacked = shared.kitctl("unpack", reference, "-d", tmp_path / "out", wrapper=UMASK_022)
    found, wanted = tree_of(tmp_path / "out", without="Kitfile"), golden.unpacked
    if golden.kit_unpacked_all:
        assert found == wanted
    else:
        # kit stopped at the first member whose directory no layer has.
        assert found | wanted == found
        parents = {str(parent) for name in golden.members for parent in Path(name).parents if parent.parts}
        assert found.keys() == golden.members | parents
        assert found["data/tmp"].mode == 0o755
    assert golden.members <= found.keys()
    assert ("setuid, setgid or sticky" in unpacked.stderr) == (golden.name == "names")
    kitfile = tmp_path / "out" / "Kitfile"
    assert kitfile.stat().st_mode & 0o7777 == 0o644
    _assert_means_the_same(kitfile, golden.config)
    for number in NUMBERS.get(golden.name, []):
        assert number in kitfile.read_text()


def test_packed_again_its_layers_are_kits(
    golden: Golden, shared: Daemon, client: Client, shelf: ScriptedRegistry, tmp_path: Path
) -> None:
    tree = golden.extract(tmp_path / "tree")
    reference = f"{shelf.host}/packed/{golden.name}:v1"
    packed = shared.kitctl("pack", tree, "-t", reference, *golden.flags, "--format", "json")
    layers = json.loads(packed.stdout)["layers"]
    assert [layer["media_type"] for layer in layers] == [layer.media_type for layer in golden.layers]
    assert [layer["diff_id"] for layer in layers] == [layer.diff_id for layer in golden.layers]
    inspected = client.inspect(reference)
    if golden.flags:
        # Deflate differs between implementations, what comes out of it does not.
        assert without_digests(json.loads(bytes(inspected.kitfile))) == without_digests(
            json.loads(golden.config)
        )
    else:
        assert [(layer["digest"], layer["size"]) for layer in layers] == [
            (layer.digest, layer.size) for layer in golden.layers
        ]
        assert bytes(inspected.kitfile) == golden.config
    client.push(reference)
    there = shelf.repository(f"packed/{golden.name}")
    assert there.tags["v1"] == inspected.digest
    assert {layer["digest"] for layer in layers} <= there.blobs.keys()
    for digest, blob in there.blobs.items():
        assert digest_of(blob) == digest


def test_what_kit_drops_without_a_word_is_named(shared: Daemon, tmp_path: Path) -> None:
    tree = Golden("links").extract(tmp_path / "tree")
    said = shared.kitctl("pack", tree, "-t", "localhost/golden-links:v1").stderr
    for name in ("c/dangling", "c/dirlink", "c/sym", "c/..dots", "c/two..dots"):
        assert name in said
    assert "symbolic links are not packed" in said


# -- a kit without layers, on a parent -----------------------------------------------------------

NAMED_PARENT = "127.0.0.1:5000/golden/basic:v1"


def _put_child(registry: ScriptedRegistry, name: str, parent: str) -> str:
    """`kitfile-only` on another parent: whatever listens at the port that it names is not ours."""
    golden = Golden("kitfile-only")
    assert NAMED_PARENT.encode() in golden.config
    config = golden.config.replace(NAMED_PARENT.encode(), parent.encode())
    manifest = json.loads(golden.manifest)
    assert manifest["layers"] is None
    assert manifest["config"]["mediaType"] == CONFIG
    manifest["config"] |= {"digest": registry.put_blob(name, config), "size": len(config)}
    registry.put_manifest(name, json.dumps(manifest).encode(), "v1", MANIFEST)
    return f"{registry.host}/{name}:v1"


def test_a_kit_without_layers_brings_its_parents_model(
    shared: Daemon, shelf: ScriptedRegistry, tmp_path: Path
) -> None:
    golden = Golden("kitfile-only")
    put_golden(shelf, "basic", "golden/basic")
    child = _put_child(shelf, "golden/child", f"{shelf.host}/golden/basic:v1")
    shared.kitctl("pull", child)
    shared.kitctl("unpack", child, "-d", tmp_path / "out", wrapper=UMASK_022)
    assert tree_of(tmp_path / "out", without="Kitfile") == golden.unpacked
    written = yaml.safe_load((tmp_path / "out" / "Kitfile").read_text())
    assert written["model"] == {
        "name": "child",
        "path": f"{shelf.host}/golden/basic:v1",
        "parameters": {"a": 1},
    }


@pytest.mark.parametrize("registry", ["nobody listens", "no such parent"])
def test_without_its_parent_a_kit_gets_no_name(
    registry: str, shared: Daemon, shelf: ScriptedRegistry
) -> None:
    host = shelf.host if registry == "no such parent" else f"127.0.0.1:{free_port()}"
    child = _put_child(shelf, "golden/orphan", f"{host}/golden/no-parent:v1")
    failed = shared.kitctl("pull", child, "--format", "json", check=False)
    problem = json.loads(failed.stderr.splitlines()[-1])
    assert (problem["code"], failed.returncode) == (ParentUnreachable.code, ParentUnreachable.exit_code)
    assert f"{host}/golden/no-parent:v1" in problem["title"]
    assert shared.kitctl("list", child.rpartition(":")[0], "--format", "json").stdout.strip() == "[]"


@pytest.mark.registry
@pytest.mark.skopeo
@pytest.mark.parametrize("name", ["basic", "gz"])
def test_a_golden_kit_out_of_a_real_registry(
    name: str, shared: Daemon, plain_registry: RealRegistry, skopeo: Skopeo
) -> None:
    golden = Golden(name)
    reference = f"{plain_registry.host}/golden-kits/{name}:v1"
    skopeo.copy(f"oci:{golden.layout}:v1", f"docker://{reference}", registry=plain_registry)
    assert shared.kitctl("pull", reference).stdout == f"{reference}@{golden.digest}\n"


def test_every_golden_kit_is_looked_at() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.is_dir()} == {*WITH_LAYERS, "kitfile-only"}
