"""The parts of a Kitfile, in kit's order of keys (kit 1.17), which is the order of JSON and YAML alike.

A field with a default is left out where it has it; `digest` and `diff_id` exist in JSON only, never in
YAML.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from kitd.spec.media_types import LayerKind
from kitd.spec.reference import Reference, is_kit_reference, parse_reference
from kitd_client.api.errors import Unsupported

if TYPE_CHECKING:
    from kitd.spec.strict_json import JsonValue
else:
    # msgspec takes no recursive alias; whatever comes here was parsed as JSON or YAML of JSON's types.
    JsonValue = object


class Package(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    version: str = ""
    description: str = ""
    license: str = ""
    authors: tuple[str, ...] = ()


class ModelPart(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    path: str = ""
    license: str = ""
    type: str = ""
    digest: str = ""
    diff_id: str = ""


class Model(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    path: str = ""
    """A path, or a reference to the kit this one builds on."""
    license: str = ""
    framework: str = ""
    format: str = ""
    version: str = ""
    description: str = ""
    parts: tuple[ModelPart, ...] = ()
    parameters: JsonValue = None
    digest: str = ""
    diff_id: str = ""


class Code(msgspec.Struct, frozen=True, rename="camel"):
    path: str = ""
    description: str = ""
    license: str = ""
    digest: str = ""
    diff_id: str = ""


class Dataset(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    path: str = ""
    remote_path: str = ""
    """Where the data lie that are no layer of the kit: an S3 URL, or a reference to another kit."""
    remote_hash: str = ""
    description: str = ""
    license: str = ""
    parameters: JsonValue = None
    digest: str = ""
    diff_id: str = ""


class Docs(msgspec.Struct, frozen=True, rename="camel"):
    path: str
    description: str = ""
    digest: str = ""
    diff_id: str = ""


class Prompt(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    path: str = ""
    description: str = ""
    digest: str = ""
    diff_id: str = ""


class McpServer(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    path: str = ""
    description: str = ""
    digest: str = ""
    diff_id: str = ""


Entry: TypeAlias = Model | ModelPart | Code | Dataset | Docs | Prompt | McpServer
"""What may become a layer."""


class Kitfile(msgspec.Struct, frozen=True, rename="camel"):
    """What a kit consists of, as its author wrote it: paths are verbatim."""

    manifest_version: str
    package: Package
    model: Model | None = None
    code: tuple[Code, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    docs: tuple[Docs, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()


# msgspec learns a struct at its first use; threads that do so at the same time crash the process. So: here, once.
msgspec.json.Decoder(Kitfile)

Section: TypeAlias = Literal["model", "modelpart", "code", "datasets", "docs", "prompts", "mcpServers"]
"""Where in a Kitfile an entry stands."""

LAYER_KINDS: Mapping[Section, LayerKind] = MappingProxyType(
    {
        "model": "model",
        "modelpart": "modelpart",
        "code": "code",
        "datasets": "dataset",
        "docs": "docs",
        "prompts": "code",
        "mcpServers": "mcpb",
    }
)
"""The kind in the media type of a section's layers."""


def parent_reference(kitfile: Kitfile) -> Reference | None:
    """The kit whose model this Kitfile builds on; of several tags, as kit does, the first.

    Raises:
        Unsupported: it is named by another digest than SHA-256.
    """
    model = kitfile.model
    if not model or not is_kit_reference(model.path):
        return None
    try:
        return parse_reference(model.path.partition(",")[0])
    except Unsupported as error:
        raise Unsupported(f"the kit builds on {model.path}: {error.message}", hint=error.hint) from None


def layer_entries(kitfile: Kitfile) -> list[tuple[Section, int, Entry]]:
    """The entries that are layers, in the order of the manifest, each with its place in its section.

    A model whose path names another kit, or has none, is no layer; nor is a dataset that lies elsewhere.
    """
    found: list[tuple[Section, int, Entry]] = []
    model = kitfile.model
    if model:
        if model.path and not is_kit_reference(model.path):
            found.append(("model", 0, model))
        found.extend(("modelpart", index, part) for index, part in enumerate(model.parts))
    found.extend(("code", index, code) for index, code in enumerate(kitfile.code))
    found.extend(
        ("datasets", index, dataset)
        for index, dataset in enumerate(kitfile.datasets)
        if not dataset.remote_path
    )
    found.extend(("docs", index, docs) for index, docs in enumerate(kitfile.docs))
    found.extend(("prompts", index, prompt) for index, prompt in enumerate(kitfile.prompts))
    found.extend(("mcpServers", index, server) for index, server in enumerate(kitfile.mcp_servers))
    return found


def refuse_remote_datasets(kitfile: Kitfile) -> None:
    """This version neither packs nor fetches datasets that lie elsewhere.

    Raises:
        Unsupported: naming the first such dataset.
    """
    for dataset in kitfile.datasets:
        if dataset.remote_path:
            raise Unsupported(
                f"dataset {dataset.name or dataset.path} lies at {dataset.remote_path}: "
                "remote datasets are not supported yet"
            )
