"""Every command of kitctl at a real daemon: what goes to which stream, what programs can read, how it ends."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import yaml
from fakes import faults
from fakes.daemon import Daemon
from fakes.exchange import Gate
from fakes.kits import FakeKit, FakeLayer, make_kit, put_kit, small_kit, some_bytes
from fakes.registry import ScriptedRegistry
from fakes.tokens import Basic

from kitd_client import Client
from kitd_client.api.jobs import Began, Event, JobInfo, JobStarted, Moved, Packed, Pulled, Pushed, Unpacked
from kitd_client.api.kits import Inspection, PathAnswer, Removed, RemovedAll, Status, Tagged, Version
from kitd_client.api.problem import Problem
from kitd_client.cli import COMMANDS

T = TypeVar("T")
USER, PASSWORD = "ann", "correct horse"
KITFILE = (
    "manifestVersion: 1.0.0\npackage: {name: letters, authors: [Ann]}\nmodel: {name: letters, path: model}\n"
)
ALL_KINDS = [
    FakeLayer("model", "weights", {"weights/a.bin": some_bytes(3000, 1), "weights/sub/b": b""}, name="m"),
    FakeLayer("modelpart", "lora", {"lora/l.bin": some_bytes(2000, 2)}, compression="gzip", name="p"),
    FakeLayer("code", "src", {"src/main.py": b"print()\n"}, compression="zstd"),
    FakeLayer("dataset", "rows.jsonl", {"rows.jsonl": b"{}\n" * 50}, format="raw", name="d"),
    FakeLayer("docs", "README.md", {"README.md": b"# kinds\n"}),
    FakeLayer("prompt", "ask.txt", {"ask.txt": b"why?\n"}),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for the module: tests take repositories of their own."""
    with Daemon(tmp_path_factory.mktemp("daemon")) as started:
        yield started


@pytest.fixture(scope="module")
def shelf() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry().in_thread() as registry:
        yield registry


@pytest.fixture(scope="module")
def locked() -> Iterator[ScriptedRegistry]:
    """A registry that asks for a password."""
    with ScriptedRegistry(access=Basic({USER: PASSWORD})).in_thread() as registry:
        yield registry


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to pack."""
    path = tmp_path / "tree"
    (path / "model").mkdir(parents=True)
    (path / "model" / "a.bin").write_bytes(some_bytes(4000))
    (path / "Kitfile").write_text(KITFILE)
    return path


@pytest.fixture
def kitops(tmp_path: Path) -> dict[str, str]:
    """Where this test's logins go."""
    return {"KITOPS_HOME": str(tmp_path / "kitops")}


def json_of(daemon: Daemon, kind: type[T], *words: str | Path) -> T:
    """What a command prints with `--format json`: one document that is of its kind, and nothing else."""
    done = daemon.kitctl(*words, "--format", "json")
    return msgspec.json.decode(done.stdout, type=kind)


def problem_of(daemon: Daemon, *words: str | Path) -> tuple[int, Problem]:
    """How a command fails: its exit status and the last line of standard error; standard output is empty."""
    done = daemon.kitctl(*words, "--format", "json", check=False)
    assert done.stdout == ""
    return done.returncode, msgspec.json.decode(done.stderr.splitlines()[-1], type=Problem)


def published(registry: ScriptedRegistry, name: str, kit: FakeKit | None = None) -> str:
    put_kit(registry, kit or small_kit(), name)
    return f"{registry.host}/{name}:v1"


# -- kits come into the store --------------------------------------------------------------------


def test_pack_prints_names_with_digests(daemon: Daemon, tree: Path) -> None:
    done = daemon.kitctl("pack", tree, "-t", "cli/pack:v1,v2")
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"cli/pack:v1@sha256:[0-9a-f]{64}", first)
    assert second == first.replace(":v1@", ":v2@")
    assert done.stderr.splitlines()[-1].startswith("kitctl: packed 1 layer, ")
    packed = json_of(daemon, Packed, "pack", tree, "-t", "cli/pack:v3")
    assert (packed.references, packed.layers[0].path) == (["cli/pack:v3"], "model")
    assert packed.layers[0].already_present


