"""Every kind of layer in every form, kits on kits, and parts of kits."""

import json
import os
from pathlib import Path

import pytest
from fakes.daemon import Daemon
from fakes.shelves import digest_of
from interop.trees import ALL_KINDS, bundle, contents_of, make_tree

from kitd_client.api.errors import (
    ArchiveInvalid,
    KitdError,
    SourceUnsuitable,
)
from kitd_client.api.jobs import Event, Warned
from kitd_client.client import Client

KITOPS = "application/vnd.kitops.modelkit"


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
    return make_tree(source, ALL_KINDS)


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


@pytest.mark.parametrize("bundle", [b"no zip at all", bundle("inner/manifest.json")])
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
