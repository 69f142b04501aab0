"""The client is light: standard library and msgspec, nothing of the daemon."""

import json
import subprocess
import sys

ALLOWED = {"kitd_client"}
"""Beside the standard library and what msgspec itself loads (typing_extensions, if it is installed)."""

PROBE = """
import importlib, json, pkgutil, sys
import msgspec
before = set(sys.modules)
import kitd_client
for module in pkgutil.walk_packages(kitd_client.__path__, "kitd_client."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_third_party_modules_of_the_client() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], check=False, capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stderr
    loaded = {name for name in json.loads(done.stdout) if name not in sys.stdlib_module_names}
    assert loaded == ALLOWED
