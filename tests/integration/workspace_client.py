"""A user's client: `workspace_client.py SOCKET DIRECTORY REQUEST [FLAG...]`.

It prints each event as a line and waits for one before it goes on; the last line is how the job ended.
"""

import json
import socket
import sys

import msgspec

from kitd_client.api.errors import KitdError
from kitd_client.api.jobs import Event, Failed, Terminal
from kitd_client.directory import Directory


def on_event(event: Event) -> None:
    if "step" in sys.argv:
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()
        sys.stdin.readline()


def once(path: str, directory: str, request: str) -> Terminal:
    try:
        with (
            socket.socket(socket.AF_UNIX) as sock,
            Directory(
                directory,
                create=json.loads(request)["verb"] == "unpack",
                overwrite="overwrite" in sys.argv,
                ignore_existing="ignore" in sys.argv,
            ) as served,
        ):
            sock.connect(path)
            sock.sendall(request.encode() + b"\n")
            return served.serve(sock, on_event)
    except KitdError as error:
        return Failed(error.problem())


if __name__ == "__main__":
    times = next((int(word[6:]) for word in sys.argv if word.startswith("times=")), 1)
    for _ in range(times):
        terminal = once(*sys.argv[1:4])
        sys.stdout.write(msgspec.json.encode(terminal).decode() + "\n")
        sys.stdout.flush()
