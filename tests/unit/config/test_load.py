from pathlib import Path

import pytest

from kitd.config import load
from kitd.config.load import config_files, load_settings, unknown_variables
from kitd.config.settings import SECTIONS, Address, Duration, FileMode, Rate, Settings, Size
from kitd_client.api.errors import ConfigurationInvalid

UID = 54321
HOME = {"HOME": "/home/ada"}


def _file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _load(tmp_path: Path, text: str, **flags: str) -> Settings:
    path = _file(tmp_path / "kitd.toml", text)
    return load_settings(HOME, {"config": str(path)} | flags, uid=UID)


@pytest.fixture
def as_kitd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "default_mode", lambda uid: "system")


def test_a_user_gets_places_of_his_own() -> None:
    settings = load_settings(HOME | {"XDG_RUNTIME_DIR": "/run/user/1"}, {}, uid=UID)
    assert settings.mode == "user"
    assert settings.daemon.socket == Path("/run/user/1/kitd/kitd.sock")
    assert settings.daemon.socket_mode == 0o600
    assert settings.daemon.idle == Duration(0)
    assert settings.cache.dir == Path("/home/ada/.cache/kitd")
    assert settings.registry.listen is None


def test_without_a_runtime_directory_the_socket_lies_in_the_cache_and_relative_xdg_is_ignored() -> None:
    settings = load_settings(HOME | {"XDG_RUNTIME_DIR": "run", "XDG_CACHE_HOME": ""}, {}, uid=UID)
    assert settings.daemon.socket == Path("/home/ada/.cache/kitd/run/kitd.sock")
    settings = load_settings(HOME | {"XDG_CACHE_HOME": "/big"}, {}, uid=UID)
    assert settings.daemon.socket == Path("/big/kitd/run/kitd.sock")
    assert settings.cache.dir == Path("/big/kitd")


def test_the_user_kitd_runs_the_daemon_of_the_machine(as_kitd: None) -> None:
    settings = load_settings({}, {}, uid=UID)
    assert settings.mode == "system"
    assert settings.daemon.socket == Path("/run/kitd/kitd.sock")
    assert (settings.daemon.socket_mode, settings.daemon.socket_group) == (0o660, "kitd")
    assert settings.cache.dir == Path("/var/cache/kitd")


def test_systemd_names_the_directories(as_kitd: None) -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "CACHE_DIRECTORY": "/var/cache/other"}
    settings = load_settings(environ, {}, uid=UID)
    assert settings.daemon.socket == Path("/run/a/kitd.sock")
    assert settings.cache.dir == Path("/var/cache/other")


def test_a_group_makes_the_daemon_a_shared_one(tmp_path: Path) -> None:
    settings = _load(tmp_path, '[daemon]\nsocket_group = "ml"\n')
    assert (settings.mode, settings.daemon.socket_mode) == ("system", 0o660)


def test_every_key_is_read_with_its_unit(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        """
        [daemon]
        socket = "/tmp/k.sock"
        socket_mode = "0640"
        idle = "15m"
        [cache]
        dir = "/srv/kits"
        [transfer]
        connections = 4
        connections_per_host = 8
        memory = "64MiB"
        range_size = 1048576
        rate_limit = "1.5MB/s"
        stall_timeout = "1500ms"
        [registry]
        listen = "[::1]:5000"
        [log]
        level = "debug"
        format = "json"
        """,
    )
    assert settings.daemon.socket == Path("/tmp/k.sock")
    assert settings.daemon.socket_mode == FileMode(0o640)
    assert settings.daemon.idle == Duration(900)
    assert settings.cache.dir == Path("/srv/kits")
    assert settings.transfer.connections == 4
    assert settings.transfer.connections_per_host == 8
    assert settings.transfer.memory == Size(64 << 20)
    assert settings.transfer.range_size == 1 << 20
    assert settings.transfer.rate_limit == Rate(1_500_000)
    assert settings.transfer.stall_timeout == Duration(1.5)
    assert settings.registry.listen == Address("::1", 5000)
    assert str(settings.registry.listen) == "[::1]:5000"
    assert (settings.log.level, settings.log.format) == ("debug", "json")


