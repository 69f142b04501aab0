import ctypes
import os
import resource
import sys
from pathlib import Path

import pytest

from kitd import __main__ as command
from kitd.config.load import FLAGS
from kitd_client.api.errors import KitdError, StoreLocked


@pytest.fixture(autouse=True)
def _harmless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "set_up_logging", lambda *_: None)
    monkeypatch.setattr(command, "_prepare_process", lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KITD_CONFIG", "/dev/null")


def _serving(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> list[tuple[object, ...]]:
    served: list[tuple[object, ...]] = []

    async def serve(*arguments: object) -> None:
        served.append(arguments)
        if error is not None:
            raise error

    monkeypatch.setattr(command, "serve", serve)
    return served


def test_every_flag_sets_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    served = _serving(monkeypatch, None)
    values = ["/dev/null", "/tmp/s.sock", "/tmp/c", "15m", "1h", "127.0.0.1:5000", "error"]
    arguments = [text for pair in zip(FLAGS.values(), values, strict=True) for text in pair]
    assert command.run(arguments) == 0
    ((settings, load, files, _),) = served
    assert load() == settings  # type: ignore[operator]
    assert files == [Path("/dev/null")]
    assert str(settings.daemon.socket) == "/tmp/s.sock"  # type: ignore[attr-defined]
    assert settings.daemon.idle == 900.0  # type: ignore[attr-defined]
    assert str(settings.registry.listen) == "127.0.0.1:5000"  # type: ignore[attr-defined]


def test_a_variable_that_nobody_knows_is_warned_of_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = _serving(monkeypatch, None)
    monkeypatch.setenv("KITD_CACHEDIR", "/x")
    assert command.run([]) == 0
    assert len(served) == 1
    assert "KITD_CACHEDIR, which kitd does not know: did you mean KITD_CACHE_DIR?" in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            StoreLocked("the store is locked", hint="stop it"),
            69,
            "kitd: the store is locked\n  hint: stop it\n",
        ),
        (KitdError("odd"), 1, "kitd: odd\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    _serving(monkeypatch, error)
    assert command.run([]) == status
    assert capsys.readouterr().err == said


def test_a_bug_goes_to_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    _serving(monkeypatch, ZeroDivisionError("inner"))
    assert command.run([]) == 1
    assert capsys.readouterr().err == ""
    assert "ZeroDivisionError: inner" in caplog.text


def test_main_exits_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kitd", "--idle", "soon"])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 78


def test_the_process_gets_its_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    asked: list[tuple[int, int]] = []
    masks: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    monkeypatch.setattr(os, "umask", masks.append)
    monkeypatch.setattr(command, "_keep_memory", lambda: None)
    command._prepare_process()
    assert (asked, masks) == ([(4096, 4096)], [0o022])


def test_a_c_library_without_mallopt_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    command._keep_memory()
