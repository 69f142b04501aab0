"""Where yaml.v3, by which kit reads Kitfiles, takes a text otherwise than libyaml does.

Found by reading the same texts with both. What is rarer than a comment behind a tab is left as it is.
"""

import re
from contextlib import suppress
from typing import cast

import yaml
from yaml.cyaml import CBaseLoader

_INNER_MARK = re.compile("[\r\n]\ufeff")
_ESCAPED_SLASH = re.compile(r"(?:[^\\]|\\[^/])*+\\/", re.DOTALL)
_LINE_ENDS = "\r\n\x85\u2028\u2029"


def refuse_text(text: str) -> None:
    """ValueError for what yaml.v3 refuses before it parses."""
    if _INNER_MARK.search(text):
        raise ValueError("a byte order mark stands within the text")


def refuse_document(event: yaml.DocumentStartEvent) -> None:
    """ValueError for another version of YAML than yaml.v3 says it reads."""
    if event.version not in {None, (1, 1)}:
        raise ValueError("found incompatible YAML document: only %YAML 1.1 is taken")


def refuse_scalar(event: yaml.ScalarEvent, source: str, *, in_flow: bool) -> None:
    r"""ValueError for `\/` in double quotes, and for a bare `?` in `[]` and `{}`, where yaml.v3 ends the scalar."""
    start, end = cast("yaml.Mark", event.start_mark), cast("yaml.Mark", event.end_mark)
    if event.style == '"' and _ESCAPED_SLASH.match(source[start.index : end.index]):
        raise ValueError(r"found unknown escape character \/")
    if in_flow and not event.style and "?" in event.value:
        raise ValueError("in [] and {} a text with '?' needs quotes")


def look_ahead(parser: CBaseLoader, ended: yaml.DocumentEndEvent) -> None:
    """yaml.v3 scans two tokens further than the document: what cannot be scanned there is refused too.

    Raises:
        yaml.ScannerError: the beginning of a second document is unreadable.
    """
    event: yaml.Event | None = None
    with suppress(yaml.parser.ParserError):
        for _ in range(1 if ended.explicit else 2):
            if not parser.check_event():
                return
            event = cast("yaml.Event", parser.get_event())
        # What follows a scalar is scanned with it.
        if not ended.explicit and isinstance(event, yaml.ScalarEvent) and parser.check_event():
            parser.get_event()


def repaired(text: str, error: yaml.MarkedYAMLError) -> str | None:
    r"""The same text in words that libyaml takes, if that is the whole error; to be read again.

    yaml.v3 takes `\'` in double quotes, and a comment behind a tab if there is a comment in the line above.
    """
    if error.problem_mark is None:
        return None
    at = error.problem_mark.index
    if error.problem == "found unknown escape character" and text[at : at + 2] == r"\'":
        return rf"{text[:at]}\x27{text[at + 2 :]}"
    if error.problem == "found character that cannot start any token" and text[at : at + 1] == "\t":
        start = max(text.rfind(end, 0, at) for end in _LINE_ENDS) + 1
        above = text[:start].rstrip().splitlines()[-1:]
        rest = text[start:].lstrip(" \t\r\n")
        if above and above[0].removeprefix("---").lstrip().startswith("#") and rest.startswith("#"):
            return text[:start] + rest
    return None
