"""The verbs a user knows, one coroutine each."""
