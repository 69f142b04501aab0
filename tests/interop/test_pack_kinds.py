"""Every kind of layer in every form, kits on kits, and parts of kits."""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from fakes.daemon import Daemon, StartDaemon
from fakes.kits import FakeLayer, make_kit, put_kit, some_bytes
from fakes.registry import ScriptedRegistry
from fakes.shelves import digest_of
from interop.trees import contents_of, make_tree

from kitd_client.api.errors import (
    ArchiveInvalid,
    InvalidFilter,
    KitdError,
    KitIncomplete,
    ReferenceChainTooLong,
    ReferenceCycle,
    SourceUnsuitable,
)
from kitd_client.api.jobs import Event, Warned
from kitd_client.client import Client

KITOPS = "application/vnd.kitops.modelkit"


def _bundle(name: str = "manifest.json") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(zipfile.ZipInfo(name), "{}")
        bundle.writestr(zipfile.ZipInfo("server.py"), "print('hi')\n")
    return buffer.getvalue()


KITFILE = """manifestVersion: 1.0.0
package: {name: all-kinds}
model:
  name: base
  path: model.bin
  parts:
    - {name: lora, path: parts/lora.bin, type: lora_adapter}
    - {path: ./parts/tokenizer.json}
code: [{path: src/main.py}]
datasets:
  - {name: train, path: data/train.csv}
  - {name: test, path: data/test.csv}
docs: [{path: ./README.md}]
prompts: [{name: ask, path: AGENTS.md}]
mcpServers: [{name: files, path: mcp/files.mcpb}]
"""
FILES: dict[str, bytes | str] = {
    "Kitfile": KITFILE,
    "model.bin": some_bytes(70_000) + bytes(30_000),
    "parts/lora.bin": some_bytes(4000, 1),
    "parts/tokenizer.json": "{}\n",
    "src/main.py": "print('hi')\n",
    "data/train.csv": "a,b\n" * 2000,
    "data/test.csv": "a,b\n" * 20,
    "README.md": "# all kinds\n",
    "AGENTS.md": "Be kind.\n",
    "mcp/files.mcpb": _bundle(),
}
KINDS = ["model", "modelpart", "modelpart", "code", "dataset", "dataset", "docs", "code", "mcpb"]
PATHS = [
    "model.bin",
    "parts/lora.bin",
    "parts/tokenizer.json",
    "src/main.py",
    "data/train.csv",
    "data/test.csv",
    "README.md",
    "AGENTS.md",
    "mcp/files.mcpb",
]


@pytest.fixture
def tree(source: Path) -> Path:
    return make_tree(source, FILES)


@pytest.mark.parametrize("compression", ["none", "gzip", "gzip-fastest", "zstd"])
@pytest.mark.parametrize("layer_format", ["tar", "raw"])
def test_every_kind_in_every_form(
    layer_format: str, compression: str, shared: Daemon, client: Client, tree: Path, tmp_path: Path
) -> None:
    name = f"kinds/{layer_format}:{compression}"
    command = ("pack", tree, "-t", name, "--compression", compression, "--layer-format", layer_format)
    packed = json.loads(shared.kitctl(*command, "--format", "json").stdout)
    suffix = {"none": "", "gzip-fastest": "+gzip"}.get(compression, f"+{compression}")
    types = [f"{KITOPS}.{kind}.v1.{layer_format}{suffix}" for kind in KINDS[:-1]]
    # Bundles of MCP servers are always as they are.
    assert [layer["media_type"] for layer in packed["layers"]] == [*types, f"{KITOPS}.mcpb.v1.raw"]
    manifest = json.loads(bytes(client.inspect(name).manifest))
    notes = [layer["annotations"] for layer in manifest["layers"]]
    assert [note["org.cncf.model.filepath"] for note in notes] == PATHS
    subtypes = [note.get("ml.kitops.modelkit.layer-subtype") for note in notes]
    assert subtypes == [None] * 7 + ["prompt", None]
    for number, (path, layer, note) in enumerate(zip(PATHS, packed["layers"], notes, strict=True)):
        if layer_format == "raw" or number == 8:
            facts = json.loads(note["org.cncf.model.file.metadata+json"])
            assert (facts["typeflag"], facts["mode"], facts["size"]) == (
                48,
                0o644,
                (tree / path).stat().st_size,
            )
            assert layer["diff_id"] == digest_of((tree / path).read_bytes())
        else:
            assert "org.cncf.model.file.metadata+json" not in note
    client.unpack(name, tmp_path / "out")
    assert contents_of(tmp_path / "out", without="Kitfile") == contents_of(tree, without="Kitfile")


