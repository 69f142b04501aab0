import io
from collections.abc import Callable

import pytest

from kitd_client.api.jobs import Began, Moved, Pulled, Resolved, Succeeded, Waiting, Warned
from kitd_client.progress import Mode, Progress, choose

MIB = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What a terminal would show: the two movements that are used are obeyed."""
        lines: list[str] = [""]
        text = self.getvalue()
        while text:
            if text.startswith("\x1b["):
                end = next(index for index, letter in enumerate(text) if letter.isalpha())
                count, letter, text = text[2:end], text[end], text[end + 1 :]
                if letter == "A":
                    del lines[len(lines) - 1 - int(count) :]
                    lines.append("")
                continue
            letter, text = text[0], text[1:]
            if letter == "\n":
                lines.append("")
            else:
                lines[-1] += letter
        return lines


@pytest.fixture
def clock() -> Clock:
    return Clock()


Start = Callable[..., Progress]


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def fancy(terminal: Terminal, clock: Clock) -> Start:
    def start(**environ: str) -> Progress:
        return Progress(
            terminal, "pull r.io/kit:1", environ={"TERM": "xterm", "COLUMNS": "100"} | environ, clock=clock
        )

    return start


def test_bars_show_bytes_rate_time_left_and_source(fancy: Start, terminal: Terminal, clock: Clock) -> None:
    progress = fancy(NO_COLOR="1")
    progress.event(Began("model weights", 100 * MIB, 0))
    for second in range(1, 6):
        clock.now = second
        progress.event(Moved("model weights", "r.io", second * 10 * MIB))
    total, layer, _ = terminal.screen()
    bar = "############------------"
    assert total == f"pull          {bar}  50 %  50.0 MiB of 100.0 MiB, 10.0 MiB/s, 5s left"
    assert layer == f"model weights {bar}  50 %  100.0 MiB  r.io"


def test_the_rate_is_of_the_last_ten_seconds(fancy: Start, terminal: Terminal, clock: Clock) -> None:
    progress = fancy()
    progress.event(Began("a", 1000 * MIB, 0))
    clock.now = 1
    progress.event(Moved("a", "r.io", 500 * MIB))
    for second in range(2, 14):
        clock.now = second
        progress.event(Moved("a", "r.io", (500 + second) * MIB))
    assert ", 1.0 MiB/s," in terminal.screen()[0]


def test_what_was_there_already_is_done_and_no_speed(fancy: Start, terminal: Terminal, clock: Clock) -> None:
    progress = fancy()
    progress.event(Began("a", 100 * MIB, 60 * MIB))
    assert " 60 %" in terminal.screen()[0]
    clock.now = 10
    progress.event(Moved("a", "r.io", 70 * MIB))
    assert "70.0 MiB of 100.0 MiB, 1.0 MiB/s, 30s left" in terminal.screen()[0]


def test_what_moves_unannounced_is_never_more_than_its_total(
    fancy: Start, terminal: Terminal, clock: Clock
) -> None:
    progress = fancy()
    for second in range(3):
        clock.now = second
        progress.event(Moved("a", "workspace", second * MIB))
    assert "2.0 MiB of 2.0 MiB" in terminal.screen()[0]


def test_at_most_five_items_and_none_that_are_done(fancy: Start, terminal: Terminal, clock: Clock) -> None:
    progress = fancy()
    for number in range(8):
        clock.now += 1
        progress.event(Began(f"layer {number}", 10, 10 if number == 0 else 0))
    rows = terminal.screen()
    assert [row[:8] for row in rows] == ["pull    ", *(f"layer {n} " for n in range(1, 6)), "and 2 mo", ""]


def test_bars_are_drawn_ten_times_a_second_at_most(fancy: Start, terminal: Terminal, clock: Clock) -> None:
    progress = fancy()
    progress.event(Began("a", 1000, 0))
    for done in range(1000):
        clock.now += 0.001
        progress.event(Moved("a", "r.io", done))
    assert terminal.getvalue().count("\x1b[J") <= 10


def test_lines_stay_above_the_bars_and_bars_vanish_at_the_end(
    fancy: Start, terminal: Terminal, clock: Clock
) -> None:
    progress = fancy()
    progress.event(Resolved("r.io/kit:1", "sha256:abc"))
    progress.event(Began("a", 10, 0))
    clock.now = 1
    progress.event(Warned("a link is left out"))
    clock.now = 2
    progress.event(Waiting("r.io asked to wait (429)", 30))
    progress.close()
    assert terminal.screen() == [
        "kitctl: r.io/kit:1 is sha256:abc",
        "kitctl: warning: a link is left out",
        "kitctl: r.io asked to wait (429): trying again in at most 30s",
        "",
    ]


def test_rows_never_wrap(fancy: Start, terminal: Terminal) -> None:
    progress = fancy(COLUMNS="40")
    progress.event(Began("a" * 200, 10 * MIB, 1))
    assert max(len(row) for row in terminal.screen()) <= 39


@pytest.mark.parametrize(
    ("width", "shown", "layer"),
    [
        (80, "  0.5 GiB of 1.0 GiB, 512.0 MiB/s, 1s left", "  1.0 GiB  registry.example.com"),
        (60, "  0.5 GiB of 1.0 GiB, 512.0 MiB/s, 1s left", "  1.0 GiB  registry.example.com"),
        (50, "  0.5 GiB of 1.0 GiB, 512.0 MiB/s", "  1.0 GiB  registry.example.com"),
        (42, "  0.5 GiB of 1.0 GiB", "  1.0 GiB"),
        (30, "", "  1.0 GiB"),
        (16, "", ""),
    ],
)
def test_what_has_no_room_is_left_out_whole(
    fancy: Start, terminal: Terminal, clock: Clock, width: int, shown: str, layer: str
) -> None:
    progress = fancy(COLUMNS=str(width), NO_COLOR="1")
    progress.event(Began("weights", 1 << 30, 0))
    clock.now = 1
    progress.event(Moved("weights", "registry.example.com", 1 << 29))
    rows = terminal.screen()
    assert rows[0].endswith(f" 50 %{shown}")
    assert rows[1].endswith(f" 50 %{layer}")
    assert max(map(len, rows)) < width


def test_where_nothing_fits_there_are_names_alone(fancy: Start, terminal: Terminal) -> None:
    progress = fancy(COLUMNS="8", NO_COLOR="1")
    for number in range(7):
        progress.event(Began(f"layer {number}", 1 << 30, 1 << 29))
    assert "%" not in "".join(terminal.screen())
    assert not any(letter.isdigit() for letter in "".join(terminal.screen()))


def test_a_digest_is_not_said_to_be_itself(fancy: Start, terminal: Terminal) -> None:
    fancy().event(Resolved("r.io/kit@sha256:abc", "sha256:abc"))
    assert "sha256" not in terminal.getvalue()


class Broken(Terminal):
    """Nobody reads it any more."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("mode", ["fancy", "plain", "json", "none"])
