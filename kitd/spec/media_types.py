"""The media types and annotation keys of ModelKits (kit 1.17; OCI image specification 1.1)."""

import re
from typing import Final, Literal, TypeAlias, cast, get_args

import msgspec

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.kitops.modelkit.manifest.v1+json"
CONFIG: Final = "application/vnd.kitops.modelkit.config.v1+json"
MODELPACK_ARTIFACT_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
MODELPACK_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"

CLI_VERSION: Final = "ml.kitops.modelkit.cli-version"
CREATED: Final = "org.opencontainers.image.created"
FILE_PATH: Final = "org.cncf.model.filepath"
"""On every layer since kit 1.15: the cleaned path of its Kitfile entry."""
FILE_METADATA: Final = "org.cncf.model.file.metadata+json"
"""On raw layers: name, mode, size and time of their one file, as JSON."""
LAYER_SUBTYPE: Final = "ml.kitops.modelkit.layer-subtype"
PROMPT_SUBTYPE: Final = "prompt"

LayerKind: TypeAlias = Literal["model", "modelpart", "code", "dataset", "docs", "mcpb"]
LayerFormat: TypeAlias = Literal["tar", "raw"]
Compression: TypeAlias = Literal["none", "gzip", "zstd"]

_LAYER = re.compile(r"application/vnd\.kitops\.modelkit\.([a-z]+)\.v1\.([a-z]+)(?:\+([a-z]+))?")


class LayerType(msgspec.Struct, frozen=True):
    """What the media type of a layer says."""

    kind: LayerKind
    format: LayerFormat
    compression: Compression


def parse_layer_type(media_type: str) -> LayerType | None:
    """What a layer's media type says; None for one that this version does not know."""
    match = _LAYER.fullmatch(media_type)
    if match is None:
        return None
    kind, form, compression = match[1], match[2], match[3]
    known = (
        kind in get_args(LayerKind)
        and form in get_args(LayerFormat)
        and compression in {None, "gzip", "zstd"}
        and (kind != "mcpb" or (form == "raw" and compression is None))
    )
    if not known:
        return None
    return LayerType(
        cast("LayerKind", kind), cast("LayerFormat", form), cast("Compression", compression or "none")
    )


def encode_layer_type(layer_type: LayerType) -> str:
    """The media type that says it."""
    suffix = "" if layer_type.compression == "none" else f"+{layer_type.compression}"
    return f"application/vnd.kitops.modelkit.{layer_type.kind}.v1.{layer_type.format}{suffix}"
