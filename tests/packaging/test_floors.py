"""The floors hold, and every contract of pyproject.toml bites."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]

BREACHES = [
    ("the floors of the house", "kitd/spec/__init__.py", "import kitd.layer"),
    ("the floors of the house", "kitd/content/__init__.py", "import kitd.registry"),
    ("the floors of the house", "kitd/stranger.py", ""),
    ("verbs do not know each other", "kitd/kits/pull.py", "import kitd.kits.push"),
    (
        "the registry face sees the store alone",
        "kitd/server/distribution/__init__.py",
        "import kitd.registry",
    ),
    (
        "of the client the daemon knows the wire contract only",
        "kitd/progress.py",
        "import kitd_client.client",
    ),
    ("the client stands without the daemon", "client/kitd_client/__init__.py", "import kitd.errors"),
]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on a tree, which comes before the installed kitd."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    return subprocess.run(
        [*command, "--no-cache", str(tree / "pyproject.toml")],
        check=False,
        capture_output=True,
        text=True,
        cwd=tree,
        env={"PYTHONPATH": f"{tree}:{tree / 'client'}", "COLUMNS": "200"},
    )


def test_the_floors_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("contract", "module", "line"), BREACHES, ids=[breach[1] for breach in BREACHES])
def test_a_breach_is_seen(contract: str, module: str, line: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("kitd", "client"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / module).open("a") as source:
        source.write(f"\n{line}\n")
    done = lint(tmp_path)
    verdicts = [text for text in done.stdout.splitlines() if text.endswith(("KEPT", "BROKEN"))]
    if module == "kitd/stranger.py":  # not a broken contract but a house plan that lacks a room
        assert "kitd.stranger" in done.stdout + done.stderr
    else:
        assert f"{contract} BROKEN" in verdicts
    assert done.returncode == 1


def test_every_contract_is_broken_once() -> None:
    assert {contract for contract, _, _ in BREACHES} == set(CONTRACTS)


def test_the_wall_to_the_client_has_no_holes() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    wall = next(each for each in linter["contracts"] if each["name"].startswith("of the client"))
    package = ROOT / "client" / "kitd_client"
    rooms = {path.stem for path in package.iterdir() if path.suffix in {"", ".py"}}
    foreign = rooms - {"__init__", "__pycache__", "api"}
    assert set(wall["forbidden_modules"]) == {f"kitd_client.{room}" for room in foreign}