def test_a_stream_that_takes_nothing_does_not_stop_the_job(clock: Clock, mode: Mode) -> None:
    progress = Progress(Broken(), "pull r.io/kit:1", mode, environ={"TERM": "xterm"}, clock=clock)
    progress.event(Began("a", 1000 * MIB, 0))
    progress.event(Warned("a link is left out"))
    clock.now = 20
    progress.event(Moved("a", "r.io", 500 * MIB))
    progress.close()


def test_bars_give_way_to_figures(fancy: Start, terminal: Terminal, clock: Clock) -> None:
    progress = fancy(COLUMNS="80", NO_COLOR="1")
    progress.event(Began("a rather long name of a dataset", 1000 * MIB, 0))
    clock.now = 1
    progress.event(Moved("a rather long name of a dataset", "registry.example.com", 500 * MIB))
    total, layer, _ = terminal.screen()
    assert total.endswith("50 %  500.0 MiB of 1000.0 MiB, 500.0 MiB/s, 1s left")
    assert layer.startswith("a rather long name  #")
    assert layer.endswith("registry.example.com")


def test_colour_is_left_out_where_nobody_wants_it(fancy: Start, terminal: Terminal) -> None:
    fancy().event(Began("a", 10, 5))
    assert "\x1b[36m" in terminal.getvalue()
    terminal.truncate(0)
    fancy(NO_COLOR="1").event(Began("a", 10, 5))
    assert "\x1b[36m" not in terminal.getvalue()


