from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.client.scripted_daemon import ScriptedDaemon

_STRAY: tuple[str, ...] = (
    "KITD_SOCKET",
    "KITD_CACHE_DIR",
    "KITD_AUTH_FILE",
    "REGISTRY_AUTH_FILE",
    "CREDENTIALS_DIRECTORY",
)
_STRAY += ("KITOPS_HOME", "KITOPS_CLIENT_CERT", "KITOPS_CLIENT_KEY", "DOCKER_CONFIG", "SOURCE_DATE_EPOCH")
_STRAY += (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "KITD_NO_PROGRESS",
    "NO_COLOR",
    "COLUMNS",
    "CI",
)
_STRAY += ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with nothing, whose runtime directory exists."""
    for name in _STRAY:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return tmp_path


@pytest.fixture
def daemon(home: Path) -> Iterator[ScriptedDaemon]:
    """Where a client without any settings finds it."""
    with ScriptedDaemon(home / "run" / "kitd" / "kitd.sock") as running:
        yield running
