import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from kitd.spec import media_types
from kitd.spec.digest import Digest, digest_of, parse_digest
from kitd.spec.entries import layer_entries, parent_reference, refuse_remote_datasets
from kitd.spec.kitfile import CONFIG_LIMIT, Kitfile, parse_config, parse_kitfile
from kitd.spec.modelkit import (
    Kit,
    RawFile,
    Section,
    compose,
    join,
    layer_annotations,
    parse_filters,
    select,
)
from kitd.spec.oci import Descriptor, Manifest, parse_manifest
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import ConfigInvalid, KitfileInvalid, ManifestInvalid, Unsupported

CREATED, VERSION = "2026-01-01T00:00:00Z", "1.16.0"
FULL = b"""
manifestVersion: 1.0.0
package: {name: full}
model: {name: m, path: ./w, parts: [{name: p, path: p/, type: t}]}
code: [{path: src}]
datasets: [{name: d, path: data}, {path: ./more}]
docs: [{path: ./README.md}]
prompts: [{name: sys, path: AGENTS.md}]
mcpServers: [{name: crm, path: crm.mcpb}]
"""
KINDS: dict[Section, str] = {
    "model": "model.v1.tar",
    "modelpart": "modelpart.v1.tar+zstd",
    "code": "code.v1.tar",
    "datasets": "dataset.v1.tar+gzip",
    "docs": "docs.v1.tar",
    "prompts": "code.v1.raw",
    "mcpServers": "mcpb.v1.raw",
}


def named(text: str) -> Digest:
    return digest_of(text.encode())


def descriptor(kind: str, digest: Digest, **annotations: str) -> Descriptor:
    keys = {"path": media_types.FILE_PATH, "metadata": media_types.FILE_METADATA}
    return Descriptor(
        f"application/vnd.kitops.modelkit.{kind}",
        digest,
        1024,
        {keys[key]: text for key, text in annotations.items()},
    )


def manifest_of(*layers: Descriptor) -> Manifest:
    return Manifest(Descriptor(media_types.CONFIG, named("config"), 2), layers, {}, None, None)


def config_of(**sections: object) -> Kitfile:
    return parse_config(json.dumps(sections).encode())


def full_kit() -> tuple[bytes, bytes]:
    kitfile, _ = parse_kitfile(FULL)
    layers = []
    for section, index, entry in layer_entries(kitfile):
        raw = RawFile(entry.path, 0o100640, 5, CREATED) if "raw" in KINDS[section] else None
        annotations = layer_annotations(section, entry.path, raw)
        digest = named(f"{section}{index}")
        layers.append(
            (
                Descriptor(f"application/vnd.kitops.modelkit.{KINDS[section]}", digest, 1024, annotations),
                named(f"diff {section}{index}"),
            )
        )
    return compose(kitfile, layers, created=CREATED, version=VERSION)


def test_a_kit_is_written_as_kit_writes_it() -> None:
    # The bytes of a kit of kit 1.16: model/w.bin with "hello weights\n".
    digest = parse_digest("sha256:7486f1d6fc36a604b05f6eef00028e9ab3c50d530588dccb5338a47a9ae43643")
    kitfile, _ = parse_kitfile(
        b"manifestVersion: 1.0.0\npackage: {name: demo}\nmodel: {name: demo, path: ./model}\n"
    )
    layer = Descriptor(
        "application/vnd.kitops.modelkit.model.v1.tar", digest, 2560, layer_annotations("model", "./model")
    )
    config, manifest = compose(kitfile, [(layer, digest)], created=CREATED, version=VERSION)
    assert digest_of(config) == "sha256:8a912bfede336f9c60297cb09da0b3d37066c9ff270d489f904fefd7ebeccade"
    assert digest_of(manifest) == "sha256:62b86697272e245665cfee0d4088c5f9e74e12525d40866a373defe4fe251035"


def test_a_kit_without_layers_is_written_with_an_empty_list() -> None:
    kitfile, _ = parse_kitfile(b"manifestVersion: 1.0.0\nmodel: {path: 'reg.io/a:v1'}")
    config, manifest = compose(kitfile, [], created=CREATED, version=VERSION)
    assert b'"layers":[],' in manifest
    kit = join(parse_manifest(manifest), parse_config(config))
    assert (kit.layers, str(kit.parent)) == ((), "reg.io/a:v1")


def test_a_kit_of_every_kind_is_understood_again() -> None:
    config, manifest = full_kit()
    kit = join(parse_manifest(manifest), parse_config(config))
    assert kit.unclaimed == ()
    assert [(layer.section, layer.name, layer.path, layer.file_path, layer.mode) for layer in kit.layers] == [
        ("model", "m", "./w", "", None),
        ("modelpart", "p", "p/", "", None),
        ("code", "", "src", "", None),
        ("datasets", "d", "data", "", None),
        ("datasets", "", "./more", "", None),
        ("docs", "", "./README.md", "", None),
        ("prompts", "sys", "AGENTS.md", "AGENTS.md", 0o640),
        ("mcpServers", "crm", "crm.mcpb", "crm.mcpb", 0o640),
    ]
    assert [layer.label for layer in kit.layers][:5] == [
        "model m",
        "part p",
        "code src",
        "dataset d",
        "dataset ./more",
    ]
    assert [layer.type.compression for layer in kit.layers][:4] == ["none", "zstd", "none", "gzip"]
    assert kit.layers[4].descriptor.digest == named("datasets1")
    assert kit.layers[4].diff_id == named("diff datasets1")


