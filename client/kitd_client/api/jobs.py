"""Jobs on the wire: what starts one, what it says while it runs, what it ends with."""

from typing import Annotated, Literal

import msgspec

from kitd_client.api.problem import Problem

Words = Annotated[str, msgspec.Meta(max_length=1000)]
"""A reference or a filter: far more than any that is valid, and no more than a log and a list of jobs can bear."""
Rate = Annotated[int, msgspec.Meta(ge=0)]


class Credential(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One registry's credential, as the client found it in the user's files and helpers. Never logged."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """An OAuth2 refresh token, exchanged at the registry's token service."""
    registry_token: str = ""
    """A bearer token, used as it is."""

    def __repr__(self) -> str:
        """Keeps secrets out of logs and traces."""
        return "Credential(...)"


class Context(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What the caller brings along: the daemon reads none of the user's files and none of his environment."""

    credentials: dict[str, Credential] = {}
    """By registry as references name it (`host` or `host:port`)."""
    plain_http: bool = False
    tls_verify: bool = True
    ca_pem: str = ""
    client_certificate_pem: str = ""
    """Certificate and key of the client, in one PEM text."""
    proxy: str = ""
    """URL of the proxy for this registry, chosen by the client from flag and environment; empty: none."""

    def __repr__(self) -> str:
        """Keeps secrets out of logs and traces."""
        return f"Context(registries={sorted(self.credentials)})"


class PullRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    reference: Words
    filters: list[Words] = []
    """kit's filter grammar; empty: every layer."""
    context: Context = Context()
    limit_rate: Rate = 0
    """Bytes per second for this job; 0: as the daemon is configured."""


class PushRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    source: Words
    destination: Words = ""
    """Empty: where the source's name points to."""
    context: Context = Context()
    limit_rate: Rate = 0


class PackRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Opens a workspace on the directory to pack (see `workspace`)."""

    tags: list[Words] = []
    """`registry/repository:tag`, already split at commas; none: the kit is packed without a name."""
    kitfile: str | None = None
    """The text of a Kitfile given by `-f`; none: the directory has one."""
    compression: Literal["none", "gzip", "gzip-fastest", "zstd"] = "none"
    layer_format: Literal["tar", "raw"] = "tar"
    source_date_epoch: int | None = None
    """SOURCE_DATE_EPOCH of the caller, seconds; none: now."""
    context: Context = Context()
    """For a parent kit that is not here yet."""


class UnpackRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """Opens a workspace on the directory to unpack into. The kit must be here: `kit_incomplete` says pull."""

    reference: Words
    filters: list[Words] = []


class PathRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    reference: Words
    filters: list[Words] = []


class TagRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    source: Words
    destination: Words


class RegistryCheck(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """Asks whether a registry takes a credential, before it is stored."""

    registry: Words
    context: Context = Context()


class JobStarted(msgspec.Struct, frozen=True):
    id: str


# -- events: one NDJSON line or one workspace frame each -----------------------------------------


class Began(msgspec.Struct, frozen=True, tag="began", tag_field="event"):
    """An item (a layer, a file tree) is under way; said again when its total changes."""

    item: str
    """A short name for people, unique in the job: `model weights`, `config`, `code src`."""
    total: int
    """Bytes."""
    done: int
    """Bytes that were there already: a resumed item begins at its real offset."""


class Moved(msgspec.Struct, frozen=True, tag="moved", tag_field="event"):
    item: str
    source: str
    """Host the bytes came from, `local`, or `workspace`."""
    done: int
    """Bytes of the item done by now, from any source; never falls, except after `Began` of the same item."""


class Waiting(msgspec.Struct, frozen=True, tag="waiting", tag_field="event"):
    """The job goes on by itself, later."""

    reason: str
    """Why and for what: `registry.example.com answered 503`."""
    seconds: int
    """How long at most; 0: not known."""


class Warned(msgspec.Struct, frozen=True, tag="warned", tag_field="event"):
    message: str


class Resolved(msgspec.Struct, frozen=True, tag="resolved", tag_field="event"):
    reference: str
    digest: str


class Pulled(msgspec.Struct, frozen=True, kw_only=True, tag="pulled"):
    reference: str
    digest: str
    size: int
    """Bytes of all layers selected."""
    fetched: dict[str, int] = {}
    """Bytes moved by this job, by host."""
    present: int = 0
    """Bytes that needed no transfer by this job."""
    complete: bool = True
    """Every layer of the kit is here."""


class Pushed(msgspec.Struct, frozen=True, kw_only=True, tag="pushed"):
    reference: str
    digest: str
    size: int
    sent: int = 0
    """Bytes this job sent; what the registry had or could mount is not among them."""


class PackedLayer(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    diff_id: str
    media_type: str
    path: str
    size: int
    already_present: bool = False


class Packed(msgspec.Struct, frozen=True, kw_only=True, tag="packed"):
    references: list[str]
    digest: str
    size: int
    layers: list[PackedLayer] = []


class Unpacked(msgspec.Struct, frozen=True, kw_only=True, tag="unpacked"):
    reference: str
    digest: str
    files: int
    size: int
    skipped: int = 0
    """Files left as they were (`--ignore-existing`)."""


Result = Pulled | Pushed | Packed | Unpacked


class Succeeded(msgspec.Struct, frozen=True, tag="succeeded", tag_field="event"):
    result: Result


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="event"):
    problem: Problem


class CancelledEvent(msgspec.Struct, frozen=True, tag="cancelled", tag_field="event"):
    kept: str = ""


Terminal = Succeeded | Failed | CancelledEvent
Event = Began | Moved | Waiting | Warned | Resolved | Succeeded | Failed | CancelledEvent


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    verb: str
    reference: str
    state: Literal["running", "succeeded", "failed", "cancelled"]
    uid: int
    started: str
    """RFC 3339, for people."""
    total: int
    done: int
    """Bytes, of all items begun so far."""
    problem: Problem | None = None
    """Why it failed."""


class JobList(msgspec.Struct, frozen=True):
    jobs: list[JobInfo]
