"""Frames, raw bytes and descriptors over a blocking socket."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import msgspec

from kitd_client.api.errors import DaemonUnreachable, ProtocolError
from kitd_client.api.workspace import (
    BATCH_DESCRIPTORS,
    LENGTH_BYTES,
    PULSE_SECONDS,
    REQUEST_LIMIT,
    Alive,
    Answer,
    Request,
    decode_request,
    encode_frame,
)


class HungUp(Exception):
    """The daemon takes no more bytes: it has ended the job, or is gone."""


class Connection:
    """The client's end; the caller owns the socket.

    Args:
        sock: connected and upgraded.
        pulse: seconds between signs of life while the client works.
    """

    def __init__(self, sock: socket.socket, *, pulse: float = PULSE_SECONDS) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._pulse = pulse
        self._turn = threading.Lock()
        self._busy = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def receive(self) -> Request:
        """The next frame.

        Raises:
            DaemonUnreachable: the connection ended.
            ProtocolError: this is no frame of a daemon that we understand.
        """
        length = int.from_bytes(self._take(LENGTH_BYTES), "big")
        if length > REQUEST_LIMIT:
            raise ProtocolError(f"the daemon sent a frame of {length} bytes; the limit is {REQUEST_LIMIT}")
        try:
            return decode_request(self._take(length))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ProtocolError(f"the daemon sent something that is no request: {error}") from error

    def receive_descriptors(self, count: int) -> list[int]:
        """Exactly `count` descriptors, which the caller closes."""
        _, descriptors, flags, _ = socket.recv_fds(self._sock, 1, BATCH_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if len(descriptors) != count or flags & socket.MSG_CTRUNC:
            for descriptor in descriptors:
                os.close(descriptor)
            raise ProtocolError(f"the daemon sent {len(descriptors)} files where {count} were announced")
        return descriptors

    def send(self, answer: Answer) -> None:
        """Raises `HungUp`."""
        frame = encode_frame(answer)
        with self._turn:
            self.send_raw(memoryview(frame))

    def send_raw(self, view: memoryview) -> None:
        """Bytes that a frame has announced; raises the same."""
        try:
            self._sock.sendall(view)
        except OSError as error:
            raise HungUp from error

    @contextmanager
    def working(self) -> Iterator[None]:
        """Signs of life go out every few seconds while the block works, from a thread of their own."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="kitd-pulse", daemon=True)
            self._thread.start()
        with self._turn:
            self._busy = True
        try:
            yield
        finally:
            with self._turn:
                self._busy = False

    def _beat(self) -> None:
        frame = encode_frame(Alive())
        while not self._closed.wait(self._pulse):
            with self._turn:
                if self._busy:
                    try:
                        self._sock.sendall(frame)
                    except OSError:
                        # the main thread meets the same error, and tells it
                        return

    def _take(self, count: int) -> bytearray:
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            try:
                received = self._sock.recv_into(view)
            except OSError as error:
                raise _hung_up() from error
            if not received:
                raise _hung_up()
            view = view[received:]
        return buffer


def _hung_up() -> DaemonUnreachable:
    return DaemonUnreachable(
        "the daemon closed the connection before the job ended",
        hint="look at its log, then run the command again",
    )