def test_pack_tells_the_sizes_of_all_layers_before_it_reads_one(daemon: Daemon, tmp_path: Path) -> None:
    sizes = {"a": 3_000_000, "b": 2_000_000, "c": 0}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(some_bytes(size, 7))
    (tmp_path / "Kitfile").write_text("manifestVersion: 1.0.0\ncode: [{path: a}, {path: b}, {path: c}]\n")
    events: list[Event] = []
    with Client(str(daemon.socket), autostart=False) as client:
        client.pack(tmp_path, on_event=events.append)
    told = [event for event in events if isinstance(event, Began | Moved)]
    assert [(event.item, event.total) for event in told[:3] if isinstance(event, Began)] == [
        (f"code {name}", size) for name, size in sizes.items()
    ]
    last = {event.item: event.done for event in told[3:] if isinstance(event, Moved)}
    assert last == {"code a": sizes["a"], "code b": sizes["b"]}


def test_pack_takes_a_kitfile_from_standard_input(daemon: Daemon, tree: Path) -> None:
    (tree / "Kitfile").unlink()
    assert problem_of(daemon, "pack", tree)[1].code == "kitfile_not_found"
    done = daemon.kitctl("pack", tree, "-f", "-", "-t", "cli/stdin:v1", stdin=KITFILE)
    assert done.stdout.startswith("cli/stdin:v1@sha256:")
    assert daemon.kitctl("info", "cli/stdin:v1").stdout.startswith("manifestVersion: 1.0.0\n")


def test_pack_without_a_tag_prints_a_digest_that_can_be_used(daemon: Daemon, tree: Path) -> None:
    kitfile = KITFILE.replace("letters", "untagged")
    done = daemon.kitctl("pack", tree, "-q", "-f", "-", stdin=kitfile)
    digest = done.stdout.removesuffix("\n")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert done.stderr == ""
    [row] = [line for line in daemon.kitctl("list").stdout.splitlines() if digest in line]
    assert row.split()[1] == "<none>"
    assert "untagged" in daemon.kitctl("info", digest).stdout


def test_pull_prints_the_name_with_its_digest(daemon: Daemon, shelf: ScriptedRegistry) -> None:
    kit = small_kit(1)
    reference = published(shelf, "cli/pull", kit)
    done = daemon.kitctl("pull", reference)
    assert done.stdout == f"{reference}@{kit.digest}\n"
    assert done.stderr.splitlines()[-1].startswith("kitctl: pulled ")
    pulled = json_of(daemon, Pulled, "pull", f"{shelf.host}/cli/pull@{kit.digest}")
    assert (pulled.digest, pulled.size, pulled.present, pulled.complete) == (
        kit.digest,
        kit.size,
        kit.size,
        True,
    )
    assert daemon.kitctl("pull", "-q", reference).stderr == ""


def test_pull_of_a_part_says_so_and_unpack_fetches_the_rest(
    daemon: Daemon, shelf: ScriptedRegistry, tmp_path: Path
) -> None:
    kit = make_kit(ALL_KINDS, name="part")
    reference = published(shelf, "cli/part", kit)
    pulled = json_of(daemon, Pulled, "pull", reference, "-f", "docs", "--filter", "datasets:d")
    assert not pulled.complete
    assert pulled.size == len(kit.layers[3]) + len(kit.layers[4])
    done = daemon.kitctl("pull", reference, "-f", "docs")
    assert "(only a part of the kit was asked for)" in done.stderr
    [row] = json.loads(daemon.kitctl("list", f"{shelf.host}/cli/part", "--format", "json").stdout)
    assert row["complete"] is False
    done = daemon.kitctl("unpack", reference, "-d", tmp_path / "out")
    assert f"kitctl: {reference} is not wholly here: pulling it first\n" in done.stderr
    assert (tmp_path / "out" / "lora" / "l.bin").read_bytes() == kit.files["lora/l.bin"]


