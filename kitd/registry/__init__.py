"""The registry client: one good citizen of the OCI distribution protocol."""
