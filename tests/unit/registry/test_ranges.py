import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.registry.ranges import Part, Wanted, judge
from kitd_client.api.errors import SizeMismatch

_WANTED = Wanted(100, 200, 1000, "blob x")
_WHOLE = Part(0, 1000, ranged=False)
_RANGED = Part(100, 100, ranged=True)


@pytest.mark.parametrize(
    ("status", "content_range", "length", "expected"),
    [
        (206, "bytes 100-199/1000", "100", _RANGED),
        (206, "bytes 100-199/1000", None, _RANGED),
        (206, "bytes 100-199/*", "100", _RANGED),
        (200, None, "1000", _WHOLE),
        (200, None, None, _WHOLE),
        (200, "bytes 100-199/1000", "100", _RANGED),
        (200, "bytes 100-199/1000", "1000", None),
        (206, None, "100", None),
        (206, "bytes 100-198/1000", "99", None),
        (206, "bytes 101-200/1000", "100", None),
        (206, "bytes 0-99/1000", "100", None),
        (206, "bytes 100-199/1000", "99", None),
        (206, "octets 100-199/1000", "100", None),
        (206, "bytes 100-199", "100", None),
        (416, "bytes */1000", None, None),
        (416, None, None, None),
    ],
)
def test_what_an_answer_holds(
    status: int, content_range: str | None, length: str | None, expected: Part | None
) -> None:
    assert judge(_WANTED, status, "application/octet-stream", content_range, length) == expected


@pytest.mark.parametrize(
    ("status", "content_range", "length"),
    [
        (206, "bytes 100-199/999", "100"),
        (206, "bytes 100-199/1001", "100"),
        (200, None, "999"),
        (200, "bytes 100-199/5", "100"),
        (416, "bytes */50", None),
        (416, "bytes */0", None),
    ],
)
def test_another_size_than_the_descriptor_s_is_said_at_once(
    status: int, content_range: str | None, length: str | None
) -> None:
    with pytest.raises(SizeMismatch, match="1000"):
        judge(_WANTED, status, "", content_range, length)


def test_several_parts_in_one_are_no_range() -> None:
    answer = judge(_WANTED, 206, "Multipart/ByteRanges; boundary=x", "bytes 100-199/1000", "100")
    assert answer is None


def test_a_part_is_not_taken_for_the_whole() -> None:
    plain = Wanted(0, 1000, 1000, "blob x", plain=True)
    assert plain.header() == {}
    assert judge(plain, 206, "", "bytes 0-999/1000", "1000") is None
    assert judge(plain, 200, "", None, "1000") == _WHOLE


def test_ranges_are_always_closed() -> None:
    assert _WANTED.header() == {"Range": "bytes=100-199"}


@given(st.sampled_from([200, 206, 416]), st.text(max_size=40) | st.none(), st.text(max_size=25) | st.none())
def test_nothing_a_registry_says_is_believed_beyond_what_was_asked(
    status: int, content_range: str | None, length: str | None
) -> None:
    try:
        part = judge(_WANTED, status, "", content_range, length)
    except SizeMismatch:
        return
    assert part in {None, _WHOLE, _RANGED}
