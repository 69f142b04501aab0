import pytest

from kitd_client.figures import printable, size_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ein Größenname 模型", "ein Größenname 模型"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x9b2J\u202ereversed", r"\x9b2J\u202ereversed"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("count", "whole", "text"),
    [
        (512 << 20, 3 << 30, "0.5 GiB"),
        (3 << 30, 3 << 30, "3.0 GiB"),
        (0, 3 << 30, "0.0 GiB"),
        (900, 1023, "900 B"),
        (1 << 20, 1023 << 10, "1024.0 KiB"),
        (1 << 61, 1 << 62, "2048.0 PiB"),
    ],
)
def test_a_part_has_the_unit_of_the_whole(count: int, whole: int, text: str) -> None:
    assert size_text(count, whole) == text


def test_a_message_may_have_lines() -> None:
    assert printable("one\n  * two\r\x1b", lines=True) == "one\n  * two" + r"\r\x1b"
