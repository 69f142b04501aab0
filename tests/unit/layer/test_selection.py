import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kitd.layer.selection import LayerPlan
from kitd.layer.tar import Member
from kitd.spec.media_types import LayerType
from kitd_client.api.errors import SourceUnreadable, SourceUnsuitable

Planned = Callable[..., tuple[tuple[LayerPlan, ...], tuple[str, ...]]]


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Makes a directory: a Kitfile, a `.kitignore`, and files (a name that ends in `/` is a directory)."""

    def make(kitfile: str, *paths: str, ignore: str | None = None) -> Path:
        for path in paths:
            target = tmp_path / path
            if path.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path)
        (tmp_path / "Kitfile").write_text("manifestVersion: 1.0.0\n" + kitfile)
        if ignore is not None:
            (tmp_path / ".kitignore").write_text(ignore)
        return tmp_path

    return make


def names(plan: LayerPlan) -> list[str]:
    return [member.name for member in plan.members]


def test_a_layer_has_its_ancestors_and_its_files_in_the_order_of_their_bytes(
    tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree(
        "code: [{path: a/b}]", "a/b/c/x", "a/b/c.txt", "a/b/c-x", "a/b/Z", "a/b/\u00e9", "a/other", "z"
    )
    (root / os.fsdecode(b"a/b/\xff")).write_text("")
    plans, warnings = planned(root)
    assert names(plans[0]) == [
        "a", "a/b", "a/b/Z", "a/b/c", "a/b/c/x", "a/b/c-x", "a/b/c.txt", "a/b/\u00e9", "a/b/\udcff",
    ]  # fmt: skip
    assert warnings == ()


def test_white_space_at_the_ends_of_names_counts_for_nothing_between_layers(
    tree: Callable[..., Path], planned: Planned
) -> None:
    """As in kit, which compares paths without it."""
    root = tree("code: [{path: r.md}]\ndocs: [{path: .}]", "r.md", "r.md ", "s.md ")
    plans, _ = planned(root)
    assert [names(plan) for plan in plans] == [["r.md"], ["s.md "]]


def test_every_section_becomes_layers_in_the_order_of_the_manifest(
    tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree(
        "model: {path: ./m/, parts: [{path: p}]}\ncode: [{path: c}]\ndatasets: [{path: d}, {path: e}]\n"
        "docs: [{path: README.md}]\nprompts: [{path: q}]\nmcpServers: [{name: s, path: s.mcpb}]",
        "m/w", "p", "c", "d", "e", "README.md", "q", "s.mcpb",
    )  # fmt: skip
    plans, _ = planned(root, compression="zstd")
    assert [(plan.section, plan.label, plan.path, plan.base, plan.type) for plan in plans] == [
        ("model", "model ./m/", "./m/", "m", LayerType("model", "tar", "zstd")),
        ("modelpart", "part p", "p", "p", LayerType("modelpart", "tar", "zstd")),
        ("code", "code c", "c", "c", LayerType("code", "tar", "zstd")),
        ("datasets", "dataset d", "d", "d", LayerType("dataset", "tar", "zstd")),
        ("datasets", "dataset e", "e", "e", LayerType("dataset", "tar", "zstd")),
        ("docs", "docs README.md", "README.md", "README.md", LayerType("docs", "tar", "zstd")),
        ("prompts", "prompt q", "q", "q", LayerType("code", "tar", "zstd")),
        ("mcpServers", "mcpServer s", "s.mcpb", "s.mcpb", LayerType("mcpb", "raw", "none")),
    ]
    assert plans[-1].file == Member("s.mcpb", is_dir=False, mode=plans[-1].file.mode, size=6)  # type: ignore[union-attr]
    assert plans[-1].members == ()


def test_the_deepest_path_of_the_kitfile_owns_a_file(tree: Callable[..., Path], planned: Planned) -> None:
    root = tree(
        "model: {path: main}\ncode: [{path: .}]\ndatasets: [{path: main/sub}]\n"
        "prompts: [{path: src/SKILL.md}]",
        "main/w", "main/sub/x", "main/subway", "src/a.py", "src/SKILL.md", "README",
    )  # fmt: skip
    plans, _ = planned(root)
    assert [names(plan) for plan in plans] == [
        ["main", "main/subway", "main/w"],
        ["README", "src", "src/a.py"],
        ["main", "main/sub", "main/sub/x"],
        ["src", "src/SKILL.md"],
    ]


def test_parts_can_stand_without_a_model(tree: Callable[..., Path], planned: Planned) -> None:
    root = tree("model: {parts: [{path: p}]}\ncode: [{path: q}]", "p", "q")
    assert [(plan.section, names(plan)) for plan in planned(root)[0]] == [
        ("modelpart", ["p"]),
        ("code", ["q"]),
    ]


def test_a_path_that_only_begins_alike_is_another_path(tree: Callable[..., Path], planned: Planned) -> None:
    root = tree("code: [{path: .}]\ndatasets: [{path: data}]", "data/x", "data-v2/y", "database.py")
    assert names(planned(root)[0][0]) == ["data-v2", "data-v2/y", "database.py"]


def test_what_a_parent_holds_or_lies_elsewhere_is_left_out(
    tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree(
        "code: [{path: .}]\ndatasets: [{path: far, remotePath: 's3://b/k', remoteHash: h}]",
        "far/x", "base/model.bin", "base/own", "mine",
    )  # fmt: skip
    asked: list[str] = []
    plans, _ = planned(root, foreign=("./base/model.bin",), asked=asked)
    assert [names(plan) for plan in plans] == [["base", "base/own", "mine"]]
    assert "far" not in asked


def test_only_directories_that_matter_are_listed(tree: Callable[..., Path], planned: Planned) -> None:
    root = tree(
        "model: {path: a/b/w}\ncode: [{path: src}]",
        "a/b/w", "a/b/deep/x", "a/huge/x", "src/pkg/y", "src/node_modules/z/z", "src/n..s/x", "other/x",
        ignore="src/node_modules",
    )  # fmt: skip
    asked: list[str] = []
    planned(root, asked=asked)
    assert sorted(asked) == ["", "a", "a/b", "src", "src/pkg"]


def test_an_ignored_directory_is_listed_where_something_may_come_back(
    tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree("code: [{path: src}]", "src/tmp/keep", "src/tmp/drop", ignore="src/tmp\n!src/tmp/keep")
    assert names(planned(root)[0][0]) == ["src", "src/tmp/keep"]


def test_an_ignored_path_gives_an_empty_layer_and_a_warning(
    tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree("code: [{path: a/src}]\ndocs: [{path: empty}]", "a/src/x", "empty/", ignore="**/src")
    plans, warnings = planned(root)
    assert [names(plan) for plan in plans] == [["a"], ["empty"]]
    assert warnings == (
        "code a/src: .kitignore leaves out the whole path",
        "docs empty: there are no files in it",
    )


def test_junk_of_operating_systems_is_left_out(tree: Callable[..., Path], planned: Planned) -> None:
    root = tree("code: [{path: .}]", "a", ".DS_Store", "d/THUMBS.DB", "d/b", ".Trashes/x")
    assert names(planned(root)[0][0]) == ["a", "d", "d/b"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone", "code gone: path gone does not exist"),
        ("gone/deeper", "code gone/deeper: path gone/deeper does not exist"),
        ("file/x", "code file/x: path file/x does not exist"),
        ("link", "code link: link is a symbolic link"),
        ("dirlink/x", "code dirlink/x: dirlink is a symbolic link"),
        ("pipe", "code pipe: path pipe is neither a file nor a directory"),
    ],
)
def test_a_path_that_cannot_be_a_layer_is_an_error(
    path: str, message: str, tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree(f"code: [{{path: {path}}}]", "file", "dir/x")
    (root / "link").symlink_to("file")
    (root / "dirlink").symlink_to("dir")
    os.mkfifo(root / "pipe")
    with pytest.raises(SourceUnsuitable) as caught:
        planned(root)
    assert caught.value.message == message


def test_links_and_pipes_inside_are_left_out_with_a_warning(
    tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree("code: [{path: src}]", "src/a", ignore="src/ignored")
    for number in range(7):
        (root / f"src/l{number}").symlink_to("a")
    (root / "src/ignored").symlink_to("a")
    os.mkfifo(root / "src/pipe")
    plans, warnings = planned(root)
    assert names(plans[0]) == ["src", "src/a"]
    links, others = warnings
    assert links.endswith("links are not packed: 'src/l0', 'src/l1', 'src/l2', 'src/l3', 'src/l4' and 2 more")
    assert others == "code src: sockets, pipes and devices are not packed: 'src/pipe'"


def test_a_raw_layer_is_one_file_whatever_is_ignored(tree: Callable[..., Path], planned: Planned) -> None:
    root = tree("model: {path: m/w.gguf}", "m/w.gguf", "m/x", ignore="m")
    (root / "m/w.gguf").chmod(0o640)
    plans, warnings = planned(root, layer_format="raw", compression="gzip")
    assert plans[0].file == Member("m/w.gguf", is_dir=False, mode=0o640, size=8)
    assert plans[0].members == ()
    assert plans[0].type == LayerType("model", "raw", "gzip")
    assert warnings == ()


@pytest.mark.parametrize("path", [".", "m"])
def test_a_raw_layer_cannot_be_a_directory(path: str, tree: Callable[..., Path], planned: Planned) -> None:
    root = tree(f"model: {{path: {path}}}", "m/x")
    with pytest.raises(SourceUnsuitable, match=rf"model {path}: file {path} is not a regular file"):
        planned(root, layer_format="raw")


def test_what_cannot_be_read_is_an_error_only_where_it_is_selected(
    tree: Callable[..., Path], planned: Planned
) -> None:
    root = tree("code: [{path: src}]", "src/a", "src/sub/b", "other/x", "z", ignore="src/tmp")
    (root / "src/tmp").mkdir()
    fine = {"other": "permission denied", "file:z": "permission denied", "file:src/tmp": "gone"}
    assert names(planned(root, errors=fine)[0][0]) == ["src", "src/a", "src/sub", "src/sub/b"]
    for where, message in (
        ("src/sub", "directory src/sub: permission denied"),
        ("file:src/a", "src/a: permission denied"),
        ("", r"directory \.: permission denied"),
    ):
        with pytest.raises(SourceUnreadable, match=message):
            planned(root, errors={where: "permission denied"})


def test_what_could_not_be_unpacked_is_not_packed(tree: Callable[..., Path], planned: Planned) -> None:
    root = tree("code: [{path: .}]", "/".join(["d"] * 257))
    with pytest.raises(SourceUnsuitable, match=r"cannot be packed: member 'd/d.*deeper than 256"):
        planned(root)


def test_a_kit_without_layers_needs_no_listing(tree: Callable[..., Path], planned: Planned) -> None:
    asked: list[str] = []
    assert planned(tree("package: {name: bare}"), asked=asked) == ((), ())
    assert asked == []
