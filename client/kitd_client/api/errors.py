"""The one table of errors: a class for `except`, a code for the wire, an HTTP status, an exit code.

The daemon raises these classes, puts them on the wire as problem+json (RFC 9457), and the client raises the same
class again. A class is a row of the table; `BY_CODE` is the table.
"""

from typing import ClassVar

from kitd_client.api.problem import Problem


class KitdError(Exception):
    """The root of every error that a user may meet.

    Args:
        message: what failed and where; lower case, no full stop.
        kept: what was kept, for the person who asks "is my work lost?".
        hint: what to do next.
        detail: the values the message speaks of.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, kept: str | None = None, hint: str | None = None, **detail: str | int
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kept = kept
        self.hint = hint
        self.detail = detail

    def problem(self) -> Problem:
        """This error as it travels: bytes of a file's name that are no UTF-8 are escaped, so it always can."""
        detail = {
            name: _sendable(each) if isinstance(each, str) else each for name, each in self.detail.items()
        }
        return Problem(
            code=self.code,
            title=_sendable(self.message),
            status=self.status,
            kept=self.kept and _sendable(self.kept),
            hint=self.hint and _sendable(self.hint),
            retryable=self.retryable,
            detail=detail,
        )


def _sendable(text: str) -> str:
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


class Internal(KitdError):
    """A bug of ours: the log has the trace."""


# -- what was asked ------------------------------------------------------------------------------


class InvalidRequest(KitdError):
    """The request is malformed, or its parts contradict each other."""

    code, status, exit_code = "invalid_request", 400, 2


class InvalidReference(KitdError):
    """The text names no kit, or none of the kind the verb needs."""

    code, status, exit_code = "invalid_reference", 400, 2


class InvalidDigest(KitdError):
    """The text is no digest."""

    code, status, exit_code = "invalid_digest", 400, 2


class InvalidFilter(KitdError):
    """The filter has an unknown type or a second colon."""

    code, status, exit_code = "invalid_filter", 400, 2


class Unsupported(KitdError):
    """Something that this version does not do, said in so many words."""

    code, status, exit_code = "unsupported", 501, 65


class PermissionDenied(KitdError):
    """The local user may not do this."""

    code, status, exit_code = "permission_denied", 403, 77


class Busy(KitdError):
    """A limit of this daemon is reached for now."""

    code, status, exit_code, retryable = "busy", 503, 75, True


# -- what a kit says -----------------------------------------------------------------------------


class KitfileNotFound(KitdError):
    """There is no Kitfile where one is looked for, or it cannot be opened."""

    code, status, exit_code = "kitfile_not_found", 422, 66


class KitfileInvalid(KitdError):
    """The Kitfile, or `.kitignore`, breaks a rule."""

    code, status, exit_code = "kitfile_invalid", 422, 65


class ManifestInvalid(KitdError):
    """The manifest is none of a ModelKit."""

    code, status, exit_code = "manifest_invalid", 502, 65


class ConfigInvalid(KitdError):
    """The config blob of a kit cannot be what it claims to be."""

    code, status, exit_code = "config_invalid", 502, 65


class DigestMismatch(KitdError):
    """Other bytes came than the digest names."""

    code, status, exit_code = "digest_mismatch", 502, 65


class SizeMismatch(KitdError):
    """A blob has another size than its descriptor says."""

    code, status, exit_code = "size_mismatch", 502, 65


class DiffIdMismatch(KitdError):
    """A layer unpacks to other bytes than the config of its kit claims."""

    code, status, exit_code = "diff_id_mismatch", 422, 65


class ArchiveInvalid(KitdError):
    """A layer is no well-formed archive, or has a member that must not be unpacked."""

    code, status, exit_code = "archive_invalid", 422, 65


class UnsupportedEntry(KitdError):
    """An archive has a link, a device or another member that kits never hold."""

    code, status, exit_code = "unsupported_entry", 422, 65


class ArchiveTooLarge(KitdError):
    """An archive unpacks to more than its bounds allow."""

    code, status, exit_code = "archive_too_large", 422, 65


class ReferenceCycle(KitdError):
    """A kit is its own ancestor."""

    code, status, exit_code = "reference_cycle", 422, 65


class ReferenceChainTooLong(KitdError):
    """More than ten kits build on each other."""

    code, status, exit_code = "reference_chain_too_long", 422, 65


# -- what the store has --------------------------------------------------------------------------


class NotFound(KitdError):
    """There is no such kit, tag, blob or job, here or at the registry that was asked."""

    code, status, exit_code = "not_found", 404, 66


class KitIncomplete(KitdError):
    """The kit is here, but not every layer the verb needs."""

    code, status, exit_code, retryable = "kit_incomplete", 409, 66, True


class InUse(KitdError):
    """The kit was handed out by `path`."""

    code, status, exit_code = "in_use", 409, 1


