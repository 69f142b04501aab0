"""What kit's YAML parser takes and libyaml does not, and the other way round; kit itself was asked each time."""

import pytest

from kitd.spec.kitfile import parse_kitfile
from kitd.spec.yaml_text import Mapping, Scalar, YamlError, read_yaml
from kitd_client.api.errors import KitfileInvalid

LIMIT = 1 << 20


def read(text: str) -> dict[str, object]:
    root = read_yaml(text.encode(), limit=LIMIT)
    assert isinstance(root, Mapping)
    return {key.text: value.value for key, value in root.members if isinstance(value, Scalar)}


@pytest.mark.parametrize(
    "text",
    [
        "docs: [{path: r.md, description: Why?}]",
        "authors: [n?]",
        "{a?: 1}",
        "%YAML 1.2\n---\na: 1",
        r'a: "x\/y"',
        r'a: "x\\\/y"',
        "---\n\ufeffa: 1",
        "a: 1\n---\n@\n",
        "a: 1\n--- b: c: d",
        'a: 1\n---\n"foo',
        "a: !!binary '@'",
        "\t# alone\na: 1",
        "a: 1 # behind\n\t# below\nb: 2",
        "a: x\n...\n@",
    ],
)
def test_what_kit_refuses_is_refused(text: str) -> None:
    with pytest.raises(YamlError):
        read(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: Why?", "Why?"),
        ("a: 'Why?'\nb: ['n?', \"n?\"]", "Why?"),
        ("%YAML 1.1\n---\na: x", "x"),
        (r'a: "it\'s \'so\'"', "it's 'so'"),
        (r'a: "x\\/y"', r"x\/y"),
        ("a: x/y", "x/y"),
        ("# above\n\t# below\na: x", "x"),
        ("b: 1\n# above\n\n \t# below\na: x", "x"),
        ("\ufeffa: x", "x"),
        ("a: x\n---\nb: 1\n", "x"),
        ("a: x\n...\n", "x"),
        ("\ufeff\ufeffa: x", "x"),
        ("# c\n\t# d\n" * 40 + "a: x", "x"),
        ("a: !!binary aGk=", "hi"),
    ],
)
def test_what_kit_takes_is_taken(text: str, value: str) -> None:
    assert read(text)["a"] == value


def test_binary_text_and_null_keys_of_a_kitfile() -> None:
    text = b"manifestVersion: 1.0.0\npackage: {~: x, description: !!binary aGk=}\nmodel: {path: m, null: }\n"
    kitfile, _ = parse_kitfile(text)
    assert kitfile.package is not None
    assert kitfile.package.description == "hi"
    with pytest.raises(KitfileInvalid):
        parse_kitfile(b"manifestVersion: 1.0.0\npackage: {'': x}\n")


def test_repairs_have_an_end() -> None:
    """Kit would take this; each repair reads the text again."""
    with pytest.raises(YamlError, match="too many comments"):
        read("# c\n\t# d\n" * 60 + "a: 1")