def test_compression_changes_digests_and_no_diff_id(client: Client, tree: Path) -> None:
    plain = client.pack(tree, tags=["kinds/diff:none"])
    zstd = client.pack(tree, tags=["kinds/diff:zstd"], compression="zstd")
    gzip = client.pack(tree, tags=["kinds/diff:gzip"], compression="gzip")
    diff_ids = [[layer.diff_id for layer in packed.layers] for packed in (plain, zstd, gzip)]
    assert diff_ids[0] == diff_ids[1] == diff_ids[2]
    assert diff_ids[0] == [layer.digest for layer in plain.layers]
    assert max(zstd.size, gzip.size) < plain.size


def test_raw_layers_are_single_files(client: Client, tree: Path) -> None:
    (tree / "Kitfile").write_text("manifestVersion: 1.0.0\ndatasets: [{name: d, path: data}]\n")
    with pytest.raises(SourceUnsuitable, match="data"):
        client.pack(tree, tags=["kinds/raw-directory:v1"], layer_format="raw")
    assert client.list("kinds/raw-directory") == []


def test_raw_layers_of_one_content_are_two_files(client: Client, source: Path, tmp_path: Path) -> None:
    kitfile = "manifestVersion: 1.0.0\ndatasets: [{name: a, path: a.csv}, {name: b, path: d/b.csv}]\n"
    make_tree(source, {"Kitfile": kitfile, "a.csv": "same\n", "d/b.csv": "same\n"})
    packed = client.pack(source, tags=["kinds/same:v1"], layer_format="raw")
    assert packed.layers[0].digest == packed.layers[1].digest
    client.unpack("kinds/same:v1", tmp_path / "out")
    assert contents_of(tmp_path / "out", without="Kitfile") == {"a.csv": b"same\n", "d/b.csv": b"same\n"}


def test_a_layer_with_a_kitfile_is_no_second_kitfile(client: Client, source: Path, tmp_path: Path) -> None:
    """kit packs such a file as a raw layer, and then cannot unpack it."""
    kitfile = "manifestVersion: 1.0.0\ndocs: [{path: Kitfile}, {path: a.md}]\n"
    make_tree(source, {"Kitfile": kitfile, "a.md": "a\n"})
    client.pack(source, tags=["kinds/kitfile:v1"], layer_format="raw")
    with pytest.raises(ArchiveInvalid, match="Kitfile"):
        client.unpack("kinds/kitfile:v1", tmp_path / "out")
    client.unpack("kinds/kitfile:v1", tmp_path / "out", filters=["docs"])
    assert contents_of(tmp_path / "out") == {"Kitfile": kitfile.encode(), "a.md": b"a\n"}


@pytest.mark.parametrize("bundle", [b"no zip at all", _bundle("inner/manifest.json")])
def test_a_bundle_that_is_none_is_refused(bundle: bytes, client: Client, tree: Path) -> None:
    (tree / "mcp" / "files.mcpb").write_bytes(bundle)
    with pytest.raises(SourceUnsuitable, match=r"mcp/files\.mcpb is no MCP bundle"):
        client.pack(tree, tags=["kinds/bundle:v1"])
    assert client.list("kinds/bundle") == []


# -- reproducible --------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_format", ["tar", "raw"])
def test_source_date_epoch_gives_the_same_manifest_twice(
    layer_format: str, shared: Daemon, other: Daemon, tree: Path
) -> None:
    environment = {"SOURCE_DATE_EPOCH": "1767225600"}
    command = ("pack", tree, "-t", "epoch/kit:v1", "--layer-format", layer_format, "--format", "json")
    first = json.loads(shared.kitctl(*command, environment=environment).stdout)
    for path in tree.rglob("*"):
        os.utime(path, (1, 1))
    second = json.loads(other.kitctl(*command, environment=environment).stdout)
    assert first["digest"] == second["digest"]
    manifest = json.loads(shared.kitctl("inspect", "epoch/kit:v1").stdout)["manifest"]
    assert manifest["annotations"]["org.opencontainers.image.created"] == "2026-01-01T00:00:00Z"


