"""What an installation gets."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (found,) = target.glob("*.whl")
    return zipfile.Path(found)


def test_the_top_level_is_the_two_packages(wheel: zipfile.Path) -> None:
    names = {entry.name for entry in wheel.iterdir()}
    assert {name for name in names if not name.endswith((".dist-info", ".data"))} == {"kitd", "kitd_client"}


def test_scripts_never_shadow_kit(wheel: zipfile.Path) -> None:
    (info,) = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))
    entry_points = configparser.ConfigParser()
    entry_points.read_string((info / "entry_points.txt").read_text())
    assert dict(entry_points["console_scripts"]) == {
        "kitd": "kitd.__main__:main",
        "kitctl": "kitd_client.cli:main",
    }


def test_both_packages_are_typed_and_whole(wheel: zipfile.Path) -> None:
    for source in (ROOT / "kitd", ROOT / "client" / "kitd_client"):
        assert (wheel / source.name / "py.typed").exists()
        for module in source.rglob("*.py"):
            assert (wheel / source.name / str(module.relative_to(source))).exists()


def test_the_client_folder_is_no_package() -> None:
    assert not (ROOT / "client" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "client").iterdir() if path.name != "__pycache__"] == [
        "kitd_client"
    ]
