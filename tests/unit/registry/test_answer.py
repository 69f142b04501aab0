import pytest

from kitd.registry.answer import Complaint, Refusal, redacted
from kitd_client.api.errors import (
    Denied,
    KitdError,
    NotFound,
    PushRejected,
    RateLimited,
    RegistryProtocol,
    RegistryUnavailable,
    Unauthorized,
)


@pytest.mark.parametrize(
    ("status", "error", "rejection"),
    [
        (400, RegistryProtocol, PushRejected),
        (401, Unauthorized, Unauthorized),
        (403, Denied, Denied),
        (404, NotFound, PushRejected),
        (405, RegistryProtocol, PushRejected),
        (408, RegistryUnavailable, RegistryUnavailable),
        (413, RegistryProtocol, PushRejected),
        (429, RateLimited, RateLimited),
        (500, RegistryUnavailable, RegistryUnavailable),
        (501, RegistryUnavailable, RegistryUnavailable),
        (302, RegistryProtocol, PushRejected),
    ],
)
def test_a_status_is_an_error_of_its_kind(
    status: int, error: type[KitdError], rejection: type[KitdError]
) -> None:
    refusal = Refusal(status, "registry.example", (Complaint("SOME_CODE", "some words"),))
    assert type(refusal.error("manifest x")) is error
    assert type(refusal.rejection("manifest x")) is rejection
    assert refusal.error("manifest x").message == (
        f"manifest x: registry.example answered {status} (SOME_CODE: some words)"
    )


def test_a_long_list_of_complaints_is_cut() -> None:
    refusal = Refusal(400, "r", tuple(Complaint("C", "x" * 1000) for _ in range(100)))
    assert len(refusal.words) < 700


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("get https://cdn.example/x?sig=hush&y=1 failed", "get https://cdn.example/x failed"),
        ("at https://user:hush@host/x", "at https://host/x"),
        ("Authorization: Bearer hush.hush-hush= was bad", "Authorization: Bearer *** was bad"),
        ("Basic aHVzaA== refused", "Basic *** refused"),
        ("token=hush&a=b", "token=***&a=b"),
        ("password: hush, user: me", "password: ***, user: me"),
        ("two\r\nlines\x1b[31m", "two lines [31m"),
        ("blob sha256:0123 unknown", "blob sha256:0123 unknown"),
    ],
)
def test_foreign_words_are_shown_without_secrets_on_one_line(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_foreign_words_have_an_end() -> None:
    assert len(redacted("x" * 10_000)) < 250
