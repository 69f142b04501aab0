"""`kitctl path REFERENCE`, without structs and parsers: scripts ask it before each use of a kit."""

import json

from kitd_client.cli.console import note, tell
from kitd_client.transport import Transport


def show_path(reference: str) -> int | None:
    """Prints the directory of a kit; none: the kit is not wholly here, so the whole command has to see to it."""
    # The whole command compares the stores itself.
    transport = Transport(notice=note, compares=False)
    body = json.dumps({"reference": reference, "filters": []}).encode()
    try:
        answer = transport.call("POST", "/v1/path", body)
    except KeyboardInterrupt:
        from kitd_client.cli.complaints import interrupted  # noqa: PLC0415 -- start-up time

        raise interrupted(f"path {reference}") from None
    except Exception as error:
        from kitd_client.api.errors import KitIncomplete, NotFound  # noqa: PLC0415 -- start-up time

        if isinstance(error, KitIncomplete | NotFound):
            return None
        raise
    try:
        path = json.loads(answer)["path"]
    except (ValueError, TypeError, KeyError) as error:
        raise transport.undecodable(error) from error
    transport.compare_stores()
    tell(str(path))
    return 0
