import os
from pathlib import Path

import pytest

from kitd.content import sync


def test_the_file_system_is_told_by_its_magic(tmp_path: Path) -> None:
    assert sync.file_system_type("/proc") == 0x9FA0
    with pytest.raises(FileNotFoundError):
        sync.file_system_type(str(tmp_path / "absent"))


class Calls:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, dirty: int) -> None:
        self.made: list[str] = []
        monkeypatch.setattr(sync, "dirty_bytes", lambda: dirty)
        monkeypatch.setattr(sync, "sync_file_system", lambda _since: self.made.append("syncfs"))
        monkeypatch.setattr(sync, "sync_file", self.made.append)


def test_few_files_are_flushed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, dirty=0)
    sync.sync_data([str(number) for number in range(sync.BATCH - 1)], 100, 0)
    assert sorted(calls.made, key=int) == [str(number) for number in range(sync.BATCH - 1)]


def test_many_files_are_flushed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, dirty=1 << 30)
    sync.sync_data(["name"] * sync.BATCH, (1 << 30) - sync.FOREIGN_DIRTY, 0)
    assert calls.made == ["syncfs"]


def test_nobody_waits_for_the_dirty_data_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, dirty=1 << 30)
    sync.sync_data(["name"] * sync.BATCH, (1 << 30) - sync.FOREIGN_DIRTY - 1, 0)
    assert calls.made == ["name"] * sync.BATCH


def test_one_file_that_fails_fails_all(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    with pytest.raises(FileNotFoundError):
        sync.sync_data([str(tmp_path / "there"), str(tmp_path / "absent")], 1, 0)


def test_real_calls(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"abc")
    sync.start_writing(descriptor, 0, 3)
    os.close(descriptor)
    with sync.opened_directory(str(tmp_path)) as since:
        sync.sync_data([str(path)], 3, since)
        sync.sync_directories([str(tmp_path), "/tmp"])
        sync.sync_file_system(since)
    assert sync.dirty_bytes() >= 0
