"""kitd: the daemon that distributes ModelKits on one node."""

__version__ = "0.1.0"
