import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from kitd.spec.kitfile import parse_config
from kitd.spec.modelkit import Kit, join
from kitd.spec.oci import parse_manifest

DATA = Path(__file__).parents[2] / "data"

LoadVectors: TypeAlias = Callable[[str], Any]
Blobs: TypeAlias = Callable[[str], tuple[bytes, bytes]]


@pytest.fixture(scope="session")
def vectors() -> LoadVectors:
    """Tables made by the Go code in kit: its reference parser, net/url, yaml.v3, encoding/json."""
    return lambda name: json.loads((DATA / "vectors" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def random_cases() -> list[dict[str, Any]]:
    """What the real kit did with 120 random Kitfiles and trees."""
    cases: list[dict[str, Any]] = json.loads((DATA / "kits" / "random-cases.json").read_text())
    return cases


@pytest.fixture(scope="session")
def golden() -> Blobs:
    """Manifest and config, as bytes, of a kit that the real kit made."""

    def read(name: str) -> tuple[bytes, bytes]:
        layout = DATA / "kits" / name / "layout"

        def blob(digest: str) -> bytes:
            return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

        manifest = blob(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])
        return manifest, blob(json.loads(manifest)["config"]["digest"])

    return read


@pytest.fixture
def load_kit(golden: Blobs) -> Callable[[str], Kit]:
    def load(name: str) -> Kit:
        manifest, config = golden(name)
        return join(parse_manifest(manifest), parse_config(config))

    return load
