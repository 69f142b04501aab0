from collections.abc import Callable
from typing import Any

import pytest

from kitd.spec import go_json, go_yaml


@pytest.mark.parametrize(
    ("text", "tag", "value"),
    [
        ("yes", "str", "yes"),
        ("on", "str", "on"),
        ("TRUE", "bool", True),
        ("~", "null", None),
        ("", "null", None),
        ("0xFF", "int", 255),
        ("0777", "int", 511),
        ("0o17", "int", 15),
        ("0b-101", "int", -5),
        ("0o-7", "int", -7),
        ("0b+1", "int", 1),
        ("0b2", "str", "0b2"),
        ("1_000", "int", 1000),
        ("08", "float", 8.0),
        ("18446744073709551615", "int", 2**64 - 1),
        ("+18446744073709551615", "float", float(2**64)),
        ("99999999999999999999", "float", 1e20),
        ("1.2e+3", "float", 1200.0),
        ("1e999", "str", "1e999"),
        ("._5", "str", "._5"),
        ("2026-1-2", "timestamp", "2026-01-02T00:00:00Z"),
        ("2026-01-02 3:4:5,60", "timestamp", "2026-01-02T03:04:05.6Z"),
        ("2026-01-02t3:4:5.123456789123-07:30", "timestamp", "2026-01-02T03:04:05.123456789-07:30"),
        ("2026-02-29", "str", "2026-02-29"),
        ("2026-01-02T03:04:05", "str", "2026-01-02T03:04:05"),
        ("2026-01-02T25:00:00Z", "str", "2026-01-02T25:00:00Z"),
        ("2026-13-01", "str", "2026-13-01"),
        ("2026-01-01T00:00:00+25:00", "str", "2026-01-01T00:00:00+25:00"),
    ],
)
def test_plain_scalars(text: str, tag: str, value: object) -> None:
    assert go_yaml.resolve(text) == (tag, value)


def test_every_scalar_of_the_real_reader_has_its_value(vectors: Callable[[str], Any]) -> None:
    for text, expected in vectors("yaml-scalars"):
        value = go_yaml.resolve(text)[1]
        if expected is None:
            with pytest.raises(ValueError, match="no JSON number"):
                go_json.encode(value)
        else:
            assert go_json.encode(value).decode() == expected, text


def test_tags_say_what_a_text_is() -> None:
    assert go_yaml.resolve_tagged("str", "5") == ("str", "5")
    assert go_yaml.resolve_tagged("float", "5") == ("float", 5.0)
    assert go_yaml.resolve_tagged("int", "0x10") == ("int", 16)
    assert go_yaml.resolve_tagged("!mine", "5") == ("!mine", "5")
    for tag, text in (("int", "five"), ("bool", "yes"), ("null", "x"), ("int", "1.5")):
        with pytest.raises(ValueError, match=f"is no {tag}"):
            go_yaml.resolve_tagged(tag, text)


def test_very_long_numbers_cost_nothing() -> None:
    assert go_yaml.resolve("9" * 1_000_000)[0] == "str"
    assert go_yaml.resolve("0" * 1_000_000 + "7") == ("int", 7)
