import os
from pathlib import Path

import pytest

from kitd_client.api.errors import ConfigurationInvalid
from kitd_client.api.jobs import Context
from kitd_client.context import Network, make_context
from kitd_client.figures import duration_text, size_text
from kitd_client.proxies import proxy_for
from kitd_client.references import Name, name_of, split_tags

NAME = Name("registry.example.com", "kit")
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"


def make(network: Network, *names: Name) -> Context:
    return make_context(names or (NAME,), network, environ=os.environ)


@pytest.fixture
def pem(home: Path) -> Path:
    (home / "cert.pem").write_text(CERTIFICATE)
    (home / "key.pem").write_text(KEY)
    return home


def test_certificates_travel_as_text(pem: Path) -> None:
    (pem / "ca.pem").write_text(CERTIFICATE.strip())
    files = (str(pem / "ca.pem"), str(pem / "cert.pem"))
    got = make(Network(ca_files=files, certificate=str(pem / "cert.pem"), key=str(pem / "key.pem")))
    assert got.ca_pem == CERTIFICATE * 2
    assert got.client_certificate_pem == CERTIFICATE + KEY


def test_kit_s_variables_go_before_the_flags(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITOPS_CLIENT_CERT", str(pem / "cert.pem"))
    monkeypatch.setenv("KITOPS_CLIENT_KEY", str(pem / "key.pem"))
    got = make(Network(certificate="/absent", key="/absent"))
    assert got.client_certificate_pem == CERTIFICATE + KEY


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "No such file", id="absent"),
        pytest.param("hello", "has no PEM block", id="no PEM"),
        pytest.param(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----",
            "encrypted",
            id="locked",
        ),
    ],
)
def test_a_key_that_is_no_use_is_an_error(pem: Path, content: str | None, said: str) -> None:
    if content is not None:
        (pem / "bad.pem").write_text(content)
    with pytest.raises(ConfigurationInvalid, match=said):
        make(Network(certificate=str(pem / "cert.pem"), key=str(pem / "bad.pem")))


def test_a_certificate_without_its_key_is_an_error(pem: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="both"):
        make(Network(certificate=str(pem / "cert.pem")))


def test_the_proxy_of_the_registry_travels(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "registry.example.com")
    assert make(Network(), Name("other.example.com", "kit")).proxy == "http://proxy:3128"
    assert make(Network()).proxy == ""
    assert make(Network(proxy="http://flag:1")).proxy == "http://flag:1"
    assert make(Network(), Name("", "local")).proxy == ""


PROXY = "http://p:1"


@pytest.mark.parametrize(
    ("registry", "no_proxy", "through"),
    [
        ("r.example.com", "", True),
        ("r.example.com", "*", False),
        ("r.example.com", "other.com, r.example.com", False),
        ("R.Example.com.", "r.example.COM", False),
        ("r.example.com", "example.com", False),
        ("r.example.com", ".example.com", False),
        ("r.example.com", "*.example.com", False),
        ("example.com", "example.com", False),
        ("example.com", ".example.com", True),
        ("example.com", "*.example.com", True),
        ("notexample.com", "example.com", True),
        ("r.example.com:5000", "r.example.com:5000", False),
        ("r.example.com:5001", "r.example.com:5000", True),
        ("r.example.com", "r.example.com:443", False),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3:5000", "10.0.0.0/8", False),
        ("11.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", False),
        ("10.1.2.3", "2.3", True),
        ("[fd00::1]:5000", "fd00::/8", False),
        ("fd00::1", "fd00:0::1", False),
        ("r.example.com", "10.0.0.0/8", True),
        ("10.1.2.3", "10.0.0.0/99", True),
        ("localhost", "", False),
        ("localhost:5000", "", False),
        ("127.0.0.9:5000", "", False),
        ("[::1]:5000", "", False),
    ],
)
def test_no_proxy_is_read_as_go_does(registry: str, no_proxy: str, through: bool) -> None:  # noqa: FBT001
    assert bool(proxy_for(registry, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})) is through


@pytest.mark.parametrize(
    ("environ", "plain_http", "proxy"),
    [
        ({"HTTPS_PROXY": "p:1"}, False, PROXY),
        ({"https_proxy": PROXY}, False, PROXY),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://q"}, False, PROXY),
        ({"HTTP_PROXY": PROXY}, False, ""),
        ({"HTTP_PROXY": PROXY}, True, PROXY),
        ({"HTTPS_PROXY": PROXY}, True, ""),
        ({"ALL_PROXY": PROXY}, False, PROXY),
        ({"ALL_PROXY": PROXY, "HTTPS_PROXY": "http://q"}, False, "http://q"),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, True, ""),
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, True, PROXY),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "r.example.com"}, False, ""),
        ({}, False, ""),
    ],
)
def test_which_variable_counts(environ: dict[str, str], plain_http: bool, proxy: str) -> None:  # noqa: FBT001
    assert proxy_for("r.example.com", environ, plain_http=plain_http) == proxy


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("r.example.com/team/kit:1", Name("r.example.com", "team/kit")),
        ("localhost:5000/kit@sha256:" + "a" * 64, Name("localhost:5000", "kit")),
        ("kit://r.example.com/kit:1@sha256:x", Name("r.example.com", "kit")),
        ("oci://r.example.com/kit", Name("r.example.com", "kit")),
        ("team/kit:1,2", Name("", "team/kit")),
        ("kit:1", Name("", "kit")),
        ("localhost/kit", Name("", "localhost/kit")),
    ],
)
def test_a_reference_names_a_registry_by_kit_s_rule(reference: str, name: Name) -> None:
    assert name_of(reference) == name


@pytest.mark.parametrize(
    ("reference", "split"),
    [
        ("r.io:5000/kit:1", ["r.io:5000/kit:1"]),
        ("r.io:5000/kit:1,2", ["r.io:5000/kit:1", "r.io:5000/kit:2"]),
        ("r.io:5000/kit", ["r.io:5000/kit"]),
        ("r.io:5000/kit,2", ["r.io:5000/kit", "r.io:5000/kit:2"]),
    ],
)
def test_tags_after_commas_are_names_of_their_own(reference: str, split: list[str]) -> None:
    assert split_tags(reference) == split


def test_sizes_are_written_as_kit_does() -> None:
    sizes = [0, 1023, 1024, 1536, (1 << 20) - 1, 1 << 30, 5 << 40, 3 << 50]
    texts = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 GiB", "5.0 TiB", "3.0 PiB"]
    assert [size_text(size) for size in sizes] == texts


def test_durations_are_short() -> None:
    assert [duration_text(s) for s in (0.4, 59, 60, 3725)] == ["0s", "59s", "1m00s", "1h02m"]
