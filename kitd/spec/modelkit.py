"""A kit as a whole: which layer holds which entry of the Kitfile, and what of it is wanted."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from kitd.spec import media_types
from kitd.spec.compose import compose, layer_annotations
from kitd.spec.digest import Digest, parse_digest
from kitd.spec.entries import (
    LAYER_KINDS,
    Code,
    Docs,
    Entry,
    Kitfile,
    Section,
    layer_entries,
    parent_reference,
    refuse_remote_datasets,
)
from kitd.spec.filters import Filter, narrow_to_model, parse_filters
from kitd.spec.media_types import LayerType, parse_layer_type
from kitd.spec.oci import Descriptor, Manifest
from kitd.spec.paths import clean_path
from kitd.spec.raw_layer import RawFile, file_mode
from kitd.spec.reference import Reference
from kitd_client.api.errors import ConfigInvalid, InvalidDigest, Unsupported

__all__ = [
    "LAYER_KINDS",
    "Filter",
    "Kit",
    "Layer",
    "RawFile",
    "Section",
    "Selection",
    "compose",
    "entry_name",
    "join",
    "layer_annotations",
    "layer_entries",
    "layer_label",
    "narrow_to_model",
    "parent_reference",
    "parse_filters",
    "refuse_remote_datasets",
    "select",
]

_SHOWN = 100
_LABELS: Mapping[Section, str] = MappingProxyType(
    {"modelpart": "part", "datasets": "dataset", "prompts": "prompt", "mcpServers": "mcpServer"}
)


class Layer(msgspec.Struct, frozen=True):
    """A layer of the manifest with the Kitfile entry it holds."""

    descriptor: Descriptor
    type: LayerType
    section: Section
    name: str
    path: str
    """Of the Kitfile, verbatim."""
    diff_id: Digest | None
    """The digest of the uncompressed layer, as the config claims it."""
    file_path: str
    """Where the one file of a raw layer belongs, cleaned and otherwise as claimed; "" for a tar."""
    mode: int | None
    """The permission bits of that file, where the manifest has them."""

    @property
    def label(self) -> str:
        """A short name for progress and messages."""
        return layer_label(self.section, self.name, self.path)


def layer_label(section: Section, name: str, path: str) -> str:
    """What people call a layer, whichever verb speaks of it."""
    return f"{_LABELS.get(section, section)} {name or path}"


class Kit(msgspec.Struct, frozen=True):
    """A manifest and its config, understood together."""

    manifest: Manifest
    kitfile: Kitfile
    layers: tuple[Layer, ...]
    """One for each of `layer_entries`, in that order."""
    unclaimed: tuple[Descriptor, ...]
    """Layers that no entry names: they travel with the kit and are never unpacked."""
    parent: Reference | None
    """The kit whose model this one builds on."""


class Selection(msgspec.Struct, frozen=True):
    """What of a kit is wanted."""

    kitfile: bool
    layers: tuple[Layer, ...]


def join(manifest: Manifest, kitfile: Kitfile) -> Kit:
    """The kit that a manifest and its config are.

    An entry's layer has the digest that the entry records. Of several with that digest (files of the same
    content) it is the one whose path annotation is the entry's path; kits older than kit 1.15 have none,
    and the order of the manifest decides.

    Raises:
        ConfigInvalid: manifest and config do not belong together.
        ManifestInvalid: a raw layer's annotations are not readable.
        Unsupported: the kit is older than kit 0.5, has a remote dataset, or its parent an unknown digest.
    """
    refuse_remote_datasets(kitfile)
    entries = layer_entries(kitfile)
    recorded = [entry for _, _, entry in entries if entry.digest]
    if entries and not recorded:
        raise Unsupported(
            "this kit was made by kit 0.4 or older, which is not supported",
            hint="unpack it with kit and pack it again",
        )
    if len(recorded) != len(entries):
        raise ConfigInvalid("the kit's config has digests for some of its layers only")
    free: dict[str, list[Descriptor]] = {}
    for descriptor in manifest.layers:
        free.setdefault(descriptor.digest, []).append(descriptor)
    layers = tuple(_layer(section, entry, free) for section, _, entry in entries)
    claimed = {layer.descriptor.digest for layer in layers}
    return Kit(
        manifest=manifest,
        kitfile=kitfile,
        layers=layers,
        unclaimed=tuple(each for each in manifest.layers if each.digest not in claimed),
        parent=parent_reference(kitfile),
    )


def _layer(section: Section, entry: Entry, free: dict[str, list[Descriptor]]) -> Layer:
    """The layer of one entry, taken out of the descriptors that are still free."""
    label = f"{section} {entry.path[:_SHOWN]}"
    candidates = free.get(entry.digest)
    if not candidates:
        raise ConfigInvalid(f"the layer of {label}, {entry.digest[:_SHOWN]}, is not in the manifest")
    path = clean_path(entry.path)

    def fitness(candidate: Descriptor) -> tuple[bool, bool]:
        kind = parse_layer_type(candidate.media_type)
        return (
            kind is not None and kind.kind == LAYER_KINDS[section],
            candidate.annotations.get(media_types.FILE_PATH) == path,
        )

    best = max(candidates, key=fitness)
    # The last one stays: kits may list a digest once for several entries of the same content.
    if len(candidates) > 1:
        candidates.remove(best)
    layer_type = parse_layer_type(best.media_type)
    if layer_type is None or layer_type.kind != LAYER_KINDS[section]:
        raise ConfigInvalid(f"the layer of {label} has the media type {best.media_type[:_SHOWN]}")
    raw = layer_type.format == "raw"
    return Layer(
        descriptor=best,
        type=layer_type,
        section=section,
        name=entry_name(entry),
        path=entry.path,
        diff_id=_diff_id(entry, label),
        file_path=_raw_path(best, path, label) if raw else "",
        mode=file_mode(best, label) if raw else None,
    )


def _raw_path(descriptor: Descriptor, path: str, label: str) -> str:
    """A raw layer holds no path of its own: its annotation must agree with the entry a filter looked at."""
    claimed = descriptor.annotations.get(media_types.FILE_PATH)
    if claimed != path:
        raise ConfigInvalid(f"the layer of {label} claims to be the file {str(claimed)[:_SHOWN]!r}")
    return path


def _diff_id(entry: Entry, label: str) -> Digest | None:
    try:
        return parse_digest(entry.diff_id) if entry.diff_id else None
    except InvalidDigest as error:
        raise ConfigInvalid(f"the diffId of {label}: {error.message}") from None


def entry_name(entry: Entry) -> str:
    """The name of an entry; code and docs have none."""
    return "" if isinstance(entry, Code | Docs) else entry.name


def select(kit: Kit, filters: tuple[Filter, ...]) -> Selection:
    """What the filters want of a kit; without filters, everything."""
    if not filters:
        return Selection(kitfile=True, layers=kit.layers)
    return Selection(
        kitfile=any("kitfile" in each.types for each in filters),
        layers=tuple(layer for layer in kit.layers if any(_takes(each, layer) for each in filters)),
    )


def _takes(wanted: Filter, layer: Layer) -> bool:
    kind = "model" if layer.section == "modelpart" else layer.section.lower()
    nameless = layer.section in {"code", "docs"}
    return wanted.takes(kind, (layer.path,) if nameless else (layer.name, layer.path))
