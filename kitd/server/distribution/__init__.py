"""The store as an OCI registry (distribution specification 1.1), for pull and push on this machine."""
