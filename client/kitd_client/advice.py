"""What to do next, where only the client knows: it has the flags, the credentials and the user's words."""

from kitd_client.api.errors import Cancelled, KitdError, NotFound, RegistryProtocol, RegistryUnavailable
from kitd_client.api.jobs import Context


def advise(error: KitdError, context: Context, go_on: str) -> None:
    """Gives an error of a verb its hint, if whoever raised it had none.

    Args:
        error: what the daemon said.
        context: what the request brought along.
        go_on: how to go on with what was begun.
    """
    if error.hint is not None:
        return
    host = str(error.detail.get("host", ""))
    first = bool(host) and error.kept is None
    if first and context.plain_http and isinstance(error, RegistryProtocol | RegistryUnavailable):
        error.hint = f"look at the name; if {host} speaks TLS, leave --plain-http out"
    elif first and isinstance(error, NotFound):
        error.hint = _where_to_look(host, known=host in context.credentials)
    elif error.retryable or isinstance(error, Cancelled):
        has_begun = error.kept is not None or isinstance(error, Cancelled)
        error.hint = go_on if has_begun else "nothing was moved: look at the name, then try again"


def _where_to_look(host: str, *, known: bool) -> str:
    """Registries answer 404 also for what an account may not see."""
    if known:
        return "check repository and tag, and whether this account may see them"
    return f"check repository and tag; if the repository is private, 'kitctl login {host}' first"
