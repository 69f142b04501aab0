from collections.abc import Callable
from typing import Any

import pytest

from kitd.spec.kitfile_rules import path_kind
from kitd.spec.reference import Reference, is_kit_reference, parse_reference, parse_tags
from kitd_client.api.errors import InvalidReference, Unsupported

D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("reg.io/ml/triage:v1", "reg.io", "ml/triage", "v1", None),
        ("localhost:5000/a/b:v1", "localhost:5000", "a/b", "v1", None),
        ("triage", "localhost", "triage", "latest", None),
        ("team/triage:v1", "localhost", "team/triage", "v1", None),
        ("localhost/triage:v1", "localhost", "localhost/triage", "v1", None),
        (f"reg.io/a@{D}", "reg.io", "a", None, D),
        (f"reg.io/a:v1@{D}", "reg.io", "a", None, D),
        (D, "localhost", "_", None, D),
        ("kit://reg.io/a:v1", "reg.io", "a", "v1", None),
        ("oci://reg.io/a", "reg.io", "a", "latest", None),
    ],
)
def test_the_parts_of_a_reference(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    found = parse_reference(text)
    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)
    assert parse_reference(str(found)) == found


def test_every_verdict_of_the_real_parser_is_ours(vectors: Callable[[str], Any]) -> None:
    for text, expected, kind in vectors("references"):
        assert path_kind(text) == kind, text
        assert is_kit_reference(text) == (kind == "kit"), text
        if expected is None and not text.startswith("kit://"):
            with pytest.raises(InvalidReference):
                parse_reference(text)
        elif expected and not expected[2].startswith("sha512:"):
            found = parse_reference(text.partition(",")[0])
            assert [found.registry, found.repository, found.digest or found.tag] == expected, text


def test_a_verb_decides_what_a_missing_tag_means() -> None:
    assert parse_reference("reg.io/a", default_tag=None).tag is None
    assert str(parse_reference("reg.io/a", default_tag=None)) == "reg.io/a"
    assert parse_reference("reg.io/a", default_tag="v0").tag == "v0"


def test_only_names_without_a_registry_are_local() -> None:
    assert (parse_reference("a/b").is_local, parse_reference("a/b").name) == (True, "a/b")
    assert (parse_reference("r.io/b").is_local, parse_reference("r.io/b").name) == (False, "r.io/b")
    assert not parse_reference("localhost:5000/b").is_local


def test_several_tags_name_several_references_once_each() -> None:
    assert [str(each) for each in parse_tags("reg.io/a:v1,v2,v1,latest")] == [
        "reg.io/a:v1",
        "reg.io/a:v2",
        "reg.io/a:latest",
    ]
    assert parse_tags("a") == (Reference("localhost", "a", "latest", None),)


@pytest.mark.parametrize("text", ["a:v1,", "a:v1,v 2", f"a@{D},v1", f"{D},v1", "a:v1,b:v2"])
def test_what_follows_a_comma_must_be_a_tag(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_tags(text)


def test_other_digests_are_references_that_are_not_supported() -> None:
    text = "reg.io/a@sha512:" + "0" * 128
    assert is_kit_reference(text)
    with pytest.raises(Unsupported):
        parse_reference(text)


@pytest.mark.parametrize(
    "text", ["a-" * 100_000, "a" * 10_000 + "!", "[" * 5000, "reg.io/" + "a" * 4000 + "_:"]
)
def test_long_nonsense_is_turned_down_at_once_and_briefly(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    assert len(caught.value.message) < 300


def test_a_scheme_is_for_people_not_for_kitfiles() -> None:
    assert not is_kit_reference("kit://reg.io/a:v1")