def test_unpack_of_every_kind(daemon: Daemon, shelf: ScriptedRegistry, tmp_path: Path) -> None:
    kit = make_kit(ALL_KINDS)
    reference = published(shelf, "cli/kinds", kit)
    unpacked = json_of(daemon, Unpacked, "unpack", reference, "-d", tmp_path / "out")
    assert (unpacked.digest, unpacked.files) == (kit.digest, len(kit.files) + 1)
    found = {path: (tmp_path / "out" / path).read_bytes() for path in kit.files}
    assert found == kit.files
    done = daemon.kitctl("unpack", reference, "-d", tmp_path / "other", "--filter", "model")
    assert done.stdout == ""
    assert re.search(r"kitctl: unpacked 3 files, .*, into ", done.stderr)
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["lora", "weights"]


def test_path_prints_a_directory_and_nothing_else(daemon: Daemon, shelf: ScriptedRegistry) -> None:
    kit = small_kit(2)
    reference = published(shelf, "cli/path", kit)
    line = daemon.kitctl("path", reference).stdout
    directory = Path(line.removesuffix("\n"))
    assert {path: (directory / path).read_bytes() for path in kit.files} == kit.files
    assert json_of(daemon, PathAnswer, "path", reference).path == str(directory)


# -- what there is -------------------------------------------------------------------------------


def test_list_has_kits_columns_and_its_json_fields(daemon: Daemon, tree: Path) -> None:
    daemon.kitctl("pack", tree, "-t", "cli/list:b,a")
    table = daemon.kitctl("list", "cli/list")
    head, *rows = [re.split(r" {3,}", line) for line in table.stdout.splitlines()]
    assert head == ["REPOSITORY", "TAG", "MAINTAINER", "NAME", "SIZE", "DIGEST"]
    [row] = json.loads(daemon.kitctl("list", "cli/list", "--format", "json").stdout)
    assert rows == [["cli/list", tag, "Ann", "letters", row["size"], row["digest"]] for tag in ("a", "b")]
    assert (row["repo"], row["tags"], row["modelName"], row["author"]) == (
        "cli/list",
        ["a", "b"],
        "letters",
        "Ann",
    )
    assert (row["bytes"], row["complete"]) == (4000 + 512 - 4000 % 512 + 2 * 512 + 1024, True)
    assert json.loads(daemon.kitctl("list", "cli/nothing", "--format", "json").stdout) == []


def test_names_out_of_a_kit_cannot_command_a_terminal(daemon: Daemon, tree: Path) -> None:
    name = '"\\e]0;owned\\a\\nmodel"'
    (tree / "Kitfile").write_text(KITFILE.replace("letters", name))
    daemon.kitctl("pack", tree, "-t", "cli/escape:v1")
    table = daemon.kitctl("list", "cli/escape").stdout
    assert len(table.splitlines()) == 2
    assert r"\x1b]0;owned\x07\nmodel" in table
    [row] = json.loads(daemon.kitctl("list", "cli/escape", "--format", "json").stdout)
    assert row["modelName"] == "\x1b]0;owned\a\nmodel"
    failed = daemon.kitctl("cancel", "\x1b[2J", check=False)
    assert "\x1b" not in failed.stderr


def test_inspect_prints_the_kit_as_kit_does(daemon: Daemon, shelf: ScriptedRegistry) -> None:
    kit = make_kit(ALL_KINDS, name="inspected")
    reference = published(shelf, "cli/inspect", kit)
    daemon.kitctl("pull", reference)
    text = daemon.kitctl("inspect", reference).stdout
    assert daemon.kitctl("inspect", reference, "--format", "json").stdout == text
    assert text.startswith('{\n  "digest": ')
    assert list(json.loads(text)) == ["digest", "cliVersion", "kitfile", "manifest"]
    found = msgspec.json.decode(text, type=Inspection)
    assert (found.digest, found.cli_version) == (kit.digest, "1.17.0")
    # Formatted only: without the blanks they are the very bytes of the blobs.
    manifest, config = (
        msgspec.json.format(found.manifest, indent=-1),
        msgspec.json.format(found.kitfile, indent=-1),
    )
    assert (manifest, config) == (kit.manifest, kit.config)
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == kit.digest


def test_info_prints_the_kitfile(daemon: Daemon, tree: Path) -> None:
    daemon.kitctl("pack", tree, "-t", "cli/info:v1")
    text = daemon.kitctl("info", "cli/info:v1").stdout
    assert yaml.safe_load(text)["model"] == {"name": "letters", "path": "model"}
    assert json.loads(daemon.kitctl("info", "cli/info:v1", "--format", "json").stdout) == {"kitfile": text}


