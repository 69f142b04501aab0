"""A daemon with nothing but workspaces, for attacks on them: `workspace_daemon.py SOCKET STORE SILENCE`.

Each connection says in one line of JSON what it wants. Between its steps the daemon warns of what it did, so that
a test can act at exactly that moment.
"""

import hashlib
import json
import os
import resource
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio

from kitd.errors import single_error
from kitd.workspace import DescriptorBudget, FileToRead, MemberToWrite, Workspace
from kitd_client.api.errors import KitdError, WorkspaceBroken
from kitd_client.api.jobs import Failed, Packed, Result, Succeeded, Unpacked, Warned


class Daemon:
    def __init__(self, store: Path, silence: float) -> None:
        self.store = store
        self.silence = silence
        self.budget = DescriptorBudget()
        self.failures: list[str] = []

    async def connection(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        line = b""
        while not line.endswith(b"\n"):
            await anyio.wait_readable(sock)
            line += sock.recv(1)
        wanted = json.loads(line)
        if "status" in wanted:
            await self.status(sock, wanted["status"])
            return
        workspace = Workspace(sock, self.budget, silence=self.silence)
        try:
            await workspace.finish(Succeeded(await self.job(workspace, wanted)))
        except KitdError as error:
            self.failures.append(error.code)
            await workspace.finish(Failed(error.problem()))
        finally:
            await workspace.aclose()

    async def job(self, workspace: Workspace, wanted: dict[str, Any]) -> Result:
        """The end of the client cancels the job."""
        verb = self.pack if wanted["verb"] == "pack" else self.unpack

        async def watch() -> None:
            await workspace.gone()
            raise WorkspaceBroken("the client is gone")

        with single_error():
            async with anyio.create_task_group() as group:
                group.start_soon(watch)
                result = await verb(workspace, wanted)
                group.cancel_scope.cancel()
        return result

    async def status(self, sock: socket.socket, path: str) -> None:
        answer = {
            "lent": self.budget.lent(),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - an async function
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "failures": self.failures,
            "seen": os.listdir(path),  # noqa: PTH208 - the same
            "uid": os.getuid(),
        }
        sock.sendall(json.dumps(answer).encode())
        sock.close()

    async def pack(self, workspace: Workspace, wanted: dict[str, Any]) -> Result:
        files: list[FileToRead] = []
        pending = [""]
        while pending:
            listings = await workspace.scan(pending)
            pending = []
            for listing in listings:
                for entry in listing.entries:
                    path = f"{listing.directory}/{entry.name}".lstrip("/")
                    if entry.kind == "dir":
                        pending.append(path)
                    elif entry.kind == "file" or wanted.get("all"):
                        files.append(FileToRead(path, entry.size))
        files.sort()
        await workspace.event(Warned("scanned"))
        digest = hashlib.sha256()
        size = 0
        async for parts in workspace.read(files):
            for _, view in parts:
                digest.update(view)
                size += len(view)
        return Packed(references=[file.path for file in files], digest=digest.hexdigest(), size=size)

    async def unpack(self, workspace: Workspace, wanted: dict[str, Any]) -> Result:
        members = [
            MemberToWrite(path, False, 0o644, os.stat(self.store / name).st_size)  # noqa: PTH116 - the same
            for path, name in wanted["members"]
        ]
        if not wanted.get("unchecked"):
            await workspace.check(members)
            await workspace.event(Warned("checked"))
        for begin in range(0, len(members), 64):
            names = [name for _, name in wanted["members"][begin : begin + 64]]

            async def lend(names: list[str] = names) -> Iterable[int]:
                return [os.open(self.store / name, os.O_RDONLY | os.O_CLOEXEC) for name in names]

            await workspace.write(await workspace.lend(members[begin : begin + 64], lend))
        await workspace.event(Warned("written"))
        published = await workspace.publish()
        return Unpacked(reference="", digest="", files=published.files, size=0, skipped=published.skipped)


async def main(path: str, store: Path, silence: float) -> None:
    daemon = Daemon(store, silence)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: PTH101 - an async function
        listener.listen(100)
        listener.setblocking(False)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        with single_error():
            async with anyio.create_task_group() as group:
                while True:
                    await anyio.wait_readable(listener)
                    group.start_soon(daemon.connection, listener.accept()[0])


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), backend_options={"use_uvloop": True})
