"""The store as a registry: skopeo, kit and other daemons push to it and pull from it."""

import http.client
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from fakes.daemon import Daemon, StartDaemon
from fakes.figures import Figures
from fakes.kits import FakeKit, FakeLayer, make_kit, put_kit, some_bytes, tar_of
from fakes.real import Skopeo
from fakes.registry import ScriptedRegistry
from fakes.shelves import MANIFEST, digest_of
from interop.trees import Golden, bytes_below, contents_of, make_tree

from kitd_client.client import Client

KITFILE = "manifestVersion: 1.0.0\nmodel: {name: m, path: model}\ncode: [{path: src}]\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Of the error, as the distribution specification has it."""
        found: str = json.loads(self.body)["errors"][0]["code"]
        return found


class Face:
    """The registry face of a daemon, asked by hand."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def upload(self, name: str, data: bytes) -> str:
        """Puts a blob there in one request."""
        digest = digest_of(data)
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest)
        return digest


@pytest.fixture
def face(client: Client) -> Face:
    return Face(client.status().registry_listen)


@pytest.fixture
def tree(source: Path) -> Path:
    model = {f"model/{number}.bin": some_bytes(3000 + number, number) for number in range(20)}
    return make_tree(source, {"Kitfile": KITFILE, "src/a.py": "a = 1\n", **model})


def _kit_of_its_own(seed: int) -> FakeKit:
    """No layer of it is in another test's kit: whatever blob is here is served under every name."""
    return make_kit(
        [
            FakeLayer("model", "weights", {"weights/a.bin": some_bytes(5000, seed)}),
            FakeLayer("code", "src", {"src/main.py": b"print(%d)\n" % seed}),
            FakeLayer("docs", "README.md", {"README.md": b"# %d\n" % seed}),
        ]
    )


# -- other programs ------------------------------------------------------------------------------


@pytest.mark.skopeo
def test_skopeo_copies_out_and_in(
    face: Face, client: Client, skopeo: Skopeo, tree: Path, tmp_path: Path
) -> None:
    packed = client.pack(tree, tags=["skopeo/out:v1"])
    layout = f"oci:{tmp_path / 'layout'}:v1"
    skopeo.copy(f"docker://{face.address}/skopeo/out:v1", layout)
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == packed.digest
    for layer in packed.layers:
        blob = tmp_path / "layout" / "blobs" / "sha256" / layer.digest[7:]
        assert digest_of(blob.read_bytes()) == layer.digest
    skopeo.copy(layout, f"docker://{face.address}/skopeo/in:v2")
    assert client.inspect("skopeo/in:v2").digest == packed.digest
    golden = Golden("gz")
    skopeo.copy(f"oci:{golden.layout}:v1", f"docker://{face.address}/skopeo/golden:v1")
    client.unpack("skopeo/golden:v1", tmp_path / "out")
    assert contents_of(tmp_path / "out").keys() == {*golden.members, "Kitfile"}


@pytest.fixture
def kit(tmp_path: Path) -> list[str]:
    """kit itself, with a storage of its own; no test needs it."""
    binary = shutil.which("kit")
    if binary is None:
        pytest.skip("kit is not on PATH: build it from its public source (`go build -o kit`)")
    return [
        "env",
        "-i",
        f"HOME={tmp_path}",
        f"KITOPS_HOME={tmp_path / 'kitops'}",
        f"PATH={os.defpath}",
        binary,
    ]


