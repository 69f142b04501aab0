import pytest

from kitd.spec.paths import clean_path, leaves_directory, lies_below


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("", "."),
        ("./", "."),
        ("./a//b/", "a/b"),
        ("a/../b", "b"),
        ("a/..", "."),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("/a/../..", "/"),
        ("//a", "/a"),
        ("///a", "/a"),
        ("...", "..."),
        ("..a", "..a"),
        ("a b", "a b"),
    ],
)
def test_paths_are_cleaned_as_go_does(path: str, cleaned: str) -> None:
    assert clean_path(path) == cleaned


def test_below_a_directory() -> None:
    assert lies_below("data/x/y", {"data"})
    assert lies_below("data/x/y", {"data/x", "z"})
    assert lies_below("x", {"."})
    for path in ("data", "data-v2/x", "x/data", ".", ".."):
        assert not lies_below(path, {"data"})
    assert not lies_below("../x", {"."})


def test_out_of_the_directory() -> None:
    assert [path for path in ("..", "../a", "..a", ".", "a/..b") if leaves_directory(path)] == ["..", "../a"]
