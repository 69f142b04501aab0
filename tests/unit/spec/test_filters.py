import pytest

from kitd.spec.filters import Filter, narrow_to_model, parse_filters
from kitd_client.api.errors import InvalidFilter


def test_types_and_fields_are_lists() -> None:
    assert parse_filters(["model", "datasets,docs:train,./README.md", "code:"]) == (
        Filter(("model",), None),
        Filter(("datasets", "docs"), ("train", "./README.md")),
        Filter(("code",), ("",)),
    )
    assert parse_filters([]) == ()


@pytest.mark.parametrize(
    "text", ["", "models", "Model", " model", "model,", "model:a:b", "mcpServers", ":a", "model ,docs"]
)
def test_what_is_no_filter_says_what_one_is(text: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filters([text])
    assert caught.value.hint


def test_of_a_parent_only_the_model_counts() -> None:
    assert narrow_to_model(()) == parse_filters(["model"])
    assert narrow_to_model(parse_filters(["docs", "code:x"])) is None
    assert narrow_to_model(parse_filters(["docs", "model,code:x", "model"])) == parse_filters(
        ["model:x", "model"]
    )
