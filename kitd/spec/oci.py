"""Descriptors and manifests (OCI image specification 1.1), as far as ModelKits use them."""

from typing import Annotated

import msgspec

from kitd.spec import go_json, media_types
from kitd.spec.digest import Digest, parse_digest
from kitd.spec.strict_json import JsonValue, parse_json
from kitd_client.api.errors import InvalidDigest, ManifestInvalid, Unsupported

MANIFEST_LIMIT = 4 * 2**20
"""Bytes of a manifest: what registries accept, and so what clients must."""

LAYER_LIMIT = 10_000
"""Layers of a kit."""

_ANNOTATIONS = 128 * 2**10
_SCHEMA_VERSION = 2

Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Descriptor(msgspec.Struct, frozen=True):
    """A blob as others speak of it."""

    media_type: str
    digest: Digest
    size: Size
    """Bytes."""
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True):
    """The manifest of a ModelKit of any age."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str]
    media_type: str | None
    """Absent before kit 1.17."""
    artifact_type: str | None
    """Absent before kit 1.8."""


class _WireDescriptor(msgspec.Struct, rename="camel", omit_defaults=True):
    media_type: str
    digest: str
    size: Size
    annotations: dict[str, str] | None = None


class _WireManifest(msgspec.Struct, rename="camel", omit_defaults=True):
    schema_version: int
    media_type: str | None = None
    artifact_type: str | None = None
    config: _WireDescriptor | None = None
    layers: list[_WireDescriptor] | None = None
    annotations: dict[str, str] | None = None


# msgspec learns a struct at its first use; threads that do so at the same time crash the process. So: here, once.
msgspec.json.Decoder(_WireManifest)


def parse_manifest(data: bytes) -> Manifest:
    """The manifest of a ModelKit.

    Bounded before it is parsed: 4 MiB, 64 levels; then 10 000 layers, 128 KiB of annotations on each
    descriptor. A name that stands twice in an object is refused, and so is what is an index and a manifest
    at once (CVE-2021-41190): others would read another kit under the same digest.

    Raises:
        ManifestInvalid: it is no manifest of a ModelKit.
        Unsupported: it is an index, a ModelPack, or names a blob by another digest than SHA-256.
    """
    try:
        value = parse_json(data, limit=MANIFEST_LIMIT)
    except ValueError as error:
        raise ManifestInvalid(f"manifest is not readable: {error}") from None
    if not isinstance(value, dict):
        raise ManifestInvalid("manifest is not readable: it is no JSON object")
    _check_kind(value)
    try:
        wire = msgspec.convert(value, _WireManifest)
    except msgspec.ValidationError as error:
        raise ManifestInvalid(f"manifest is not valid: {_lowered(error)}") from None
    return _manifest(wire)


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes that kit 1.17 writes for a manifest (Go's `json.Marshal`)."""
    return go_json.encode(
        _WireManifest(
            schema_version=_SCHEMA_VERSION,
            media_type=manifest.media_type,
            artifact_type=manifest.artifact_type,
            config=_wire(manifest.config),
            layers=[_wire(layer) for layer in manifest.layers],
            annotations=manifest.annotations or None,
        )
    )


def _check_kind(value: dict[str, JsonValue]) -> None:
    """Refuse, by name, what is something else than a ModelKit's manifest."""
    if value.get("manifests") is not None:
        if value.get("layers") is not None or value.get("config") is not None:
            raise ManifestInvalid("manifest is not valid: it is an index and a manifest at once")
        raise Unsupported("this is an index of several kits", hint="name one of its kits by tag or digest")
    config = value.get("config")
    config_type = config.get("mediaType") if isinstance(config, dict) else None
    named = [kind for kind in (value.get("artifactType"), config_type) if isinstance(kind, str) and kind]
    if media_types.ARTIFACT_TYPE not in named and media_types.CONFIG not in named:
        if media_types.MODELPACK_ARTIFACT_TYPE in named or media_types.MODELPACK_CONFIG in named:
            raise Unsupported("this is a CNCF ModelPack, not a ModelKit: ModelPacks are not supported yet")
        shown = ", ".join(kind[:100] for kind in named) or "it names no type"
        raise ManifestInvalid(f"this is not a ModelKit: {shown}")
    if value.get("mediaType") not in (None, "", media_types.MANIFEST):
        raise ManifestInvalid("manifest is not valid: its media type is not that of an image manifest")


def _manifest(wire: _WireManifest) -> Manifest:
    if wire.schema_version != _SCHEMA_VERSION:
        raise ManifestInvalid(f"manifest is not valid: schema version {wire.schema_version}, expected 2")
    if wire.config is None:
        raise ManifestInvalid("manifest is not valid: it has no config")
    layers = wire.layers or []
    if len(layers) > LAYER_LIMIT:
        raise ManifestInvalid(
            f"manifest has {len(layers)} layers, more than the {LAYER_LIMIT} that are taken"
        )
    return Manifest(
        config=_descriptor(wire.config, "config"),
        layers=tuple(_descriptor(layer, f"layer {index}") for index, layer in enumerate(layers)),
        annotations=_annotations(wire.annotations, "the manifest"),
        media_type=wire.media_type or None,
        artifact_type=wire.artifact_type or None,
    )


def _descriptor(wire: _WireDescriptor, where: str) -> Descriptor:
    try:
        digest = parse_digest(wire.digest)
    except InvalidDigest as error:
        raise ManifestInvalid(f"manifest is not valid: {where}: {error.message}") from None
    return Descriptor(wire.media_type, digest, wire.size, _annotations(wire.annotations, where))


def _annotations(wire: dict[str, str] | None, where: str) -> dict[str, str]:
    found = wire or {}
    if sum(len(key) + len(value) for key, value in found.items()) > _ANNOTATIONS:
        raise ManifestInvalid(
            f"manifest is not valid: {where} has more than {_ANNOTATIONS} bytes of annotations"
        )
    return found


def _wire(descriptor: Descriptor) -> _WireDescriptor:
    return _WireDescriptor(
        descriptor.media_type, descriptor.digest, descriptor.size, descriptor.annotations or None
    )


def _lowered(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]
