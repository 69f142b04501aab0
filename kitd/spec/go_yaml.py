"""What a YAML scalar means, by the rules of Go's yaml.v3, which kit reads Kitfiles with.

They are those of YAML 1.2's core schema, with 1.1's octal and binary numbers, `_` in numbers, and dates;
`yes`, `no`, `on` and `off` are text.
"""

import base64
import calendar
import re
from typing import TypeAlias

Scalar: TypeAlias = bool | int | float | str | None

_WORDS: dict[str, tuple[str, Scalar]] = {
    **dict.fromkeys(("true", "True", "TRUE"), ("bool", True)),
    **dict.fromkeys(("false", "False", "FALSE"), ("bool", False)),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), ("null", None)),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), ("float", float("nan"))),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), ("float", float("inf"))),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), ("float", float("-inf"))),
}
_NUMBER_STARTS = frozenset("+-.0123456789")
_SIGNED = re.compile(r"([+-]?)(?:(0[xX][0-9a-fA-F]+)|(0[bB][01]+)|(0[oO]?[0-7]+)|(0|[1-9][0-9]{0,19}))")
_LATE_SIGN = re.compile(r"0(?:b([+-][01]+)|o([+-][0-7]+))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_POINT_FLOAT = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?")
_DATE = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"(?:(?P<between>[Tt]|\x20+)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2}):(?P<second>[0-9]{1,2})"
    r"(?:[.,](?P<fraction>[0-9]+))?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_LAST_HOUR = 23
_LAST_MINUTE = 59
_MONTHS = 12
_FEBRUARY = 2
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SMALLEST = -(2**63)
_LARGEST = 2**64 - 1


def resolve(text: str) -> tuple[str, Scalar]:
    """Tag and value of a plain scalar without a tag: `str`, `int`, `float`, `bool`, `null` or `timestamp`.

    The value of a timestamp is the text that Go's JSON has for it (RFC 3339).
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return "str", text
    if text.startswith("."):
        return _float(text, _POINT_FLOAT) or ("str", text)
    moment = _timestamp(text)
    if moment is not None:
        return "timestamp", moment
    plain = text.replace("_", "")
    number = _integer(plain)
    if number is not None:
        return "int", number
    return _float(plain, _FLOAT) or ("str", text)


def resolve_tagged(tag: str, text: str) -> tuple[str, Scalar]:
    """Tag and value of a scalar with a tag, as `int` for `!!int`; unknown tags leave the text as it is.

    Raises:
        ValueError: the text is not what the tag says.
    """
    if tag == "binary":
        try:
            return tag, base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode()
        except ValueError:
            raise ValueError("!!binary holds no text in base64") from None
    if tag not in {"bool", "int", "float", "null", "timestamp"}:
        return tag, text
    found, value = resolve(text)
    if tag == "float" and found == "int" and isinstance(value, int):
        return "float", float(value)
    if tag == found:
        return found, value
    raise ValueError(f"{text[:100]!r} is no {tag}")


def _integer(plain: str) -> int | None:
    match = _SIGNED.fullmatch(plain)
    if match is not None:
        sign, hexadecimal, binary, octal, decimal = match.groups()
        if decimal is not None:
            value = int(decimal)
        elif hexadecimal is not None:
            value = int(hexadecimal, 16)
        elif binary is not None:
            value = int(binary, 2)
        else:
            value = int(octal.lower().removeprefix("0o") or "0", 8)
        value = -value if sign == "-" else value
        # Only without a sign does Go try the upper half of the unsigned numbers.
        return value if _SMALLEST <= value <= (_LARGEST if not sign else -_SMALLEST - 1) else None
    late = _LATE_SIGN.fullmatch(plain)
    if late is None:
        return None
    value = int(late[1], 2) if late[1] else int(late[2], 8)
    return value if _SMALLEST <= value < -_SMALLEST else None


def _float(plain: str, form: re.Pattern[str]) -> tuple[str, Scalar] | None:
    if not form.fullmatch(plain):
        return None
    value = float(plain)
    return None if value in {float("inf"), float("-inf")} else ("float", value)


def _timestamp(text: str) -> str | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    day_part, zone = match["between"], match["zone"]
    # With a `T` a zone is needed, with a space there is none.
    if (day_part in {"T", "t"}) != (zone is not None):
        return None
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if not 1 <= month <= _MONTHS or not 1 <= day <= _days(year, month):
        return None
    if hour > _LAST_HOUR or minute > _LAST_MINUTE or second > _LAST_MINUTE:
        return None
    if zone is None or zone[1:] == "00:00":
        zone = "Z"
    if zone != "Z" and (int(zone[1:3]) > _LAST_HOUR or int(zone[4:]) > _LAST_MINUTE):
        return None
    fraction = (match["fraction"] or "")[:9].rstrip("0")
    fraction = "." + fraction if fraction else ""
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"


def _days(year: int, month: int) -> int:
    return _DAYS[month - 1] + (month == _FEBRUARY and calendar.isleap(year))
