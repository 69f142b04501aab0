"""Real kits as bytes, made without kitd's own packer, and the golden ones that kit itself made."""

import dataclasses
import gzip
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import zstandard
from fakes.registry import ScriptedRegistry
from fakes.shelves import MANIFEST, digest_of

GOLDEN = Path(__file__).parent.parent / "data" / "kits"
CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
ARTIFACT = "application/vnd.kitops.modelkit.manifest.v1+json"

Section = Literal["model", "modelpart", "code", "dataset", "docs", "prompt"]
_LIST = {"code": "code", "dataset": "datasets", "docs": "docs", "prompt": "prompts"}


def some_bytes(size: int, seed: int = 0) -> bytes:
    """The same for the same size and seed, and not compressible."""
    return random.Random(f"{seed}/{size}").randbytes(size)


# -- layers --------------------------------------------------------------------------------------


def tar_header(name: str, *, size: int = 0, mode: int = 0o644, kind: bytes = b"0") -> bytes:
    """One ustar block as kit writes it; ASCII names of at most 100 bytes."""
    text = name.encode("ascii")
    assert len(text) <= 100
    block = bytearray(512)
    fields: dict[int, bytes] = {
        0: text,
        100: b"%07o\0" % mode,
        108: b"0001750\0",
        116: b"0000000\0",
        124: b"%011o\0" % size,
        136: b"00000000000\0",
        148: b"        ",
        156: kind,
        257: b"ustar\x0000",
        329: b"0000000\0",
        337: b"0000000\0",
    }
    for offset, value in fields.items():
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_of(files: Mapping[str, bytes], *, modes: Mapping[str, int] | None = None) -> bytes:
    """A plain tar as kit writes it: ancestors first, sorted per directory; `a/` is an empty directory."""
    wanted: dict[tuple[str, ...], bytes | None] = {}
    for name, data in files.items():
        parts = tuple(name.strip("/").split("/"))
        for depth in range(1, len(parts)):
            wanted[parts[:depth]] = None
        wanted[parts] = None if name.endswith("/") else data
    pieces = []
    for parts in sorted(wanted, key=lambda parts: [part.encode() for part in parts]):
        found, name = wanted[parts], "/".join(parts)
        mode = (modes or {}).get(name, 0o755 if found is None else 0o644)
        if found is None:
            pieces.append(tar_header(name, mode=mode, kind=b"5"))
        else:
            pieces += [tar_header(name, size=len(found), mode=mode), found, bytes(-len(found) % 512)]
    return b"".join([*pieces, bytes(1024)])


@dataclasses.dataclass(frozen=True)
class FakeLayer:
    """One layer to be. `files` by full path (`weights/a.bin`), beneath `path`; a raw layer has one file."""

    section: Section
    path: str
    files: Mapping[str, bytes]
    format: Literal["tar", "raw"] = "tar"
    compression: Literal["", "gzip", "zstd"] = ""
    modes: Mapping[str, int] | None = None
    name: str = ""
    blob: bytes | None = None
    """These very bytes in place of a tar of the files: hostile archives."""

    def plain(self) -> bytes:
        if self.blob is not None:
            return self.blob
        if self.format == "raw":
            (data,) = self.files.values()
            return data
        return tar_of(self.files, modes=self.modes)

    def packed(self) -> bytes:
        plain = self.plain()
        if self.compression == "gzip":
            return gzip.compress(plain, mtime=0)
        return zstandard.compress(plain) if self.compression == "zstd" else plain

    @property
    def media_type(self) -> str:
        kind = "code" if self.section == "prompt" else self.section
        suffix = f"+{self.compression}" if self.compression else ""
        return f"application/vnd.kitops.modelkit.{kind}.v1.{self.format}{suffix}"


# -- kits ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FakeKit:
    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]
    """Blobs in the order of the manifest."""
    files: Mapping[str, bytes]
    """What unpacking gives, by path."""

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def layer_digests(self) -> list[str]:
        return [digest_of(layer) for layer in self.layers]

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(map(len, self.layers))


def make_kit(
    layers: Sequence[FakeLayer],
    *,
    name: str = "demo",
    parent: str = "",
    annotated: bool = True,
    modern: bool = True,
) -> FakeKit:
    """A kit as kit 1.17 writes it.

    Args:
        layers: in manifest order: model, parts, code, datasets, docs, prompts.
        name: package name.
        parent: a kit reference as the model's path.
        annotated: layers name their file path; without, a reader goes by position as in old kits.
        modern: `mediaType`, `artifactType` and annotations are in the manifest.
    """
    blobs = [layer.packed() for layer in layers]
    config = json.dumps(_config(layers, blobs, name, parent), separators=(",", ":")).encode()
    manifest: dict[str, object] = {"schemaVersion": 2}
    if modern:
        manifest |= {"mediaType": MANIFEST, "artifactType": ARTIFACT}
    manifest["config"] = {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)}
    manifest["layers"] = [
        _descriptor(layer, blob, annotated=annotated) for layer, blob in zip(layers, blobs, strict=True)
    ]
    if modern:
        manifest["annotations"] = {
            "ml.kitops.modelkit.cli-version": "1.17.0",
            "org.opencontainers.image.created": "2026-03-01T12:34:56Z",
        }
    files = {path: data for layer in layers for path, data in layer.files.items()}
    text = json.dumps(manifest, separators=(",", ":")).encode()
    return FakeKit(text, config, tuple(blobs), files)


