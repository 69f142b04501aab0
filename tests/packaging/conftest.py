"""Golden files: documents that are made from the code, so that a change of the code is a visible diff.

Renew them with `KITD_RENEW_GOLDEN=1 scripts/test tests/packaging`, and read the diff.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def hold_golden() -> Callable[[str, str], None]:
    """Fails if a file of the repository is not this text; with `KITD_RENEW_GOLDEN` set, writes it."""

    def hold(name: str, text: str) -> None:
        path = ROOT / name
        if os.environ.get("KITD_RENEW_GOLDEN"):
            path.write_text(text)
        how = f"{name} is not what the code says; KITD_RENEW_GOLDEN=1 scripts/test tests/packaging renews it"
        assert path.exists(), how
        assert path.read_text() == text, how

    return hold
