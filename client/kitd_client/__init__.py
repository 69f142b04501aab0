"""The light client of kitd: standard library and msgspec, nothing else.

from kitd_client import Client

with Client() as client:
    client.pull("registry.example.com/team/llama:prod")  # raises KitdError, by its subclasses
    model = client.path("registry.example.com/team/llama:prod")
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kitd_client.api.errors import KitdError as KitdError
    from kitd_client.client import Client as Client
    from kitd_client.context import Network as Network

__all__ = ["Client", "KitdError", "Network"]


def __getattr__(name: str) -> object:
    """Imports the public names when they are asked for: `kitctl` starts in milliseconds because of this."""
    if name == "Client":
        from kitd_client.client import Client  # noqa: PLC0415 -- start-up time

        return Client
    if name == "KitdError":
        from kitd_client.api.errors import KitdError  # noqa: PLC0415 -- start-up time

        return KitdError
    if name == "Network":
        from kitd_client.context import Network  # noqa: PLC0415 -- start-up time

        return Network
    raise AttributeError(name)
