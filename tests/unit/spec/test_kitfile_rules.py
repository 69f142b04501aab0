import pytest

from kitd.spec.kitfile import parse_kitfile
from kitd_client.api.errors import KitfileInvalid

HEAD = "manifestVersion: 1.0.0\n"
HEADER = "errors while validating Kitfile: "
ELSEWHERE = "only S3 URLs and ModelKit references are supported for remote dataset paths"
D = "sha256:" + "ab" * 32


def errors(text: str) -> list[str]:
    """The broken rules, as shown."""
    try:
        parse_kitfile((HEAD + text).encode())
    except KitfileInvalid as error:
        header, *lines = error.message.split("\n")
        assert header == HEADER
        assert all(line.startswith("  * ") for line in lines)
        return [line.removeprefix("  * ") for line in lines]
    return []


SECTIONS = {
    "model part": "model: {{path: w, parts: [{{path: '{}'}}]}}",
    "code": "code: [{{path: '{}'}}]",
    "dataset": "datasets: [{{path: '{}'}}]",
    "doc": "docs: [{{path: '{}'}}]",
    "prompt": "prompts: [{{path: '{}'}}]",
    "mcpServer": "mcpServers: [{{name: n, path: '{}'}}]",
}
SOURCES = {
    "model part": "modelpart ",
    "code": "code layer 0",
    "dataset": "dataset layer 0",
    "doc": "docs layer 0",
    "prompt": "prompt layer 0",
    "mcpServer": "mcpServer layer 0",
}


@pytest.mark.parametrize("kind", SECTIONS)
def test_only_a_model_may_be_somewhere_else(kind: str) -> None:
    text = SECTIONS[kind]
    only = "only local paths are permitted"
    for path in ("s3://bucket/key.mcpb", "reg.io/a:v1.mcpb"):
        assert errors(text.format(path)) == [f"invalid path for {kind} ({path}): {only}"]
    url = "https://e.x/y.mcpb"
    assert errors(text.format(url)) == [
        f"invalid path for {kind} ({url}): HTTP urls are not supported in paths ({url})",
        f"invalid path for {kind} ({url}): {only}",
    ]
    url = "ftp://e.x/y.mcpb"
    assert errors(text.format(url)) == [
        f"invalid path for {kind} ({url}): {only}",
        f"invalid path for {kind} ({url}): unrecognized URL in path: {url}",
    ]


@pytest.mark.parametrize("kind", SECTIONS)
def test_paths_stay_in_the_directory(kind: str) -> None:
    text, source = SECTIONS[kind], SOURCES[kind]
    assert errors(text.format("/abs/../x.mcpb")) == [
        f"absolute paths are not supported in a Kitfile (path /x.mcpb in {source})"
    ]
    assert errors(text.format("a/../../x.mcpb")) == [
        f"paths outside the context directory are not supported in a Kitfile (path ../x.mcpb in {source})"
    ]
    for inside in ("src/../lib.mcpb", "./a//b.mcpb", "..a.mcpb", "x..y.mcpb"):
        assert errors(text.format(inside)) == []


def test_the_model_may_name_a_kit() -> None:
    for path in ("w", "reg.io/a:v1", f"team/base@{D}", "weights:q4.bin", "C:/x"):
        assert errors(f"model: {{path: '{path}'}}") == []
    only = "invalid path for model: only local paths and ModelKit references are permitted"
    assert errors("model: {path: s3://b/k}") == [only]
    assert errors("model: {path: http://h/k}") == [
        "invalid path for model: HTTP urls are not supported in paths (http://h/k)",
        only,
    ]


