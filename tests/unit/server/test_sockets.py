import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from kitd.server.sockets import ApiSocket
from kitd_client.api.errors import ConfigurationInvalid, StoreLocked


def _answers(path: Path) -> bool:
    directory = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(f"/proc/self/fd/{directory}/{path.name}")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        finally:
            os.close(directory)
        return True


def test_the_socket_has_its_mode_from_the_start_and_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run" / "kitd.sock"
    bound = ApiSocket.bind(path, 0o640, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert bound.is_there
    assert _answers(path)
    bound.close()
    assert list(path.parent.iterdir()) == []


def test_a_group_can_reach_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "kitd.sock"
    own = grp.getgrgid(os.getgid())
    bound = ApiSocket.bind(path, 0o660, own.gr_name)
    assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (own.gr_gid, 0o660)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    bound.close()


def test_a_path_of_any_length_will_do(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "kitd.sock"
    bound = ApiSocket.bind(path, 0o600, "")
    assert _answers(path)
    bound.close()


def test_a_live_socket_is_never_stolen(tmp_path: Path) -> None:
    path = tmp_path / "kitd.sock"
    first = ApiSocket.bind(path, 0o600, "")
    with pytest.raises(StoreLocked, match=f"the daemon with pid {os.getpid()} answers there"):
        ApiSocket.bind(path, 0o600, "")
    assert first.is_there
    assert _answers(path)
    first.close()


def test_a_daemon_with_a_full_backlog_is_alive_too(tmp_path: Path) -> None:
    path = tmp_path / "kitd.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            with pytest.raises(StoreLocked, match="a busy daemon answers there"):
                ApiSocket.bind(path, 0o600, "")


def test_a_socket_nobody_listens_at_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kitd.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    bound = ApiSocket.bind(path, 0o600, "")
    assert _answers(path)
    bound.close()


def test_a_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kitd.sock"
    path.write_text("precious")
    with pytest.raises(ConfigurationInvalid, match="something else of that name"):
        ApiSocket.bind(path, 0o600, "")
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_others_can_write_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationInvalid, match="can be written by others"):
        ApiSocket.bind(tmp_path / "kitd.sock", 0o600, "")
    tmp_path.chmod(0o1777)
    ApiSocket.bind(tmp_path / "kitd.sock", 0o600, "").close()


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make another user's directory")
def test_another_users_directory_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(ConfigurationInvalid, match="its directory belongs to uid 12345"):
        ApiSocket.bind(tmp_path / "kitd.sock", 0o600, "")


def test_an_unknown_group_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="there is no group 'no-such-group'"):
        ApiSocket.bind(tmp_path / "kitd.sock", 0o600, "no-such-group")
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_is_gone_or_replaced_is_noticed_and_the_new_one_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kitd.sock"
    bound = ApiSocket.bind(path, 0o600, "")
    path.unlink()
    assert not bound.is_there
    successor = ApiSocket.bind(path, 0o600, "")
    assert not bound.is_there
    bound.close()
    assert successor.is_there
    successor.close()


def test_a_withdrawn_socket_serves_who_came_before_and_can_come_back(tmp_path: Path) -> None:
    path = tmp_path / "kitd.sock"
    bound = ApiSocket.bind(path, 0o600, "")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        bound.withdraw()
        assert not _answers(path)
        bound.socket.accept()[0].close()
    bound.restore()
    assert _answers(path)
    bound.withdraw()
    bound.close()
    assert list(tmp_path.iterdir()) == []
