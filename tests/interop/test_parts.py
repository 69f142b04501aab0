"""Parts of kits: what filters choose, and what a kit that is here in part can do."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from fakes.daemon import Daemon, StartDaemon
from fakes.registry import ScriptedRegistry
from interop.trees import ALL_KINDS, contents_of, make_tree

from kitd_client.api.errors import InvalidFilter, KitIncomplete
from kitd_client.client import Client


@pytest.fixture
def tree(source: Path) -> Path:
    return make_tree(source, ALL_KINDS)


MODEL = {"model.bin", "parts/lora.bin", "parts/tokenizer.json"}
DATA = {"data/train.csv", "data/test.csv"}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["kitfile"], {"Kitfile"}),
        (["model"], MODEL),
        (["model:base"], {"model.bin"}),
        (["model:lora"], {"parts/lora.bin"}),
        (["model:./parts/tokenizer.json"], {"parts/tokenizer.json"}),
        (["model:parts/tokenizer.json"], set()),
        (["datasets"], DATA),
        (["datasets:train"], {"data/train.csv"}),
        (["datasets:train,test"], DATA),
        (["datasets:data/test.csv"], {"data/test.csv"}),
        (["code"], {"src/main.py"}),
        (["code:src/main.py"], {"src/main.py"}),
        (["docs:./README.md"], {"README.md"}),
        (["docs:README.md"], set()),
        (["prompts:ask"], {"AGENTS.md"}),
        (["mcpservers:files"], {"mcp/files.mcpb"}),
        (["docs,prompts"], {"README.md", "AGENTS.md"}),
        (["code", "datasets:test"], {"src/main.py", "data/test.csv"}),
        (["model,datasets:train"], {"data/train.csv"}),
    ],
)
def test_filters_select(
    filters: list[str], wanted: set[str], client: Client, tree: Path, tmp_path: Path
) -> None:
    client.pack(tree, tags=["filters:v1"])
    client.unpack("filters:v1", tmp_path / "out", filters=filters)
    assert contents_of(tmp_path / "out").keys() == wanted
    if "kitfile" not in filters:
        assert contents_of(client.path("filters:v1", filters=filters)).keys() == wanted


@pytest.mark.parametrize(
    "text", ["", "Model", "models", "model:a:b", "model,", "dataset", "model docs", ":x"]
)
def test_filters_that_are_none(text: str, shared: Daemon, client: Client, tree: Path, tmp_path: Path) -> None:
    client.pack(tree, tags=["filters:v1"])
    with pytest.raises(InvalidFilter):
        client.unpack("filters:v1", tmp_path / "out", filters=[text])
    assert contents_of(tmp_path / "out") == {}
    done = shared.kitctl("unpack", "filters:v1", "-d", tmp_path / "out", "--filter", text, check=False)
    assert done.returncode == 2


def _sent(shelf: ScriptedRegistry, digests: Mapping[str, str]) -> dict[str, int]:
    return {name: shelf.sent(digest) for name, digest in digests.items()}


def test_a_part_of_a_kit_is_known_as_one_and_grows(
    client: Client, start_daemon: StartDaemon, shelf: ScriptedRegistry, tree: Path, tmp_path: Path
) -> None:
    node = start_daemon()
    other_client = Client(str(node.socket), autostart=False)
    reference = f"{shelf.host}/partial/kit:v1"
    packed = client.pack(tree, tags=[reference])
    client.push(reference)
    digests = {layer.path: layer.digest for layer in packed.layers}
    pulled = other_client.pull(reference, filters=["model"])
    assert not pulled.complete
    (kit,) = other_client.list(reference[:-3])
    assert (kit.complete, kit.size) == (False, packed.size)
    sent = _sent(shelf, digests)
    assert {path for path, count in sent.items() if count} == MODEL
    # What is here is here: no request.
    before = shelf.count()
    other_client.unpack(reference, tmp_path / "model", filters=["model"])
    assert contents_of(other_client.path(reference, filters=["model"])).keys() == MODEL
    assert shelf.count() == before
    # A push would name what it does not have.
    with pytest.raises(KitIncomplete, match=r"src/main\.py"):
        other_client.push(reference, f"{shelf.host}/partial/pushed:v1")
    assert "v1" not in shelf.repository("partial/pushed").tags
    # Whoever wants more gets it, and nothing twice.
    done = node.kitctl("unpack", reference, "-d", tmp_path / "out")
    assert "pulling it first" in done.stderr
    assert contents_of(tmp_path / "out", without="Kitfile") == contents_of(tree, without="Kitfile")
    assert {path: _sent(shelf, digests)[path] for path in MODEL} == {path: sent[path] for path in MODEL}
    (kit,) = other_client.list(reference[:-3])
    assert kit.complete
    # For one digest what was selected only grows.
    assert other_client.pull(reference, filters=["docs"]).digest == packed.digest
    (kit,) = other_client.list(reference[:-3])
    assert kit.complete