def test_tag_and_remove(daemon: Daemon, tree: Path) -> None:
    (tree / "model" / "a.bin").write_bytes(some_bytes(5000, 77))
    packed = json_of(daemon, Packed, "pack", tree, "-t", "cli/tag:v1")
    done = daemon.kitctl("tag", "cli/tag:v1", "other.example/team/tag:prod")
    assert (done.stdout, done.stderr) == ("", f"kitctl: other.example/team/tag:prod is {packed.digest}\n")
    tagged = json_of(daemon, Tagged, "tag", "cli/tag:v1", "cli/tag:v2")
    assert tagged == Tagged("cli/tag:v2", packed.digest)
    removed = json_of(daemon, Removed, "remove", "cli/tag:v1,v2")
    assert (len(removed.untagged), removed.digest, removed.freed) == (2, packed.digest, 0)
    done = daemon.kitctl("remove", "other.example/team/tag:prod")
    assert done.stdout == ""
    assert re.fullmatch(
        r"kitctl: removed other.example/team/tag:prod\nkitctl: \d\S* \w+ freed\n", done.stderr
    )
    assert "0 B" not in done.stderr
    for reference in ("cli/tag:v1", "other.example/team/tag:prod"):
        assert problem_of(daemon, "remove", reference)[0] == 66
    assert problem_of(daemon, "tag", "cli/tag:v1", "cli/tag:v3")[1].code == "not_found"


def test_remove_force_takes_all_names_and_the_directory_that_was_given_out(
    daemon: Daemon, tree: Path
) -> None:
    (tree / "model" / "a.bin").write_bytes(some_bytes(5000, 78))
    digest = daemon.kitctl("pack", tree, "-t", "cli/force:v1,v2").stdout.split("@")[-1].strip()
    directory = Path(daemon.kitctl("path", "cli/force:v1").stdout.strip())
    daemon.kitctl("remove", "cli/force:v1")
    status, problem = problem_of(daemon, "remove", "cli/force:v2")
    assert (status, problem.code) == (1, "in_use")
    assert directory.exists()
    removed = json_of(daemon, Removed, "remove", "--force", "cli/force:v2")
    assert (removed.digest, removed.freed > 0) == (digest, True)
    assert not directory.exists()


def test_remove_all_takes_what_has_no_tag_and_by_force_everything(tmp_path: Path, tree: Path) -> None:
    with Daemon(tmp_path) as daemon:
        digests = []
        for number in range(3):
            (tree / "model" / "a.bin").write_bytes(some_bytes(5000, number))
            digests.append(daemon.kitctl("pack", "-q", tree, "-t", "cli/all:v1").stdout.strip()[-71:])
        directory = Path(daemon.kitctl("path", f"cli/all@{digests[0]}").stdout.strip())

        removed = json_of(daemon, RemovedAll, "remove", "--all")
        assert (removed.removed, removed.in_use) == ([f"cli/all@{digests[1]}"], [f"cli/all@{digests[0]}"])
        assert removed.freed > 5000
        assert json_of(daemon, RemovedAll, "remove", "--all").removed == []
        assert directory.is_dir()

        done = daemon.kitctl("remove", "--all", "--force")
        assert done.stdout == ""
        for digest in (digests[0], digests[2]):
            assert f"kitctl: removed cli/all@{digest}\n" in done.stderr
        assert not directory.exists()
        assert json.loads(daemon.kitctl("list", "--format", "json").stdout) == []
        assert daemon.kitctl("remove", "-af").stderr == "kitctl: there is nothing to remove\n"


def test_a_job_that_failed_is_listed_with_its_reason(daemon: Daemon, shelf: ScriptedRegistry) -> None:
    job_id = daemon.kitctl("pull", "-dq", f"{shelf.host}/cli/nowhere:v1").stdout.strip()
    failed = daemon.kitctl("attach", job_id, check=False)
    assert failed.returncode == 66
    [row] = [line for line in daemon.kitctl("jobs").stdout.splitlines() if line.startswith(job_id)]
    assert f"not_found: {shelf.host}/cli/nowhere:v1: " in row
    [job] = [job for job in json_of(daemon, list[JobInfo], "jobs") if job.id == job_id]
    assert job.problem is not None
    assert job.problem.title in failed.stderr


