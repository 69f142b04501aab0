"""Kitfiles as text: YAML for people, JSON (the config blob) for registries."""

import msgspec

from kitd.spec import go_json
from kitd.spec.entries import (
    Code,
    Dataset,
    Docs,
    Entry,
    Kitfile,
    McpServer,
    Model,
    ModelPart,
    Package,
    Prompt,
)
from kitd.spec.kitfile_rules import check_kitfile
from kitd.spec.kitfile_yaml import kitfile_of, yaml_fields
from kitd.spec.strict_json import JsonValue, parse_json
from kitd.spec.yaml_text import YamlError, read_yaml
from kitd.spec.yaml_writer import Flow, YamlValue, write_yaml
from kitd_client.api.errors import ConfigInvalid, KitfileInvalid

__all__ = [
    "CONFIG_LIMIT",
    "KITFILE_LIMIT",
    "KITFILE_NAMES",
    "Code",
    "Dataset",
    "Docs",
    "Entry",
    "Kitfile",
    "McpServer",
    "Model",
    "ModelPart",
    "Package",
    "Prompt",
    "encode_config",
    "encode_kitfile",
    "parse_config",
    "parse_kitfile",
]

KITFILE_NAMES = ("Kitfile", "kitfile", ".kitfile")
"""What a Kitfile may be called, in the order in which they are looked for."""

KITFILE_LIMIT = 2**20
"""Bytes of a Kitfile that are read."""

CONFIG_LIMIT = 4 * 2**20
"""Bytes of a config blob: a Kitfile of full length plus the digests of its layers."""


def parse_kitfile(data: bytes) -> tuple[Kitfile, tuple[str, ...]]:
    """The Kitfile that a person wrote, and warnings about it.

    Takes up to seconds for one of full length: such belong in a thread.

    Raises:
        KitfileInvalid: it is no YAML, has an unknown key, or breaks a rule of kit's; all broken rules are
        named.
    """
    try:
        root = read_yaml(data, limit=KITFILE_LIMIT)
        if root is None:
            raise KitfileInvalid("the Kitfile is empty", hint="start it with: manifestVersion: 1.0.0")
        kitfile = kitfile_of(root)
    except YamlError as error:
        raise KitfileInvalid(f"the Kitfile cannot be read: {error}") from None
    errors, warnings = check_kitfile(kitfile)
    if errors:
        lines = "".join(f"\n  * {error}" for error in errors)
        raise KitfileInvalid(f"errors while validating Kitfile: {lines}")
    return kitfile, tuple(warnings)


def parse_config(data: bytes) -> Kitfile:
    """The Kitfile that the config blob of a kit holds.

    As kit reads it: unknown keys are passed over, `null` is the same as absent, kit's rules are not checked
    (older kit had fewer of them). Refused is what JSON readers could read in two ways.

    Raises:
        ConfigInvalid: it is no JSON, or no Kitfile.
    """
    try:
        value = parse_json(data, limit=CONFIG_LIMIT)
    except ValueError as error:
        raise ConfigInvalid(f"the kit's config cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ConfigInvalid("the kit's config cannot be read: it is no JSON object")
    found = {"manifestVersion": "", "package": {}, **_without_nulls(value)}
    docs = found.get("docs")
    if isinstance(docs, list):
        found["docs"] = [{"path": "", **entry} if isinstance(entry, dict) else entry for entry in docs]
    try:
        return msgspec.convert(found, Kitfile)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(f"the kit's config is not valid: {str(error).lower()}") from None


def encode_config(kitfile: Kitfile) -> bytes:
    """The config blob that kit writes for this Kitfile, byte for byte."""
    return go_json.encode(kitfile)


def encode_kitfile(kitfile: Kitfile) -> bytes:
    """The Kitfile in YAML, for people: without digests, numbers as a person writes them."""
    return write_yaml(_yaml(kitfile))


def _yaml(struct: msgspec.Struct) -> dict[str, YamlValue]:
    found: dict[str, YamlValue] = {}
    for field in yaml_fields(type(struct)):
        value = getattr(struct, field.name)
        if value != Package() and (field.required or value != field.default):
            found[field.encode_name] = Flow(value) if field.name == "authors" else _yaml_value(value)
    return found


def _yaml_value(value: "JsonValue | tuple[msgspec.Struct, ...] | msgspec.Struct") -> YamlValue:
    if isinstance(value, msgspec.Struct):
        return _yaml(value)
    if isinstance(value, dict):
        return {key: _yaml_value(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_yaml_value(item) for item in value]
    return value


def _without_nulls(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, item in value.items():
        if key == "parameters":
            found[key] = item
        elif isinstance(item, dict):
            found[key] = _without_nulls(item)
        elif isinstance(item, list):
            found[key] = [_without_nulls(entry) if isinstance(entry, dict) else entry for entry in item]
        elif item is not None:
            found[key] = item
    return found
