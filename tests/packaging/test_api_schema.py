"""The wire contract as JSON schema: an API change is a diff of docs/api.schema.json."""

import importlib
import json
import pkgutil
from collections.abc import Callable

import msgspec

import kitd_client.api

TEMPLATE = "#/$defs/{name}"


def structs() -> list[type[msgspec.Struct]]:
    """Every struct that a module of the contract defines."""
    found: dict[str, type[msgspec.Struct]] = {}
    for entry in pkgutil.walk_packages(kitd_client.api.__path__, "kitd_client.api."):
        module = importlib.import_module(entry.name)
        for name, value in vars(module).items():
            if (
                isinstance(value, type)
                and issubclass(value, msgspec.Struct)
                and value.__module__ == entry.name
            ):
                assert name not in found, f"two structs are named {name}"
                found[name] = value
    return [found[name] for name in sorted(found)]


def test_the_schema_is_the_golden_one(hold_golden: Callable[[str, str], None]) -> None:
    _, components = msgspec.json.schema_components(structs(), ref_template=TEMPLATE)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kitd wire API",
        "$defs": dict(sorted(components.items())),
    }
    hold_golden("docs/api.schema.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


def test_requests_refuse_what_they_do_not_know() -> None:
    loose = [
        struct.__name__
        for struct in structs()
        if struct.__name__.endswith("Request") and not struct.__struct_config__.forbid_unknown_fields
    ]
    assert loose == []
