import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from kitd.registry.redirect import Reach, http_url, literal_reach, reach_of, resolve_location, shown
from kitd_client.api.errors import RedirectBlocked

_BASE = URL("https://registry.example/v2/team/kit/blobs/sha256:1?x=1")


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1:248:1893:25c8:1946", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("198.18.0.1", Reach.PRIVATE),
        ("240.0.0.1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.255.0.9", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("169.254.169.254", Reach.LINK_LOCAL),
        ("fe80::1%eth0", Reach.LINK_LOCAL),
        ("fd00:ec2::254", Reach.LINK_LOCAL),
        ("100.100.100.200", Reach.LINK_LOCAL),
        ("224.0.0.1", Reach.LINK_LOCAL),
        ("ff02::1", Reach.LINK_LOCAL),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::ffff:169.254.169.254", Reach.LINK_LOCAL),
        ("64:ff9b::a9fe:a9fe", Reach.LINK_LOCAL),
        ("64:ff9b::5db8:d822", Reach.PUBLIC),
        ("2002:7f00:1::", Reach.LOOPBACK),
    ],
)
def test_how_near_an_address_is(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("localhost", Reach.LOOPBACK),
        ("LOCALHOST.", Reach.LOOPBACK),
        ("a.localhost", Reach.LOOPBACK),
        ("127.0.0.1", Reach.LOOPBACK),
        ("localhost.example.com", None),
        ("example.com", None),
    ],
)
def test_names_that_say_where_they_are(host: str, reach: Reach | None) -> None:
    assert literal_reach(host) is reach


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/x/blobs/1", "https://registry.example/v2/x/blobs/1"),
        (
            "uploads/1?state=a%2Fb%3D%3D",
            "https://registry.example/v2/team/kit/blobs/uploads/1?state=a%2Fb%3D%3D",
        ),
        ("//cdn.example/x", "https://cdn.example/x"),
        (
            "https://s3.example/b?X-Amz-Signature=a%2Bb+c&k=%7e~",
            "https://s3.example/b?X-Amz-Signature=a%2Bb+c&k=%7e~",
        ),
        ("https://8.8.8.8/x", "https://8.8.8.8/x"),
    ],
)
def test_a_location_stays_as_it_was_signed(location: str, expected: str) -> None:
    assert str(resolve_location(_BASE, location, Reach.PUBLIC)) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://registry.example/x",
        "http://cdn.example/x",
        "file:///etc/passwd",
        "ftp://cdn.example/x",
        "gopher://cdn.example",
        "https:///x y",
        "https://user:secret@cdn.example/x",
        "https://user@cdn.example/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://localhost/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/x",
        "https://cdn.example:99999/x",
        "https://cdn.example:port/x",
        "https://[::1/x",
        "https://cdn.example/\r\nX: y",
        "https://cdn.exämple/x",
        "",
        "x" * 9000,
    ],
)
def test_a_public_registry_sends_nobody_into_the_house(location: str) -> None:
    with pytest.raises(RedirectBlocked) as caught:
        resolve_location(_BASE, location, Reach.PUBLIC)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("limit", "host", "allowed"),
    [
        (Reach.PRIVATE, "10.0.0.9", True),
        (Reach.PRIVATE, "127.0.0.1", False),
        (Reach.LOOPBACK, "127.0.0.1:9000", True),
        (Reach.LOOPBACK, "172.17.0.2:9000", True),
        (Reach.LOOPBACK, "169.254.169.254", False),
        (Reach.LINK_LOCAL, "169.254.169.254", True),
    ],
)
def test_a_registry_sends_as_near_as_it_is_itself(limit: Reach, host: str, *, allowed: bool) -> None:
    base = URL("http://registry.local:5000/v2/")
    if allowed:
        assert resolve_location(base, f"http://{host}/x", limit).host == URL(f"http://{host}").host
    else:
        with pytest.raises(RedirectBlocked):
            resolve_location(base, f"http://{host}/x", limit)


def test_a_registry_may_always_name_itself() -> None:
    base = URL("http://169.254.1.2:5000/v2/")
    assert resolve_location(base, "http://169.254.1.2:5000/x", Reach.PUBLIC).path == "/x"


def test_plain_http_may_go_to_tls() -> None:
    assert resolve_location(URL("http://r.example/"), "https://cdn.example/", Reach.PUBLIC).scheme == "https"


def test_urls_are_shown_without_their_secrets() -> None:
    assert shown(URL("https://u:p@cdn.example:8443/x?sig=secret#f")) == "https://cdn.example:8443/x"


@given(st.text(max_size=200))
def test_any_text_is_an_http_url_or_none(text: str) -> None:
    for base in (None, _BASE):
        found = http_url(text, base)
        assert found is None or (found.scheme in {"http", "https"} and found.raw_host)