def test_the_documented_kit_has_its_documented_digests(
    client: Client, monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    kitfile = "manifestVersion: 1.0.0\npackage: {name: demo}\nmodel: {name: demo, path: ./model}\n"
    make_tree(source, {"Kitfile": kitfile, "model/w.bin": "hello weights\n"})
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    packed = client.pack(source, tags=["documented:v1"])
    (layer,) = packed.layers
    assert (layer.digest, layer.size) == (
        "sha256:7486f1d6fc36a604b05f6eef00028e9ab3c50d530588dccb5338a47a9ae43643",
        2560,
    )
    inspected = client.inspect("documented:v1")
    assert digest_of(bytes(inspected.kitfile)) == (
        "sha256:8a912bfede336f9c60297cb09da0b3d37066c9ff270d489f904fefd7ebeccade"
    )
    assert digest_of(bytes(inspected.manifest)) == packed.digest
    # It was documented of kit 1.16, which had no other bytes than its version.
    manifest = bytes(inspected.manifest).replace(b'"1.17.0"', b'"1.16.0"')
    assert len(manifest) == 641
    assert digest_of(manifest) == "sha256:62b86697272e245665cfee0d4088c5f9e74e12525d40866a373defe4fe251035"


# -- what is left out ----------------------------------------------------------------------------


def test_what_cannot_be_packed_is_named_and_nothing_else(client: Client, source: Path) -> None:
    make_tree(
        source, {"Kitfile": "manifestVersion: 1.0.0\ncode: [{path: src}]\n", "src/a.py": "", "b.py": ""}
    )
    (source / "src" / "link").symlink_to("a.py")
    (source / "src" / "to-outside").symlink_to("/etc")
    (source / "src" / "a..b").write_text("x")
    (source / "src" / "..").joinpath("aside").symlink_to("b.py")
    os.mkfifo(source / "src" / "pipe")
    events: list[Event] = []
    packed = client.pack(source, tags=["left/out:v1"], on_event=events.append)
    said = "\n".join(event.message for event in events if isinstance(event, Warned))
    for name in ("src/link", "src/to-outside", "src/a..b", "src/pipe"):
        assert name in said
    assert "aside" not in said
    assert packed.size == 2 * 512 + 1024


def test_a_linked_layer_path_is_refused(client: Client, source: Path) -> None:
    make_tree(source, {"Kitfile": "manifestVersion: 1.0.0\ncode: [{path: src}]\n", "real/a.py": ""})
    (source / "src").symlink_to("real")
    with pytest.raises(KitdError) as caught:
        client.pack(source, tags=["left/linked:v1"])
    assert caught.value.exit_code in {65, 66}
    assert "src" in caught.value.message
    assert client.list("left/linked") == []


# -- kits on kits --------------------------------------------------------------------------------

CHILD = """manifestVersion: 1.0.0
package: {{name: child}}
model:
  path: {parent}
  parts: [{{name: lora, path: lora.bin}}]
code: [{{path: .}}]
"""


@pytest.fixture
def base(client: Client, shelf: ScriptedRegistry, tmp_path: Path) -> str:
    """A parent kit, pushed: its model is `weights`, it has docs too."""
    kitfile = "manifestVersion: 1.0.0\nmodel: {name: base, path: weights}\ndocs: [{path: BASE.md}]\n"
    tree = make_tree(
        tmp_path / "base", {"Kitfile": kitfile, "weights/a.bin": some_bytes(9000, 5), "BASE.md": "# base\n"}
    )
    reference = f"{shelf.host}/parents/base:v1"
    client.pack(tree, tags=[reference])
    client.push(reference)
    return reference


@pytest.fixture
def child_tree(base: str, source: Path) -> Path:
    """It has the parent's files beside its own, as after an unpack."""
    return make_tree(
        source,
        {
            "Kitfile": CHILD.format(parent=base),
            "lora.bin": some_bytes(3000, 6),
            "train.py": "train()\n",
            "weights/a.bin": some_bytes(9000, 5),
            "BASE.md": "# base\n",
        },
    )


@pytest.mark.parametrize("parent_is_here", [True, False])
def test_a_child_leaves_its_parents_files_out_and_brings_them_back(
    *,
    parent_is_here: bool,
    base: str,
    child_tree: Path,
    client: Client,
    other_client: Client,
    shelf: ScriptedRegistry,
    tmp_path: Path,
) -> None:
    here, there = (client, other_client) if parent_is_here else (other_client, client)
    reference = f"{shelf.host}/parents/child:{'here' if parent_is_here else 'remote'}"
    before = shelf.sent("/parents/base/blobs/")
    packed = here.pack(child_tree, tags=[reference])
    assert [layer.path for layer in packed.layers] == ["lora.bin", "."]
    # Of the parent, its config at most: packing on it needs no layer.
    assert shelf.sent("/parents/base/blobs/") - before < 9000
    # train.py alone; weights, docs and the Kitfile are the parent's, or never packed.
    assert packed.layers[1].size == 512 + 512 + 1024
    here.push(reference)
    pulled = there.pull(reference)
    assert pulled.digest == packed.digest
    there.unpack(reference, tmp_path / "out")
    wanted = contents_of(child_tree, without="Kitfile")
    # Of a parent only the model counts.
    del wanted["BASE.md"]
    assert contents_of(tmp_path / "out", without="Kitfile") == wanted
    assert contents_of(there.path(reference)) == wanted
    assert other_client.list(base[:-3]) == []


def _chain(shelf: ScriptedRegistry, name: str, length: int) -> str:
    """Kits on kits: `name-1` stands on nothing, `name-<length>` on all of them; the last one's reference."""
    parent = ""
    for number in range(1, length + 1):
        path = f"{name}/part-{number}.bin"
        part = FakeLayer("modelpart", path, {path: b"%d" % number})
        kit = make_kit([part] if parent else [FakeLayer("model", path, {path: b"1"})], parent=parent)
        put_kit(shelf, kit, f"chains/{name}-{number}")
        parent = f"{shelf.host}/chains/{name}-{number}:v1"
    return parent


def test_ten_kits_in_a_row_unite_and_eleven_are_too_many(
    client: Client, shelf: ScriptedRegistry, source: Path, tmp_path: Path
) -> None:
    ten = _chain(shelf, "ten", 10)
    client.pull(ten)
    client.unpack(ten, tmp_path / "out")
    assert contents_of(tmp_path / "out" / "ten") == {f"part-{n}.bin": b"%d" % n for n in range(1, 11)}
    eleven = _chain(shelf, "eleven", 11)
    with pytest.raises(ReferenceChainTooLong, match="maximum number of model references"):
        client.pull(eleven)
    assert client.list(eleven[:-3]) == []
    make_tree(source, {"Kitfile": CHILD.format(parent=eleven), "lora.bin": "x"})
    with pytest.raises(ReferenceChainTooLong):
        client.pack(source, tags=["chains/twelve:v1"])
    assert client.list("chains/twelve") == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_kit_that_is_its_own_ancestor(
    length: int, client: Client, shelf: ScriptedRegistry, source: Path
) -> None:
    names = [f"cycles/{length}-{number}" for number in range(length)]
    for number, name in enumerate(names):
        path = f"part-{number}.bin"
        above = names[(number + 1) % length]
        part = FakeLayer("modelpart", path, {path: b"x"})
        put_kit(shelf, make_kit([part], parent=f"{shelf.host}/{above}:v1", name=name), name)
    first = f"{shelf.host}/{names[0]}:v1"
    with pytest.raises(ReferenceCycle, match="found cycle"):
        client.pull(first)
    assert client.list(first[:-3]) == []
    make_tree(source, {"Kitfile": CHILD.format(parent=first), "lora.bin": "x"})
    with pytest.raises(ReferenceCycle):
        client.pack(source, tags=["cycles/child:v1"])


# -- parts of kits -------------------------------------------------------------------------------

MODEL = {"model.bin", "parts/lora.bin", "parts/tokenizer.json"}
DATA = {"data/train.csv", "data/test.csv"}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["kitfile"], {"Kitfile"}),
        (["model"], MODEL),
        (["model:base"], {"model.bin"}),
        (["model:lora"], {"parts/lora.bin"}),
        (["model:./parts/tokenizer.json"], {"parts/tokenizer.json"}),
        (["model:parts/tokenizer.json"], set()),
        (["datasets"], DATA),
        (["datasets:train"], {"data/train.csv"}),
        (["datasets:train,test"], DATA),
        (["datasets:data/test.csv"], {"data/test.csv"}),
        (["code"], {"src/main.py"}),
        (["code:src/main.py"], {"src/main.py"}),
        (["docs:./README.md"], {"README.md"}),
        (["docs:README.md"], set()),
        (["prompts:ask"], {"AGENTS.md"}),
        (["mcpservers:files"], {"mcp/files.mcpb"}),
        (["docs,prompts"], {"README.md", "AGENTS.md"}),
        (["code", "datasets:test"], {"src/main.py", "data/test.csv"}),
        (["model,datasets:train"], {"data/train.csv"}),
    ],
)
def test_filters_select(
    filters: list[str], wanted: set[str], client: Client, tree: Path, tmp_path: Path
) -> None:
    client.pack(tree, tags=["filters:v1"])
    client.unpack("filters:v1", tmp_path / "out", filters=filters)
    assert contents_of(tmp_path / "out").keys() == wanted
    if "kitfile" not in filters:
        assert contents_of(client.path("filters:v1", filters=filters)).keys() == wanted


