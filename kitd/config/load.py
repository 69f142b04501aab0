"""Where settings come from: built-in, files, environment, flags. The later wins; each knows its origin."""

import difflib
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import get_type_hints

import msgspec

from kitd.config.settings import (
    SECTIONS,
    Address,
    CacheSettings,
    DaemonSettings,
    Duration,
    FileMode,
    Mode,
    Rate,
    Settings,
    Size,
    default_mode,
)
from kitd_client.api.errors import ConfigurationInvalid

_FILE_LIMIT = 1 << 20
_SYSTEM_ONLY = ("daemon.", "cache.", "registry.")
"""Sections of the machine's files that place the machine's daemon; a user's own daemon lives elsewhere."""
_SHORT = {"KITD_SOCKET": "daemon.socket", "KITD_CACHE_DIR": "cache.dir", "KITD_LOG_LEVEL": "log.level"}
_OTHERS = ("KITD_CONFIG", "KITD_AUTH_FILE", "KITD_NO_PROGRESS")
"""Variables that are no settings: the file to read, and two of the client."""
_IDLE_DEFAULT = "idle_default"
FLAGS = {
    "config": "--config",
    "daemon.socket": "--socket",
    "cache.dir": "--cache-dir",
    "daemon.idle": "--idle",
    _IDLE_DEFAULT: "--idle-default",
    "registry.listen": "--registry",
    "log.level": "--log-level",
}
"""Flags of the command line, by what they set."""
_LEAST = {
    "transfer.memory": Size(4 << 20),
    "transfer.range_size": Size(64 << 10),
    "transfer.stall_timeout": Duration(1),
}


class Origin(msgspec.Struct, frozen=True):
    """One place that says something: a file, a variable, a flag."""

    name: str
    values: Mapping[str, object]
    """By `section.key`."""
    is_file: bool = False


