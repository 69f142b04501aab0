"""Programs of others: Debian's docker-registry (distribution 2.8) and skopeo."""

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from fakes.tools import free_port, need_tool, wait_listening

USER, PASSWORD = "kitd", "a secret"
# made once with `htpasswd -nbB`: bcrypt is the only hash that distribution takes
_HTPASSWD = "kitd:$2y$05$Kb5UukDc.EfKbFqNoMOhYuGr5s7ROTl6O8vIeHrjPM6hJc4mi3In.\n"


@dataclasses.dataclass(frozen=True)
class RealRegistry:
    host: str
    """`127.0.0.1:port`, as references name it."""
    scheme: str
    root: Path
    """Its storage, its configuration and its log."""
    ca_pem: str = ""
    user: str = ""
    password: str = ""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")


@contextmanager
def docker_registry(
    root: Path, *, htpasswd: bool = False, tls: bool = False, proxy: str = ""
) -> Iterator[RealRegistry]:
    """A docker-registry on loopback with deletion enabled, for as long as the context lasts.

    Args:
        root: an empty directory of its own.
        htpasswd: it asks for `USER` and `PASSWORD` (Basic).
        tls: https by a certificate authority of its own.
        proxy: URL of an upstream: a pull-through cache.
    """
    binary = need_tool("docker-registry")
    ca_pem = _write_certificates(root) if tls else ""
    if htpasswd:
        (root / "htpasswd").write_text(_HTPASSWD)
    for _ in range(5):
        port = free_port()
        config = _config(root, port, htpasswd=htpasswd, tls=tls, proxy=proxy)
        (root / "config.yml").write_text(json.dumps(config))
        with (root / "log").open("ab") as log:
            process = subprocess.Popen(
                [binary, "serve", str(root / "config.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            # it ends when somebody else took the port meanwhile
            if wait_listening(process, port):
                yield RealRegistry(
                    f"127.0.0.1:{port}",
                    "https" if tls else "http",
                    root,
                    ca_pem,
                    USER if htpasswd else "",
                    PASSWORD if htpasswd else "",
                )
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError((root / "log").read_text())


def _config(root: Path, port: int, *, htpasswd: bool, tls: bool, proxy: str) -> dict[str, object]:
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "the same for every start"}
    if tls:
        http["tls"] = {"certificate": str(root / "server.pem"), "key": str(root / "server.key")}
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(root / "storage")}, "delete": {"enabled": True}},
        "http": http,
    }
    if htpasswd:
        config["auth"] = {"htpasswd": {"realm": "docker-registry", "path": str(root / "htpasswd")}}
    if proxy:
        config["proxy"] = {"remoteurl": proxy}
    return config


def _write_certificates(root: Path) -> str:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    server.private_key_pem.write_to_path(str(root / "server.key"))
    for number, part in enumerate(server.cert_chain_pems):
        part.write_to_path(str(root / "server.pem"), append=number > 0)
    (root / "ca").mkdir()
    authority.cert_pem.write_to_path(str(root / "ca" / "ca.crt"))
    return authority.cert_pem.bytes().decode()


@dataclasses.dataclass(frozen=True)
class Skopeo:
    """skopeo in a directory of its own: no policy, no credentials and no registries of this machine."""

    binary: str
    root: Path

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        policy = self.root / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        command = [self.binary, "--policy", str(policy), "--tmpdir", str(self.root), *arguments]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
            env={"HOME": str(self.root), "XDG_RUNTIME_DIR": str(self.root), "PATH": "/usr/bin:/bin"},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def copy(self, source: str, destination: str, *, registry: RealRegistry | None = None) -> None:
        """`skopeo copy`; `registry`: the one that a `docker://` end is at (its CA and user are taken)."""
        self.run("copy", *self._options(registry, "src", "dest"), source, destination)

    def inspect_raw(self, source: str, *, registry: RealRegistry | None = None) -> bytes:
        """The bytes of a manifest."""
        return self.run("inspect", "--raw", *self._options(registry, ""), source).stdout.encode()

    def _options(self, registry: RealRegistry | None, *ends: str) -> list[str]:
        options = []
        for end in ends:
            prefix = f"--{end}-" if end else "--"
            if registry is None or not registry.ca_pem:
                options.append(f"{prefix}tls-verify=false")
            else:
                options.append(f"{prefix}cert-dir={registry.root / 'ca'}")
            if registry is not None and registry.user:
                options.append(f"{prefix}creds={registry.user}:{registry.password}")
        return options


# -- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def plain_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """docker-registry, plain http, no authentication. One a session: take repository names of your own."""
    with docker_registry(tmp_path_factory.mktemp("plain-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def password_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """docker-registry, plain http, htpasswd."""
    with docker_registry(tmp_path_factory.mktemp("password-registry"), htpasswd=True) as registry:
        yield registry


@pytest.fixture(scope="session")
def tls_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """docker-registry, https, no authentication."""
    with docker_registry(tmp_path_factory.mktemp("tls-registry"), tls=True) as registry:
        yield registry


@pytest.fixture
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Skopeo:
    return Skopeo(need_tool("skopeo"), tmp_path_factory.mktemp("skopeo"))
