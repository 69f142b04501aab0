"""The config and the manifest of a kit that is packed here."""

from collections.abc import Sequence

import msgspec

from kitd.spec import media_types
from kitd.spec.digest import Digest, digest_of
from kitd.spec.entries import Entry, Kitfile, Section, layer_entries
from kitd.spec.kitfile import CONFIG_LIMIT, encode_config
from kitd.spec.oci import LAYER_LIMIT, MANIFEST_LIMIT, Descriptor, Manifest, encode_manifest
from kitd.spec.paths import clean_path
from kitd.spec.raw_layer import RawFile, file_metadata
from kitd_client.api.errors import KitfileInvalid


def layer_annotations(section: Section, path: str, raw: RawFile | None = None) -> dict[str, str]:
    """The annotations of an entry's layer, as kit 1.17 writes them; `raw` is the file of a raw layer."""
    found = {media_types.FILE_PATH: clean_path(path)}
    if raw is not None:
        found[media_types.FILE_METADATA] = file_metadata(raw)
    if section == "prompts":
        found[media_types.LAYER_SUBTYPE] = media_types.PROMPT_SUBTYPE
    return found


def compose(
    kitfile: Kitfile, layers: Sequence[tuple[Descriptor, Digest]], *, created: str, version: str
) -> tuple[bytes, bytes]:
    """Config and manifest of a kit, as kit 1.17 writes them.

    Args:
        kitfile: the Kitfile, without digests.
        layers: descriptor (with its annotations) and diffID of each of `layer_entries`, in that order.
        created: the time of packing, RFC 3339 in UTC to the second.
        version: of the program that packs.

    Raises:
        KitfileInvalid: the kit would be too large to be read again.
    """
    entries = layer_entries(kitfile)
    if len(entries) > LAYER_LIMIT:
        raise KitfileInvalid(f"the Kitfile makes {len(entries)} layers, more than the {LAYER_LIMIT} of a kit")
    config = encode_config(_recorded(kitfile, layers))
    manifest = Manifest(
        config=Descriptor(media_types.CONFIG, digest_of(config), len(config)),
        layers=tuple(descriptor for descriptor, _ in layers),
        annotations={media_types.CLI_VERSION: version, media_types.CREATED: created},
        media_type=media_types.MANIFEST,
        artifact_type=media_types.ARTIFACT_TYPE,
    )
    encoded = encode_manifest(manifest)
    for what, size, limit in (
        ("config", len(config), CONFIG_LIMIT),
        ("manifest", len(encoded), MANIFEST_LIMIT),
    ):
        if size > limit:
            raise KitfileInvalid(f"the kit's {what} would have {size} bytes, more than the {limit} of a kit")
    return config, encoded


def _recorded(kitfile: Kitfile, layers: Sequence[tuple[Descriptor, Digest]]) -> Kitfile:
    """The Kitfile with the digests of its layers."""
    entries = layer_entries(kitfile)
    sections: dict[Section, list[Entry]] = {
        "model": [kitfile.model] if kitfile.model else [],
        "modelpart": list(kitfile.model.parts) if kitfile.model else [],
        "code": list(kitfile.code),
        "datasets": list(kitfile.datasets),
        "docs": list(kitfile.docs),
        "prompts": list(kitfile.prompts),
        "mcpServers": list(kitfile.mcp_servers),
    }
    for (section, index, entry), (descriptor, diff_id) in zip(entries, layers, strict=True):
        sections[section][index] = msgspec.structs.replace(entry, digest=descriptor.digest, diff_id=diff_id)
    model = sections["model"][0] if kitfile.model else None
    return msgspec.structs.replace(
        kitfile,
        model=msgspec.structs.replace(model, parts=tuple(sections["modelpart"])) if model else None,
        code=tuple(sections["code"]),
        datasets=tuple(sections["datasets"]),
        docs=tuple(sections["docs"]),
        prompts=tuple(sections["prompts"]),
        mcp_servers=tuple(sections["mcpServers"]),
    )
