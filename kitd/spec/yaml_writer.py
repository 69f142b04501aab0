"""YAML as kit lays it out (indent 2), so quoted that readers of YAML 1.1 and 1.2 see the same."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from kitd.spec import go_yaml

YamlValue: TypeAlias = "bool | int | float | str | Sequence[YamlValue] | Mapping[str, YamlValue] | None"

_LONGEST_KEY = 128
_PLAIN = re.compile(
    r"[A-Za-z0-9_./(+^$\u00a1-\u1fff\u3001-\ud7ff][^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\uffff]*"
)
_UNSAFE = re.compile(r": | #|:$|\s$|^\.\.\.")
_FLOW = re.compile(r"[,:?\[\]{}]")
_ELSEWHERE_A_NUMBER = re.compile(
    r"[-+]?0[bx][0-9a-fA-F_]*|[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*"
)
_ELSEWHERE_A_BOOL = frozenset({"y", "n", "yes", "no", "on", "off"})
_LITERAL = re.compile(r"(?!\s)[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\uffff]*")
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class Flow(tuple[str, ...]):
    """Texts that are written in one line, between brackets."""

    __slots__ = ()


def write_yaml(value: Mapping[str, YamlValue]) -> bytes:
    """The YAML document of a mapping; keys in its order."""
    return ("\n".join(_block(value)) + "\n").encode()


def _block(value: YamlValue) -> list[str]:
    """The lines of a value."""
    if isinstance(value, Flow):
        return ["[" + ", ".join(_text(item, flow=True) for item in value) + "]"]
    if isinstance(value, str):
        return _literal(value) if "\n" in value else [_text(value)]
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in _member(key, item)] or ["{}"]
    if isinstance(value, Sequence):
        return [line for item in value for line in _hung("- ", _block(item))] or ["[]"]
    return [_word(value)]


def _member(key: str, value: YamlValue) -> list[str]:
    name = _text(key)
    if len(name) > _LONGEST_KEY:
        return [f"? {name}", *_hung(": ", _block(value))]
    lines = _block(value)
    if isinstance(value, Mapping | Sequence) and value and not isinstance(value, str | Flow):
        return [f"{name}:", *_indented(lines)]
    return [f"{name}: {lines[0]}", *lines[1:]]


def _hung(mark: str, lines: list[str]) -> list[str]:
    return [mark + lines[0], *_indented(lines[1:])]


def _indented(lines: list[str]) -> list[str]:
    return ["  " + line if line else line for line in lines]


def _literal(text: str) -> list[str]:
    body = text.removesuffix("\n")
    if not _LITERAL.fullmatch(text) or body.endswith("\n"):
        return [_quoted(text)]
    return ["|" if text.endswith("\n") else "|-", *_indented(body.split("\n"))]


def _text(text: str, *, flow: bool = False) -> str:
    plain = (
        _PLAIN.fullmatch(text)
        and not _UNSAFE.search(text)
        and not (flow and _FLOW.search(text))
        and go_yaml.resolve(text)[0] == "str"
        and not _ELSEWHERE_A_NUMBER.fullmatch(text)
        and text.lower() not in _ELSEWHERE_A_BOOL
    )
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _word(value: float | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    # YAML 1.1 takes `1e+21` for a text.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text
