import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kitd.spec import media_types
from kitd.spec.oci import LAYER_LIMIT, MANIFEST_LIMIT, encode_manifest, parse_manifest
from kitd_client.api.errors import KitdError, ManifestInvalid, Unsupported

D = "sha256:" + "ab" * 32
CONFIG = {"mediaType": media_types.CONFIG, "digest": D, "size": 2}
LAYER = {"mediaType": "application/vnd.kitops.modelkit.model.v1.tar", "digest": D, "size": 1024}


def manifest(**changes: object) -> bytes:
    value = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], **changes}
    return json.dumps({key: item for key, item in value.items() if item != "absent"}).encode()


GOLDEN = ["basic", "gz", "gz-fastest", "ignore", "links", "many", "names", "nested", "parts", "wholedir"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_manifest_of_a_real_kit_is_written_again_byte_for_byte(
    name: str, golden: Callable[[str], tuple[bytes, bytes]]
) -> None:
    data, config = golden(name)
    found = parse_manifest(data)
    assert found.config.size == len(config)
    assert found.layers
    assert encode_manifest(found) == data


def test_an_old_kit_without_layers_is_read(golden: Callable[[str], tuple[bytes, bytes]]) -> None:
    data, _ = golden("kitfile-only")
    assert b'"layers":null' in data
    assert parse_manifest(data).layers == ()
    assert b'"layers":[]' in encode_manifest(parse_manifest(data))


def test_the_form_of_kit_1_17_is_read_and_written() -> None:
    annotations = {media_types.CLI_VERSION: "1.17.0", media_types.CREATED: "2026-03-01T12:34:56Z"}
    layer = {**LAYER, "annotations": {media_types.FILE_PATH: "a<b>&\u2028"}}
    data = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "artifactType": media_types.ARTIFACT_TYPE,
            "config": CONFIG,
            "layers": [layer],
            "annotations": annotations,
        },
        separators=(",", ":"),
        ensure_ascii=False,
    )
    for plain, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028")):
        data = data.replace(plain, escaped)
    found = parse_manifest(data.encode())
    assert found.layers[0].annotations == {media_types.FILE_PATH: "a<b>&\u2028"}
    assert (found.media_type, found.artifact_type) == (media_types.MANIFEST, media_types.ARTIFACT_TYPE)
    assert encode_manifest(found) == data.encode()