def test_kit_pushes_and_pulls(kit: list[str], face: Face, client: Client, tree: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> None:
        done = subprocess.run([*kit, *arguments], check=False, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stdout + done.stderr

    theirs, ours = f"{face.address}/kit/theirs:v1", f"{face.address}/kit/ours:v1"
    run("pack", str(tree), "-t", theirs)
    run("push", theirs, "--plain-http")
    client.unpack("kit/theirs:v1", tmp_path / "out")
    assert contents_of(tmp_path / "out", without="Kitfile") == contents_of(tree, without="Kitfile")
    packed = client.pack(tree, tags=["kit/ours:v1"])
    layers = json.loads(bytes(client.inspect("kit/theirs:v1").manifest))["layers"]
    assert [layer.digest for layer in packed.layers] == [layer["digest"] for layer in layers]
    run("pull", ours, "--plain-http")
    run("unpack", ours, "-d", str(tmp_path / "back"))
    assert contents_of(tmp_path / "back", without="Kitfile") == contents_of(tree, without="Kitfile")


def test_what_is_packed_here_is_pulled_there(
    face: Face, client: Client, other: Daemon, tree: Path, tmp_path: Path
) -> None:
    packed = client.pack(tree, tags=["peers/kit:v1"])
    reference = f"{face.address}/peers/kit:v1"
    pulled = json.loads(other.kitctl("pull", reference, "--format", "json").stdout)
    assert (pulled["digest"], pulled["fetched"]) == (packed.digest, {face.address: packed.size})
    other.kitctl("unpack", reference, "-d", tmp_path / "out")
    assert contents_of(tmp_path / "out", without="Kitfile") == contents_of(tree, without="Kitfile")
    # And the other way: pushed from there, it is a kit of this store.
    other.kitctl("tag", reference, "pushed:v1")
    other.kitctl("push", "pushed:v1", f"{face.address}/peers/pushed:v1")
    assert client.inspect("peers/pushed:v1").digest == packed.digest


def test_a_partial_kit_has_no_more_than_it_has(
    face: Face, client: Client, other: Daemon, shelf: ScriptedRegistry
) -> None:
    kit = _kit_of_its_own(7)
    put_kit(shelf, kit, "face/partial")
    client.pull(f"{shelf.host}/face/partial:v1", filters=["model"])
    client.tag(f"{shelf.host}/face/partial:v1", "face/partial:v1")
    model, code, _ = kit.layer_digests
    assert face.ask("GET", f"/v2/face/partial/blobs/{model}").body == kit.layers[0]
    missing = face.ask("GET", f"/v2/face/partial/blobs/{code}")
    assert (missing.status, missing.code) == (404, "BLOB_UNKNOWN")
    assert face.ask("HEAD", f"/v2/face/partial/blobs/{code}").status == 404
    reference = f"{face.address}/face/partial:v1"
    failed = other.kitctl("pull", reference, "--format", "json", check=False)
    problem = json.loads(failed.stderr.splitlines()[-1])
    assert (failed.returncode, problem["code"]) == (66, "not_found")
    pulled = json.loads(other.kitctl("pull", reference, "--filter", "model", "--format", "json").stdout)
    assert (pulled["complete"], pulled["digest"]) == (False, kit.digest)


def test_a_mirror_asks_with_the_registrys_name(face: Face, client: Client, shelf: ScriptedRegistry) -> None:
    kit = _kit_of_its_own(8)
    put_kit(shelf, kit, "face/mirrored")
    client.pull(f"{shelf.host}/face/mirrored:v1")
    target = f"/v2/face/mirrored/manifests/v1?ns={shelf.host}"
    assert face.ask("GET", target).body == kit.manifest
    assert face.ask("GET", f"/v2/face/mirrored/blobs/{kit.layer_digests[0]}?ns={shelf.host}").status == 200
    assert face.ask("GET", f"/v2/face/mirrored/tags/list?ns={shelf.host}").status == 200
    # It is no kit of localhost's, and nothing of it can be written here.
    assert face.ask("GET", "/v2/face/mirrored/manifests/v1").status == 404
    put = face.ask("PUT", target, kit.manifest, {"Content-Type": MANIFEST})
    assert (put.status, put.code) == (405, "UNSUPPORTED")


# -- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-1999", 206, 100, 2000),
        ("bytes=2000-", 206, 2000, None),
        ("bytes=-700", 206, -700, None),
        ("bytes=0-99999999", 206, 0, None),
        ("bytes=5-4", 200, 0, None),
        ("bytes=0-1,5-6", 200, 0, None),
        ("lines=1-2", 200, 0, None),
    ],
)
@pytest.mark.parametrize("form", ["plain tar", "gzip"])
def test_ranges(form: str, asked: str, status: int, start: int, stop: int | None, face: Face) -> None:
    data = (
        tar_of({"d/a": some_bytes(3000, 1), "d/b": some_bytes(5000, 2)})
        if form == "plain tar"
        else some_bytes(9000)
    )
    digest = face.upload("face/ranges", data)
    answer = face.ask("GET", f"/v2/face/ranges/blobs/{digest}", headers={"Range": asked})
    assert answer.status == status
    assert answer.body == data[start:stop]
    assert answer.headers["docker-content-digest"] == digest
    if status == 206:
        first = start if start >= 0 else len(data) + start
        last = first + len(answer.body) - 1
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"


