"""Reading JSON that strangers wrote: bounded before it is parsed, and with one meaning only."""

import json
import re
from typing import NoReturn, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_DEPTH = 64
_DIGITS = 400
# The closing quote is optional, or each quote of an open text would be tried as a beginning.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_json(data: bytes, *, limit: int) -> JsonValue:
    """The value that `data` (UTF-8) is.

    Refused, since two readers could see two different values: a name twice in one object, `NaN` and
    infinities, numbers beyond a double, bytes that are no UTF-8, half of a surrogate pair. Bounded: `limit`
    bytes, 64 levels.

    Raises:
        ValueError: with a reason that fits behind a colon.
    """
    if len(data) > limit:
        raise ValueError(f"{len(data)} bytes, more than the {limit} that are read")
    _check_depth(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        value: JsonValue = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.lower()} at character {error.pos}") from None
    _check_surrogates(text, value)
    return value


def _check_depth(data: bytes) -> None:
    """Take off innermost brackets, level by level: fast, and whatever the input, bounded."""
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    for _ in range(_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise ValueError(f"brackets that do not match, or more than {_DEPTH} levels of them")


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:100]!r} stands twice in one object")
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS and digits != "-0" else _number(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _check_surrogates(text: str, value: JsonValue) -> None:
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair") from None