def test_layers_carry_the_annotations_of_kit_1_17() -> None:
    raw = RawFile("m.gguf", 0o100644, 123, "2026-03-01T12:34:56.789+01:00")
    assert layer_annotations("prompts", "./p//m.gguf", raw) == {
        "org.cncf.model.filepath": "p/m.gguf",
        "org.cncf.model.file.metadata+json": (
            '{"name":"m.gguf","mode":420,"uid":0,"gid":0,"size":123,'
            '"mtime":"2026-03-01T12:34:56.789+01:00","typeflag":48}'
        ),
        "ml.kitops.modelkit.layer-subtype": "prompt",
    }
    assert layer_annotations("model", "") == {"org.cncf.model.filepath": "."}


REAL = [
    "basic",
    "gz",
    "gz-fastest",
    "ignore",
    "kitfile-only",
    "links",
    "many",
    "names",
    "nested",
    "parts",
    "wholedir",
]


@pytest.mark.parametrize("name", REAL)
def test_a_real_kit_is_understood(name: str, load_kit: Callable[[str], Kit]) -> None:
    kit = load_kit(name)
    assert [layer.descriptor for layer in kit.layers] == list(kit.manifest.layers)
    assert [layer.path for layer in kit.layers] == [entry.path for _, _, entry in layer_entries(kit.kitfile)]
    assert kit.unclaimed == ()
    assert str(kit.parent) == ("127.0.0.1:5000/golden/basic:v1" if name == "kitfile-only" else "None")


def test_entries_of_the_same_content_find_their_own_layers_by_path() -> None:
    digest = named("same")
    manifest = manifest_of(
        descriptor("docs.v1.raw", digest, path="b.txt", metadata='{"mode":384}'),
        descriptor("code.v1.raw", digest, path="c.txt"),
        descriptor("docs.v1.raw", digest, path="a.txt"),
    )
    kit = join(
        manifest,
        config_of(
            code=[{"path": "./c.txt", "digest": digest}],
            docs=[{"path": "a.txt", "digest": digest}, {"path": "b.txt", "digest": digest}],
        ),
    )
    assert [(layer.file_path, layer.mode) for layer in kit.layers] == [
        ("c.txt", None),
        ("a.txt", None),
        ("b.txt", 0o600),
    ]
    assert kit.layers[0].diff_id is None


def test_kits_without_annotations_go_by_order_and_kind() -> None:
    digest = named("empty tar")
    manifest = manifest_of(descriptor("code.v1.tar", digest), descriptor("docs.v1.tar", digest))
    kit = join(
        manifest,
        config_of(
            code=[{"path": "a", "digest": digest}],
            docs=[{"path": "b", "digest": digest}, {"path": "c", "digest": digest}],
        ),
    )
    assert [layer.type.kind for layer in kit.layers] == ["code", "docs", "docs"]


def test_layers_that_no_entry_names_travel_along() -> None:
    manifest = manifest_of(
        descriptor("hologram.v1.tar", named("new")), descriptor("docs.v1.tar", named("docs"))
    )
    kit = join(manifest, config_of(docs=[{"path": "a", "digest": named("docs")}], holograms=[{"path": "h"}]))
    assert [layer.path for layer in kit.layers] == ["a"]
    assert [each.digest for each in kit.unclaimed] == [named("new")]


DOCS = {"path": "a", "digest": named("docs")}


