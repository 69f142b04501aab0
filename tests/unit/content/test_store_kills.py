"""kill -9 at any call that changes the store: see `fakes.kill_points`.

Here every fifth point is tried; all of them: `cd tests && python -m fakes.kill_points $(mktemp -d) 1`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import pytest
from fakes.figures import Figures

TESTS = Path(__file__).parent.parent.parent
SUITE = "kill -9 in the store"


class Sweep(TypedDict):
    calls: int
    points: int
    wrong: list[str]


def swept(directory: Path, every: int, *how: str) -> Sweep:
    done = subprocess.run(
        [sys.executable, "-m", "fakes.kill_points", str(directory), str(every), *how],
        cwd=TESTS,
        check=True,
        capture_output=True,
        text=True,
    )
    sweep: Sweep = json.loads(done.stdout)
    return sweep


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_point_loses_what_was_answered(tmp_path: Path, figures: Figures) -> None:
    """Invariant 6: what was answered ok is there, everything else is absent or goes on."""
    sweep = swept(tmp_path, 5)
    figures.tried(SUITE, sweep["points"])
    for wrong in sweep["wrong"]:
        figures.violated(SUITE, wrong)
    assert sweep["points"] > 60


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_sweep_notices_a_step_out_of_order(tmp_path: Path) -> None:
    assert swept(tmp_path, 9, "careless")["wrong"] != []
