"""The wire contract of kitd: what client and daemon say to each other, and nothing that acts."""

API_VERSION = "1"
"""In the `Kitd-Api-Version` header of every answer."""
WORKSPACE_PROTOCOL = "kitd-workspace/1"
"""What a connection of pack or unpack is upgraded to."""
