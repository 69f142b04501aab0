"""The daemon: puts everything together, runs it, and takes it apart in order."""
