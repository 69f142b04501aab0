"""The real programs of others are set up so that tests can rely on them."""

import json
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import aiohttp
import pytest
from fakes.kits import GOLDEN
from fakes.real import RealRegistry, Skopeo
from fakes.tools import free_port, need_tool, wait_listening


@pytest.mark.registry
@pytest.mark.skopeo
@pytest.mark.parametrize("name", ["plain_registry", "password_registry", "tls_registry"])
def test_a_golden_kit_goes_there_and_back(
    name: str, request: pytest.FixtureRequest, skopeo: Skopeo, tmp_path: Path
) -> None:
    registry: RealRegistry = request.getfixturevalue(name)
    layout = GOLDEN / "basic" / "layout"
    reference = f"docker://{registry.host}/golden/basic:v1"
    skopeo.copy(f"oci:{layout}:v1", reference, registry=registry)
    skopeo.copy(reference, f"oci:{tmp_path / 'back'}:v1", registry=registry)
    (sent,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    (got,) = json.loads((tmp_path / "back" / "index.json").read_bytes())["manifests"]
    assert got["digest"] == sent["digest"]
    blob = layout / "blobs" / "sha256" / sent["digest"][7:]
    assert skopeo.inspect_raw(reference, registry=registry) == blob.read_bytes()


@pytest.mark.registry
def test_passwords_are_asked_for(password_registry: RealRegistry) -> None:
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{password_registry.url}/v2/")
    authorization = aiohttp.encode_basic_auth(password_registry.user, password_registry.password)
    with urlopen(Request(f"{password_registry.url}/v2/", headers={"Authorization": authorization})) as answer:
        assert answer.status == 200


@pytest.mark.registry
def test_tls_needs_its_authority(tls_registry: RealRegistry) -> None:
    context = ssl.create_default_context(cadata=tls_registry.ca_pem)
    with urlopen(f"{tls_registry.url}/v2/", context=context) as answer:
        assert answer.status == 200


@pytest.mark.skopeo
def test_a_failure_of_skopeo_is_told(skopeo: Skopeo) -> None:
    with pytest.raises(AssertionError, match="exit 1"):
        skopeo.inspect_raw(f"docker://127.0.0.1:{free_port()}/no/thing:v1")


def test_a_process_that_ends_before_it_listens_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert not wait_listening(process, free_port())


def test_what_is_missing_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-tool"):
        need_tool("no-such-tool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-tool"):
        need_tool("no-such-tool")