def load_settings(environ: Mapping[str, str], flags: Mapping[str, str], *, uid: int) -> Settings:
    """The settings of a daemon that runs as `uid`.

    Args:
        environ: the process's environment; `KITD_*`, the XDG variables and systemd's directories are read.
        flags: what the command line says, by `section.key`; `config` names the one file to read, `idle_default`
            the idle time of a user's own daemon of whose idle time nothing else speaks.
        uid: decides the mode, and with it the defaults: the user `kitd` runs the machine's daemon.

    Raises:
        ConfigurationInvalid: naming file, variable or flag, the key, and the nearest name for an unknown one.
    """
    base = default_mode(uid)
    merged: dict[str, tuple[object, Origin]] = {}
    for origin in _origins(environ, flags, base):
        for key, value in origin.values.items():
            merged[key] = (_checked(key, value, origin), origin)
    values = {key: value for key, (value, _) in merged.items()}
    mode: Mode = "system" if base == "system" or values.get("daemon.socket_group") else "user"
    if mode == "user" and _IDLE_DEFAULT in flags:
        origin = Origin(FLAGS[_IDLE_DEFAULT], {})
        values.setdefault("daemon.idle", _checked("daemon.idle", flags[_IDLE_DEFAULT], origin))
    defaults = default_settings(environ, base, mode, uid)
    sections = {
        name: msgspec.structs.replace(
            getattr(defaults, name),
            **{key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")},
        )
        for name in SECTIONS
    }
    settings = msgspec.structs.replace(defaults, **sections)
    if settings.daemon.idle and settings.mode == "system":
        raise ConfigurationInvalid(
            f"{merged['daemon.idle'][1].name}: daemon.idle: only a user's own daemon ends when idle"
        )
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each `KITD_` variable that nobody knows, with the nearest name: perhaps it is mistyped.

    It is no error: the environment is not only kitd's. One in the form of a setting is (`load_settings`).
    """
    settings = [f"KITD_{key.upper().replace('.', '__')}" for key in _hints()]
    known = [*_SHORT, *_OTHERS, *settings]
    warnings = []
    for name in sorted(environ):
        if name.startswith("KITD_") and "__" not in name and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            guess = f": did you mean {nearest[0]}?" if nearest else ""
            warnings.append(f"the environment has {name}, which kitd does not know{guess}")
    return warnings


def default_settings(environ: Mapping[str, str], base: Mode, mode: Mode, uid: int) -> Settings:
    """What is built in, with the directories that systemd and XDG name."""
    home = environ.get("HOME") or _home(uid)
    cache_home = _absolute(environ.get("XDG_CACHE_HOME")) or Path(home, ".cache")
    runtime = _absolute(environ.get("XDG_RUNTIME_DIR"))
    places = {
        "user": (runtime / "kitd" if runtime else cache_home / "kitd" / "run", cache_home / "kitd"),
        "system": (Path("/run/kitd"), Path("/var/cache/kitd")),
    }
    run_directory, cache_directory = places[base]
    run_directory = _absolute(environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]) or run_directory
    cache_directory = _absolute(environ.get("CACHE_DIRECTORY", "").partition(":")[0]) or cache_directory
    shared = mode == "system"
    return Settings(
        mode=mode,
        daemon=DaemonSettings(
            socket=run_directory / "kitd.sock",
            socket_mode=FileMode(0o660 if shared else 0o600),
            socket_group="kitd" if shared else "",
            idle=Duration(0),
        ),
        cache=CacheSettings(dir=cache_directory),
    )


def config_files(environ: Mapping[str, str], flags: Mapping[str, str], mode: Mode) -> list[Path]:
    """The files that are read if they exist, in order; a named file replaces all others."""
    named = flags.get("config") or environ.get("KITD_CONFIG")
    if named:
        return [Path(named).absolute()]
    own = _absolute(environ.get("CONFIGURATION_DIRECTORY", "").partition(":")[0])
    system = own if own and mode == "system" else Path("/etc/kitd")
    directories = [system]
    if mode == "user":
        home = environ.get("HOME", "")
        config_home = _absolute(environ.get("XDG_CONFIG_HOME")) or Path(home, ".config")
        directories.append(own or config_home / "kitd")
    files = [Path("/usr/lib/kitd/kitd.toml")]
    for directory in directories:
        files += [directory / "kitd.toml", *sorted((directory / "kitd.toml.d").glob("*.toml"))]
    return files


def _origins(environ: Mapping[str, str], flags: Mapping[str, str], mode: Mode) -> Iterator[Origin]:
    named = bool(flags.get("config") or environ.get("KITD_CONFIG"))
    for path in config_files(environ, flags, mode):
        if named or path.exists():
            values = _file_values(path)
            if mode == "user" and not named and path.parts[1] in {"usr", "etc"}:
                values = {key: value for key, value in values.items() if not key.startswith(_SYSTEM_ONLY)}
            yield Origin(str(path), values, is_file=True)
    # The long form is the more exact one: it wins.
    for name, value in sorted(environ.items(), key=lambda item: ("__" in item[0], item[0])):
        key = _SHORT.get(name)
        if key is None and name.startswith("KITD_") and "__" in name:
            key = name.removeprefix("KITD_").lower().replace("__", ".", 1)
        if key is not None and value:
            yield Origin(name, {key: value})
    for key, text in flags.items():
        if key not in {"config", _IDLE_DEFAULT}:
            yield Origin(FLAGS[key], {key: text})


def _file_values(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT + 1)
        if len(data) > _FILE_LIMIT:
            raise ConfigurationInvalid(f"{path}: larger than 1 MiB")
        tree = msgspec.toml.decode(data, type=dict[str, object])
    except OSError as error:
        raise ConfigurationInvalid(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigurationInvalid(f"{path}: {error}") from error
    values: dict[str, object] = {}
    for section, table in tree.items():
        if not isinstance(table, dict):
            raise _unknown(str(path), section, [f"[{name}]" for name in SECTIONS])
        values |= {f"{section}.{key}": value for key, value in table.items()}
        if not table and section not in SECTIONS:
            raise _unknown(str(path), section, list(SECTIONS))
    return values


def _checked(key: str, raw: object, origin: Origin) -> object:
    hint = _hints().get(key)
    if hint is None:
        raise _unknown(origin.name, key, list(_hints()))
    try:
        value = _parsed(hint, raw)
    except (msgspec.ValidationError, ValueError) as error:
        text = str(error)
        raise ConfigurationInvalid(f"{origin.name}: {key}: {text[:1].lower()}{text[1:]}", key=key) from error
    if isinstance(value, Path):
        if origin.is_file and not value.is_absolute():
            raise ConfigurationInvalid(f"{origin.name}: {key}: {raw!r} is no absolute path", key=key)
        return value.absolute()
    least = _LEAST.get(key)
    if least is not None and isinstance(value, int | float) and value < least:
        raise ConfigurationInvalid(f"{origin.name}: {key}: {raw!r} is less than {least:g}", key=key)
    return value


def _parsed(hint: type | UnionType, raw: object) -> object:
    if hint == Address | None:
        return Address.parsed(raw) if raw else None
    if hint is Path:
        return Path(msgspec.convert(raw, str).removeprefix("unix://"))
    for kind in (Rate, Size, Duration, FileMode):
        if hint is kind:
            return kind.parsed(raw)
    return msgspec.convert(raw, hint, strict=False)


def _hints() -> dict[str, type | UnionType]:
    return {
        f"{name}.{key}": hint
        for name, kind in SECTIONS.items()
        for key, hint in get_type_hints(kind, include_extras=True).items()
    }


def _unknown(origin: str, key: str, known: list[str]) -> ConfigurationInvalid:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return ConfigurationInvalid(
        f"{origin}: unknown key {key}",
        hint=f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(sorted(known))}",
        key=key,
    )


def _absolute(text: str | None) -> Path | None:
    """The path, unless it is empty or relative: XDG says to ignore such ones."""
    return Path(text) if text and os.path.isabs(text) else None  # noqa: PTH117 - of a text that may be empty


def _home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"
