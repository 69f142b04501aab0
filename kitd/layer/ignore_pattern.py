r"""One pattern of a `.kitignore` file: what moby/patternmatcher, which kit uses, takes it for.

`*` any characters but `/`; `?` one; `[a-z]` and `[^a-z]` one of a class; `\c` the character c; `**/` any
number of directories; `**` at the end anything. A pattern that only begins with `**` is compared with the end
of a path as text, one that only ends with it with the beginning.

Refused is what means something else to kit, which makes a regular expression of it: a letter or digit after
`\` (a class there, or an error); `*`, `?` and `[:` in a class; beside wildcards a `|` (an alternative),
a `^` (the beginning of the path) and `{2}` or `{2,3}` (a repetition). `\|`, `\^`, `\{` mean the same to both.
"""

import re
from collections.abc import Callable
from typing import Final, TypeAlias

Matcher: TypeAlias = Callable[[str], object]
"""Takes a path, gives something true or false."""

_CLASS_ITEM: Final = r"(?:\\.|[^\\\]-])"
_TOKEN: Final = re.compile(
    rf"(?P<glob>\*\*/?)|(?P<star>\*)|(?P<one>\?)|\\(?P<escaped>.)"
    rf"|(?P<class>\[\^?(?:{_CLASS_ITEM}(?:-{_CLASS_ITEM})?)+\])|(?P<close>\])|(?P<bad>[\[\\])"
    r"|(?P<operator>[|^]|\{[0-9]+(?:,[0-9]*)?\})|(?P<plain>.)",
    re.DOTALL,
)
_TEXT: Final = frozenset(("plain", "operator"))
_ANY_NAME: Final = "[^/]*"
_ANY_DIRECTORIES: Final = "(?:.*/)?"
_ANYTHING: Final = ".*"
_BACKTRACKING_LIMIT: Final = 2


def compile_pattern(pattern: str) -> Matcher:
    """The test that `pattern` (clean, no `!`) stands for.

    Raises:
        ValueError: the pattern is malformed or refused.
    """
    tokens = list(_TOKEN.finditer(pattern))
    special = [index for index, token in enumerate(tokens) if token.lastgroup not in _TEXT]
    if not special:
        return pattern.__eq__
    if special == [0] and tokens[0]["glob"]:
        return _ends_with(pattern[2:])
    if special == [len(tokens) - 1] and tokens[-1]["glob"]:
        return lambda path: path.startswith(pattern[:-2])
    parts = [_part(token, pattern) for token in tokens]
    if sum(part in {_ANY_NAME, _ANY_DIRECTORIES} for part in parts) <= _BACKTRACKING_LIMIT:
        return re.compile("".join(parts)).fullmatch
    return _Automaton(parts).matches


def _ends_with(suffix: str) -> Matcher:
    if suffix.startswith("/"):
        return lambda path: path.endswith(suffix) or path == suffix[1:]
    return lambda path: path.endswith(suffix)


def _part(token: re.Match[str], pattern: str) -> str:
    """The regular expression of one token."""
    text = token[0]
    escaped = token["escaped"] or ""
    if token.lastgroup == "glob":
        return _ANYTHING if token.end() == len(pattern) else _ANY_DIRECTORIES
    if token.lastgroup == "class":
        return _class(text)
    if token.lastgroup in {"bad", "operator"} or escaped.isalnum() or not escaped.isascii():
        raise ValueError(f"pattern {pattern!r} cannot be taken at {text!r}")
    return {"*": _ANY_NAME, "?": "[^/]"}.get(text) or re.escape(escaped or text)


def _class(text: str) -> str:
    inner = text[1:-1]
    for item in re.findall(r"\\.|[*?]", inner, re.DOTALL):
        if item in {"*", "?"} or item[1].isalnum() or not item.isascii():
            raise ValueError(f"the class {text!r} has {item!r} in it")
    if "[:" in text[1:]:
        raise ValueError(f"the class {text!r} has '[:' in it")
    expression = "[" + re.sub(r"\\.|[\[&~|]", _with_backslash, inner, flags=re.DOTALL) + "]"
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"the class {text!r} is malformed: {error}") from error
    return expression


def _with_backslash(match: re.Match[str]) -> str:
    return match[0] if len(match[0]) > 1 else "\\" + match[0]


class _Automaton:
    """Tries all ways through a pattern at once.

    A regular expression with several wildcards tries them one after the other, and a hostile pattern would
    keep the interpreter for minutes. An even state stands before a part of the pattern, an odd one within the
    `_ANY_DIRECTORIES` that is the part.
    """

    def __init__(self, parts: list[str]) -> None:
        self._parts = parts
        self._tests = [re.compile(part).fullmatch for part in parts]
        self._end = 2 * len(parts)
        self._start: set[int] = set()
        self._enter(0, self._start)

    def matches(self, path: str) -> bool:
        states = self._start
        for character in path:
            following: set[int] = set()
            for state in states:
                if state != self._end:
                    self._advance(state, character, following)
            states = following
        return self._end in states

    def _advance(self, state: int, character: str, following: set[int]) -> None:
        part = self._parts[state // 2]
        if part == _ANY_DIRECTORIES:
            if state % 2 and character != "\n":
                following.add(state)
                if character == "/":
                    self._enter(state + 1, following)
        elif part in {_ANY_NAME, _ANYTHING}:
            if character != ("/" if part == _ANY_NAME else "\n"):
                self._enter(state, following)
        elif self._tests[state // 2](character):
            self._enter(state + 2, following)

    def _enter(self, state: int, states: set[int]) -> None:
        """Adds the even `state`, and every one that is reached from it without a character."""
        while state not in states:
            states.add(state)
            part = self._parts[state // 2] if state != self._end else ""
            if part == _ANY_DIRECTORIES:
                states.add(state + 1)
            elif part not in {_ANY_NAME, _ANYTHING}:
                return
            state += 2
