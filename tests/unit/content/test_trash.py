import os
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from fakes.stores import emptied, names_in, opened

from kitd.content.layout import Layout
from kitd.content.trash import STEP, Trash


@pytest.fixture
def trash(tmp_path: Path) -> Trash:
    (tmp_path / "trash").mkdir()
    return Trash(Layout(tmp_path))


def read_only_tree(path: Path, files: int) -> Path:
    (path / "in" / "ner").mkdir(parents=True)
    for number in range(files):
        (path / "in" / "ner" / str(number)).touch(mode=0o444)
    for directory in (path / "in" / "ner", path / "in", path):
        directory.chmod(0o555)
    return path


def test_it_is_emptied_in_steps(trash: Trash, tmp_path: Path) -> None:
    trash.put(read_only_tree(tmp_path / "tree", 2 * STEP))
    (tmp_path / "file").touch()
    trash.put(str(tmp_path / "file"))
    steps = 1
    while trash.unlink_some():
        steps += 1
    assert steps >= 3
    assert names_in(tmp_path / "trash") == []
    assert names_in(tmp_path) == ["trash"]


def test_nothing_is_no_trash(trash: Trash, tmp_path: Path) -> None:
    trash.put(tmp_path / "absent")
    assert not trash.pending
    (tmp_path / "there").touch()
    trash.put(tmp_path / "there")
    assert trash.pending


@pytest.mark.root
def test_without_the_rights_of_root_too() -> None:
    with TemporaryDirectory() as name:
        base = Path(name)
        (base / "trash").mkdir()
        read_only_tree(base / "tree", 3)
        for path in [base, *base.rglob("*")]:
            os.chown(path, 12345, -1)
        os.seteuid(12345)
        try:
            trash = Trash(Layout(base))
            trash.put(base / "tree")
            trash.unlink_some()
        finally:
            os.seteuid(0)
        assert names_in(base / "trash") == []


async def test_a_start_empties_what_a_crash_left(root: Path) -> None:
    async with opened(root):
        pass
    read_only_tree(root / "trash" / "left", 10)
    async with opened(root):
        await emptied(root)


async def test_a_trash_that_cannot_be_emptied_ends_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: Trash) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Trash, "unlink_some", broken)
    async with opened(root) as store:
        with anyio.fail_after(10):
            while "cannot be emptied" not in caplog.text:  # noqa: ASYNC110 (a line of the log says nothing)
                await anyio.sleep(0.01)
        assert (await store.usage()).kits == 0
