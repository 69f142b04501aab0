"""The workspace of pack and unpack: the daemon asks, the client does what touches the user's files."""

from kitd.workspace.budget import DescriptorBudget
from kitd.workspace.rows import CheckReply, FileToRead, Listing, MemberToWrite, ScannedEntry
from kitd.workspace.workspace import Batch, Workspace
from kitd_client.api.workspace import Published

__all__ = [
    "Batch",
    "CheckReply",
    "DescriptorBudget",
    "FileToRead",
    "Listing",
    "MemberToWrite",
    "Published",
    "ScannedEntry",
    "Workspace",
]
