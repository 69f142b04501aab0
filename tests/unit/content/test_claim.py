import os
import subprocess
import sys
from pathlib import Path

import pytest

from kitd.content import sync
from kitd.content.claim import claimed
from kitd.content.database import Database
from kitd.content.layout import Layout
from kitd_client.api.errors import StoreLocked, StoreRefused


def modes(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in root.iterdir()}


def test_others_pass_through_to_a_snapshot_and_see_nothing_else(root: Path) -> None:
    root.mkdir(mode=0o755)
    with claimed(root, socket="") as layout:
        Database(layout.database).close()
        assert root.stat().st_mode & 0o777 == 0o711
        found = modes(root)
        assert found.pop("snapshots") == 0o711
        for public in ("VERSION", "CACHEDIR.TAG"):
            assert found.pop(public) & 0o022 == 0
        assert {name: mode & 0o077 for name, mode in found.items() if mode & 0o077} == {}
        assert {"objects", "recipes", "ingest", "trash", "lock", "kitd.db"} <= found.keys()


def test_the_second_is_told_who_has_it(root: Path) -> None:
    with (
        claimed(root, socket="/run/first.sock"),
        pytest.raises(StoreLocked) as caught,
        claimed(root, socket="/run/second.sock"),
    ):
        pass
    assert str(os.getpid()) in caught.value.message
    assert "/run/first.sock" in caught.value.message
    assert caught.value.detail["socket"] == "/run/first.sock"
    with claimed(root, socket="/run/second.sock") as layout:
        assert layout.lock.read_text() == f"{os.getpid()}\n/run/second.sock\n"
    assert layout.lock.read_text() == ""


def test_the_lock_goes_with_a_killed_process(root: Path) -> None:
    code = (
        "import sys, os, signal, pathlib\n"
        "from kitd.content.claim import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1]), socket='/run/dead.sock'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(root)], check=False)
    assert ended.returncode == -9
    with claimed(root, socket="/run/next.sock"):
        pass


@pytest.mark.root
def test_another_users_store_is_refused(root: Path) -> None:
    root.mkdir()
    os.chown(root, 12345, -1)
    with pytest.raises(StoreRefused, match="user 12345") as caught, claimed(root, socket=""):
        pass
    assert "sudo" in (caught.value.hint or "")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("version", ["2", "10", "garbage", ""])
def test_another_format_is_refused_and_left_alone(root: Path, version: str) -> None:
    with claimed(root, socket="") as layout:
        pass
    layout.version.write_text(version)
    before = sorted(root.rglob("*"))
    with pytest.raises(StoreRefused, match="format") as caught, claimed(root, socket=""):
        pass
    assert caught.value.kept is not None
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(("magic", "name"), [(0x6969, "NFS"), (0xFE534D42, "SMB2"), (0x65735546, "FUSE")])
def test_a_network_file_system_is_refused_and_the_setting_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, magic: int, name: str
) -> None:
    monkeypatch.setattr(sync, "file_system_type", lambda _path: magic)
    with pytest.raises(StoreRefused, match=name) as caught, claimed(root, socket=""):
        pass
    assert "KITD_CACHE_DIR" in (caught.value.hint or "")
    assert "cache.dir" in (caught.value.hint or "")


def test_a_directory_of_other_things_is_no_store(root: Path) -> None:
    root.mkdir(mode=0o755)
    (root / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreRefused, match=r"thesis\.tex"), claimed(root, socket=""):
        pass
    assert root.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


def test_a_start_cut_short_is_made_up_for(root: Path) -> None:
    with claimed(root, socket="") as layout:
        pass
    layout.version.unlink()
    layout.database.unlink()
    (root / "VERSION.new").write_text("")
    with claimed(root, socket=""):
        assert layout.version.read_text() == "1\n"


def test_the_root_may_be_a_link_and_may_be_a_mount(tmp_path: Path) -> None:
    (tmp_path / "there" / "lost+found").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with claimed(tmp_path / "link", socket="") as layout:
        assert layout.root == tmp_path / "there"
    assert layout.cache_tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_paths_are_absolute_and_apart(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    names = {str(layout.fresh_ingest()), str(layout.fresh_trash()), str(layout.fresh_snapshot())}
    assert len(names) == 3
    assert all(Path(name).is_absolute() for name in names)
