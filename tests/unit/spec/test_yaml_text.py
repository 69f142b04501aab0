import pytest

from kitd.spec.yaml_text import Mapping, Node, Scalar, Sequence, YamlError, read_yaml

LIMIT = 2**20


def plain(node: Node | None) -> object:
    if isinstance(node, Mapping):
        return {key.text: plain(value) for key, value in node.members}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value if isinstance(node, Scalar) else None


def test_a_tree_with_aliases_is_read() -> None:
    text = b"a: &x [1, {b: yes}]\nc: *x\nd: &y 'q'\n*y : !!str 5\n"
    assert plain(read_yaml(text, limit=LIMIT)) == {
        "a": [1, {"b": "yes"}],
        "c": [1, {"b": "yes"}],
        "d": "q",
        "q": "5",
    }


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"\n\n", b"%YAML 1.1\n"])
def test_a_text_without_a_document_is_nothing(text: bytes) -> None:
    if text.startswith(b"%"):
        with pytest.raises(YamlError):
            read_yaml(text, limit=LIMIT)
    else:
        assert read_yaml(text, limit=LIMIT) is None


def test_only_the_first_document_counts() -> None:
    assert plain(read_yaml(b"a: 1\n---\nb: [", limit=LIMIT)) == {"a": 1}


def test_a_byte_order_mark_is_passed_over() -> None:
    assert plain(read_yaml("\ufeffa: 1".encode(), limit=LIMIT)) == {"a": 1}


def test_nodes_know_their_lines() -> None:
    node = read_yaml(b"# first\na:\n  - x\n  - y\n", limit=LIMIT)
    assert isinstance(node, Mapping)
    value = node.members[0][1]
    assert isinstance(value, Sequence)
    assert [item.line for item in value.items] == [3, 4]


LAUGHS = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "aliases stand for too much"),
        ("a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 20 + "]", "aliases stand for too much"),
        ("&a [*a]", "unknown anchor 'a'"),
        ("a: *b\nb: &b 1", "unknown anchor 'b'"),
        ("{a: 1, a: 2}", "line 1: the key 'a' stands twice"),
        ("x: 1\n'x': 2", "line 2: the key 'x' stands twice"),
        ("? [a]\n: 1", "line 1: a key must be text"),
        ("- " * 100_000, "levels"),
        ("[" * 100_000, "line 1"),
        ("{a: " * 65 + "}" * 65, "64 levels"),
        (
            "a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 30 + "*a" + "]" * 30,
            "line 2: more than 64 levels",
        ),
        ("a: [\n", "line 2"),
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a: {b: 1} }", "line 1"),
        ("a: !!int x", "line 1: 'x' is no int"),
        ("a: \x01", "control characters"),
        ("a: \t- b", "line 1"),
        ("# " + "x" * LIMIT, "more than the 1048576"),
    ],
)
def test_what_is_broken_or_out_of_bounds_is_refused(text: str, reason: str) -> None:
    with pytest.raises(YamlError, match=reason) as caught:
        read_yaml(text.encode(), limit=LIMIT)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("data", [b"a: \xff", b"\xff\xfea\0:\0 \x001\0", b"a: \xc3("])
def test_only_utf_8_is_read(data: bytes) -> None:
    with pytest.raises(YamlError, match="not UTF-8 at byte"):
        read_yaml(data, limit=LIMIT)


def test_64_levels_are_read() -> None:
    assert read_yaml(b"[" * 64 + b"]" * 64, limit=LIMIT) is not None