def test_a_pull_of_what_is_not_there_says_what_to_look_at(daemon: Daemon, shelf: ScriptedRegistry) -> None:
    failed = daemon.kitctl("pull", f"{shelf.host}/cli/nowhere:v1", check=False)
    assert failed.stderr.splitlines()[-1] == (
        f"hint: check repository and tag; if the repository is private, 'kitctl login {shelf.host}' first"
    )


def test_plain_http_at_a_registry_that_speaks_tls_says_so(daemon: Daemon) -> None:
    with ScriptedRegistry(tls=True).in_thread() as registry:
        failed = daemon.kitctl("pull", "--plain-http", f"{registry.host}/x/y:v1", check=False)
    assert failed.returncode != 0
    assert f"if {registry.host} speaks TLS, leave --plain-http out" in failed.stderr


def test_status_and_version(daemon: Daemon) -> None:
    status = json_of(daemon, Status, "status")
    assert (status.pid, status.socket, status.store) == (daemon.pid, str(daemon.socket), str(daemon.store))
    lines = dict(line.split(None, 1) for line in daemon.kitctl("status").stdout.splitlines())
    assert lines["socket"] == status.socket
    assert lines["process"].startswith(f"pid {status.pid}, uid {status.uid}, up ")
    both = json.loads(daemon.kitctl("version", "--format", "json").stdout)
    version = msgspec.convert(both["daemon"], Version)
    assert (version.pid, version.version, both["client"]) == (
        daemon.pid,
        status.version,
        {"version": status.version},
    )
    assert daemon.kitctl("version").stdout == (
        f"kitctl {status.version}\nkitd {status.version} (API 1, pid {daemon.pid})\n"
    )


# -- jobs ----------------------------------------------------------------------------------------


