import pytest

from kitd.kits.tree import TreePlan
from kitd.layer.tar import Member
from kitd.spec.digest import Digest, digest_of
from kitd_client.api.errors import ArchiveInvalid

DIGEST = digest_of(b"x")

Files = list[tuple[Member, Digest | None]]


def directory(name: str, mode: int = 0o755) -> tuple[Member, None]:
    return Member(name, is_dir=True, mode=mode, size=0), None


def file(name: str, mode: int = 0o644) -> tuple[Member, Digest]:
    return Member(name, is_dir=False, mode=mode, size=1), DIGEST


def planned(*layers: Files) -> TreePlan:
    plan = TreePlan()
    for number, files in enumerate(layers):
        plan.add(f"layer {number}", files)
    return plan


def test_layers_may_repeat_their_ancestors_and_the_first_mode_stands() -> None:
    plan = planned(
        [directory("a", 0o700), file("a/one")],
        [directory("a", 0o755), directory("a/b"), file("a/b/two")],
    )
    assert [(entry.path, entry.mode) for entry in plan.entries()] == [
        ("a", 0o700),
        ("a/b", 0o755),
        ("a/b/two", 0o644),
        ("a/one", 0o644),
    ]


def test_a_directory_comes_before_what_lies_in_it_whatever_the_names() -> None:
    plan = planned([file("a.txt"), file("a/x"), directory("a"), file("a-b/x"), directory("a-b")])
    paths = [entry.path for entry in plan.entries()]
    assert paths.index("a") < paths.index("a/x")
    assert paths.index("a-b") < paths.index("a-b/x")


@pytest.mark.parametrize(
    "layers",
    [
        ([file("a")], [file("a")]),
        ([file("a")], [directory("a")]),
        ([directory("a")], [file("a")]),
        ([file("a")], [file("a/b")]),
        ([file("a/b")], [file("a")]),
        ([file("a/b/c")], [file("a")]),
        ([file("../a")],),
        ([file("/a")],),
        ([file("a/../b")],),
        ([file("a\0b")],),
    ],
)
def test_what_cannot_be_one_tree_is_refused_by_name(layers: tuple[Files, ...]) -> None:
    with pytest.raises(ArchiveInvalid) as caught:
        planned(*layers)
    assert "a" in str(caught.value)


def test_bits_beyond_the_permissions_are_taken_off_and_counted() -> None:
    plan = planned([file("a", 0o4755), directory("b", 0o1777), file("c", 0o600)])
    assert {entry.path: entry.mode for entry in plan.entries()} == {"a": 0o755, "b": 0o777, "c": 0o600}
    assert plan.masked == 2
