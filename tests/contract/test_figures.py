"""Figures of suites reach the end of the run, from xdist's workers too, and a violation fails its test."""

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from blockbuster import BlockBuster, BlockingError
from fakes.figures import Figures

import kitd.errors

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_points(figures, number):
    figures.tried("sweep", 10)
    figures.note("sweep", f"cost {number}")
    if number == 3:
        figures.violated("sweep", "point 7 lost a tag")

def test_others(figures):
    figures.tried("archives")
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_sums_are_printed(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "fakes.figures",
            "-n",
            workers,
            "-c",
            "/dev/null",
            # else it would clean up after other runs
            "--basetemp",
            str(tmp_path / "temporary"),
            str(tmp_path),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "5 passed, 1 error" in done.stdout
    section = re.search(r"= figures =+\n(.*?)\n=", done.stdout, re.DOTALL)
    assert section is not None
    assert section[1].splitlines() == [
        "archives: 1 points tried, 0 violations",
        "sweep: 40 points tried, 1 violations",
        "    point 7 lost a tag",
        "    cost 0",
        "    cost 1",
        "    cost 2",
        "    cost 3",
    ]


async def test_blocking_on_the_loop_is_an_error(
    no_blocking: BlockBuster, figures: Figures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "def block(path):\n    with open(path, 'w') as out:\n        out.write('x')\n"
    code = compile(source, kitd.errors.__file__, "exec")
    found: dict[str, object] = {}
    exec(code, found)
    block = found["block"]
    assert callable(block)
    with pytest.raises(BlockingError):
        block(tmp_path / "file")
    await anyio.to_thread.run_sync(block, tmp_path / "file")
    assert figures.violations == []
