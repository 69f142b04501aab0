"""The members of one tar layer, in kit's order, out of the listings of its directory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from kitd.layer.ignore import WHITE_SPACE, IgnoreRules
from kitd.layer.tar_header import Member, check_name, shown
from kitd_client.api.errors import ArchiveInvalid, SourceUnreadable, SourceUnsuitable

PERMISSIONS: Final = 0o7777
_EXAMPLES: Final = 5

Dropped: TypeAlias = Literal["symlink", "other", "dots"]
_DROPPED: Final[dict[Dropped, str]] = {
    "symlink": "symbolic links are not packed",
    "other": "sockets, pipes and devices are not packed",
    "dots": "names with '..' in them are not packed (kit could not unpack them)",
}


class Entry(msgspec.Struct, frozen=True):
    """One entry of a directory, as it was scanned; links are not followed."""

    name: str
    kind: Literal["file", "dir", "symlink", "other"]
    mode: int
    size: int
    error: str = ""
    """Why it cannot be packed; counts only if it is selected."""


Children: TypeAlias = Callable[[str], Mapping[str, Entry]]
"""The listing of a directory ("" is the root), names in the order of their bytes."""


def member_of(path: str, entry: Entry) -> Member:
    """The member that `entry` becomes.

    Raises:
        SourceUnreadable: it cannot be read.
        SourceUnsuitable: no archive may hold such a name.
    """
    if entry.error:
        raise SourceUnreadable(f"{path}: {entry.error}", path=shown(path))
    try:
        check_name(path)
    except ArchiveInvalid as error:
        raise SourceUnsuitable(f"cannot be packed: {error}", path=shown(path)) from error
    is_dir = entry.kind == "dir"
    return Member(path, is_dir, entry.mode & PERMISSIONS, 0 if is_dir else entry.size)


class LayerWalk:
    """Walks what belongs to one layer, and remembers what it left out.

    Args:
        base: the cleaned path of the layer, "" for the whole directory.
        ignore: the rules of the directory.
        owners: the cleaned paths that keep what is below them from every layer further up.
        children: the listings.
    """

    def __init__(self, base: str, ignore: IgnoreRules, owners: Iterable[str], children: Children) -> None:
        self._base = base
        self._ignore = ignore
        # As kit compares them: without white space at their ends.
        self._owners = frozenset(owner.strip(WHITE_SPACE) or "." for owner in owners)
        self._children = children
        self._dropped: dict[Dropped, list[str]] = {}
        self._base_ignored = False

    def members(self, way: Iterable[tuple[str, Entry]]) -> Iterator[Member]:
        """The members; `way` leads from the outermost directory to the layer's path itself, both included."""
        kind = "dir"
        for path, entry in way:
            if ".." in self._base[len(path) :]:
                self._drop("dots", self._base)
                return
            ignored = self._ignore.matches(path)
            if not ignored:
                yield member_of(path, entry)
            elif not self._ignore.has_exceptions:
                self._base_ignored = True
                return
            kind = entry.kind
        if kind == "dir":
            yield from self._inside()

    def warnings(self, label: str, members: Iterable[Member]) -> Iterator[str]:
        """What a person should know of a layer that has `members`."""
        for kind, paths in self._dropped.items():
            examples = ", ".join(shown(path) for path in paths[:_EXAMPLES])
            more = f" and {len(paths) - _EXAMPLES} more" if len(paths) > _EXAMPLES else ""
            yield f"{label}: {_DROPPED[kind]}: {examples}{more}"
        if self._base_ignored:
            yield f"{label}: .kitignore leaves out the whole path"
        elif all(member.is_dir for member in members):
            yield f"{label}: there are no files in it"

    def _inside(self) -> Iterator[Member]:
        stack = [self._listing(self._base)]
        while stack:
            for path, entry in stack[-1]:
                selected, ignored = self._judge(path, entry)
                if selected and not ignored:
                    yield member_of(path, entry)
                if selected and entry.kind == "dir":
                    stack.append(self._listing(path))
                    break
            else:
                stack.pop()

    def _listing(self, directory: str) -> Iterator[tuple[str, Entry]]:
        prefix = f"{directory}/" if directory else ""
        return ((prefix + name, entry) for name, entry in self._children(directory).items())

    def _judge(self, path: str, entry: Entry) -> tuple[bool, bool]:
        """Is it looked at, and is it ignored? An ignored directory is looked at for exceptions below it."""
        if (path.strip(WHITE_SPACE) or " ") in self._owners:
            return False, False
        ignored = self._ignore.matches(path)
        kind = entry.kind
        dropped: Dropped | None = kind if kind == "symlink" or kind == "other" else None  # noqa: PLR1714 (types)
        if dropped is None and ".." in path[len(self._base) :]:
            dropped = "dots"
        if dropped is not None:
            if not ignored:
                self._drop(dropped, path)
            return False, ignored
        return not ignored or (entry.kind == "dir" and self._ignore.has_exceptions), ignored

    def _drop(self, kind: Dropped, path: str) -> None:
        self._dropped.setdefault(kind, []).append(path)