def test_later_origins_win_key_by_key(tmp_path: Path) -> None:
    home = tmp_path / "config"
    _file(
        home / "kitd" / "kitd.toml", '[transfer]\nconnections = 2\nmemory = "8MiB"\n[log]\nlevel = "error"\n'
    )
    _file(home / "kitd" / "kitd.toml.d" / "20-b.toml", "[transfer]\nconnections = 4\n")
    _file(home / "kitd" / "kitd.toml.d" / "10-a.toml", "[transfer]\nconnections = 3\n")
    environ = HOME | {
        "XDG_CONFIG_HOME": str(home),
        "KITD_TRANSFER__CONNECTIONS_PER_HOST": "9",
        "KITD_LOG_LEVEL": "warning",
        "KITD_CACHE_DIR": "/from/env",
        "KITD_SOCKET": "unix:///from/env.sock",
        "KITD_NO_PROGRESS": "1",
    }
    settings = load_settings(environ, {"cache.dir": "/from/flag"}, uid=UID)
    assert settings.transfer.connections == 4
    assert settings.transfer.memory == 8 << 20
    assert settings.transfer.connections_per_host == 9
    assert settings.log.level == "warning"
    assert settings.cache.dir == Path("/from/flag")
    assert settings.daemon.socket == Path("/from/env.sock")


def test_of_a_key_with_two_variables_the_long_one_wins() -> None:
    short = {"KITD_SOCKET": "/a/short.sock", "KITD_CACHE_DIR": "/a/short"}
    long = {"KITD_DAEMON__SOCKET": "/a/long.sock", "KITD_CACHE__DIR": "/a/long"}
    settings = load_settings(HOME | short | long, {}, uid=UID)
    assert (settings.daemon.socket, settings.cache.dir) == (Path("/a/long.sock"), Path("/a/long"))


def test_a_named_file_replaces_all_others_and_must_be_there(tmp_path: Path) -> None:
    named = _file(tmp_path / "one.toml", "")
    environ = HOME | {"KITD_CONFIG": str(named)}
    assert config_files(environ, {}, "user") == [named]
    with pytest.raises(ConfigurationInvalid, match="cannot read /nowhere"):
        load_settings(environ, {"config": "/nowhere/kitd.toml"}, uid=UID)


def test_a_users_daemon_does_not_take_the_place_of_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Path("/etc/kitd/kitd.toml")
    monkeypatch.setattr(load, "config_files", lambda *_: [machine])
    monkeypatch.setattr(Path, "exists", lambda path: path == machine)
    monkeypatch.setattr(
        load, "_file_values", lambda _: {"cache.dir": "/var/cache/kitd", "transfer.connections": 3}
    )
    settings = load_settings(HOME, {}, uid=UID)
    assert settings.cache.dir == Path("/home/ada/.cache/kitd")
    assert settings.transfer.connections == 3


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[transfer]\nconections = 1", "unknown key transfer.conections", "transfer.connections?"),
        ("[tranfer]\nmemory = 1", "unknown key tranfer.memory", "transfer.memory?"),
        ("[zzzz]", "unknown key zzzz", "daemon"),
        ("socket = 1", "unknown key socket", None),
        ("[transfer]\nconnections = 0", "transfer.connections: expected `int` >= 1", None),
        ("[transfer]\nconnections = 'many'", "transfer.connections: expected `int`, got `str`", None),
        ("[transfer]\nmemory = '128 megs'", "transfer.memory: '128 megs' is no size like 128MiB", None),
        ("[transfer]\nmemory = '1KiB'", "transfer.memory: '1KiB' is less than", None),
        ("[transfer]\nrate_limit = 'fast'", "transfer.rate_limit: 'fast' is no rate like 400MiB/s", None),
        ("[transfer]\nrate_limit = true", "transfer.rate_limit: true is no rate", None),
        ("[transfer]\nstall_timeout = '0s'", "transfer.stall_timeout: '0s' is less than 1", None),
        ("[daemon]\nidle = '5 fortnights'", "daemon.idle: '5 fortnights' is no duration like 30s", None),
        ("[daemon]\nsocket_mode = 660", 'daemon.socket_mode: 660 is no mode like "0660"', None),
        ("[daemon]\nsocket = 'run/kitd.sock'", "daemon.socket: 'run/kitd.sock' is no absolute path", None),
        ("[cache]\ndir = 3", "cache.dir: expected `str`, got `int`", None),
        (
            "[registry]\nlisten = '0.0.0.0:5000'",
            "registry.listen: '0.0.0.0:5000' is no loopback address",
            None,
        ),
        ("[registry]\nlisten = '127.0.0.1:99999'", "is no loopback address", None),
        ("[log]\nlevel = 'loud'", "log.level: invalid enum value 'loud'", None),
        ("[log", "kitd.toml: ", None),
    ],
)
def test_a_wrong_word_is_named_with_its_file(
    tmp_path: Path, text: str, message: str, hint: str | None
) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        _load(tmp_path, text)
    assert caught.value.message.startswith(str(tmp_path / "kitd.toml"))
    assert message in caught.value.message
    if hint:
        assert hint in (caught.value.hint or "")


