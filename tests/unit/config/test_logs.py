import json
import logging
import os
import sys
from pathlib import Path

import pytest

from kitd.config.logs import formatter, set_up_logging
from kitd.config.settings import LogSettings


def _record(message: str, level: int = logging.INFO, *, broken: bool = False) -> logging.LogRecord:
    trace = None
    if broken:
        try:
            int("inner")
        except ValueError:
            trace = sys.exc_info()
    return logging.LogRecord("kitd.x", level, __file__, 1, message, (), trace)


def test_json_is_one_object_a_line() -> None:
    line = formatter(LogSettings(format="json"), {}).format(_record("two\nlines", broken=True))
    assert "\n" not in line
    value = json.loads(line)
    assert (value["level"], value["logger"], value["msg"]) == ("info", "kitd.x", "two\nlines")
    assert "ValueError: invalid literal" in value["trace"]


def test_every_line_for_the_journal_has_its_priority() -> None:
    text = formatter(LogSettings(format="journal"), {}).format(_record("bad", logging.ERROR, broken=True))
    assert len(text.splitlines()) > 2
    assert all(line.startswith("<3>") for line in text.splitlines())


def test_auto_looks_at_what_stderr_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        status = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        settings = LogSettings()
        assert formatter(settings, journal).format(_record("x")) == "<6>x"
        assert formatter(settings, {"JOURNAL_STREAM": "1:2"}).format(_record("x")).startswith("{")
        monkeypatch.setattr(stream, "isatty", lambda: True)
        assert formatter(settings, {}).format(_record("x")).endswith("INFO    x")


@pytest.mark.parametrize("name", ["watchfiles.main", "aiohttp.access"])
def test_libraries_say_nothing_of_their_ordinary_work(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        set_up_logging(LogSettings(format="text"), {})
        logging.getLogger(name).info("1 change detected")
        logging.getLogger(name).warning("something is wrong")
        assert capsys.readouterr().err.splitlines()[0].endswith("something is wrong")
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_a_second_set_up_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        set_up_logging(LogSettings(format="text", level="error"), {})
        set_up_logging(LogSettings(format="text", level="warning"), {})
        logging.getLogger("kitd.y").warning("seen once")
        logging.getLogger("kitd.y").info("not seen")
        assert capsys.readouterr().err.count("seen") == 1
    finally:
        root.handlers[:] = before
        root.setLevel(level)
