import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        (
            'Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/token", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('Basic realm="a, b", Bearer realm="c"', [("basic", {"realm": "a, b"}), ("bearer", {"realm": "c"})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate abc+/==, Bearer realm=r", [("negotiate", {}), ("bearer", {"realm": "r"})]),
        (r'Basic realm="say \"hi\" \\"', [("basic", {"realm": r'say "hi" \ '.strip()})]),
        ('BEARER REALM = "x" , Service=y', [("bearer", {"realm": "x", "service": "y"})]),
        (', ,Basic realm="x",,', [("basic", {"realm": "x"})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ('Bearer realm="unterminated', [("bearer", {})]),
        ('Bearer realm="x" junk', [("bearer", {"realm": "x"}), ("junk", {})]),
        ("", []),
        ("===", []),
    ],
)
def test_reads_what_servers_send(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(found.scheme, found.parameters) for found in parse_challenges([text])] == expected


def test_several_headers_are_one_list() -> None:
    assert parse_challenges(['Basic realm="x"', 'Bearer realm="y"']) == (
        Challenge("basic", {"realm": "x"}),
        Challenge("bearer", {"realm": "y"}),
    )


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse_challenges([text])


_WORDS = st.text("abcXYZ0189-_.", min_size=1, max_size=8)
_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(st.lists(st.tuples(_WORDS, st.dictionaries(_WORDS.map(str.lower), _VALUES, max_size=3)), max_size=4))
def test_what_is_written_by_the_grammar_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'

    text = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges([text]) == tuple(
        Challenge(scheme.lower(), parameters) for scheme, parameters in challenges
    )
