import pytest

from kitd.registry.upload_rules import chunk_size, monolithic_only, says_too_large, smaller_chunk, told

_MIB = 2**20


@pytest.mark.parametrize(
    ("host", "only"),
    [
        ("ghcr.io", True),
        ("gcr.io", True),
        ("eu.gcr.io", True),
        ("europe-docker.pkg.dev", True),
        ("123.dkr.ecr.eu-west-1.amazonaws.com", True),
        ("123.dkr.ecr.cn-north-1.amazonaws.com.cn", True),
        ("registry-1.docker.io", False),
        ("notghcr.io", False),
        ("pkg.dev.example", False),
    ],
)
def test_registries_that_take_no_chunks_are_known(host: str, *, only: bool) -> None:
    assert monolithic_only(host) is only


@pytest.mark.parametrize(
    ("minimum", "size"),
    [
        (None, 64 * _MIB),
        ("100", 64 * _MIB),
        ("104857600", 100 * _MIB),
        ("99999999999", 2**30),
        ("x", 64 * _MIB),
    ],
)
def test_chunks_are_as_large_as_the_registry_wants_within_reason(minimum: str | None, size: int) -> None:
    assert chunk_size(64 * _MIB, minimum) == size


def test_a_limit_in_words_is_understood() -> None:
    words = "416 (RANGE_INVALID: chunk exceeds the maximum permissible limit of 4.00MiB)"
    assert says_too_large(416, words)
    assert smaller_chunk(64 * _MIB, words) == 4 * _MIB
    assert smaller_chunk(4 * _MIB, words) is None


def test_without_words_chunks_halve_down_to_one_mebibyte() -> None:
    assert says_too_large(413, "413")
    assert not says_too_large(416, "416 (RANGE_INVALID: range invalid)")
    assert smaller_chunk(64 * _MIB, "413") == 32 * _MIB
    assert smaller_chunk(2 * _MIB, "413") == _MIB
    assert smaller_chunk(_MIB, "413") is None


@pytest.mark.parametrize(
    ("value", "expected", "has"),
    [
        ("0-99", 100, 100),
        ("bytes=0-99", 100, 100),
        ("bytes 0-99", 100, 100),
        ("0-49", 100, 50),
        ("0-0", 0, 0),
        ("0-0", 1, 1),
        ("0-0", 100, 0),
        ("5-9", 100, None),
        ("", 100, None),
        ("0--1", 100, None),
        (None, 100, None),
    ],
)
def test_what_a_registry_says_it_has(value: str | None, expected: int, has: int | None) -> None:
    assert told(value, expected) == has
