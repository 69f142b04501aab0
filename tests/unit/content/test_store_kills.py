"""kill -9 at any call that changes the store: see `fakes.kill_points`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import pytest

TESTS = Path(__file__).parent.parent.parent


class Figures(TypedDict):
    calls: int
    points: int
    wrong: list[str]


def swept(directory: Path, every: int, *how: str) -> Figures:
    done = subprocess.run(
        [sys.executable, "-m", "fakes.kill_points", str(directory), str(every), *how],
        cwd=TESTS,
        check=True,
        capture_output=True,
        text=True,
    )
    figures: Figures = json.loads(done.stdout)
    print(f"{figures['points']} kill points of {figures['calls']} calls: {len(figures['wrong'])} violations")  # noqa: T201 (figures)
    return figures


def test_some_points(tmp_path: Path) -> None:
    figures = swept(tmp_path, 31)
    assert figures["wrong"] == []
    assert figures["points"] >= 8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_point(tmp_path: Path) -> None:
    figures = swept(tmp_path, 1)
    assert figures["wrong"] == []
    assert figures["points"] > 300


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_sweep_notices_a_step_out_of_order(tmp_path: Path) -> None:
    assert swept(tmp_path, 2, "careless")["wrong"] != []
