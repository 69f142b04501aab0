"""Invariant 7: a layer planned and encoded here has the bytes that `kit pack` gives it."""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

import pytest

from kitd.layer.selection import LayerPlan
from kitd.layer.tar import TarParser
from kitd.spec.kitfile import parse_kitfile
from kitd.spec.media_types import encode_layer_type
from kitd_client.api.errors import KitfileInvalid, SourceUnsuitable

KITS = Path(__file__).parents[2] / "data/kits"
NAMES = sorted(path.name for path in KITS.iterdir() if (path / "tree.tar").exists())


class Case(TypedDict, total=False):
    seed: int
    kitfile: str
    kitignore: str | None
    dirs: dict[str, str]
    files: dict[str, list[str]]
    exit: int
    output: list[str]
    layers: list[list[str | int]]
    rejected_now: int


CASES: list[Case] = json.loads((KITS / "random-cases.json").read_text())


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory that can be removed again whatever the modes in it are."""
    yield tmp_path
    for directory, _, _ in os.walk(tmp_path):
        Path(directory).chmod(0o755)


def extract(kit: str, root: Path) -> None:
    with tarfile.open(KITS / kit / "tree.tar") as tar:
        tar.extractall(root, filter="fully_trusted")


def lay_out(case: Case, root: Path) -> None:
    for name in case["dirs"]:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, (mode, text) in case["files"].items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(int(mode, 8))
    for name, mode in case["dirs"].items():
        (root / name).chmod(int(mode, 8))
    (root / "Kitfile").write_text(case["kitfile"])
    if case["kitignore"] is not None:
        (root / ".kitignore").write_text(case["kitignore"])


@pytest.mark.skipif(os.geteuid() != 0, reason="the trees have files of mode 000")
@pytest.mark.parametrize("kit", NAMES)
def test_a_golden_kit_is_made_again_bit_for_bit(
    kit: str,
    root: Path,
    planned: Callable[..., tuple[tuple[LayerPlan, ...], tuple[str, ...]]],
    measured: Callable[[Path, LayerPlan], tuple[str, int]],
) -> None:
    extract(kit, root)
    expected = json.loads((KITS / kit / "expected.json").read_text())
    compression = "gzip" if "--compression" in expected["flags"] else "none"
    plans, _ = planned(root, compression=compression)
    made = [(encode_layer_type(plan.type), measured(root, plan)[0]) for plan in plans]
    assert made == [(layer["mediaType"], layer["diffId"]) for layer in expected["layers"]]
    if compression == "none":
        sizes = [measured(root, plan)[1] for plan in plans]
        assert sizes == [layer["size"] for layer in expected["layers"]]


@pytest.mark.parametrize("kit", NAMES)
def test_the_layers_of_a_golden_kit_are_read_as_kit_made_them(kit: str) -> None:
    expected = json.loads((KITS / kit / "expected.json").read_text())
    for layer in expected["layers"]:
        if "+" in layer["mediaType"]:
            continue
        parser = TarParser()
        view = memoryview(
            (KITS / kit / "layout/blobs/sha256" / layer["digest"].removeprefix("sha256:")).read_bytes()
        )
        found = []
        while view:
            kind, consumed = parser.next(view)
            if kind == "member" and parser.member:
                found.append(parser.member)
            view = view[consumed:]
        parser.finish()
        assert [
            {
                "name": item.name,
                "type": "dir" if item.is_dir else "file",
                "mode": oct(item.mode),
                "size": item.size,
            }
            for item in found
        ] == layer["members"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["seed"]))
def test_a_random_kit_has_the_layers_that_kit_makes(
    case: Case,
    root: Path,
    planned: Callable[..., tuple[tuple[LayerPlan, ...], tuple[str, ...]]],
    measured: Callable[[Path, LayerPlan], tuple[str, int]],
) -> None:
    lay_out(case, root)
    rejected = case["exit"] != 0 or "rejected_now" in case
    try:
        parse_kitfile((root / "Kitfile").read_bytes())
    except KitfileInvalid:
        assert rejected
        return
    if rejected:
        with pytest.raises(SourceUnsuitable, match="does not exist"):
            planned(root)
        assert "does not exist" in case["output"][-1]
        return
    plans, _ = planned(root)
    assert [[encode_layer_type(plan.type), *measured(root, plan)] for plan in plans] == case["layers"]


def test_the_warnings_name_what_kit_drops_without_a_word(
    root: Path, planned: Callable[..., tuple[tuple[LayerPlan, ...], tuple[str, ...]]]
) -> None:
    extract("links", root)
    _, warnings = planned(root)
    dots, links = warnings
    assert dots.startswith("code c: names with '..' in them are not packed")
    assert dots.endswith(": 'c/..dots', 'c/two..dots'")
    assert links == "code c: symbolic links are not packed: 'c/dangling', 'c/dirlink', 'c/sym'"
