import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.spec.kitfile_yaml import _json_value
from kitd.spec.strict_json import JsonValue
from kitd.spec.yaml_text import read_yaml
from kitd.spec.yaml_writer import Flow, YamlValue, write_yaml

LOOKALIKES = [
    "yes",
    "n",
    "~",
    "null",
    "1.5",
    "0x1f",
    "0b_",
    "1:30",
    "2026-01-02",
    "<<",
    "---",
    "...",
    "1e5",
    "=",
    "-",
    "? a",
]
TEXTS = (
    st.text()
    | st.sampled_from(LOOKALIKES)
    | st.text(st.sampled_from(" ab:#-?,[]{}&*!|>'\"%@`\\\n\t\r\u2028\x85\ufeff😀"))
)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_what_is_written_means_the_same_in_yaml_1_1_and_to_us(value: dict[str, JsonValue]) -> None:
    written = write_yaml(value)
    assert yaml.load(written, Loader=yaml.CSafeLoader) == value
    node = read_yaml(written, limit=2**20)
    assert node is not None
    assert _json_value(node) == value


def test_the_layout_is_that_of_kit() -> None:
    value: dict[str, YamlValue] = {
        "manifestVersion": "1.0.0",
        "version": "1.10",
        "authors": Flow(("Ana", "B, C", "x: y")),
        "empty": {},
        "none": [],
        "model": {"path": "./w b", "on": True, "n": None, "deep": [[1, [2]], {"a": "b", "c": []}]},
        "text": "one\n\n  two\n",
        "more": "one\ntwo",
        "k" * 200: {"a": 1, "b": 2},
    }
    assert write_yaml(value).decode() == (
        "manifestVersion: 1.0.0\n"
        'version: "1.10"\n'
        'authors: [Ana, "B, C", "x: y"]\n'
        "empty: {}\n"
        "none: []\n"
        "model:\n"
        "  path: ./w b\n"
        '  "on": true\n'
        '  "n": null\n'
        "  deep:\n"
        "    - - 1\n"
        "      - - 2\n"
        "    - a: b\n"
        "      c: []\n"
        "text: |\n"
        "  one\n"
        "\n"
        "    two\n"
        "more: |-\n"
        "  one\n"
        "  two\n"
        f"? {'k' * 200}\n"
        ": a: 1\n"
        "  b: 2\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345678901, "12345678901"),
        (0.1, "0.1"),
        (5.0, "5.0"),
        (1e-7, "1.0e-07"),
        (1.5e300, "1.5e+300"),
        (-0.0, "-0.0"),
        (2**64 - 1, "18446744073709551615"),
    ],
)
def test_numbers_are_written_as_a_person_writes_them(value: float, text: str) -> None:
    assert write_yaml({"a": value}).decode() == f"a: {text}\n"
