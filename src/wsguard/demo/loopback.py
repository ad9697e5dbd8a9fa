"""Sockets on loopback: 127.0.0.1, and ::1 where the machine has it (Chromium asks ::1 first, Firefox 127.0.0.1)."""

from __future__ import annotations

import socket
from functools import cache

from wsguard.demo.errors import DemoError

FAMILIES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}
BACKLOG = 128
TRIES = 20


@cache
def loopback_addresses() -> tuple[str, ...]:
    """Return the loopback addresses that this machine has."""
    return tuple(address for address in FAMILIES if _exists(address))


def listeners(port: int) -> list[socket.socket]:
    """Listen on *port* of every loopback address."""
    bound: list[socket.socket] = []
    try:
        bound.extend(_listener(address, port) for address in loopback_addresses())
    except OSError as error:
        for listener in bound:
            listener.close()
        raise DemoError(f"cannot listen on port {port}: {error.strerror}; choose others with --port N") from error
    return bound


def free_port() -> int:
    """Return a port that is free on every loopback address just now."""
    for _ in range(TRIES):
        with _listener("127.0.0.1", 0) as probe:
            port: int = probe.getsockname()[1]
        try:
            for listener in listeners(port):
                listener.close()
        except DemoError:
            continue  # free on 127.0.0.1 and taken on ::1
        return port
    raise DemoError("no port is free on both loopback addresses")


def _listener(address: str, port: int) -> socket.socket:
    listener = socket.socket(FAMILIES[address], socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if FAMILIES[address] is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _exists(address: str) -> bool:
    try:
        _listener(address, 0).close()
    except OSError:
        return False
    return True