class NoSpace(KitdError):
    """The store's disk or quota is full."""

    code, status, exit_code = "no_space", 507, 73


class StorageIo(KitdError):
    """The disk of the store failed a read or a write."""

    code, status, exit_code = "storage_io_error", 500, 73


class ObjectDamaged(KitdError):
    """A stored object was changed by someone else; it was put aside, a pull fetches it again."""

    code, status, exit_code, retryable = "object_damaged", 409, 65, True


class StoreLocked(KitdError):
    """Another daemon owns the store."""

    code, status, exit_code = "store_locked", 503, 69


class StoreRefused(KitdError):
    """The store cannot be used as it is (other owner, newer version, network file system)."""

    code, status, exit_code = "store_refused", 500, 78


# -- the network ---------------------------------------------------------------------------------


class Unauthorized(KitdError):
    """The registry wants credentials, or other ones."""

    code, status, exit_code = "unauthorized", 401, 77


class Denied(KitdError):
    """The registry knows who asks and says no."""

    code, status, exit_code = "denied", 403, 77


class RealmUntrusted(KitdError):
    """A registry sent credentials-seekers to a token service that must not see them."""

    code, status, exit_code = "realm_untrusted", 502, 77


class RegistryUnavailable(KitdError):
    """The registry cannot be reached, or fails."""

    code, status, exit_code, retryable = "registry_unavailable", 503, 75, True


class RegistryProtocol(KitdError):
    """The registry answered something that the protocol does not allow."""

    code, status, exit_code = "registry_protocol_error", 502, 65


class RateLimited(KitdError):
    """The registry asks to come later."""

    code, status, exit_code, retryable = "rate_limited", 503, 75, True


class RedirectBlocked(KitdError):
    """The registry points to where it must not."""

    code, status, exit_code = "redirect_blocked", 502, 77


class TlsFailed(KitdError):
    """There is no TLS connection that can be trusted."""

    code, status, exit_code = "tls_error", 502, 77


class PushRejected(KitdError):
    """The registry does not take what was pushed."""

    code, status, exit_code = "push_rejected", 502, 65


class ParentUnreachable(KitdError):
    """A kit names a parent kit that cannot be had."""

    code, status, exit_code, retryable = "parent_unreachable", 502, 75, True


# -- the user's directory ------------------------------------------------------------------------


class SourceChanged(KitdError):
    """A file changed while it was packed."""

    code, status, exit_code, retryable = "source_changed", 409, 75, True


class SourceUnreadable(KitdError):
    """A file or directory to pack cannot be read."""

    code, status, exit_code = "source_unreadable", 422, 66


class SourceUnsuitable(KitdError):
    """A path of the Kitfile is not of the kind its layer needs."""

    code, status, exit_code = "source_unsuitable", 422, 65


class TargetExists(KitdError):
    """Unpacking would replace files, and that was not asked for."""

    code, status, exit_code = "target_exists", 409, 73


class TargetUnsafe(KitdError):
    """Something in the target directory stands in the way (a link, a file where a directory must be)."""

    code, status, exit_code = "target_unsafe", 409, 73


class TargetBusy(KitdError):
    """Another unpack into this directory is under way."""

    code, status, exit_code, retryable = "target_busy", 409, 75, True


class TargetUnwritable(KitdError):
    """The target directory cannot be written (rights, space, quota, input or output error)."""

    code, status, exit_code = "target_unwritable", 422, 73


class WorkspaceBroken(KitdError):
    """The two ends of a pack or an unpack do not keep to their protocol, or one end is gone."""

    code, status, exit_code = "workspace_broken", 400, 1


# -- jobs and the daemon -------------------------------------------------------------------------


class Cancelled(KitdError):
    """The job was cancelled."""

    code, status, exit_code = "cancelled", 409, 130


class DaemonStopping(KitdError):
    """The daemon ends; the job can be asked for again."""

    code, status, exit_code, retryable = "daemon_stopping", 503, 75, True


class DaemonRestarted(KitdError):
    """The job was of an earlier life of the daemon."""

    code, status, exit_code, retryable = "daemon_restarted", 410, 75, True


class DaemonUnreachable(KitdError):
    """No daemon answers, or it went away."""

    code, status, exit_code = "daemon_unreachable", 503, 69


class ProtocolError(KitdError):
    """The daemon answered something that this client does not understand."""

    code, status, exit_code = "protocol_error", 502, 69


class ConfigurationInvalid(KitdError):
    """A configuration file, a variable or a flag is wrong."""

    code, status, exit_code = "configuration_invalid", 400, 78


BY_CODE: dict[str, type[KitdError]] = {cls.code: cls for cls in KitdError.__subclasses__()}


def from_problem(problem: Problem) -> KitdError:
    """The error a problem stands for; a code this client does not know becomes `KitdError` itself."""
    return BY_CODE.get(problem.code, KitdError)(
        problem.title, kept=problem.kept, hint=problem.hint, **problem.detail
    )
