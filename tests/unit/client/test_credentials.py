import os
import stat
from base64 import b64encode
from pathlib import Path

import msgspec
import pytest

from kitd_client.api.errors import ConfigurationInvalid
from kitd_client.api.jobs import Credential
from kitd_client.credentials import CredentialFiles
from kitd_client.logins import forget_login, login_file, store_login

HOST = "registry.example.com"
HUB = "https://index.docker.io/v1/"


def entry(user: str, password: str = "p") -> dict[str, str]:
    return {"auth": b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(content))
    return path


def find(registry: str = HOST, repository: str = "", authfile: str = "") -> Credential | None:
    return CredentialFiles(os.environ, authfile=authfile).find(registry, repository)


def user_of(credential: Credential | None) -> str | None:
    return credential.username if credential else None


def helper(home: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper that notes its verb and its input."""
    program = home / "bin" / f"docker-credential-{name}"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\necho "$1" >> {home}/verbs\ncat > {home}/input\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return home / "input"


def test_files_are_read_in_the_documented_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "dockercfg": home / ".dockercfg",
        "docker": home / ".docker" / "config.json",
        "config": home / ".config" / "containers" / "auth.json",
        "runtime": home / "run" / "containers" / "auth.json",
        "kit": home / ".local" / "share" / "kitops" / "credentials.json",
        "systemd": home / "creds" / "registry-auth.json",
    }
    found = [user_of(find())]
    for user, path in files.items():
        write(path, {HOST: entry(user)} if user == "dockercfg" else {"auths": {HOST: entry(user)}})
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(home / "creds"))
        found.append(user_of(find()))
    assert found == [None, *files]


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        ("KITOPS_HOME", "credentials.json"),
        ("DOCKER_CONFIG", "config.json"),
        ("XDG_CONFIG_HOME", "containers/auth.json"),
        ("XDG_DATA_HOME", "kitops/credentials.json"),
    ],
)
def test_variables_move_the_files(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    write(home / "moved" / path, {"auths": {HOST: entry("u")}})
    monkeypatch.setenv(variable, str(home / "moved"))
    assert user_of(find()) == "u"


def test_a_file_that_was_named_is_the_only_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".docker" / "config.json", {"auths": {HOST: entry("docker")}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(write(home / "a", {"auths": {HOST: entry("a")}})))
    assert user_of(find()) == "a"
    monkeypatch.setenv("KITD_AUTH_FILE", str(write(home / "b", {"auths": {HOST: entry("b")}})))
    assert user_of(find()) == "b"
    assert find(authfile=str(write(home / "c", {}))) is None


@pytest.mark.parametrize("content", [None, b"{not json", b'{"auths": []}'])
def test_a_file_that_was_named_must_be_good(home: Path, content: bytes | None) -> None:
    if content is not None:
        (home / "a").write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match=str(home / "a")):
        find(authfile=str(home / "a"))


def test_a_usual_file_that_is_damaged_is_a_warning(home: Path) -> None:
    (home / ".dockercfg").write_text("{not json")
    write(home / ".docker" / "config.json", {"auths": {HOST: {"auth": "%%%"}}})
    warnings: list[str] = []
    assert CredentialFiles(os.environ, notice=warnings.append).find(HOST) is None
    assert [warning.partition(":")[0] for warning in warnings] == ["warning", "warning"]


def test_a_runtime_directory_that_is_gone_is_a_warning(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "gone"))
    write(home / ".docker" / "config.json", {"auths": {HOST: entry("u")}})
    warnings: list[str] = []
    assert user_of(CredentialFiles(os.environ, notice=warnings.append).find(HOST)) == "u"
    assert "XDG_RUNTIME_DIR" in warnings[0]


def test_the_longest_prefix_wins(home: Path) -> None:
    keys = {HOST: "host", f"{HOST}/team": "team", f"{HOST}/team/kit": "kit", f"{HOST}/te": "wrong"}
    write(home / ".docker" / "config.json", {"auths": {key: entry(user) for key, user in keys.items()}})
    repositories = ["team/kit", "team/other", "team/kit/deep", "team2/kit", ""]
    assert [user_of(find(repository=name)) for name in repositories] == ["kit", "team", "kit", "host", "host"]


@pytest.mark.parametrize(
    "key", [f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2/", f"{HOST}/v1/"]
)
def test_keys_of_old_clients_are_understood(home: Path, key: str) -> None:
    write(home / ".docker" / "config.json", {"auths": {key: entry("u")}})
    assert user_of(find()) == "u"


@pytest.mark.parametrize("registry", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_a_name_of_its_own(home: Path, registry: str) -> None:
    write(home / ".docker" / "config.json", {"auths": {HUB: entry("u")}})
    assert user_of(find(registry)) == "u"


@pytest.mark.parametrize(
    ("stored", "credential"),
    [
        (entry("u", "p:with:colons"), Credential("u", "p:with:colons")),
        (entry("u", "p\0\0"), Credential("u", "p")),
        ({"username": "u", "password": "p"}, Credential("u", "p")),
        ({"identitytoken": "t"}, Credential(identity_token="t")),
        ({"registrytoken": "t"}, Credential(registry_token="t")),
        ({}, None),
    ],
)
def test_every_form_of_an_entry(home: Path, stored: dict[str, str], credential: Credential | None) -> None:
    write(home / ".docker" / "config.json", {"auths": {HOST: stored}})
    assert find() == credential


# -- helpers ---------------------------------------------------------------------------------------


def test_a_helper_for_the_host_goes_before_entries_and_the_store_after(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = helper(home, "x", """echo '{"ServerURL":"","Username":"helped","Secret":"s"}'""", monkeypatch)
    content = {"auths": {HOST: entry("entry")}, "credHelpers": {HOST: "x"}, "credsStore": "x"}
    write(home / ".docker" / "config.json", content)
    assert find() == Credential("helped", "s")
    assert given.read_text() == HOST
    write(home / ".docker" / "config.json", content | {"credHelpers": {}})
    assert user_of(find()) == "entry"
    write(home / ".docker" / "config.json", content | {"credHelpers": {}, "auths": {HOST: {}}})
    assert user_of(find()) == "helped"


def test_a_helper_is_asked_for_docker_hub_by_its_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = helper(home, "x", """echo '{"ServerURL":"","Username":"u","Secret":"s"}'""", monkeypatch)
    write(home / ".docker" / "config.json", {"credsStore": "x"})
    assert user_of(find("docker.io")) == "u"
    assert given.read_text() == HUB


def test_a_helper_may_give_an_identity_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, "x", """echo '{"ServerURL":"","Username":"<token>","Secret":"t"}'""", monkeypatch)
    write(home / ".docker" / "config.json", {"credsStore": "x"})
    assert find() == Credential(identity_token="t")


def test_a_helper_that_knows_nothing_is_no_news(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, "x", "echo credentials not found in native keychain; exit 1", monkeypatch)
    write(home / ".docker" / "config.json", {"credsStore": "x"})
    warnings: list[str] = []
    assert CredentialFiles(os.environ, notice=warnings.append).find(HOST) is None
    assert not warnings


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo no session >&2; exit 1", "no session", id="fails"),
        pytest.param("echo ok", "no credential", id="answers nonsense"),
        pytest.param(None, "is not on PATH", id="is not there"),
    ],
)
def test_a_helper_that_does_not_work_is_a_warning_and_the_next_file_is_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    if script is not None:
        helper(home, "x", script, monkeypatch)
    write(home / ".local/share/kitops/credentials.json", {"credsStore": "x"})
    write(home / ".docker" / "config.json", {"auths": {HOST: entry("u")}})
    warnings: list[str] = []
    assert user_of(CredentialFiles(os.environ, notice=warnings.append).find(HOST)) == "u"
    assert said in warnings[0]


def test_a_helper_s_name_is_no_path(home: Path) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "../evil"})
    warnings: list[str] = []
    assert CredentialFiles(os.environ, notice=warnings.append).find(HOST) is None
    assert "no name of a credential helper" in warnings[0]


# -- login and logout ------------------------------------------------------------------------------


def test_a_login_is_found_again_and_kit_can_read_it(home: Path) -> None:
    path = login_file(os.environ)
    assert path == home / ".local" / "share" / "kitops" / "credentials.json"
    assert store_login(path, HOST, Credential("u", "p"), os.environ) == str(path)
    assert msgspec.json.decode(path.read_bytes()) == {"auths": {HOST: entry("u")}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find() == Credential("u", "p")


def test_a_login_leaves_everything_else_as_it_is(home: Path) -> None:
    other = {
        "auths": {"other": {"auth": "eA==", "email": "e"}, HOST: entry("old")},
        "HttpHeaders": {"a": "b"},
    }
    path = write(login_file(os.environ), other)
    path.chmod(0o644)
    store_login(path, HOST, Credential(identity_token="t"), os.environ)
    assert msgspec.json.decode(path.read_bytes()) == {
        "auths": {"other": {"auth": "eA==", "email": "e"}, HOST: {"identitytoken": "t"}},
        "HttpHeaders": {"a": "b"},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["credentials.json"]


def test_a_login_goes_where_credentials_are_read_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "a.json"))
    store_login(login_file(os.environ), "docker.io", Credential("u", "p"), os.environ)
    assert list(msgspec.json.decode((home / "a.json").read_bytes())["auths"]) == [HUB]
    assert user_of(find("docker.io")) == "u"


def test_a_link_to_the_file_stays_a_link(home: Path) -> None:
    real = write(home / "dotfiles" / "credentials.json", {})
    path = login_file(os.environ)
    path.parent.mkdir(parents=True)
    path.symlink_to(real)
    store_login(path, HOST, Credential("u", "p"), os.environ)
    assert path.is_symlink()
    assert user_of(find()) == "u"


def test_a_damaged_file_is_not_overwritten(home: Path) -> None:
    path = login_file(os.environ)
    path.parent.mkdir(parents=True)
    path.write_text("{not json")
    with pytest.raises(ConfigurationInvalid):
        store_login(path, HOST, Credential("u", "p"), os.environ)
    assert path.read_text() == "{not json"


@pytest.mark.parametrize(
    ("place", "said"), [("file", "cannot be read"), ("/proc/absent", "cannot be written")]
)
def test_where_nothing_can_be_written_the_error_says_so(home: Path, place: str, said: str) -> None:
    (home / "file").write_text("")
    with pytest.raises(ConfigurationInvalid, match=said):
        store_login(home / place / "a.json", HOST, Credential("u", "p"), os.environ)


def test_a_login_goes_to_the_helper_that_the_file_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = helper(home, "x", "exit 0", monkeypatch)
    path = write(login_file(os.environ), {"credsStore": "x"})
    assert store_login(path, HOST, Credential("u", "p"), os.environ) == "docker-credential-x"
    assert msgspec.json.decode(given.read_bytes()) == {"ServerURL": HOST, "Username": "u", "Secret": "p"}
    assert msgspec.json.decode(path.read_bytes()) == {"credsStore": "x"}
    store_login(path, HOST, Credential(identity_token="t"), os.environ)
    assert msgspec.json.decode(given.read_bytes())["Username"] == "<token>"
    assert forget_login(path, HOST, os.environ)
    assert (home / "verbs").read_text().split() == ["store", "store", "erase"]


def test_a_helper_that_cannot_store_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, "x", "echo not implemented; exit 1", monkeypatch)
    path = write(login_file(os.environ), {"credsStore": "x"})
    with pytest.raises(ConfigurationInvalid, match="not implemented"):
        store_login(path, HOST, Credential("u", "p"), os.environ)
    with pytest.raises(ConfigurationInvalid, match="not implemented"):
        forget_login(path, HOST, os.environ)


def test_a_logout_forgets_one_registry(home: Path) -> None:
    path = write(login_file(os.environ), {"auths": {HOST: entry("u"), "other": entry("o")}})
    assert forget_login(path, HOST, os.environ)
    assert msgspec.json.decode(path.read_bytes()) == {"auths": {"other": entry("o")}}
    assert not forget_login(path, HOST, os.environ)