def _descriptor(layer: FakeLayer, blob: bytes, *, annotated: bool) -> dict[str, object]:
    found: dict[str, object] = {"mediaType": layer.media_type, "digest": digest_of(blob), "size": len(blob)}
    notes = {}
    if layer.section == "prompt":
        notes["ml.kitops.modelkit.layer-subtype"] = "prompt"
    if annotated:
        notes["org.cncf.model.filepath"] = layer.path.removeprefix("./").rstrip("/") or "."
    if layer.format == "raw":
        (path,) = layer.files
        facts = {
            "name": path.rpartition("/")[2],
            "mode": 0o644,
            "uid": 0,
            "gid": 0,
            "size": len(layer.plain()),
        }
        facts |= {"mtime": "2026-03-01T12:34:56.789Z", "typeflag": 48}
        notes["org.cncf.model.file.metadata+json"] = json.dumps(facts, separators=(",", ":"))
    if notes:
        found["annotations"] = notes
    return found


def _config(layers: Sequence[FakeLayer], blobs: Sequence[bytes], name: str, parent: str) -> dict[str, object]:
    model: dict[str, object] = {"path": parent} if parent else {}
    parts: list[dict[str, str]] = []
    lists: dict[str, list[dict[str, str]]] = {}
    for layer, blob in zip(layers, blobs, strict=True):
        entry = {"name": layer.name} if layer.name else {}
        diff_id = "sha256:" + hashlib.sha256(layer.plain()).hexdigest()
        entry |= {"path": layer.path, "digest": digest_of(blob), "diffId": diff_id}
        if layer.section == "model":
            model |= entry
        elif layer.section == "modelpart":
            parts.append(entry)
        else:
            lists.setdefault(_LIST[layer.section], []).append(entry)
    if parts:
        model["parts"] = parts
    config: dict[str, object] = {"manifestVersion": "1.0.0", "package": {"name": name}}
    if model:
        config["model"] = model
    return config | lists


def small_kit(seed: int = 0) -> FakeKit:
    """A model of two files, code and docs; a few kilobytes."""
    return make_kit(
        [
            FakeLayer(
                "model",
                "weights",
                {"weights/a.bin": some_bytes(5000, seed), "weights/b.json": b'{"a": 1}\n'},
                name="tiny",
            ),
            FakeLayer("code", "src", {"src/main.py": b"print('hi')\n", "src/pkg/__init__.py": b""}),
            FakeLayer("docs", "README.md", {"README.md": b"# demo\n"}),
        ]
    )


def large_kit(layer_size: int, layers: int = 1, *, seed: int = 0) -> FakeKit:
    """Plain-tar model layers of one file of `layer_size` bytes each (the first is the model, then parts)."""
    sections: list[Section] = ["model" if number == 0 else "modelpart" for number in range(layers)]
    return make_kit(
        [
            FakeLayer(
                section, f"shard-{number}.bin", {f"shard-{number}.bin": some_bytes(layer_size, seed + number)}
            )
            for number, section in enumerate(sections)
        ]
    )


# -- into a registry -----------------------------------------------------------------------------


def put_kit(registry: ScriptedRegistry, kit: FakeKit, name: str, tag: str = "v1") -> str:
    """The kit is at `registry` as `name:tag`; its manifest digest."""
    for blob in (kit.config, *kit.layers):
        registry.put_blob(name, blob)
    return registry.put_manifest(name, kit.manifest, tag)


def put_layout(registry: ScriptedRegistry, path: Path, name: str, tag: str = "v1") -> str:
    """Every blob of an OCI image layout, and its manifest as `name:tag`; the manifest's digest."""
    (entry,) = json.loads((path / "index.json").read_bytes())["manifests"]
    digest: str = entry["digest"]
    for blob in (path / "blobs" / "sha256").iterdir():
        if blob.name != digest.removeprefix("sha256:"):
            registry.put_blob(name, blob.read_bytes())
    manifest = (path / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    return registry.put_manifest(name, manifest, tag, entry["mediaType"])


def put_golden(registry: ScriptedRegistry, kit: str, name: str, tag: str = "v1") -> str:
    """One of `tests/data/kits` by its folder's name."""
    return put_layout(registry, GOLDEN / kit / "layout", name, tag)
