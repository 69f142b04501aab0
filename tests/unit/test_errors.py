import os
from pathlib import Path

import pytest

from kitd.errors import log_place


def _with_standard_error(descriptor: int) -> str:
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        return log_place()
    finally:
        os.dup2(before, 2)
        os.close(before)


def test_a_log_that_is_a_file_is_named_with_its_path(tmp_path: Path) -> None:
    with (tmp_path / "kitd.log").open("w") as log:
        assert _with_standard_error(log.fileno()) == f"kitd's log {tmp_path}/kitd.log"


def test_a_log_that_nobody_can_open_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    try:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert _with_standard_error(writer) == "kitd's log"
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        assert _with_standard_error(writer) == "kitd's log in the journal"
    finally:
        os.close(reader)
        os.close(writer)
