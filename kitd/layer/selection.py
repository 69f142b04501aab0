"""What of a directory becomes which layer: kit's rules, on listings that someone else makes.

A tar layer holds the directories above its path, the path, and all below it that no ignore rule and no other
path of the Kitfile takes away: the deepest path that contains a file owns it. Whoever packs asks `wanted`,
tells `listed` until nothing is wanted, and gets the `plan`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from kitd.layer.ignore import IgnoreRules
from kitd.layer.layer_walk import Entry, LayerWalk, member_of
from kitd.layer.tar_header import Member
from kitd.spec.entries import Kitfile
from kitd.spec.media_types import Compression, LayerFormat, LayerType
from kitd.spec.modelkit import LAYER_KINDS, Section, entry_name, layer_entries, layer_label
from kitd.spec.paths import clean_path
from kitd_client.api.errors import SourceUnreadable, SourceUnsuitable

__all__ = ["Entry", "LayerPlan", "Selector"]

_ROOT: Final = ""


class LayerPlan(msgspec.Struct, frozen=True):
    """One layer to be made."""

    section: Section
    label: str
    """For progress and messages."""
    path: str
    """Of the Kitfile, verbatim."""
    base: str
    """The same, cleaned; `.` is the whole directory."""
    type: LayerType
    members: tuple[Member, ...]
    """Of a tar, in its order."""
    file: Member | None
    """Of a raw layer."""


class _Target(msgspec.Struct, frozen=True):
    section: Section
    label: str
    path: str
    base: str
    """`_ROOT` for the whole directory."""
    type: LayerType


class Selector:
    """Decides for one Kitfile, while the listings come in.

    Args:
        kitfile: a valid one.
        ignore: the rules of the directory's `.kitignore`.
        layer_format: for all layers but MCP bundles, which are always raw.
        compression: likewise; MCP bundles are never compressed.
        foreign: paths that a parent kit holds already, left out here.
    """

    def __init__(
        self,
        kitfile: Kitfile,
        ignore: IgnoreRules,
        *,
        layer_format: LayerFormat,
        compression: Compression,
        foreign: Sequence[str] = (),
    ) -> None:
        self._ignore = ignore
        self._targets = [
            _Target(
                section,
                layer_label(section, entry_name(entry), entry.path),
                entry.path,
                _base(entry.path),
                _type(section, layer_format, compression),
            )
            for section, _, entry in layer_entries(kitfile)
        ]
        self._owners = {_base(path) for path in (*_paths(kitfile), *foreign)}
        self._walked = {target.base for target in self._targets if target.type.format == "tar"}
        self._on_the_way = {_ROOT} if self._targets else set()
        for target in self._targets:
            self._on_the_way.update(_above(target.base))
        self._listings: dict[str, dict[str, Entry]] = {}
        self._errors: dict[str, str] = {}
        self._open: dict[str, str | None] = {_ROOT: self._owner(_ROOT, None)} if self._targets else {}

    def wanted(self) -> list[str]:
        """The directories to list next, "" for the root; none: the plan can be made."""
        return list(self._open)

    def listed(self, directory: str, entries: Sequence[Entry], error: str = "") -> None:
        """What a wanted `directory` has in it, in any order; `error`: why it cannot be listed."""
        owner = self._open.pop(directory)
        ordered = sorted(entries, key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))
        self._listings[directory] = {entry.name: entry for entry in ordered}
        if error:
            self._errors[directory] = error
        for entry in ordered:
            path = f"{directory}/{entry.name}" if directory else entry.name
            if entry.kind == "dir":
                below = self._owner(path, owner)
                if path in self._on_the_way or (below is not None and self._enters(path, below)):
                    self._open[path] = below

    def plan(self) -> tuple[tuple[LayerPlan, ...], tuple[str, ...]]:
        """The layers in the order of the manifest, and warnings. Nothing may be wanted any more.

        Raises:
            SourceUnsuitable: a path of the Kitfile does not exist, or is not of the kind its layer needs; a
                name that no archive may hold.
            SourceUnreadable: something selected cannot be read.
        """
        warnings: list[str] = []
        plans = []
        for target in self._targets:
            way = self._way(target)
            members: tuple[Member, ...] = ()
            file = None
            if target.type.format == "raw":
                file = _only_file(target, way)
            else:
                walk = LayerWalk(target.base, self._ignore, self._owners, self._children)
                members = tuple(walk.members(way))
                warnings += walk.warnings(target.label, members)
            plans.append(
                LayerPlan(
                    target.section, target.label, target.path, target.base or ".", target.type, members, file
                )
            )
        return tuple(plans), tuple(warnings)

    def _owner(self, path: str, above: str | None) -> str | None:
        """The tar layer that `path` belongs to, where the directory it is in belongs to `above`."""
        if path in self._owners:
            return path if path in self._walked else None
        return above

    def _enters(self, path: str, owner: str) -> bool:
        """Whether a directory of a layer can have members of it."""
        if ".." in path[len(owner) :]:
            return False
        return self._ignore.has_exceptions or not self._ignore.matches(path)

    def _children(self, directory: str) -> dict[str, Entry]:
        if directory in self._errors:
            where = directory or "."
            raise SourceUnreadable(f"directory {where}: {self._errors[directory]}", path=where)
        return self._listings[directory]

    def _way(self, target: _Target) -> list[tuple[str, Entry]]:
        """The entries from the outermost directory to the layer's path, which must exist."""
        way: list[tuple[str, Entry]] = []
        directory = _ROOT
        for path in (*_above(target.base), target.base) if target.base else ():
            entry = self._children(directory).get(path.rpartition("/")[2])
            if entry is None or (path != target.base and entry.kind in {"file", "other"}):
                raise SourceUnsuitable(f"{target.label}: path {target.path} does not exist", path=target.path)
            if entry.kind == "symlink":
                raise SourceUnsuitable(
                    f"{target.label}: {path} is a symbolic link",
                    hint="kits hold no links: let the Kitfile name the file itself",
                    path=target.path,
                )
            if entry.kind == "other":
                raise SourceUnsuitable(
                    f"{target.label}: path {target.path} is neither a file nor a directory", path=target.path
                )
            way.append((path, entry))
            directory = path
        return way


def _only_file(target: _Target, way: list[tuple[str, Entry]]) -> Member:
    if not way or way[-1][1].kind != "file":
        raise SourceUnsuitable(
            f"{target.label}: file {target.path} is not a regular file",
            hint="a raw layer holds one file: pack directories as tar",
            path=target.path,
        )
    return member_of(*way[-1])


def _above(path: str) -> Iterator[str]:
    """The directories that hold `path`, from the outermost one below the root."""
    at = path.find("/")
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _base(path: str) -> str:
    cleaned = clean_path(path)
    return _ROOT if cleaned == "." else cleaned


def _type(section: Section, layer_format: LayerFormat, compression: Compression) -> LayerType:
    if section == "mcpServers":
        return LayerType("mcpb", "raw", "none")
    return LayerType(LAYER_KINDS[section], layer_format, compression)


def _paths(kitfile: Kitfile) -> Iterator[str]:
    """Every path of a Kitfile, whether it is a layer or not."""
    if kitfile.model is not None:
        if kitfile.model.path:
            yield kitfile.model.path
        yield from (part.path for part in kitfile.model.parts)
    for entries in (kitfile.code, kitfile.datasets, kitfile.docs, kitfile.prompts, kitfile.mcp_servers):
        yield from (entry.path for entry in entries)
