from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.stores import opened

from kitd.content.store import ContentStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[ContentStore]:
    async with opened(root) as opened_store:
        yield opened_store
