import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.spec.strict_json import JsonValue, parse_json

LIMIT = 4 * 2**20
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES)
def test_any_json_is_read_as_what_it_is(value: JsonValue) -> None:
    assert parse_json(json.dumps(value).encode(), limit=LIMIT) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a":1,"b":{"c":1,"c":2}}', "'c' stands twice"),
        (b'{"a":1,"\\u0061":2}', "'a' stands twice"),
        (b'{"a":NaN}', "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e999]", "too large"),
        (b"[" + b"9" * 500 + b"]", "too large"),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        (b'["\xed\xa0\x80"]', "not UTF-8"),
        (b'["\\ud800"]', "surrogate"),
        (b"\xff\xfe[\x00]\x00", "not UTF-8"),
        (b"", "expecting value"),
        (b"{} {}", "extra data"),
        (b"{'a':1}", "double quotes"),
        (b'{"a":1,}', "at character"),
        (b"[" * 65 + b"]" * 65, "64 levels"),
        (b"[" * LIMIT, "levels"),
        (b'{"a":' * 100_000, "levels"),
        (b"[}" * 40, "brackets"),
        (b" " * LIMIT + b"1", "more than the"),
    ],
)
def test_what_is_ambiguous_or_out_of_bounds_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(data, limit=LIMIT)
    assert len(str(caught.value)) < 250


def test_depth_counts_brackets_not_texts() -> None:
    assert parse_json(b"[" * 64 + b"]" * 64, limit=LIMIT) is not None
    quoted = b'["' + b"[" * 1000 + b'","\\"' + b"{" * 1000 + b'\\\\"]'
    assert parse_json(quoted, limit=LIMIT) == ["[" * 1000, '"' + "{" * 1000 + "\\"]


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * (LIMIT // 3 - 2) + b"[]]",
        (b"[" * 60 + b"1" + b"]" * 60 + b",") * 30_000,
        b'"' + b"\\u0041" * (LIMIT // 6 - 1) + b'"',
        b'"' + b'\\"' * (LIMIT // 2 - 1) + b"",
        b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}",
    ],
    ids=["flat", "deep", "escapes", "open", "names"],
)
@pytest.mark.timeout(20)
def test_the_worst_of_full_length_ends_soon(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_json(data, limit=LIMIT)


def test_numbers_keep_what_they_are() -> None:
    found = parse_json(b"[12345678901, 18446744073709551615, 1.0, -0, 1e2]", limit=LIMIT)
    assert repr(found) == "[12345678901, 18446744073709551615, 1.0, -0.0, 100.0]"
