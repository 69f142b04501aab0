"""The client's end of a workspace: the daemon asks; this acts, in one directory, with the user's rights."""

from kitd_client.directory.serving import Directory

__all__ = ["Directory"]
