import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import pytest

from kitd.layer.ignore import parse_ignore
from kitd.layer.selection import Entry, LayerPlan, Selector
from kitd.layer.tar import TRAILER, encode_header, padding
from kitd.spec.kitfile import parse_kitfile
from kitd.spec.media_types import Compression, LayerFormat

Plans: TypeAlias = tuple[tuple[LayerPlan, ...], tuple[str, ...]]
Archive: TypeAlias = Callable[[Path, LayerPlan], Iterator[bytes]]


class Planner(Protocol):
    def __call__(
        self,
        root: Path,
        *,
        layer_format: LayerFormat = "tar",
        compression: Compression = "none",
        foreign: Sequence[str] = (),
        asked: list[str] | None = None,
        errors: dict[str, str] | None = None,
    ) -> Plans: ...


def _entry(item: os.DirEntry[str], error: str) -> Entry:
    status = item.stat(follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if item.is_symlink():
        return Entry(item.name, "symlink", mode, status.st_size, error)
    if item.is_dir():
        return Entry(item.name, "dir", mode, 0, error)
    return Entry(item.name, "file" if item.is_file() else "other", mode, status.st_size, error)


def _plan(
    root: Path,
    *,
    layer_format: LayerFormat = "tar",
    compression: Compression = "none",
    foreign: Sequence[str] = (),
    asked: list[str] | None = None,
    errors: dict[str, str] | None = None,
) -> Plans:
    kitfile, _ = parse_kitfile((root / "Kitfile").read_bytes())
    ignore = root / ".kitignore"
    rules = parse_ignore(ignore.read_bytes() if ignore.exists() else b"")
    selector = Selector(kitfile, rules, layer_format=layer_format, compression=compression, foreign=foreign)
    errors = errors or {}
    while wanted := selector.wanted():
        for directory in wanted:
            if asked is not None:
                asked.append(directory)
            if directory in errors:
                selector.listed(directory, [], errors[directory])
                continue
            with os.scandir(root / directory) as items:
                prefix = f"{directory}/" if directory else ""
                found = [_entry(item, errors.get(f"file:{prefix}{item.name}", "")) for item in items]
            selector.listed(directory, found[::-1])
    return selector.plan()


def _pieces(root: Path, plan: LayerPlan) -> Iterator[bytes]:
    for member in plan.members:
        yield encode_header(member)
        if not member.is_dir:
            yield (root / member.name).read_bytes()
            yield bytes(padding(member.size))
    yield TRAILER


@pytest.fixture
def planned() -> Planner:
    """Plans the layers of a directory on disk, as a daemon and a client would together.

    `errors`: reasons why a directory, or `file:` and a path, cannot be read.
    """
    return _plan


@pytest.fixture
def archive() -> Archive:
    """The pieces of the tar that a plan asks for."""
    return _pieces


@pytest.fixture
def measured() -> Callable[[Path, LayerPlan], tuple[str, int]]:
    """Digest and size of the tar that a plan asks for."""

    def measure(root: Path, plan: LayerPlan) -> tuple[str, int]:
        whole = b"".join(_pieces(root, plan))
        return "sha256:" + hashlib.sha256(whole).hexdigest(), len(whole)

    return measure
