"""Kits on kits: a child leaves its parents' files out, and brings them along."""

import json
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes.kits import FakeLayer, make_kit, put_kit, some_bytes
from fakes.registry import ScriptedRegistry
from fakes.tokens import Basic
from interop.trees import contents_of, make_tree

from kitd_client.api.errors import ReferenceChainTooLong, ReferenceCycle
from kitd_client.client import Client
from kitd_client.context import Network

CHILD = """manifestVersion: 1.0.0
package: {{name: child}}
model:
  path: {parent}
  parts: [{{name: lora, path: lora.bin}}]
code: [{{path: .}}]
"""


@pytest.fixture
def base(client: Client, shelf: ScriptedRegistry, tmp_path: Path) -> str:
    """A parent kit, pushed: its model is `weights`, it has docs too."""
    kitfile = "manifestVersion: 1.0.0\nmodel: {name: base, path: weights}\ndocs: [{path: BASE.md}]\n"
    tree = make_tree(
        tmp_path / "base", {"Kitfile": kitfile, "weights/a.bin": some_bytes(9000, 5), "BASE.md": "# base\n"}
    )
    reference = f"{shelf.host}/parents/base:v1"
    client.pack(tree, tags=[reference])
    client.push(reference)
    return reference


@pytest.fixture
def child_tree(base: str, source: Path) -> Path:
    """It has the parent's files beside its own, as after an unpack."""
    return make_tree(
        source,
        {
            "Kitfile": CHILD.format(parent=base),
            "lora.bin": some_bytes(3000, 6),
            "train.py": "train()\n",
            "weights/a.bin": some_bytes(9000, 5),
            "BASE.md": "# base\n",
        },
    )


@pytest.mark.parametrize("parent_is_here", [True, False])
def test_a_child_leaves_its_parents_files_out_and_brings_them_back(
    *,
    parent_is_here: bool,
    base: str,
    child_tree: Path,
    client: Client,
    other_client: Client,
    shelf: ScriptedRegistry,
    tmp_path: Path,
) -> None:
    here, there = (client, other_client) if parent_is_here else (other_client, client)
    reference = f"{shelf.host}/parents/child:{'here' if parent_is_here else 'remote'}"
    before = shelf.sent("/parents/base/blobs/")
    packed = here.pack(child_tree, tags=[reference])
    assert [layer.path for layer in packed.layers] == ["lora.bin", "."]
    # Of the parent, its config at most: packing on it needs no layer.
    assert shelf.sent("/parents/base/blobs/") - before < 9000
    # train.py alone; weights, docs and the Kitfile are the parent's, or never packed.
    assert packed.layers[1].size == 512 + 512 + 1024
    here.push(reference)
    pulled = there.pull(reference)
    assert pulled.digest == packed.digest
    there.unpack(reference, tmp_path / "out")
    wanted = contents_of(child_tree, without="Kitfile")
    # Of a parent only the model counts.
    del wanted["BASE.md"]
    assert contents_of(tmp_path / "out", without="Kitfile") == wanted
    assert contents_of(there.path(reference)) == wanted
    assert other_client.list(base[:-3]) == []


def _chain(shelf: ScriptedRegistry, name: str, length: int) -> str:
    """Kits on kits: `name-1` stands on nothing, `name-<length>` on all of them; the last one's reference."""
    parent = ""
    for number in range(1, length + 1):
        path = f"{name}/part-{number}.bin"
        part = FakeLayer("modelpart", path, {path: b"%d" % number})
        kit = make_kit([part] if parent else [FakeLayer("model", path, {path: b"1"})], parent=parent)
        put_kit(shelf, kit, f"chains/{name}-{number}")
        parent = f"{shelf.host}/chains/{name}-{number}:v1"
    return parent


def test_ten_kits_in_a_row_unite_and_eleven_are_too_many(
    client: Client, shelf: ScriptedRegistry, source: Path, tmp_path: Path
) -> None:
    ten = _chain(shelf, "ten", 10)
    client.pull(ten)
    client.unpack(ten, tmp_path / "out")
    assert contents_of(tmp_path / "out" / "ten") == {f"part-{n}.bin": b"%d" % n for n in range(1, 11)}
    eleven = _chain(shelf, "eleven", 11)
    with pytest.raises(ReferenceChainTooLong, match="maximum number of model references"):
        client.pull(eleven)
    assert client.list(eleven[:-3]) == []
    make_tree(source, {"Kitfile": CHILD.format(parent=eleven), "lora.bin": "x"})
    with pytest.raises(ReferenceChainTooLong):
        client.pack(source, tags=["chains/twelve:v1"])
    assert client.list("chains/twelve") == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_kit_that_is_its_own_ancestor(
    length: int, client: Client, shelf: ScriptedRegistry, source: Path
) -> None:
    names = [f"cycles/{length}-{number}" for number in range(length)]
    for number, name in enumerate(names):
        path = f"part-{number}.bin"
        above = names[(number + 1) % length]
        part = FakeLayer("modelpart", path, {path: b"x"})
        put_kit(shelf, make_kit([part], parent=f"{shelf.host}/{above}:v1", name=name), name)
    first = f"{shelf.host}/{names[0]}:v1"
    with pytest.raises(ReferenceCycle, match="found cycle"):
        client.pull(first)
    assert client.list(first[:-3]) == []
    make_tree(source, {"Kitfile": CHILD.format(parent=first), "lora.bin": "x"})
    with pytest.raises(ReferenceCycle):
        client.pack(source, tags=["cycles/child:v1"])


def test_each_registry_of_a_chain_may_want_credentials(client: Client, tmp_path: Path) -> None:
    """Each is found out only when the pull comes to it: the client looks it up, and asks again."""
    with ExitStack() as stack:
        shelves = [
            stack.enter_context(ScriptedRegistry(access=Basic({"ann": name})).in_thread())
            for name in ("one", "two", "three")
        ]
        auths = {
            shelf.host: {"auth": b64encode(b"ann:" + name).decode()}
            for shelf, name in zip(shelves, (b"one", b"two", b"three"), strict=True)
        }
        authfile = tmp_path / "auth.json"
        authfile.write_text(json.dumps({"auths": auths}))
        parent = ""
        for number, shelf in enumerate(shelves):
            path = f"part-{number}.bin"
            part = FakeLayer("modelpart" if parent else "model", path, {path: b"%d" % number})
            put_kit(shelf, make_kit([part], parent=parent), "guarded/kit")
            parent = f"{shelf.host}/guarded/kit:v1"
        pulled = client.pull(parent, network=Network(authfile=str(authfile)))
        assert set(pulled.fetched) == {shelf.host for shelf in shelves}
