import pytest
from yarl import URL

from kitd.registry.redirect import Reach
from kitd.registry.route import Route, Trust, api_host, credential_for, foreign_route, is_loopback, own_route
from kitd_client.api.errors import InvalidReference, InvalidRequest
from kitd_client.api.jobs import Context, Credential


@pytest.mark.parametrize(
    ("registry", "host"),
    [
        ("docker.io", "registry-1.docker.io"),
        ("index.docker.io", "registry-1.docker.io"),
        ("registry-1.docker.io", "registry-1.docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_docker_hub_answers_elsewhere(registry: str, host: str) -> None:
    assert api_host(registry) == host


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "https://index.docker.io/v1/"])
@pytest.mark.parametrize("registry", ["docker.io", "registry-1.docker.io"])
def test_docker_hub_s_credential_goes_by_any_of_its_names(name: str, registry: str) -> None:
    credential = Credential("user", "password")
    assert credential_for(registry, Context(credentials={name: credential})) is credential


def test_a_credential_is_for_its_registry_only() -> None:
    context = Context(credentials={"registry.example": Credential("user", "password")})
    assert credential_for("registry.example:5000", context) is None
    assert credential_for("evil-registry.example", context) is None
    assert credential_for("docker.io", context) is None


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.8.9.1:5000", True),
        ("[::1]:5000", True),
        ("10.0.0.1:5000", False),
        ("localhost.example.com", False),
        ("registry.example", False),
    ],
)
def test_this_machine_is_known_by_name_and_address(registry: str, *, loopback: bool) -> None:
    assert is_loopback(registry) is loopback


@pytest.mark.parametrize("registry", ["", "a b", "host:port", "host:99999", "user@host", "[::1", "a/b"])
def test_what_is_no_host_is_refused(registry: str) -> None:
    with pytest.raises(InvalidReference):
        own_route(registry, Context(), "https")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "proxy:3128", "http://", "://", "http://a:b:c"])
def test_a_proxy_that_cannot_be_used_is_refused_without_being_shown(proxy: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        own_route("registry.example", Context(proxy=proxy), "https")
    assert "1080" not in caught.value.message


def test_contexts_that_differ_share_no_route() -> None:
    contexts = [
        Context(),
        Context(proxy="http://proxy:3128"),
        Context(ca_pem="x"),
        Context(client_certificate_pem="x"),
        Context(tls_verify=False),
    ]
    routes = {own_route("registry.example", context, "https") for context in contexts}
    routes.add(own_route("registry.example", Context(), "http"))
    routes.add(own_route("registry.example:444", Context(), "https"))
    assert len(routes) == 7
    assert own_route("registry.example:443", Context(), "https") in routes


def test_another_host_gets_no_client_certificate_and_no_leave() -> None:
    context = Context(client_certificate_pem="key", ca_pem="ca", proxy="http://proxy:3128")
    own = own_route("registry.example", context, "https")
    foreign = foreign_route(own, URL("https://cdn.example/x"), Reach.PRIVATE)
    assert foreign == Route(
        "https", "cdn.example", 443, "http://proxy:3128", Trust("ca", "", verify=True), Reach.PRIVATE
    )
    same = foreign_route(own, URL("https://registry.example:8443/token"), Reach.PUBLIC)
    assert same.trust.client_certificate_pem == "key"
    assert same.limit is Reach.ANYWHERE


def test_routes_show_no_secrets() -> None:
    context = Context(client_certificate_pem="hush", proxy="http://user:hush@proxy:3128")
    route = own_route("registry.example:8443", context, "https")
    assert "hush" not in repr(route) + repr(route.trust) + route.name
    assert route.name == "registry.example:8443"
    assert own_route("registry.example", Context(), "https").name == "registry.example"


@pytest.mark.parametrize(
    ("scheme", "proxy", "needs"),
    [
        ("http", "", False),
        ("http", "http://proxy.example:3128", False),
        ("http", "HTTPS://proxy.example:3128", True),
        ("https", "", True),
        ("https", "http://proxy.example:3128", True),
    ],
)
def test_authorities_are_needed_where_tls_is_spoken(scheme: str, proxy: str, needs: bool) -> None:  # noqa: FBT001 - a parameter of the table
    route = own_route("registry.example", Context(proxy=proxy), scheme)
    assert route.needs_tls is needs
