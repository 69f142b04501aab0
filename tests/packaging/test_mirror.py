"""A unit test is found where its module is."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
UNIT = ROOT / "tests" / "unit"


def is_module(path: Path) -> bool:
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def candidates(test: Path) -> list[Path]:
    """`unit/a/test_b_c.py` is for `kitd/a/b_c.py`, or for one aspect, `c`, of `kitd/a/b.py`.

    A module may have a folder of tests: all of `unit/a/` is for `kitd/a.py`.
    """
    folder = test.relative_to(UNIT).parent
    if folder.parts[:1] == ("client",):
        home = ROOT / "client" / "kitd_client" / Path(*folder.parts[1:])
    else:
        home = ROOT / "kitd" / folder
    if home.with_suffix(".py").exists():
        return [home]
    words = test.stem.removeprefix("test_").split("_")
    if words == ["main"]:
        return [home / "__main__"]
    return [home / "_".join(words[:count]) for count in range(len(words), 0, -1)]


@pytest.mark.parametrize(
    "test", sorted(UNIT.rglob("test_*.py")), ids=lambda path: str(path.relative_to(UNIT))
)
def test_the_module_is_there(test: Path) -> None:
    names = [str(path.relative_to(ROOT)) for path in candidates(test) if not is_module(path)]
    assert len(names) < len(candidates(test)), f"none of {names} is a module"


def test_the_test_tree_is_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
