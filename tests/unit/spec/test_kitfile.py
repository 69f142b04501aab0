import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from kitd.spec.digest import parse_digest
from kitd.spec.entries import LAYER_KINDS, layer_entries
from kitd.spec.kitfile import (
    CONFIG_LIMIT,
    KITFILE_LIMIT,
    Docs,
    Kitfile,
    Model,
    Package,
    encode_config,
    encode_kitfile,
    parse_config,
    parse_kitfile,
)
from kitd.spec.kitfile_yaml import kitfile_of
from kitd.spec.media_types import LayerType, encode_layer_type
from kitd.spec.modelkit import compose
from kitd.spec.oci import Descriptor
from kitd.spec.yaml_text import YamlError, read_yaml
from kitd_client.api.errors import ConfigInvalid, KitfileInvalid

Case = dict[str, Any]

NEEDS_THE_TREE = {3, 51, 52, 60, 65, 87, 100}
"""Cases whose Kitfile is fine, but names a path that is not there."""


def read(text: bytes) -> Kitfile:
    """A Kitfile without the check of kit's rules."""
    root = read_yaml(text, limit=KITFILE_LIMIT)
    assert root is not None
    return kitfile_of(root)


def test_the_random_kitfiles_are_taken_and_turned_down_as_by_kit(random_cases: list[Case]) -> None:
    for index, case in enumerate(random_cases):
        accepted = (case["exit"] == 0 and "rejected_now" not in case) or index in NEEDS_THE_TREE
        if accepted:
            parse_kitfile(case["kitfile"].encode())
        else:
            with pytest.raises(KitfileInvalid) as caught:
                parse_kitfile(case["kitfile"].encode())
            if case.get("rejected_now") == 12:
                assert "use the same path" in caught.value.message


def test_the_random_kitfiles_make_the_same_layers_and_config_as_kit(random_cases: list[Case]) -> None:
    composed = 0
    for case in random_cases:
        if case["exit"] != 0:
            continue
        # Those that newer rules turn down have configs all the same, and these are evidence.
        kitfile = read(case["kitfile"].encode())
        types = [
            encode_layer_type(LayerType(LAYER_KINDS[section], "tar", "none"))
            for section, _, _ in layer_entries(kitfile)
        ]
        assert types == [layer[0] for layer in case["layers"]]
        layers = [
            (Descriptor(media_type, parse_digest(digest), size), parse_digest(digest))
            for media_type, digest, size in case["layers"]
        ]
        config, _ = compose(kitfile, layers, created="2026-01-01T00:00:00Z", version="1.17.0")
        assert config.decode() == case["config"]
        assert encode_config(parse_config(config)) == config
        composed += 1
    assert composed == 76


def test_every_kitfile_of_the_real_reader_has_its_config(vectors: Callable[[str], Any]) -> None:
    for text, expected in vectors("kitfiles"):
        try:
            root = read_yaml(text.encode(), limit=KITFILE_LIMIT)
            found = encode_config(kitfile_of(root)).decode() if root else None
        except YamlError:
            found = None
        assert found == expected, text


def test_the_written_kitfile_means_what_the_config_says(
    vectors: Callable[[str], Any], random_cases: list[Case]
) -> None:
    configs = [config for _, config in vectors("kitfiles") if config]
    configs += [case["config"] for case in random_cases if case["exit"] == 0]
    for config in configs:
        kitfile = parse_config(config.encode())
        written = encode_kitfile(kitfile)
        expected = _without_digests(json.loads(config))
        assert yaml.load(written, Loader=yaml.CSafeLoader) == expected, config
        again = read(written)
        assert json.loads(encode_config(again)) == {"package": {}, **expected}