def test_a_detached_pull_is_listed_attached_to_and_done(daemon: Daemon, shelf: ScriptedRegistry) -> None:
    kit = small_kit(3)
    reference = published(shelf, "cli/detach", kit)
    gate = Gate()
    shelf.script(faults.stall(gate), path=kit.layer_digests[0])
    done = daemon.kitctl("pull", "--detach", reference)
    job_id = done.stdout.removesuffix("\n")
    assert f"'kitctl attach {job_id}' follows it" in done.stderr
    gate.wait_held(1)
    [job] = [job for job in json_of(daemon, list[JobInfo], "jobs") if job.id == job_id]
    assert (job.verb, job.reference, job.state) == ("pull", reference, "running")
    [row] = [line for line in daemon.kitctl("jobs").stdout.splitlines() if line.startswith(job_id)]
    assert re.split(r" {3,}", row)[:4] == [job_id, "pull", reference, "running"]
    attached = subprocess.Popen(
        daemon.kitctl_command("attach", job_id),
        env=daemon.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        gate.open()
        output, story = attached.communicate(timeout=40)
    finally:
        attached.kill()
        attached.wait()
    assert (attached.returncode, output) == (0, f"{reference}@{kit.digest}\n"), story
    # Once more after its end: the same last word.
    assert json_of(daemon, Pulled, "attach", job_id).digest == kit.digest


def test_a_job_is_cancelled_and_says_what_is_kept(daemon: Daemon, shelf: ScriptedRegistry) -> None:
    kit = small_kit(4)
    reference = published(shelf, "cli/cancel", kit)
    gate = Gate()
    shelf.script(faults.stall(gate), path=kit.layer_digests[0])
    job_id = json_of(daemon, JobStarted, "pull", "-d", reference).id
    gate.wait_held(1)
    done = daemon.kitctl("cancel", job_id)
    assert (done.stdout, done.stderr) == (
        "",
        f"kitctl: job {job_id} is being cancelled; what it fetched is kept\n",
    )
    failed = daemon.kitctl("attach", job_id, check=False)
    assert (failed.returncode, failed.stdout) == (130, "")
    assert re.search(r"^kept: ", failed.stderr, re.MULTILINE)
    [job] = [job for job in json_of(daemon, list[JobInfo], "jobs") if job.id == job_id]
    assert job.state == "cancelled"
    gate.open()
    assert daemon.kitctl("pull", reference).stdout == f"{reference}@{kit.digest}\n"


# -- registries ----------------------------------------------------------------------------------


def test_push_to_another_name(daemon: Daemon, shelf: ScriptedRegistry, tree: Path) -> None:
    packed = json_of(daemon, Packed, "pack", tree, "-t", "cli/push:v1")
    first, second = f"{shelf.host}/pushed/kit:v1", f"{shelf.host}/pushed/kit:v2"
    done = daemon.kitctl("push", "cli/push:v1", first)
    assert done.stdout == f"{first}@{packed.digest}\n"
    assert re.search(r"^kitctl: pushed .* sent$", done.stderr, re.MULTILINE)
    pushed = json_of(daemon, Pushed, "push", "cli/push:v1", second)
    assert (pushed.reference, pushed.digest) == (second, packed.digest)
    assert shelf.repository("pushed/kit").tags == {"v1": packed.digest, "v2": packed.digest}
    status, problem = problem_of(daemon, "push", "cli/push:v1")
    assert (status, problem.code) == (2, "invalid_reference")


def test_login_lets_in_and_logout_out(
    daemon: Daemon, locked: ScriptedRegistry, kitops: dict[str, str]
) -> None:
    reference = published(locked, "cli/login")
    stored = Path(kitops["KITOPS_HOME"], "credentials.json")
    words = ("login", locked.host, "-u", USER, "--password-stdin")

    failed = daemon.kitctl(*words, environment=kitops, stdin="wrong horse\n", check=False)
    assert (failed.returncode, failed.stdout) == (77, "")
    assert locked.host in failed.stderr
    assert "hint: check the user name and the password" in failed.stderr
    assert not stored.exists()
    assert daemon.kitctl("pull", reference, environment=kitops, check=False).returncode == 77

    done = daemon.kitctl(*words, environment=kitops, stdin=f"{PASSWORD}\n")
    assert (done.stdout, done.stderr) == (
        "",
        f"kitctl: logged in to {locked.host}; the credential is in {stored}\n",
    )
    daemon.kitctl("pull", reference, environment=kitops)

    done = daemon.kitctl("logout", locked.host, environment=kitops)
    assert done.stderr == f"kitctl: logged out of {locked.host}\n"
    assert daemon.kitctl("pull", reference, environment=kitops, check=False).returncode == 77
    done = daemon.kitctl("logout", locked.host, environment=kitops)
    assert done.stderr == f"kitctl: {stored} has no credential for {locked.host}\n"
    assert "horse" not in daemon.log


def test_a_password_on_the_command_line_is_warned_of_and_nobody_is_asked_without_a_terminal(
    daemon: Daemon, locked: ScriptedRegistry, kitops: dict[str, str]
) -> None:
    done = daemon.kitctl("login", locked.host, "-u", USER, "-p", PASSWORD, environment=kitops)
    assert "warning: a password on the command line is seen by others" in done.stderr
    failed = daemon.kitctl("login", locked.host, "-u", USER, environment=kitops, check=False)
    assert failed.returncode == 2
    assert "use --password-stdin" in failed.stderr


def _child_of(parent: str) -> FakeKit:
    return make_kit([FakeLayer("code", "src", {"src/main.py": b"child\n"})], parent=parent, name="child")


def test_a_parent_at_another_registry_is_fetched_with_the_credentials_for_that_one(
    daemon: Daemon, shelf: ScriptedRegistry, locked: ScriptedRegistry, kitops: dict[str, str], tmp_path: Path
) -> None:
    parent = make_kit([FakeLayer("model", "weights", {"weights/w.bin": some_bytes(3000, 5)})], name="parent")
    child = _child_of(published(locked, "cli/parent", parent))
    reference = published(shelf, "cli/child", child)
    failed = daemon.kitctl("pull", reference, environment=kitops, check=False)
    assert failed.returncode == 77
    assert locked.host in failed.stderr
    assert "asking again" not in failed.stderr

    daemon.kitctl("login", locked.host, "-u", USER, "-p", PASSWORD, environment=kitops)
    before = shelf.count("GET", "/manifests/")
    done = daemon.kitctl("pull", reference, environment=kitops)
    note = f"kitctl: {locked.host} wants credentials: asking again with those found for it"
    assert done.stderr.splitlines().count(note) == 1
    assert done.stdout == f"{reference}@{child.digest}\n"
    assert shelf.count("GET", "/manifests/") == before + 2
    assert not any(exchange.authorization for exchange in shelf.select())

    daemon.kitctl("unpack", reference, "-d", tmp_path / "out")
    assert (tmp_path / "out" / "weights" / "w.bin").read_bytes() == parent.files["weights/w.bin"]
    assert (tmp_path / "out" / "src" / "main.py").read_bytes() == b"child\n"


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["pull", "HOST/cli/absent:v1"], 66, "not_found"),
        (["pull", "HOST/UPPER:v1"], 2, "invalid_reference"),
        (["pull", "no-registry:v1"], 2, "invalid_reference"),
        (["pull", "HOST/a/b:v1", "-f", "weights"], 2, "invalid_filter"),
        (
            ["pull", "127.0.0.1:1/a/b:v1", "--plain-http", "--authfile", "/nowhere"],
            78,
            "configuration_invalid",
        ),
        (["inspect", "cli/absent:v1"], 66, "not_found"),
        (["info", "cli/absent:v1"], 66, "not_found"),
        (["unpack", "cli/absent:v1"], 66, "not_found"),
        (["push", "cli/absent:v1", "HOST/a/b:v1"], 66, "not_found"),
        (["info", "caf\udce9:v1"], 2, "invalid_request"),
        (["path", "caf\udce9:v1"], 2, "invalid_request"),
        (["pull", "HOST/caf\udce9:v1"], 2, "invalid_request"),
        (["pack", "/proc/self", "-t", f"cli/digest@sha256:{'0' * 64}"], 2, "invalid_reference"),
        (["pack", "/nowhere"], 66, "source_unreadable"),
        (["pack", "/proc/self", "-f", "/nowhere"], 66, "kitfile_not_found"),
        (["attach", "nonsense"], 66, "not_found"),
        (["attach", "000000-1"], 75, "daemon_restarted"),
        (["cancel", "nonsense"], 66, "not_found"),
        (["login", "HOST", "-u", "x", "-p", "y", "--password-stdin"], 2, "invalid_request"),
    ],
)
def test_failures_have_a_code_and_an_exit_status(
    daemon: Daemon, shelf: ScriptedRegistry, words: list[str], status: int, code: str
) -> None:
    words = [word.replace("HOST", shelf.host) for word in words]
    said_before = len(daemon.log)
    got, problem = problem_of(daemon, *words)
    assert (got, problem.code) == (status, code)
    failed = daemon.kitctl(*words, check=False)
    assert (failed.returncode, failed.stdout) == (status, "")
    assert f"kitctl: {problem.title}\n" in failed.stderr
    assert "Traceback" not in failed.stderr + daemon.log[said_before:]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pul"], "hint: did you mean 'pull'?"),
        (["pull"], "the following arguments are required: reference"),
        (["list", "--formt", "json"], "unrecognized arguments: --formt"),
        (["pull", "a.b/c:d", "--limit-rate", "-5"], "--limit-rate"),
        ([], "usage: kitctl COMMAND"),
    ],
)
def test_a_wrong_command_line_is_usage(daemon: Daemon, words: list[str], said: str) -> None:
    failed = daemon.kitctl(*words, check=False)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert said in failed.stderr


def test_every_command_explains_itself(daemon: Daemon) -> None:
    overview = daemon.kitctl("--help").stdout
    commands = re.findall(r"^  (\w+) ", overview, re.MULTILINE)
    assert commands == [*COMMANDS]
    with subprocess.Popen(
        [
            "sh",
            "-c",
            'for name in $NAMES; do "$@" "$name" --help || exit 1; done',
            "sh",
            *daemon.kitctl_command(),
        ],
        env=daemon.environment | {"NAMES": " ".join(commands)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        output, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    assert [f"usage: kitctl {name}" in output for name in commands] == [True] * len(commands)
