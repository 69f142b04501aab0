import pytest

from kitd.spec.go_url import is_url_host, url_scheme_and_host


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/key?v=1#f", ("s3", "bucket")),
        ("HTTPS://Host:443/x", ("https", "Host:443")),
        ("mailto:someone", ("mailto", "")),
        ("dir/file", ("", "")),
        ("//host/x", ("", "host")),
        ("///x", ("", "")),
        ("file:///x", ("file", "")),
        ("http://u:p@h/x", ("http", "h")),
        ("http://[::1]:80/", ("http", "[::1]:80")),
        (":x", None),
        ("a:b/c\x01", None),
        ("1a:b", None),
        ("http://h:port/", None),
        ("http://a b/", None),
        ("http://[1.2.3.4]/", None),
        ("http://[::1/", None),
        ("http://u ser@h/", None),
        ("x%zz", None),
        ("s3://b/100%", None),
        ("s3://b/x#%zz", None),
    ],
)
def test_scheme_and_host_as_go_reads_them(text: str, expected: tuple[str, str] | None) -> None:
    assert url_scheme_and_host(text) == expected


@pytest.mark.parametrize("host", ["reg.io", "localhost:5000", "[::1]:5000", "1.2.3.4:", "münchen.de"])
def test_hosts_of_registries(host: str) -> None:
    assert is_url_host(host)


@pytest.mark.parametrize(
    "host", ["", "reg.io:x", "a b.c", "u@reg.io", "reg.io%41", "reg.io?", "r.io\n", "[::1"]
)
def test_no_hosts_of_registries(host: str) -> None:
    assert not is_url_host(host)