def test_a_range_beyond_the_end_and_the_head_of_a_blob(face: Face) -> None:
    data = some_bytes(1000, 3)
    digest = face.upload("face/ranges", data)
    target = f"/v2/face/ranges/blobs/{digest}"
    beyond = face.ask("GET", target, headers={"Range": "bytes=1000-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */1000")
    head = face.ask("HEAD", target)
    assert (head.status, head.headers["content-length"], head.body) == (200, "1000", b"")
    assert head.headers["docker-content-digest"] == digest


def test_every_range_of_a_recipe_reads_back(face: Face, client: Client, tree: Path) -> None:
    packed = client.pack(tree, tags=["face/recipe:v1"])
    target = f"/v2/face/recipe/blobs/{packed.layers[0].digest}"
    whole = face.ask("GET", target).body
    assert digest_of(whole) == packed.layers[0].digest
    for start in range(0, len(whole), 1777):
        part = face.ask("GET", target, headers={"Range": f"bytes={start}-{start + 2500}"})
        assert part.body == whole[start : start + 2501]


def test_manifests_by_tag_and_digest_and_the_tags(face: Face, client: Client, tree: Path) -> None:
    tags = [f"face/tags:{tag}" for tag in ("b", "a", "d", "c", "latest")]
    packed = client.pack(tree, tags=tags)
    by_tag = face.ask("GET", "/v2/face/tags/manifests/a")
    by_digest = face.ask("GET", f"/v2/face/tags/manifests/{packed.digest}")
    head = face.ask("HEAD", "/v2/face/tags/manifests/a")
    assert by_tag.body == by_digest.body
    assert digest_of(by_tag.body) == packed.digest == head.headers["docker-content-digest"]
    assert by_tag.headers["content-type"] == head.headers["content-type"] == MANIFEST
    seen: list[str] = []
    target = "/v2/face/tags/tags/list?n=2"
    while target:
        page = face.ask("GET", target)
        seen += json.loads(page.body)["tags"]
        target = page.headers.get("link", "").partition("<")[2].partition(">")[0]
    assert seen == ["a", "b", "c", "d", "latest"]
    assert face.ask("GET", "/v2/face/none/tags/list").code == "NAME_UNKNOWN"
    assert face.ask("GET", "/v2/face/tags/manifests/none").code == "MANIFEST_UNKNOWN"
    assert face.ask("GET", "/v2/").status == 200


def test_a_manifest_needs_its_blobs(face: Face, client: Client) -> None:
    kit = _kit_of_its_own(9)
    for blob in (kit.config, *kit.layers[:-1]):
        face.upload("face/needs", blob)
    target = "/v2/face/needs/manifests/v1"
    refused = face.ask("PUT", target, kit.manifest, {"Content-Type": MANIFEST})
    assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert client.list("face/needs") == []
    assert face.ask("GET", target).status == 404
    face.upload("face/needs", kit.layers[-1])
    assert face.ask("PUT", target, kit.manifest, {"Content-Type": MANIFEST}).status == 201
    assert client.inspect("face/needs:v1").digest == kit.digest


def test_an_upload_goes_on_where_it_is(face: Face) -> None:
    data = some_bytes(50_000, 4)
    digest = digest_of(data)
    begun = face.ask("POST", "/v2/face/chunks/blobs/uploads/")
    assert begun.status == 202
    place = begun.headers["location"]
    first = face.ask("PATCH", place, data[:20_000], {"Content-Range": "0-19999"})
    assert (first.status, first.headers["range"]) == (202, "0-19999")
    wrong = face.ask("PATCH", place, data[30_000:], {"Content-Range": "30000-49999"})
    assert (wrong.status, wrong.headers["range"]) == (416, "0-19999")
    asked = face.ask("GET", place)
    assert (asked.status, asked.headers["range"]) == (204, "0-19999")
    again = face.ask("PATCH", place, data[:20_000], {"Content-Range": "0-19999"})
    assert again.status == 416
    assert face.ask("PATCH", place, data[20_000:40_000], {"Content-Range": "20000-39999"}).status == 202
    assert face.ask("PUT", f"{place}?digest={digest}", data[40_000:]).status == 201
    assert face.ask("GET", f"/v2/face/chunks/blobs/{digest}").body == data
    assert face.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"


def test_an_upload_of_other_bytes_is_refused(face: Face) -> None:
    place = face.ask("POST", "/v2/face/chunks/blobs/uploads/").headers["location"]
    digest = digest_of(b"what it says")
    wrong = face.ask("PUT", f"{place}?digest={digest}", b"what it is")
    assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")
    assert face.ask("HEAD", f"/v2/face/chunks/blobs/{digest}").status == 404
    assert face.ask("HEAD", f"/v2/face/chunks/blobs/{digest_of(b'what it is')}").status == 404


def test_other_names_than_loopback_are_not_answered(face: Face) -> None:
    rebound = face.ask("GET", "/v2/", headers={"Host": "attacker.example"})
    assert (rebound.status, rebound.code) == (403, "DENIED")


# -- one copy ------------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize("form", ["one file of 256 MiB", "26 214 files of 10 KiB"])
def test_there_is_one_copy_on_disk(
    form: str, start_daemon: StartDaemon, shelf: ScriptedRegistry, figures: Figures
) -> None:
    if form == "one file of 256 MiB":
        data = (
            some_bytes(64 * MIB) + some_bytes(64 * MIB, 1) + some_bytes(64 * MIB, 2) + some_bytes(64 * MIB, 3)
        )
        kit = make_kit([FakeLayer("model", "model.bin", {"model.bin": data})])
    else:
        pool = some_bytes(10 * 1024 + 26_214)
        files = {
            f"data/{number // 500:02}/{number:05}.bin": pool[number : number + 10_240]
            for number in range(26_214)
        }
        kit = make_kit([FakeLayer("dataset", "data", files, name="many")])
    assert kit.size >= 256 * MIB
    put_kit(shelf, kit, "one/copy", "v1")
    daemon = start_daemon()
    daemon.kitctl("pull", f"{shelf.host}/one/copy:v1")
    stored = bytes_below(daemon.store)
    figures.tried("one copy on disk")
    figures.note("one copy on disk", f"{form}: store {stored}, kit {kit.size}: {stored / kit.size:.4f}")
    if stored > 1.02 * kit.size:
        figures.violated("one copy on disk", f"{form}: {stored} of {kit.size} bytes")
    repository = shelf.repository("one/copy")
    repository.blobs.clear()
