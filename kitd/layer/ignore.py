"""`.kitignore`: which paths of a directory are never packed.

The rules are those of `.dockerignore` (moby/patternmatcher), not of `.gitignore`: patterns begin at the root
of the directory, `**/` stands for any depth, the last pattern that matches decides, `!` takes a path back in,
and a pattern matches what lies below as well.
"""

from typing import Final

from kitd.layer.ignore_pattern import Matcher, compile_pattern
from kitd.spec.paths import clean_path
from kitd_client.api.errors import KitfileInvalid

_ALWAYS: Final = ("Kitfile", "kitfile", ".kitfile", ".kitignore")
_JUNK: Final = frozenset(
    (
        ".ds_store",
        ".appledouble",
        ".lsoverride",
        ".spotlight-v100",
        ".trashes",
        "thumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "ehthumbs.db",
    )
)
WHITE_SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What kit trims from the ends of a path (Unicode White_Space)."""
_LINE_LIMIT: Final = 1 << 16
"""Kit reads no longer line."""


class IgnoreRules:
    """The rules of one directory."""

    def __init__(self, patterns: list[tuple[bool, Matcher]]) -> None:
        self._patterns = patterns
        self._below: dict[str, tuple[bool, ...]] = {"": (False,) * len(patterns)}
        self.has_exceptions = any(exception for exception, _ in patterns)
        """Something below an ignored directory may be taken back in."""

    def matches(self, path: str) -> bool:
        """True: `path`, clean and relative to the directory, is not packed."""
        path = clean_path(path.strip(WHITE_SPACE))
        if not _JUNK.isdisjoint(path.lower().split("/")):
            return True
        below = self._parents(path.rpartition("/")[0])
        matched = False
        for (exception, matcher), parent_matched in zip(self._patterns, below, strict=True):
            if exception is matched and (parent_matched or matcher(path)):
                matched = not exception
        return matched

    def _parents(self, directory: str) -> tuple[bool, ...]:
        """For each pattern: does it match `directory` or one that holds it?"""
        unknown = []
        while (known := self._below.get(directory)) is None:
            unknown.append(directory)
            directory = directory.rpartition("/")[0]
        for name in reversed(unknown):
            tests = zip(known, self._patterns, strict=True)
            known = tuple(above or bool(matcher(name)) for above, (_, matcher) in tests)
            self._below[name] = known
        return known


def parse_ignore(data: bytes) -> IgnoreRules:
    """The rules of a `.kitignore` file (none: empty bytes), and those that always hold.

    Raises:
        KitfileInvalid: a pattern is malformed, or one that is refused (see `ignore_pattern`).
    """
    patterns = []
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) >= _LINE_LIMIT:
            raise KitfileInvalid(
                f"invalid .kitignore file: line {number} has more than {_LINE_LIMIT - 1} characters",
                line=number,
            )
        pattern = _pattern(line)
        exception = pattern.startswith("!")
        try:
            if pattern == "!":
                raise ValueError("'!' stands alone")  # noqa: TRY301 (gets the number of its line below)
            if pattern:
                patterns.append((exception, compile_pattern(pattern[exception:])))
        except ValueError as error:
            raise KitfileInvalid(f"invalid .kitignore file: line {number}: {error}", line=number) from error
    return IgnoreRules(patterns + [(False, compile_pattern(name)) for name in _ALWAYS])


def _pattern(line: str) -> str:
    """The pattern of a line, `!` before it for an exception; "" for none. In kit's two steps."""
    text = "" if line.startswith("#") else line.strip(WHITE_SPACE)
    mark = "!" if text.startswith("!") else ""
    text = text.removeprefix("!").strip(WHITE_SPACE)
    if text:
        text = clean_path(text)
        text = text.removeprefix("/") or text
    whole = (mark + text).strip(WHITE_SPACE)
    return clean_path(whole) if whole else ""
