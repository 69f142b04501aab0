"""What a short command costs is what it imports."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unit.client.scripted_daemon import ScriptedDaemon, struct

import kitd
import kitd_client
from kitd_client.api.kits import KitList, PathAnswer, Version

_PROBE = """
import sys
before = set(sys.modules)
from kitd_client.cli import main
status = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(status)
"""
_COSTLY = {
    "argparse",
    "asyncio",
    "contextlib",
    "dataclasses",
    "http",
    "msgspec",
    "pathlib",
    "signal",
    "socket",
}
_COSTLY |= {"ssl", "subprocess", "typing", "urllib"}


@pytest.mark.parametrize("words", [["version"], ["list"], ["path", "kit:v1"]])
def test_short_commands_import_nothing_costly(daemon: ScriptedDaemon, words: list[str]) -> None:
    daemon.on("GET", "/v1/version", struct(Version(version="1", api=1, pid=7)))
    daemon.on("GET", "/v1/kits", struct(KitList([])))
    daemon.on("POST", "/v1/path", struct(PathAnswer("/store/x")))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *words], capture_output=True, text=True, env=environ, check=True
    )
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "kitd_client" in imported
    assert not imported & _COSTLY


def test_the_client_needs_the_standard_library_and_msgspec_alone() -> None:
    roots = set()
    for path in Path(kitd_client.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add((node.module or "").partition(".")[0])
    assert roots - sys.stdlib_module_names == {"kitd_client", "msgspec"}


def test_client_and_daemon_are_of_one_version() -> None:
    assert kitd_client.__version__ == kitd.__version__


def test_the_public_names_are_there() -> None:
    assert [getattr(kitd_client, name).__name__ for name in kitd_client.__all__] == kitd_client.__all__
    with pytest.raises(AttributeError):
        _ = kitd_client.Server
