"""Values of the OCI and ModelKit world: no input, no output, no state."""