@pytest.mark.parametrize(
    "text", ["", "Model", "models", "model:a:b", "model,", "dataset", "model docs", ":x"]
)
def test_filters_that_are_none(text: str, shared: Daemon, client: Client, tree: Path, tmp_path: Path) -> None:
    client.pack(tree, tags=["filters:v1"])
    with pytest.raises(InvalidFilter):
        client.unpack("filters:v1", tmp_path / "out", filters=[text])
    assert contents_of(tmp_path / "out") == {}
    done = shared.kitctl("unpack", "filters:v1", "-d", tmp_path / "out", "--filter", text, check=False)
    assert done.returncode == 2


def _sent(shelf: ScriptedRegistry, digests: Mapping[str, str]) -> dict[str, int]:
    return {name: shelf.sent(digest) for name, digest in digests.items()}


def test_a_part_of_a_kit_is_known_as_one_and_grows(
    client: Client, start_daemon: StartDaemon, shelf: ScriptedRegistry, tree: Path, tmp_path: Path
) -> None:
    node = start_daemon()
    other_client = Client(str(node.socket), autostart=False)
    reference = f"{shelf.host}/partial/kit:v1"
    packed = client.pack(tree, tags=[reference])
    client.push(reference)
    digests = {layer.path: layer.digest for layer in packed.layers}
    pulled = other_client.pull(reference, filters=["model"])
    assert not pulled.complete
    (kit,) = other_client.list(reference[:-3])
    assert (kit.complete, kit.size) == (False, packed.size)
    sent = _sent(shelf, digests)
    assert {path for path, count in sent.items() if count} == MODEL
    # What is here is here: no request.
    before = shelf.count()
    other_client.unpack(reference, tmp_path / "model", filters=["model"])
    assert contents_of(other_client.path(reference, filters=["model"])).keys() == MODEL
    assert shelf.count() == before
    # A push would name what it does not have.
    with pytest.raises(KitIncomplete, match=r"src/main\.py"):
        other_client.push(reference, f"{shelf.host}/partial/pushed:v1")
    assert "v1" not in shelf.repository("partial/pushed").tags
    # Whoever wants more gets it, and nothing twice.
    done = node.kitctl("unpack", reference, "-d", tmp_path / "out")
    assert "pulling it first" in done.stderr
    assert contents_of(tmp_path / "out", without="Kitfile") == contents_of(tree, without="Kitfile")
    assert {path: _sent(shelf, digests)[path] for path in MODEL} == {path: sent[path] for path in MODEL}
    (kit,) = other_client.list(reference[:-3])
    assert kit.complete
    # For one digest what was selected only grows.
    assert other_client.pull(reference, filters=["docs"]).digest == packed.digest
    (kit,) = other_client.list(reference[:-3])
    assert kit.complete
