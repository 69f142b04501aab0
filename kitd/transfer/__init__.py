"""Where registry and content meet: ranges in parallel, appended in order."""
