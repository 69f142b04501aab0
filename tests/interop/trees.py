"""What lies in a directory, and what should: trees as values that compare with a readable difference."""

import hashlib
import io
import json
import stat
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fakes.kits import GOLDEN, some_bytes

UMASK_022 = ("sh", "-c", 'umask 022; exec "$@"', "sh")
"""A wrapper for kitctl: kit's golden trees were unpacked under this umask."""


class Found(NamedTuple):
    """One path of a tree."""

    kind: str
    """`file`, `dir`, or `other` for what kits never hold."""
    mode: int
    size: int
    sha256: str


def tree_of(root: Path, *, without: str = "") -> dict[str, Found]:
    """Everything below a directory, by relative path; links are not followed."""
    tree: dict[str, Found] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name == without:
            continue
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            tree[name] = Found("dir", mode, 0, "")
        elif stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
            tree[name] = Found("file", mode, len(data), hashlib.sha256(data).hexdigest())
        else:
            tree[name] = Found("other", mode, 0, "")
    return tree


def contents_of(root: Path, *, without: str = "") -> dict[str, bytes]:
    """The files below a directory, by relative path."""
    names = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if name != without}


def make_tree(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """Files with modes that do not depend on the umask: 0644 beneath 0755."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(0o644)
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    return root


def bytes_below(root: Path) -> int:
    """Bytes of every file of a store, each inode once, its database too."""
    status = {path.lstat().st_ino: path.lstat().st_size for path in root.rglob("*") if path.is_file()}
    return sum(status.values())


# -- what kit made -------------------------------------------------------------------------------


class Layer(NamedTuple):
    """One layer as `kit pack` made it."""

    media_type: str
    digest: str
    size: int
    diff_id: str


class Golden:
    """One of `tests/data/kits`: what is known of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._expected = json.loads((GOLDEN / name / "expected.json").read_bytes())
        self.flags: list[str] = self._expected["flags"]
        self.kit_unpacked_all: bool = self._expected["unpack_exit"] == 0

    @property
    def layout(self) -> Path:
        return GOLDEN / self.name / "layout"

    def blob(self, digest: str) -> bytes:
        return (self.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    @property
    def digest(self) -> str:
        (entry,) = json.loads((self.layout / "index.json").read_bytes())["manifests"]
        digest: str = entry["digest"]
        return digest

    @property
    def manifest(self) -> bytes:
        return self.blob(self.digest)

    @property
    def config(self) -> bytes:
        return self.blob(json.loads(self.manifest)["config"]["digest"])

    @property
    def layers(self) -> list[Layer]:
        return [
            Layer(each["mediaType"], each["digest"], each["size"], each["diffId"])
            for each in self._expected["layers"]
        ]

    @property
    def members(self) -> set[str]:
        """Every path in its layers."""
        return {member["name"] for layer in self._expected["layers"] for member in layer["members"]}

    @property
    def unpacked(self) -> dict[str, Found]:
        """What kit unpacked under umask 022, modes masked as kitd masks them; without the Kitfile."""
        return {
            each["path"]: Found(
                "dir" if each.get("type") == "dir" else "file",
                int(each["mode"], 8) & 0o777,
                each.get("size", 0) if each.get("type") != "dir" else 0,
                each.get("sha256", ""),
            )
            for each in self._expected["unpacked"]
            if each["path"] != "Kitfile"
        }

    def extract(self, directory: Path) -> Path:
        """The directory it was packed from, with all its modes."""
        directory.mkdir(mode=0o755)
        archive = GOLDEN / self.name / "tree.tar"
        subprocess.run(["tar", "-xpf", archive, "-C", directory], check=True)
        return directory


def without_digests(value: object) -> object:
    """A config as the Kitfile that it was: what only registries need to know is left out."""
    if isinstance(value, dict):
        return {key: without_digests(each) for key, each in value.items() if key not in {"digest", "diffId"}}
    return [without_digests(each) for each in value] if isinstance(value, list) else value


# -- one of every kind ----------------------------------------------------------------------------


def bundle(name: str = "manifest.json") -> bytes:
    """A bundle of an MCP server, if it has its manifest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), "{}")
        archive.writestr(zipfile.ZipInfo("server.py"), "print('hi')\n")
    return buffer.getvalue()


_ALL_KINDS = """manifestVersion: 1.0.0
package: {name: all-kinds}
model:
  name: base
  path: model.bin
  parts:
    - {name: lora, path: parts/lora.bin, type: lora_adapter}
    - {path: ./parts/tokenizer.json}
code: [{path: src/main.py}]
datasets:
  - {name: train, path: data/train.csv}
  - {name: test, path: data/test.csv}
docs: [{path: ./README.md}]
prompts: [{name: ask, path: AGENTS.md}]
mcpServers: [{name: files, path: mcp/files.mcpb}]
"""
ALL_KINDS: Mapping[str, bytes | str] = {
    "Kitfile": _ALL_KINDS,
    "model.bin": some_bytes(70_000) + bytes(30_000),
    "parts/lora.bin": some_bytes(4000, 1),
    "parts/tokenizer.json": "{}\n",
    "src/main.py": "print('hi')\n",
    "data/train.csv": "a,b\n" * 2000,
    "data/test.csv": "a,b\n" * 20,
    "README.md": "# all kinds\n",
    "AGENTS.md": "Be kind.\n",
    "mcp/files.mcpb": bundle(),
}
