import pytest

from kitd_client.figures import printable


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


def test_a_message_may_have_lines() -> None:
    assert printable("one\n  * two\r\x1b", lines=True) == "one\n  * two" + r"\r\x1b"
