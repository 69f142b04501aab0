import pytest

from kitd.spec.media_types import encode_layer_type, parse_layer_type

PREFIX = "application/vnd.kitops.modelkit."


@pytest.mark.parametrize("kind", ["model", "modelpart", "code", "dataset", "docs"])
@pytest.mark.parametrize("form", ["tar", "raw"])
@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
def test_every_layer_type_is_read_and_written(kind: str, form: str, suffix: str) -> None:
    text = f"{PREFIX}{kind}.v1.{form}{suffix}"
    found = parse_layer_type(text)
    assert found is not None
    assert (found.kind, found.format) == (kind, form)
    assert found.compression == (suffix.removeprefix("+") or "none")
    assert encode_layer_type(found) == text


def test_a_bundle_of_an_mcp_server_is_always_raw() -> None:
    assert parse_layer_type(PREFIX + "mcpb.v1.raw") is not None
    for other in ("mcpb.v1.tar", "mcpb.v1.raw+gzip"):
        assert parse_layer_type(PREFIX + other) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX + "model.v2.tar",
        PREFIX + "prompt.v1.tar",
        PREFIX + "model.v1.zip",
        PREFIX + "model.v1.tar+none",
        PREFIX + "model.v1.tar+gzip+gzip",
        PREFIX + "model.v1.tar\n",
        "application/vnd.kitops-modelkit.model.v1.tar",
        "application/vnd.cncf.model.weight.v1.tar",
        "application/vnd.oci.image.layer.v1.tar",
    ],
)
def test_unknown_types_are_not_guessed(text: str) -> None:
    assert parse_layer_type(text) is None
