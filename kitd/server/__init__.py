"""The HTTP faces of the daemon: the local API and the embedded registry."""