def test_unknown_fields_and_nulls_are_passed_over() -> None:
    layer = {**LAYER, "urls": ["https://x"], "platform": {"os": "linux"}, "annotations": None}
    found = parse_manifest(manifest(layers=[layer], subject=None, more={"a": 1}, annotations=None))
    assert (found.annotations, found.layers[0].annotations) == ({}, {})


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", ManifestInvalid, "not readable"),
        (b"[]", ManifestInvalid, "no JSON object"),
        (b'"' + b"x" * MANIFEST_LIMIT + b'"', ManifestInvalid, "more than the"),
        (manifest() + b"x", ManifestInvalid, "extra data"),
        (manifest()[:-1] + b',"layers":[]}', ManifestInvalid, "'layers' stands twice"),
        (manifest(annotations={"a": "\ud800"}), ManifestInvalid, "surrogate"),
        (manifest(deep=json.loads("[" * 70 + "]" * 70)), ManifestInvalid, "64 levels"),
        (manifest(manifests=[]), ManifestInvalid, "index and a manifest at once"),
        (manifest(mediaType=media_types.INDEX), ManifestInvalid, "media type"),
        (manifest(mediaType=7), ManifestInvalid, "media type"),
        (manifest(mediaType=[]), ManifestInvalid, "media type"),
        (
            manifest(manifests=[], config="absent", layers="absent", mediaType=media_types.INDEX),
            Unsupported,
            "index of several kits",
        ),
        (
            manifest(config={**CONFIG, "mediaType": media_types.MODELPACK_CONFIG}),
            Unsupported,
            "CNCF ModelPack",
        ),
        (
            manifest(config="absent", artifactType=media_types.MODELPACK_ARTIFACT_TYPE),
            Unsupported,
            "CNCF ModelPack",
        ),
        (
            manifest(config={**CONFIG, "mediaType": "application/vnd.oci.image.config.v1+json"}),
            ManifestInvalid,
            "not a ModelKit: application/vnd.oci.image.config",
        ),
        (manifest(config="absent"), ManifestInvalid, "not a ModelKit"),
        (manifest(config=[1], artifactType={"a": 1}), ManifestInvalid, "not a ModelKit"),
        (manifest(config="absent", artifactType=media_types.ARTIFACT_TYPE), ManifestInvalid, "no config"),
        (manifest(schemaVersion=1), ManifestInvalid, "schema version 1"),
        (manifest(schemaVersion="absent"), ManifestInvalid, "schemaVersion"),
        (manifest(schemaVersion="2"), ManifestInvalid, "schemaVersion"),
        (manifest(layers={}), ManifestInvalid, "layers"),
        (manifest(layers=[{**LAYER, "size": -1}]), ManifestInvalid, "size"),
        (manifest(layers=[{**LAYER, "size": 2**63}]), ManifestInvalid, "size"),
        (manifest(layers=[{**LAYER, "size": 10**30}]), ManifestInvalid, "size"),
        (manifest(layers=[{**LAYER, "size": 1.5}]), ManifestInvalid, "size"),
        (manifest(layers=[{**LAYER, "size": True}]), ManifestInvalid, "size"),
        (manifest(layers=[LAYER, {**LAYER, "digest": "sha256:x"}]), ManifestInvalid, "layer 1: 'sha256:x'"),
        (manifest(layers=[{**LAYER, "digest": "sha256:../../x"}]), ManifestInvalid, "is no digest"),
        (manifest(layers=[{**LAYER, "digest": "sha512:" + "0" * 128}]), Unsupported, "sha512"),
        (manifest(layers=[{**LAYER, "annotations": {"a": 1}}]), ManifestInvalid, "annotations"),
        (manifest(layers=[{**LAYER, "annotations": {"a": "x" * 2**17}}]), ManifestInvalid, "annotations"),
        (manifest(annotations={"a": "x" * 2**17}), ManifestInvalid, "annotations"),
        (manifest(layers=[{"digest": D, "size": 1}]), ManifestInvalid, "mediaType"),
    ],
)
def test_what_is_no_manifest_of_a_kit_is_refused_in_so_many_words(
    data: bytes, error: type[KitdError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        parse_manifest(data)
    assert type(caught.value) is error
    assert len(caught.value.message) < 400


def test_the_number_of_layers_is_bounded() -> None:
    small = {**LAYER, "mediaType": "x"}
    assert len(parse_manifest(manifest(layers=[small] * LAYER_LIMIT)).layers) == LAYER_LIMIT
    with pytest.raises(ManifestInvalid, match="10001 layers"):
        parse_manifest(manifest(layers=[small] * (LAYER_LIMIT + 1)))


@pytest.mark.parametrize("changes", [{"artifactType": media_types.ARTIFACT_TYPE}, {"mediaType": ""}, {}])
def test_either_type_makes_a_kit(changes: dict[str, Any]) -> None:
    assert parse_manifest(manifest(**changes)).config.digest == D


def test_the_largest_size_is_kept_exactly() -> None:
    assert parse_manifest(manifest(layers=[{**LAYER, "size": 2**63 - 1}])).layers[0].size == 2**63 - 1


_TOGETHER = """
import sys
import threading

from kitd.spec.kitfile import parse_config
from kitd.spec.oci import parse_manifest

sys.setswitchinterval(1e-9)
together = threading.Barrier(8)
config, manifest = (text.encode() for text in sys.argv[1:])


def parse():
    together.wait()
    parse_config(config)
    parse_manifest(manifest)


threads = [threading.Thread(target=parse) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("_attempt", range(4))
def test_threads_may_parse_the_first_documents_of_a_process_together(
    _attempt: int, golden: Callable[[str], tuple[bytes, bytes]]
) -> None:
    data, config = golden("parts")
    # msgspec learns a struct at its first use; threads that did so at the same time ended by a signal.
    done = subprocess.run([sys.executable, "-c", _TOGETHER, config, data], check=False)
    assert done.returncode == 0