@pytest.fixture
def plain(clock: Clock) -> tuple[Progress, io.StringIO]:
    stream = io.StringIO()
    return Progress(stream, "pull r.io/kit:1", environ={}, clock=clock), stream


def test_plain_lines_come_at_every_tenth_or_ten_seconds(
    plain: tuple[Progress, io.StringIO], clock: Clock
) -> None:
    progress, stream = plain
    progress.event(Began("a", 1000 * MIB, 0))
    for done in [50, 60, 120, 130, 140]:
        clock.now += 2
        progress.event(Moved("a", "r.io", done * MIB))
    clock.now += 11
    progress.event(Moved("a", "r.io", 150 * MIB))
    shown = [line.split(",")[0] for line in stream.getvalue().splitlines()]
    assert shown == [
        "kitctl: pull r.io/kit:1: 12 %",
        "kitctl: pull r.io/kit:1: 15 %",
    ]


def test_a_short_job_writes_no_plain_lines(plain: tuple[Progress, io.StringIO], clock: Clock) -> None:
    progress, stream = plain
    progress.event(Began("a", 10, 0))
    for done in range(10):
        clock.now += 0.05
        progress.event(Moved("a", "r.io", done))
    progress.close()
    assert stream.getvalue() == ""


def test_json_is_the_events_themselves(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream, "pull r.io/kit:1", "json", environ={}, clock=clock)
    progress.event(Began("a", 10, 0))
    progress.event(Succeeded(Pulled(reference="r.io/kit:1", digest="d", size=10)))
    first, second = stream.getvalue().splitlines()
    assert first == '{"event":"began","item":"a","total":10,"done":0}'
    assert '"event":"succeeded"' in second


def test_none_still_warns(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream, "x", "none", environ={}, clock=clock)
    progress.event(Began("a", 10, 0))
    progress.event(Waiting("later", 3))
    progress.event(Resolved("a", "b"))
    progress.event(Warned("a link is left out"))
    assert stream.getvalue() == "kitctl: warning: a link is left out\n"


@pytest.mark.parametrize(
    ("mode", "tty", "environ", "chosen"),
    [
        ("auto", True, {"TERM": "xterm"}, "fancy"),
        ("auto", False, {"TERM": "xterm"}, "plain"),
        ("auto", True, {"TERM": "dumb"}, "plain"),
        ("auto", True, {}, "plain"),
        ("auto", True, {"TERM": "xterm", "CI": "true"}, "plain"),
        ("auto", True, {"TERM": "xterm", "KITD_NO_PROGRESS": "1"}, "none"),
        ("fancy", False, {"TERM": "xterm"}, "plain"),
        ("fancy", True, {"TERM": "xterm", "CI": "true"}, "fancy"),
        ("plain", True, {"TERM": "xterm"}, "plain"),
        ("json", True, {"TERM": "xterm"}, "json"),
        ("none", True, {"TERM": "xterm"}, "none"),
    ],
)
def test_what_auto_comes_to(mode: Mode, tty: bool, environ: dict[str, str], chosen: str) -> None:  # noqa: FBT001
    assert choose(mode, Terminal() if tty else io.StringIO(), environ) == chosen