def test_wrong_variables_and_flags_are_named_as_such() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"KITD_TRANSFER__MEMORI: unknown key transfer.memori"):
        load_settings(HOME | {"KITD_TRANSFER__MEMORI": "1"}, {}, uid=UID)
    with pytest.raises(ConfigurationInvalid, match=r"--idle: daemon\.idle: 'soon'"):
        load_settings(HOME, {"daemon.idle": "soon"}, uid=UID)


@pytest.mark.parametrize(
    ("text", "environ", "flags", "idle"),
    [
        ("", {}, {}, 900),
        ('[daemon]\nidle = "2h"', {}, {}, 7200),
        ('[daemon]\nidle = "0"', {}, {}, 0),
        ("", {"KITD_DAEMON__IDLE": "1h"}, {}, 3600),
        ("", {}, {"daemon.idle": "1m"}, 60),
        ('[daemon]\nsocket_group = "ml"', {}, {}, 0),
    ],
)
def test_a_default_for_the_idle_time_gives_way_to_whatever_else_says_one(
    tmp_path: Path, text: str, environ: dict[str, str], flags: dict[str, str], idle: float
) -> None:
    path = _file(tmp_path / "kitd.toml", text)
    given = {"config": str(path), "idle_default": "15m"} | flags
    assert load_settings(HOME | environ, given, uid=UID).daemon.idle == idle


def test_a_wrong_default_for_the_idle_time_is_named() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"--idle-default: daemon\.idle: 'soon'"):
        load_settings(HOME, {"idle_default": "soon"}, uid=UID)


def test_variables_that_nobody_knows_are_named_with_the_nearest_name() -> None:
    known = dict.fromkeys(
        ("KITD_SOCKET", "KITD_CONFIG", "KITD_AUTH_FILE", "KITD_NO_PROGRESS", "KITD_LOG__FORMAT", "HOME"), "x"
    )
    assert unknown_variables(known) == []
    assert unknown_variables(known | {"KITD_CACHEDIR": "/x", "KITD_LOGLEVEL": "1", "KITD_Q": ""}) == [
        "the environment has KITD_CACHEDIR, which kitd does not know: did you mean KITD_CACHE_DIR?",
        "the environment has KITD_LOGLEVEL, which kitd does not know: did you mean KITD_LOG_LEVEL?",
        "the environment has KITD_Q, which kitd does not know",
    ]
    load_settings(HOME | {"KITD_CACHEDIR": "/x"}, {}, uid=UID)


def test_only_a_users_daemon_ends_when_idle(as_kitd: None) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"--idle: daemon\.idle: only a user's own"):
        load_settings(HOME, {"daemon.idle": "15m"}, uid=UID)


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="larger than 1 MiB"):
        _load(tmp_path, "#" * (1 << 20) + "\n")


def test_the_sample_names_every_key_and_equals_the_defaults(as_kitd: None) -> None:
    sample = Path(__file__).parents[3] / "configs" / "kitd.toml"
    text = sample.read_text()
    for section, kind in SECTIONS.items():
        assert f"\n[{section}]" in text
        for key in kind.__struct_fields__:
            assert f"\n{key} = " in text
    assert load_settings({}, {"config": str(sample)}, uid=UID) == load_settings({}, {}, uid=UID)
