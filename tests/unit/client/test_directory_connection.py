"""The client's end of the connection: signs of life, and the end of a daemon that reads no more."""

import socket
import threading
from collections.abc import Iterator

import pytest
from unit.workspace.scripted import DaemonPeer

from kitd_client.api.errors import DaemonUnreachable
from kitd_client.api.workspace import Alive, Ready, Written, decode_answer
from kitd_client.directory.framing import Connection, HungUp


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, DaemonPeer]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs, DaemonPeer(ours)


def test_signs_of_life_go_out_while_the_client_works_and_only_then(
    pair: tuple[socket.socket, DaemonPeer],
) -> None:
    sock, daemon = pair
    with Connection(sock, pulse=0.01) as connection:
        connection.send(Ready(1))
        daemon.answer(Ready)
        for _ in range(2):
            with connection.working():
                for _ in range(3):
                    assert decode_answer(daemon.body()) == Alive()
            connection.send(Written())
            daemon.answer(Written)
    daemon.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        daemon.sock.recv(1)


def test_a_daemon_that_is_gone_stops_the_signs_of_life_and_the_next_answer_tells(
    pair: tuple[socket.socket, DaemonPeer],
) -> None:
    sock, daemon = pair
    with Connection(sock, pulse=0.001) as connection:
        with connection.working():
            daemon.sock.close()
            for thread in threading.enumerate():
                if thread.name == "kitd-pulse":
                    thread.join(5)
                    assert not thread.is_alive()
        with pytest.raises(HungUp):
            connection.send(Written())
        with pytest.raises(DaemonUnreachable):
            connection.receive()
