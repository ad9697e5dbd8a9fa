"""Addresses that several workers share: reserved by the parent, and free again at once after a restart."""

from __future__ import annotations

import socket

import pytest

from wsguard.gateway.listener import listening_socket
from wsguard.supervisor.place import reserved_sockets, shared_socket
from wsguard.vocabulary.errors import ConfigurationError

HOST = "127.0.0.1"


def lingering(listener: socket.socket) -> int:
    """Let *listener* close one of its connections first, as a server does that ends; return its port."""
    port = int(listener.getsockname()[1])
    with listener, socket.create_connection((HOST, port)) as client:
        accepted, _ = listener.accept()
        accepted.close()
        assert client.recv(1) == b""
    return port


@pytest.mark.parametrize("shared", [True, False], ids=["workers", "one process"])
def test_what_lingers_of_connections_keeps_nobody_off(shared: bool) -> None:
    """A restart would fail for a minute, with "Address already in use" though nobody listens."""
    listener = listening_socket(HOST, 0, share=shared)
    listener.setblocking(True)
    port = lingering(listener)
    (reserved,) = reserved_sockets([(HOST, port)])
    with reserved, shared_socket(HOST, port) as one, listening_socket(HOST, port, share=True):
        one.listen()
    listening_socket(HOST, port).close()


def test_where_somebody_listens_nothing_is_reserved() -> None:
    """Another gateway of this user would get some of our connections, and we some of its."""
    with listening_socket(HOST, 0, share=True) as other:
        with pytest.raises(ConfigurationError, match="a port of its own"):
            reserved_sockets([other.getsockname()])
        with pytest.raises(ConfigurationError, match="Address already in use"):
            listening_socket(*other.getsockname())
