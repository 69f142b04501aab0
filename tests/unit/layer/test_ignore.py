"""What patterns mean here was compared with the matcher that kit uses, on 100 000 random files too."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.layer.ignore import parse_ignore
from kitd.layer.ignore_pattern import _ANY_DIRECTORIES, _ANY_NAME, _ANYTHING, _Automaton, compile_pattern
from kitd_client.api.errors import KitfileInvalid

TABLE: list[tuple[str, str, str]] = [
    # patterns; ignored; kept (paths between spaces)
    ("*.md", "a.md .md", "sub/a.md a.mdx"),
    ("**/*.md", "a.md sub/a.md a/b/c.md", "a.mdx"),
    ("build/", "build build/x build/x/y", "sub/build builds"),
    ("*.log", "a.log a.log/x", "sub/a.log"),
    ("/top.txt", "top.txt", "sub/top.txt"),
    ("./a/../b", "b b/x", "a"),
    ("a/*/f", "a/x/f", "a/f a/x/y/f"),
    ("**/x", "x a/x a/b/x x/y", "ax a/bx"),
    ("**x", "x ax a/x a/bx", "xa"),
    ("**", "a a/b", ""),
    ("a/**", "a/b a/b/c", "a b/a"),
    ("a**", "a ab ab/c a/b", "b"),
    ("a**/b", "ab a/b ax/y/b a/b/c", "axb b"),
    ("**/a/**", "a/b x/a/b x/a/b/c", "a x/a"),
    ("**/a/**/b", "a/b x/a/y/z/b", "a/x b"),
    ("?.txt", "a.txt", "ab.txt .txt"),
    ("[ab].bin", "a.bin b.bin", "c.bin ab.bin"),
    ("[^ab].bin", "c.bin", "a.bin b.bin"),
    ("[!a].bin", "a.bin !.bin", "b.bin"),
    ("[a-c]x", "ax bx cx", "dx"),
    ("[a\\-c]x", "ax -x cx", "bx"),
    ("[[a]x", "ax [x", "bx"),
    ("[&&a]x", "&x ax", "bx"),
    ("\\#x", "#x", "x"),
    ("a\\*b", "a*b", "axb"),
    ("a.b", "a.b", "axb"),
    ("a.*", "a.b", "axb ab"),
    ("a+(b)*", "a+(b) a+(b)c", "aab"),
    ("\\^a*", "^a ^ab", "a"),
    ("^a", "^a", "a"),
    ("a|b", "a|b", "a b"),
    ("a\\|b*", "a|bc", "a bc"),
    ("a{b,c}*", "a{b,c}d", "ab ac"),
    ("**x]", "x] a/x]", "ax]"),
    ("*a*b*c", "abc xaybzc abc/d", "acb a/b/c"),
    ("*\u00e9?", "\u00e9a x\u00e9\u00fc", "\u00e9"),
    # order, exceptions
    ("d\n!d/keep", "d d/x", "d/keep d/keep/y"),
    ("!d/keep\nd", "d/keep", ""),
    ("**/*.md\n!a/b.md", "x.md a/c.md", "a/b.md"),
    ("*\n!*.py\nsecret.py", "a secret.py", "b.py"),
    ("a\n! a/b ", "a", "a/b"),
    # lines
    ("# a\n#b", "", "a b #b"),
    ("\ufeffa", "a", "b"),
    (" a \r\n\t\r\nb\r", "a b", "c"),
    (" #a", "#a", "a"),
    ("/", "", "a"),
    ("/!a", "", "a !a"),
    # what always holds
    ("", "Kitfile kitfile .kitfile .kitignore Kitfile/x", "sub/Kitfile KITFILE Kitfile.txt"),
    ("!Kitfile\n!.kitignore", "Kitfile .kitignore", "a"),
    (
        "",
        ".DS_Store a/.ds_store thumbs.DB a/$RECYCLE.BIN/x Desktop.ini .Trashes/a",
        "DS_Store a/Thumbs.db.txt",
    ),
    ("!.DS_Store", ".DS_Store", ""),
]


@pytest.mark.parametrize(("text", "ignored", "kept"), TABLE)
def test_patterns_mean_what_they_mean_to_kit(text: str, ignored: str, kept: str) -> None:
    rules = parse_ignore(text.encode())
    assert [path for path in ignored.split() if not rules.matches(path)] == []
    assert [path for path in kept.split() if rules.matches(path)] == []


def test_spaces_in_and_around_names_count_as_for_kit() -> None:
    rules = parse_ignore(b"sp ace.txt\n*.md")
    assert rules.matches("sp ace.txt")
    assert rules.matches(" sp ace.txt ")
    assert not rules.matches("sp  ace.txt")
    assert not rules.matches("a\nb/c.md")
    assert rules.matches("a\nb.md")


def test_only_exceptions_of_the_file_make_ignored_directories_worth_a_look() -> None:
    assert not parse_ignore(b"a\nb").has_exceptions
    assert parse_ignore(b"a\n!a/b").has_exceptions


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ok\n!", 2),
        ("!/", 1),
        ("[a", 1),
        ("a[]b", 1),
        ("[a-]", 1),
        ("[-a]", 1),
        ("[z-a]", 1),
        ("a\\", 1),
        ("\\d", 1),
        ("\\\u00e9", 1),
        ("[*]", 1),
        ("[a?]", 1),
        ("[\\d]", 1),
        ("[[:alpha:]]", 1),
        ("\n\na*|b", 3),
        ("^a*", 1),
        ("a/^?", 1),
        ("?{2}", 1),
    ],
)
def test_a_pattern_that_cannot_be_taken_names_its_line(text: str, line: int) -> None:
    with pytest.raises(KitfileInvalid, match=rf"invalid \.kitignore file: line {line}: "):
        parse_ignore(text.encode())


def test_names_that_are_not_utf_8_can_be_ignored() -> None:
    assert parse_ignore(b"caf\xe9*").matches("caf\udce9.txt")


@given(st.binary(max_size=60), st.lists(st.text("ab/.*!\n\u00e9", max_size=8)))
def test_any_file_gives_rules_or_a_clear_error(data: bytes, paths: list[str]) -> None:
    try:
        rules = parse_ignore(data)
    except KitfileInvalid:
        return
    for path in paths:
        rules.matches(path)


@given(
    st.lists(st.sampled_from([_ANY_DIRECTORIES, _ANY_NAME, "[^/]", "a", "b", "/", "[a-c]"]), max_size=7),
    st.booleans(),
    st.text("abc/\n", max_size=8),
)
def test_the_automaton_agrees_with_the_regular_expression(parts: list[str], more: bool, path: str) -> None:  # noqa: FBT001 (drawn)
    parts = [*parts, _ANYTHING] if more else parts
    assert _Automaton(parts).matches(path) == bool(re.fullmatch("".join(parts), path))


@pytest.mark.parametrize(
    "pattern", ["*a" * 30 + "b", "**/a/" * 30 + "b", "*" * 60 + "b", "**/*a*a*a*a*a*a*a*a*b"]
)
def test_a_hostile_pattern_takes_no_time(pattern: str) -> None:
    matches = compile_pattern(pattern)
    assert not matches("a" * 250)
    assert not matches("/".join(["a"] * 500))


def test_a_deep_path_is_no_problem() -> None:
    assert parse_ignore(b"**/x").matches("/".join(["d"] * 5000) + "/x")


def test_a_line_that_kit_does_not_read_is_refused() -> None:
    parse_ignore(b"a" * 65_535)
    with pytest.raises(KitfileInvalid, match="line 2 has more than 65535 characters"):
        parse_ignore(b"x\n" + b"a" * 65_536)
