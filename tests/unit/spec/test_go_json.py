import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.spec.go_json import encode, encode_float


@pytest.mark.parametrize(
    ("value", "text"),
    [  # each made by Go's encoding/json
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (9.99e-7, "9.99e-7"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (5e-324, "5e-324"),
        (1e20, "100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (12345678901.0, "12345678901"),
    ],
)
def test_floats_are_written_as_go_does(value: float, text: str) -> None:
    assert encode_float(value) == text


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back_as_themselves(value: float) -> None:
    assert float(encode_float(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_number_for_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="no JSON number"):
        encode({"a": [value]})


def test_texts_are_escaped_as_go_does() -> None:
    text = '<&>\u2028\u2029"\\/\b\f\n\r\t\x00\x1f\x7f\x80é☃😀'
    expected = (
        '"\\u003c\\u0026\\u003e\\u2028\\u2029\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\x80é☃😀"'  # made by Go
    )
    assert encode(text).decode() == expected
    assert encode({text: 1}).decode() == "{" + expected + ":1}"


def test_maps_are_sorted_and_structs_keep_their_order() -> None:
    class Inner(msgspec.Struct):
        z: int
        a: str = ""

    class Outer(msgspec.Struct, rename="camel"):
        the_last: Inner
        mapping: dict[str, object] | None = None
        items: tuple[Inner, ...] = ()

    value = Outer(Inner(0), {"é": None, "b": [True, False], "B": {}}, (Inner(1, "x"),))
    assert encode(value).decode() == (
        '{"theLast":{"z":0},"mapping":{"B":{},"b":[true,false],"é":null},"items":[{"z":1,"a":"x"}]}'
    )
    assert encode(Outer(Inner(0))) == b'{"theLast":{"z":0}}'


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_written_means_what_was_given(value: object) -> None:
    assert json.loads(encode(value)) == value  # type: ignore[arg-type]