@pytest.mark.parametrize(
    ("layers", "sections", "error", "message"),
    [
        ([], {"docs": [DOCS]}, ConfigInvalid, "is not in the manifest"),
        ([], {"docs": [{**DOCS, "digest": "x" * 500}]}, ConfigInvalid, "is not in the manifest"),
        (
            [descriptor("docs.v1.tar", named("docs"))],
            {"docs": [DOCS, {"path": "b"}]},
            ConfigInvalid,
            "for some of its layers only",
        ),
        (
            [descriptor("docs.v1.tar", named("docs"))],
            {"docs": [{"path": "a"}]},
            Unsupported,
            "kit 0.4 or older",
        ),
        ([descriptor("code.v1.tar", named("docs"))], {"docs": [DOCS]}, ConfigInvalid, "has the media type"),
        ([descriptor("docs.v1.zip", named("docs"))], {"docs": [DOCS]}, ConfigInvalid, "has the media type"),
        (
            [descriptor("docs.v1.raw", named("docs"), path="../b")],
            {"docs": [DOCS]},
            ConfigInvalid,
            "claims to be the file '../b'",
        ),
        (
            [descriptor("docs.v1.raw", named("docs"))],
            {"docs": [DOCS]},
            ConfigInvalid,
            "claims to be the file",
        ),
        (
            [descriptor("docs.v1.tar", named("docs"))],
            {"docs": [{**DOCS, "diffId": "sha256:x"}]},
            ConfigInvalid,
            "the diffId of docs a",
        ),
        (
            [descriptor("docs.v1.raw", named("docs"), path="a", metadata="{")],
            {"docs": [DOCS]},
            ManifestInvalid,
            "cannot be read",
        ),
        (
            [descriptor("docs.v1.raw", named("docs"), path="a", metadata='{"mode":"644"}')],
            {"docs": [DOCS]},
            ManifestInvalid,
            "has no mode",
        ),
        (
            [],
            {"datasets": [{"path": "d", "remotePath": "s3://b/k", "remoteHash": "h"}]},
            Unsupported,
            "dataset d lies at s3://b/k",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(
    layers: list[Descriptor], sections: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        join(manifest_of(*layers), config_of(**sections))
    assert len(str(caught.value)) < 300


def test_the_mode_of_a_raw_file_is_masked() -> None:
    manifest = manifest_of(descriptor("docs.v1.raw", named("docs"), path="a", metadata='{"mode":4095}'))
    assert join(manifest, config_of(docs=[DOCS])).layers[0].mode == 0o777


def test_what_becomes_a_layer() -> None:
    kitfile, _ = parse_kitfile(
        b"manifestVersion: 1.0.0\nmodel: {path: 'reg.io/a:v1', parts: [{path: p}]}\n"
        b"datasets: [{path: a, remotePath: s3://b/k, remoteHash: h}, {path: b}]\n"
    )
    assert [(section, index) for section, index, _ in layer_entries(kitfile)] == [
        ("modelpart", 0),
        ("datasets", 1),
    ]
    assert parent_reference(kitfile) == parse_reference("reg.io/a:v1")
    with pytest.raises(Unsupported, match="remote datasets are not supported yet"):
        refuse_remote_datasets(kitfile)


@pytest.mark.parametrize(
    ("filters", "kitfile", "paths"),
    [
        ([], True, ["./w", "p/", "src", "data", "./more", "./README.md", "AGENTS.md", "crm.mcpb"]),
        (["kitfile"], True, []),
        (["model"], False, ["./w", "p/"]),
        (["model:p"], False, ["p/"]),
        (["model:./w"], False, ["./w"]),
        (["model:w"], False, []),
        (["datasets:"], False, ["./more"]),
        (["datasets:d,./more"], False, ["data", "./more"]),
        (["docs:README.md"], False, []),
        (["docs:./README.md", "code"], False, ["src", "./README.md"]),
        (["code:"], False, []),
        (["docs,kitfile:nothing"], True, []),
        (["prompts:sys", "mcpservers:crm.mcpb"], False, ["AGENTS.md", "crm.mcpb"]),
    ],
)
def test_filters_select_as_in_kit(filters: list[str], kitfile: bool, paths: list[str]) -> None:  # noqa: FBT001 -- a column of the table
    config, manifest = full_kit()
    selection = select(join(parse_manifest(manifest), parse_config(config)), parse_filters(filters))
    assert selection.kitfile is kitfile
    assert [layer.path for layer in selection.layers] == paths


def test_a_kit_that_could_not_be_read_again_is_not_written() -> None:
    kitfile, _ = parse_kitfile(b"manifestVersion: 1.0.0")
    many = msgspec.structs.replace(kitfile, docs=parse_kitfile(b"docs: [{path: a}]")[0].docs * 10_001)
    with pytest.raises(KitfileInvalid, match="10001 layers"):
        compose(many, [], created=CREATED, version=VERSION)
    long = msgspec.structs.replace(kitfile, manifest_version="x" * CONFIG_LIMIT)
    with pytest.raises(KitfileInvalid, match="the kit's config would have"):
        compose(long, [], created=CREATED, version=VERSION)


def test_compose_wants_one_layer_for_each_entry() -> None:
    kitfile, _ = parse_kitfile(FULL)
    with pytest.raises(ValueError, match="zip"):
        compose(kitfile, [], created=CREATED, version=VERSION)


def test_of_a_parent_with_several_tags_the_first_counts() -> None:
    kitfile, _ = parse_kitfile(b"manifestVersion: 1.0.0\nmodel: {path: 'reg.io/a:v1,v2'}\n")
    assert parent_reference(kitfile) == parse_reference("reg.io/a:v1")


def test_a_parent_by_another_digest_than_sha256_is_named() -> None:
    path = f"reg.io/a@sha512:{'0' * 128}"
    kitfile, _ = parse_kitfile(f"manifestVersion: 1.0.0\nmodel: {{path: '{path}'}}\n".encode())
    with pytest.raises(Unsupported, match=r"the kit builds on reg\.io/a@sha512"):
        parent_reference(kitfile)
