"""JSON as Go's encoding/json writes it, byte for byte: so what is made here gets the digests of kit."""

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import TypeAlias

import msgspec

GoValue: TypeAlias = (
    "bool | int | float | str | Sequence[GoValue] | Mapping[str, GoValue] | msgspec.Struct | None"
)
"""A mapping is a Go map (keys sorted), a struct a Go struct (in order, fields at their default left out)."""

_EXPONENT_BELOW = 1e-6
_EXPONENT_FROM = 1e21
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ESCAPES = str.maketrans(_ESCAPED)


def encode(value: GoValue) -> bytes:
    """`json.Marshal(value)`.

    Raises:
        ValueError: a number is not finite, or a text has half of a surrogate pair.
    """
    pieces: list[str] = []
    _write(value, pieces.append)
    return "".join(pieces).encode()


def encode_float(value: float) -> str:
    """The shortest digits that read back as `value`; an exponent only below 1e-6 and from 1e21 on.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    text = repr(value)
    if value == 0 or _EXPONENT_BELOW <= abs(value) < _EXPONENT_FROM:
        return format(Decimal(text), "f").removesuffix(".0")
    return text.replace("e-0", "e-")


def _write(value: GoValue, put: Callable[[str], None]) -> None:
    if isinstance(value, str):
        put(_string(value))
    elif value is None or isinstance(value, bool):
        put({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        put(str(value))
    elif isinstance(value, float):
        put(encode_float(value))
    elif isinstance(value, Mapping):
        _write_members([(key, value[key]) for key in sorted(value)], put)
    elif isinstance(value, msgspec.Struct):
        _write_members(_members(value), put)
    else:
        _write_items(value, put)


def _write_members(members: Sequence[tuple[str, GoValue]], put: Callable[[str], None]) -> None:
    opening = "{"
    for name, value in members:
        put(f"{opening}{_string(name)}:")
        _write(value, put)
        opening = ","
    put("}" if members else "{}")


def _write_items(items: Sequence[GoValue], put: Callable[[str], None]) -> None:
    opening = "["
    for item in items:
        put(opening)
        _write(item, put)
        opening = ","
    put("]" if items else "[]")


def _string(text: str) -> str:
    return msgspec.json.encode(text).decode().translate(_ESCAPES)


def _members(value: msgspec.Struct) -> list[tuple[str, GoValue]]:
    """The fields of a struct that are written."""
    members = []
    for field in _fields(type(value)):
        item = getattr(value, field.name)
        if field.required or item != field.default:
            members.append((field.encode_name, item))
    return members


@cache
def _fields(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)