def test_the_type_of_a_part() -> None:
    part = "model: {{path: w, parts: [{{name: p, path: p, type: '{}'}}]}}"
    invalid = "modelpart p has invalid type (must be alphanumeric with dots, dashes, and underscores)"
    too_long = "modelpart p type is too long (must be fewer than 64 characters)"
    for good in ("", "tok", "_a.b-c", "9", "a" * 64):
        assert errors(part.format(good)) == []
    for bad in ("-a", ".a", "a b", "é", "a/b", "a\n\n"):
        assert errors(part.format(bad)) == [invalid]
    assert errors(part.format("a" * 65)) == [too_long]
    assert errors(part.format("é" * 40)) == [invalid, too_long]


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("remotePath: s3://b/k, remoteHash: h", []),
        ("remotePath: 's3://b/k?versionId=1', remoteHash: h", []),
        ("remotePath: s3://b/k", ["remoteHash is required when remote dataset paths are used (s3://b/k)"]),
        ("remotePath: 'reg.io/sets:v1'", []),
        ("remoteHash: h", ["remote hash is only applicable when remotePath is set"]),
        (
            "remotePath: other/dir",
            [f"{ELSEWHERE} (other/dir)"],
        ),
        (
            "remotePath: http://h/k, remoteHash: h",
            [
                "invalid remote path for dataset (http://h/k): HTTP urls are not supported in paths (http://h/k)",
                f"{ELSEWHERE} (http://h/k)",
            ],
        ),
    ],
)
def test_datasets_that_lie_elsewhere(dataset: str, expected: list[str]) -> None:
    assert errors(f"datasets: [{{path: d, {dataset}}}]") == expected


def test_the_bundle_of_an_mcp_server() -> None:
    assert errors("mcpServers: [{name: a, path: a.mcpb}, {name: b, path: b.mcpb}]") == []
    assert errors("mcpServers: [{name: a, path: dir}]") == [
        "invalid path for mcpServer (dir): path must point to a single .mcpb file"
    ]
    assert errors("mcpServers: [{path: a.mcpb}]") == ["mcpServer with path a.mcpb must have a name"]
    assert errors("mcpServers: [{name: a, path: a.mcpb}, {name: a, path: b.mcpb}]") == [
        "duplicate mcpServer name a: names must be unique"
    ]


def test_a_path_is_used_once_however_it_is_written() -> None:
    text = "model: {name: m, path: ./x/, parts: [{name: p, path: x}]}\nprompts: [{path: a/../x}]\n"
    text += "code: [{path: x/y}]"
    assert errors(text) == ["model m, modelpart p and prompt layer 0 use the same path x"]
    assert errors("code: [{description: a}]\ndocs: [{path: .}]") == [
        "code layer 0 and docs layer 0 use the same path ."
    ]
    assert errors("model: {name: m}\ncode: [{path: ./}]") == ["model m and code layer 0 use the same path ."]


def test_nothing_lies_in_data_of_another_kit() -> None:
    remote = "datasets:\n  - {path: data, remotePath: 'reg.io/sets:v1'}\n"
    assert errors(remote + "code: [{path: data/src}]") == [
        "code layer 0 uses a path (data/src) that is within the path for a remote dataset"
    ]
    assert errors(remote + "  - {path: ./data/more/}") == [
        "dataset layer 1 uses a path (data/more) that is within the path for a remote dataset"
    ]
    assert errors(remote + "code: [{path: data-v2}]\ndocs: [{path: README.md}]") == []
    assert errors(remote.replace("path: data", "path: .") + "code: [{path: src}]") == [
        "code layer 0 uses a path (src) that is within the path for a remote dataset"
    ]
    s3 = "datasets: [{path: data, remotePath: s3://b/k, remoteHash: h}]\ncode: [{path: data/src}]"
    assert errors(s3) == []


def test_all_broken_rules_are_named_in_order() -> None:
    found = errors("code: [{path: /z}, {path: ../y}, {path: http://h/x}]\ndocs: [{path: ../y}]")
    assert len(found) == 5
    assert found == sorted(found)


def test_what_is_odd_but_taken_is_a_warning() -> None:
    text = "manifestVersion: 2.0\ndatasets: [{path: d, remotePath: 'reg.io/a:b', remoteHash: h}]"
    assert parse_kitfile(text.encode())[1] == (
        "Unrecognized manifestVersion 2.0: treating Kitfile as 1.0.0",
        "remoteHash is ignored for ModelKit references in datasets (d)",
    )


@pytest.mark.timeout(20)
def test_the_rules_take_no_unreasonable_time() -> None:
    remote = "".join(f"  - {{path: d{n}, remotePath: r.io/a:b}}\n" for n in range(9000))
    local = "".join(f"  - {{path: x/{n}}}\n" for n in range(9000))
    long = "a/" * 200_000
    parse_kitfile(f"datasets:\n{remote}code:\n{local}docs: [{{path: {long}}}]".encode())
