"""What a Kitfile must keep to, whatever the directory holds: kit 1.17's rules, in kit's words."""

import re
from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from kitd.spec.entries import Dataset, Kitfile, McpServer, ModelPart
from kitd.spec.go_url import url_scheme_and_host
from kitd.spec.paths import clean_path, leaves_directory, lies_below
from kitd.spec.reference import is_kit_reference

VERSION = "1.0.0"

_PART_TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PART_TYPE_RULE = "must be alphanumeric with dots, dashes, and underscores"
_PART_TYPE_LIMIT = 64

PathKind: TypeAlias = Literal["local", "kit", "s3", "http", "url"]


def path_kind(path: str) -> PathKind:
    """What a path of a Kitfile is: a local path, a reference to another kit, or a URL."""
    if is_kit_reference(path):
        return "kit"
    url = url_scheme_and_host(path)
    if url is None or url == ("", ""):
        return "local"
    if url[0] == "s3":
        return "s3"
    return "http" if url[0] in {"http", "https"} else "url"


def check_kitfile(kitfile: Kitfile) -> tuple[list[str], list[str]]:
    """Errors (sorted, without repetitions) and warnings; with no error the Kitfile is valid."""
    warnings = []
    if kitfile.manifest_version != VERSION:
        warnings.append(
            f"Unrecognized manifestVersion {kitfile.manifest_version}: treating Kitfile as {VERSION}"
        )
    warnings.extend(
        f"remoteHash is ignored for ModelKit references in datasets ({dataset.path})"
        for dataset in kitfile.datasets
        if dataset.remote_hash and path_kind(dataset.remote_path) == "kit"
    )
    errors = {
        *_kind_errors(kitfile),
        *_part_errors(kitfile.model.parts if kitfile.model else ()),
        *(error for dataset in kitfile.datasets for error in _dataset_errors(dataset)),
        *_server_errors(kitfile.mcp_servers),
        *_place_errors(kitfile),
    }
    return sorted(errors, key=str.encode), warnings


class _Place(msgspec.Struct):
    """One path of a Kitfile."""

    path: str
    kind: str
    """What the thing is, in messages about its path."""
    source: str
    """Which one it is, in messages about several."""


def _places(kitfile: Kitfile) -> Iterator[_Place]:
    if kitfile.model:
        yield _Place(kitfile.model.path, "model", f"model {kitfile.model.name}")
        for part in kitfile.model.parts:
            yield _Place(part.path, "model part", f"modelpart {part.name}")
    for index, code in enumerate(kitfile.code):
        yield _Place(code.path, "code", f"code layer {index}")
    for index, dataset in enumerate(kitfile.datasets):
        yield _Place(dataset.path, "dataset", f"dataset layer {index}")
    for index, docs in enumerate(kitfile.docs):
        yield _Place(docs.path, "doc", f"docs layer {index}")
    for index, prompt in enumerate(kitfile.prompts):
        yield _Place(prompt.path, "prompt", f"prompt layer {index}")
    for index, server in enumerate(kitfile.mcp_servers):
        yield _Place(server.path, "mcpServer", f"mcpServer layer {index}")


def _kind_errors(kitfile: Kitfile) -> Iterator[str]:
    for place in _places(kitfile):
        kind = path_kind(place.path)
        is_model = place.kind == "model"
        if kind == "local" or (is_model and kind == "kit"):
            continue
        label = f"invalid path for {place.kind}" + ("" if is_model else f" ({place.path})")
        if kind in {"http", "url"}:
            yield f"{label}: {_url_error(place.path, kind)}"
        if is_model:
            yield f"{label}: only local paths and ModelKit references are permitted"
        else:
            yield f"{label}: only local paths are permitted"


def _url_error(path: str, kind: PathKind) -> str:
    if kind == "http":
        return f"HTTP urls are not supported in paths ({path})"
    return f"unrecognized URL in path: {path}"


def _part_errors(parts: tuple[ModelPart, ...]) -> Iterator[str]:
    for part in parts:
        if part.type and not _PART_TYPE.fullmatch(part.type):
            yield f"modelpart {part.name} has invalid type ({_PART_TYPE_RULE})"
        if len(part.type.encode()) > _PART_TYPE_LIMIT:
            yield f"modelpart {part.name} type is too long (must be fewer than {_PART_TYPE_LIMIT} characters)"


def _dataset_errors(dataset: Dataset) -> Iterator[str]:
    remote = dataset.remote_path
    if not remote:
        if dataset.remote_hash:
            yield "remote hash is only applicable when remotePath is set"
        return
    kind = path_kind(remote)
    if kind == "s3":
        if not dataset.remote_hash:
            yield f"remoteHash is required when remote dataset paths are used ({remote})"
        return
    if kind == "kit":
        return
    if kind in {"http", "url"}:
        yield f"invalid remote path for dataset ({remote}): {_url_error(remote, kind)}"
    yield f"only S3 URLs and ModelKit references are supported for remote dataset paths ({remote})"


def _server_errors(servers: tuple[McpServer, ...]) -> Iterator[str]:
    names: set[str] = set()
    for server in servers:
        if path_kind(server.path) == "local" and not server.path.endswith(".mcpb"):
            yield f"invalid path for mcpServer ({server.path}): path must point to a single .mcpb file"
        if not server.name:
            yield f"mcpServer with path {server.path} must have a name"
        elif server.name in names:
            yield f"duplicate mcpServer name {server.name}: names must be unique"
        names.add(server.name)


def _place_errors(kitfile: Kitfile) -> Iterator[str]:
    """Where the paths lie: twice the same, absolute, outside, within data that come from elsewhere."""
    sources: dict[str, list[str]] = {}
    outside: set[str] = set()
    for place in _places(kitfile):
        path = clean_path(place.path)
        sources.setdefault(path, []).append(place.source)
        if leaves_directory(path) and path_kind(place.path) == "local":
            outside.add(path)
    remote = {
        clean_path(dataset.path) for dataset in kitfile.datasets if path_kind(dataset.remote_path) == "kit"
    }
    for path, users in sources.items():
        where = f"path {path} in {users[0]}"
        if len(users) > 1:
            yield f"{', '.join(users[:-1])} and {users[-1]} use the same path {path}"
        if path.startswith("/"):
            yield f"absolute paths are not supported in a Kitfile ({where})"
        elif path in outside:
            yield f"paths outside the context directory are not supported in a Kitfile ({where})"
        elif lies_below(path, remote):
            yield f"{users[0]} uses a path ({path}) that is within the path for a remote dataset"