def _without_digests(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    if isinstance(value, dict):
        return {
            key: item if key == "parameters" else _without_digests(item)
            for key, item in value.items()
            if key not in {"digest", "diffId"} and (key, item) != ("package", {})
        }
    return [_without_digests(item) for item in value] if isinstance(value, list) else value


GOLDEN = ["basic", "gz", "ignore", "kitfile-only", "links", "many", "names", "nested", "parts", "wholedir"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_config_of_a_real_kit_is_written_again_byte_for_byte(
    name: str, golden: Callable[[str], tuple[bytes, bytes]]
) -> None:
    _, config = golden(name)
    assert encode_config(parse_config(config)) == config


def test_a_kitfile_of_every_kind_is_read_in_full() -> None:
    text = b"""
manifestVersion: 1.0.0
package: {name: no, version: 1.10, license: 0x10, description: "", authors: [Ana, 2026-01-01]}
model:
  name: triage
  path: ./w/
  license: mit
  framework: f
  format: gguf
  version: 1.0
  description: |
    two
    lines
  parts: [{name: a, path: p, license: l, type: t}]
  parameters: {ctx: 8192, on: yes, when: 2026-01-01, rope: [1.50, 0o17, ~]}
code: [{path: src, description: d, license: l}]
datasets: [{name: n, path: data, description: d, license: l, parameters: text}]
docs: [{path: README.md, description: d}]
prompts: [{name: n, path: AGENTS.md, description: d}]
mcpServers: [{name: n, path: a.mcpb, description: d}]
"""
    kitfile, warnings = parse_kitfile(text)
    assert warnings == ()
    assert encode_config(kitfile).decode() == (
        '{"manifestVersion":"1.0.0","package":{"name":"no","version":"1.10","license":"0x10",'
        '"authors":["Ana","2026-01-01"]},"model":{"name":"triage","path":"./w/","license":"mit","framework":"f",'
        '"format":"gguf","version":"1.0","description":"two\\nlines\\n",'
        '"parts":[{"name":"a","path":"p","license":"l","type":"t"}],'
        '"parameters":{"ctx":8192,"on":"yes","rope":[1.5,15,null],"when":"2026-01-01T00:00:00Z"}},'
        '"code":[{"path":"src","description":"d","license":"l"}],'
        '"datasets":[{"name":"n","path":"data","description":"d","license":"l","parameters":"text"}],'
        '"docs":[{"path":"README.md","description":"d"}],'
        '"prompts":[{"name":"n","path":"AGENTS.md","description":"d"}],'
        '"mcpServers":[{"name":"n","path":"a.mcpb","description":"d"}]}'
    )
    assert parse_kitfile(encode_kitfile(kitfile))[0] == kitfile


def test_the_kitfile_for_the_directory_looks_like_kits() -> None:
    config = (
        b'{"manifestVersion":"1.0.0","package":{"authors":["Ana","Bo"]},"model":{"path":"w","parts":[{"path":"p",'
        b'"digest":"sha256:x"}],"parameters":{"b":12345678901,"a":1e21,"c":[1,{}]},"digest":"sha256:y"},'
        b'"docs":[{"path":""}]}'
    )
    assert encode_kitfile(parse_config(config)).decode() == (
        "manifestVersion: 1.0.0\n"
        "package:\n"
        "  authors: [Ana, Bo]\n"
        "model:\n"
        "  path: w\n"
        "  parts:\n"
        "    - path: p\n"
        "  parameters:\n"
        "    a: 1.0e+21\n"
        "    b: 12345678901\n"
        "    c:\n"
        "      - 1\n"
        "      - {}\n"
        "docs:\n"
        '  - path: ""\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the Kitfile is empty"),
        ("# nothing", "the Kitfile is empty"),
        ("- a", "line 1: the Kitfile must be a mapping"),
        (
            "manifestVersion: 1.0.0\nmodle: {}",
            "line 2: unknown key 'modle' in the Kitfile, did you mean 'model'?",
        ),
        ("model: {digest: x}", "unknown key 'digest' in 'model'"),
        (
            "code: [{path: a, zzz: b}]",
            "unknown key 'zzz' in an entry of 'code' (known: path, description, license)",
        ),
        ("model: [x]", "line 1: 'model' must be a mapping"),
        ("docs: {path: x}", "'docs' must be a list"),
        ("docs: [x]", "an entry of 'docs' must be a mapping"),
        ("package: {name: [x]}", "'name' must be text"),
        ("package: {authors: Ana}", "'authors' must be a list"),
        ("model: {parameters: {1: x}}", "the key '1' cannot be in parameters"),
        ("model: {parameters: {true: x}}", "the key 'true' cannot be in parameters"),
        ("model: {parameters: [.nan]}", ".nan cannot be a parameter"),
        ("model: {<<: x}", "'<<' needs a mapping"),
        ("a: [\n", "line 2"),
        ("x" * 900 + ": 1", "unknown key"),
    ],
)
def test_a_kitfile_that_is_wrong_says_where_and_how(text: str, message: str) -> None:
    with pytest.raises(KitfileInvalid) as caught:
        parse_kitfile(text.encode())
    assert message in caught.value.message
    assert len(caught.value.message) < 400


def test_a_kitfile_is_bounded() -> None:
    head = b"manifestVersion: 1.0.0\n"
    parse_kitfile(head + b"#" * (KITFILE_LIMIT - len(head)))
    with pytest.raises(KitfileInvalid, match="more than the 1048576"):
        parse_kitfile(head + b"#" * KITFILE_LIMIT)


@pytest.mark.parametrize("text", [b"~", b"---\n", b"{}", b"model: ~", b"docs: [~]"])
def test_null_is_the_same_as_absent(text: bytes) -> None:
    kitfile, warnings = parse_kitfile(text)
    assert kitfile == Kitfile("", Package())
    assert len(warnings) == 1


def test_merge_keys_give_way_to_own_keys() -> None:
    text = b"""
docs:
  - &a {path: a, description: first}
  - {<<: *a, path: b}
model:
  parameters: {x: &x {k: 1, l: 2}, y: {<<: [*x, {m: 3, k: 9}], l: 4}}
"""
    kitfile, _ = parse_kitfile(text)
    assert kitfile.docs == (Docs("a", "first"), Docs("b", "first"))
    assert kitfile.model == Model(parameters={"x": {"k": 1, "l": 2}, "y": {"k": 1, "l": 4, "m": 3}})


def test_a_config_is_read_leniently() -> None:
    config = b"""{"future": {"a": [1]},
        "model": {"name": null, "path": "w", "new": 1, "parts": null, "parameters": null},
        "docs": [{"description": "d", "path": null}, {}], "code": null}"""
    assert parse_config(config) == Kitfile("", Package(), Model(path="w"), docs=(Docs("", "d"), Docs("")))
    assert parse_config(b"{}") == Kitfile("", Package())


def test_parameters_are_left_as_they_are() -> None:
    parameters = b'{"a":null,"big":12345678901234567890}'
    config = b'{"manifestVersion":"1.0.0","package":{},"model":{"parameters":' + parameters + b"}}"
    assert encode_config(parse_config(config)) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"[]", "no JSON object"),
        (b'{"model":{"path":"a","path":"b"}}', "'path' stands twice"),
        (b'{"model":[]}', "$.model"),
        (b'{"package":{"name":1}}', "$.package.name"),
        (b'{"code":[null]}', "$.code"),
        (b'{"docs":["x"]}', "$.docs"),
        (b'{"docs":7}', "$.docs"),
        (b'{"model":{"parameters":' + b"[" * 70 + b"]" * 70 + b"}}", "64 levels"),
        (b'{"model":{"name":"\xff"}}', "not UTF-8"),
        (b" " * CONFIG_LIMIT + b"{}", "more than the"),
    ],
)
def test_a_config_that_is_none_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_config(data)
    assert message in caught.value.message
