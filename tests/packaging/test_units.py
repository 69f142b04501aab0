"""The units and the container file, as far as they can be checked without running them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze: apt-get install systemd"
)
@pytest.mark.parametrize("scope", ["system", "user"])
def test_systemd_takes_the_units(tmp_path: Path, scope: str) -> None:
    source = UNITS / "user" if scope == "user" else UNITS
    for name in ("kitd.service", "kitd.socket"):
        text = (source / name).read_text()
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(text)
    (tmp_path / "run").mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--{scope}", "--man=no", "kitd.service", "kitd.socket"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("directory", [UNITS, UNITS / "user"])
def test_the_socket_has_the_name_that_kitd_looks_for(directory: Path) -> None:
    assert "\nFileDescriptorName=api\n" in (directory / "kitd.socket").read_text()


def test_a_wrong_configuration_is_not_tried_again() -> None:
    for directory in (UNITS, UNITS / "user"):
        assert "\nRestartPreventExitStatus=78\n" in (directory / "kitd.service").read_text()


def test_the_container_file_copies_what_there_is_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    sources = [
        word for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for word in line.split()
    ]
    assert {"pyproject.toml", "kitd", "client", "systemd", "configs"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "\nUSER kitd\n" in text
    assert "\nSTOPSIGNAL SIGTERM\n" in text
