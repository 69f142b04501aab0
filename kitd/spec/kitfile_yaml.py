"""Kitfiles in YAML, read as kit reads them: the schema says what a scalar is, not its looks.

A text field takes the text of any scalar (`version: 1.10` is "1.10"); only `parameters` are typed by
yaml.v3's rules. Unknown keys are errors, `null` is the same as absent, merge keys (`<<`) work.
"""

import difflib
import math
from collections.abc import Iterator
from functools import cache
from typing import TypeVar

import msgspec

from kitd.spec.entries import (
    Code,
    Dataset,
    Docs,
    Kitfile,
    McpServer,
    Model,
    ModelPart,
    Package,
    Prompt,
)
from kitd.spec.strict_json import JsonValue
from kitd.spec.yaml_text import Mapping, Node, Scalar, Sequence, YamlError

T = TypeVar("T", bound=msgspec.Struct)

_SINGLE: dict[str, type[msgspec.Struct]] = {"package": Package, "model": Model}
_LISTS: dict[str, type[msgspec.Struct]] = {
    "parts": ModelPart,
    "code": Code,
    "datasets": Dataset,
    "docs": Docs,
    "prompts": Prompt,
    "mcpServers": McpServer,
}
_MANDATORY: dict[type[msgspec.Struct], dict[str, object]] = {
    Kitfile: {"manifest_version": "", "package": Package()},
    Docs: {"path": ""},
}
_JSON_ONLY = frozenset({"digest", "diff_id"})


def kitfile_of(root: Node) -> Kitfile:
    """The Kitfile that a YAML tree describes.

    Raises:
        YamlError: an unknown key, a text where a list must be, a number that JSON does not have ...
    """
    return _struct(root, Kitfile, "the Kitfile") if not _is_null(root) else Kitfile("", Package())


@cache
def yaml_fields(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The fields of a part of a Kitfile that YAML has, in order."""
    return tuple(field for field in msgspec.structs.fields(struct) if field.name not in _JSON_ONLY)


def _struct(node: Node, struct: type[T], where: str) -> T:
    if not isinstance(node, Mapping):
        raise YamlError(f"line {node.line}: {where} must be a mapping")
    keys = {field.encode_name: field.name for field in yaml_fields(struct)}
    values = dict(_MANDATORY.get(struct, {}))
    for key, value in _merged(node):
        if key.tag == "null":
            continue  # as kit does
        if key.text not in keys:
            near = difflib.get_close_matches(key.text[:100], keys, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(keys)})"
            raise YamlError(f"line {key.line}: unknown key {key.text[:100]!r} in {where}{hint}")
        if not _is_null(value):
            values[keys[key.text]] = _field(key.text, value)
    return struct(**values)


def _field(key: str, node: Node) -> object:
    if key == "parameters":
        return _json_value(node)
    if key in _SINGLE:
        return _struct(node, _SINGLE[key], f"{key!r}")
    if key in _LISTS or key == "authors":
        if not isinstance(node, Sequence):
            raise YamlError(f"line {node.line}: {key!r} must be a list")
        items = [item for item in node.items if not _is_null(item)]
        if key == "authors":
            return tuple(_text(item, key) for item in items)
        return tuple(_struct(item, _LISTS[key], f"an entry of {key!r}") for item in items)
    return _text(node, key)


def _text(node: Node, key: str) -> str:
    if not isinstance(node, Scalar):
        raise YamlError(f"line {node.line}: {key!r} must be text")
    return node.value if node.tag == "binary" and isinstance(node.value, str) else node.text


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tag == "null"


def _merged(node: Mapping) -> Iterator[tuple[Scalar, Node]]:
    """The members of a mapping, then those that merge keys bring and that are not there yet."""
    seen: set[str] = set()
    for member, _ in _members(node, inherited=False):
        if member[0].text not in seen:
            seen.add(member[0].text)
            yield member


def _members(node: Mapping, *, inherited: bool) -> Iterator[tuple[tuple[Scalar, Node], bool]]:
    """Every member, own ones first, and whether it came by a merge key."""
    merge: Node | None = None
    for member in node.members:
        if member[0].tag == "merge":
            merge = member[1]
        else:
            yield member, inherited
    if merge is None:
        return
    for source in merge.items if isinstance(merge, Sequence) else [merge]:
        if not isinstance(source, Mapping):
            raise YamlError(f"line {node.line}: '<<' needs a mapping or a list of mappings")
        yield from _members(source, inherited=True)


def _json_value(node: Node) -> JsonValue:
    if isinstance(node, Sequence):
        return [_json_value(item) for item in node.items]
    if isinstance(node, Mapping):
        return _json_object(node)
    if isinstance(node.value, float) and not math.isfinite(node.value):
        raise YamlError(f"line {node.line}: {node.text} cannot be a parameter: JSON has no such number")
    return node.value


def _json_object(node: Mapping) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for (key, value), inherited in _members(node, inherited=False):
        # As in kit, a mapping is only turned down for keys of its own.
        if key.tag != "str" and not inherited:
            raise YamlError(
                f"line {key.line}: the key {key.text[:100]!r} cannot be in parameters: "
                "JSON has text keys only, put it in quotes"
            )
        if key.text not in found and key.tag != "null":
            found[key.text] = _json_value(value)
    return found
