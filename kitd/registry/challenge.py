"""`WWW-Authenticate` headers (RFC 9110, 11.6.1)."""

import re
from collections.abc import Iterable

import msgspec

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - the grammar's word for a word
_SCHEME = re.compile(_TOKEN)
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*[ \t]*(?=,|$)")
_SPACE = re.compile(r"[ \t]+")
_GAP = re.compile(r"[ \t,]*")
_ESCAPED = re.compile(r"\\(.)")


class Challenge(msgspec.Struct, frozen=True):
    """One way in that a server offers."""

    scheme: str
    """Lower case: `basic`, `bearer`."""
    parameters: dict[str, str]
    """By lower-case name."""


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of all headers, in order; a header counts up to where it stops being well-formed.

    Commas separate both challenges and the parameters of one, and may stand in quoted values.
    """
    return tuple(challenge for value in values for challenge in _challenges(value))


def _challenges(text: str) -> Iterable[Challenge]:
    position = _skip(_GAP, text, 0)
    while match := _SCHEME.match(text, position):
        space = _SPACE.match(text, match.end())
        parameters: dict[str, str] = {}
        position = match.end()
        if space is not None:
            position = _parameters(text, space.end(), parameters)
        yield Challenge(match[0].lower(), parameters)
        gap = _skip(_GAP, text, position)
        if gap == position:
            return
        position = gap


def _parameters(text: str, position: int, found: dict[str, str]) -> int:
    """Read the parameters of one challenge; the end of the last one."""
    if _PARAMETER.match(text, position) is None:
        return _skip(_TOKEN68, text, position)
    end = position
    while match := _PARAMETER.match(text, position):
        name, quoted, plain = match.groups()
        found.setdefault(name.lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
        end = match.end()
        position = _skip(_GAP, text, end)
        if position == end:
            break
    return end


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
