"""What a manifest says about the one file of a raw layer (CNCF model specification, file metadata)."""

import msgspec

from kitd.spec import go_json, media_types
from kitd.spec.oci import Descriptor
from kitd.spec.strict_json import parse_json
from kitd_client.api.errors import ManifestInvalid

_LIMIT = 16 * 2**10
_PERMISSIONS = 0o777
_REGULAR_FILE = ord("0")


class RawFile(msgspec.Struct, frozen=True):
    """The file of a raw layer that is packed here."""

    name: str
    """Without directories."""
    mode: int
    size: int
    """Bytes, uncompressed."""
    mtime: str
    """RFC 3339."""


class _Metadata(msgspec.Struct):
    name: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: str
    typeflag: int


def file_metadata(file: RawFile) -> str:
    """The annotation that describes a file, as kit 1.17 writes it."""
    metadata = _Metadata(
        name=file.name,
        mode=file.mode & _PERMISSIONS,
        uid=0,
        gid=0,
        size=file.size,
        mtime=file.mtime,
        typeflag=_REGULAR_FILE,
    )
    return go_json.encode(metadata).decode()


def file_mode(descriptor: Descriptor, label: str) -> int | None:
    """The permission bits of a raw layer's file; None when the manifest does not have them.

    Raises:
        ManifestInvalid: what it has cannot be read; `label` says of which layer.
    """
    text = descriptor.annotations.get(media_types.FILE_METADATA)
    if text is None:
        return None
    try:
        value = parse_json(text.encode(), limit=_LIMIT)
    except ValueError as error:
        raise ManifestInvalid(f"the file metadata of {label} cannot be read: {error}") from None
    mode = value.get("mode") if isinstance(value, dict) else None
    if not isinstance(mode, int) or mode < 0:
        raise ManifestInvalid(f"the file metadata of {label} has no mode")
    return mode & _PERMISSIONS
