"""What a worker is told: which one it is, where it listens, and in which folder the sockets of its siblings are."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENVIRONMENT = "WSGUARD_WORKER"


class WorkerPlace(msgspec.Struct, frozen=True):
    """
    The place of one worker: its *index*, the *folder* of all workers' sockets, and the addresses to *listen* on.

    *parent* is a descriptor that ends when the parent does. Nothing of it is secret: it travels in the environment.
    """

    index: int
    folder: str
    listen: list[tuple[str, int]]
    parent: int

    @property
    def socket(self) -> Path:
        """The admin socket of this worker."""
        return Path(self.folder) / f"worker-{self.index}.sock"

    def environment(self) -> dict[str, str]:
        """Return what a worker's environment holds besides its parent's."""
        return {ENVIRONMENT: msgspec.json.encode(self).decode("ascii")}


def worker_place(environment: Mapping[str, str]) -> WorkerPlace | None:
    """Return the place that the parent has given this process, or None where it is nobody's worker."""
    told = environment.get(ENVIRONMENT)
    return None if told is None else msgspec.json.decode(told, type=WorkerPlace)


def end_with_parent(place: WorkerPlace) -> None:
    """End this process as on SIGTERM once its parent is gone, however that ended."""

    def watch() -> None:
        while os.read(place.parent, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="wsguard-parent", daemon=True).start()


def reserved_sockets(addresses: Sequence[tuple[str, int]]) -> list[socket.socket]:
    """
    Bind each address, so that the port is known and nobody else's, but listen on none: the workers do.

    Raises ConfigurationError for an address where somebody listens already: another gateway of this user would share
    the port with us, and each would get some of the other's connections.
    """
    sockets: list[socket.socket] = []
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        wanted = sockets[0].getsockname()[1] if port == 0 and sockets else port
        try:
            if wanted:
                _bound(family, host, wanted, share=False).close()
            sockets.append(_bound(family, host, wanted, share=True))
        except OSError as error:
            raise ConfigurationError("listen", f"{host}:{wanted} ({error.strerror})", "a port of its own") from None
    return sockets


def shared_socket(host: str, port: int) -> socket.socket:
    """Return a socket of one worker on an address that its siblings listen on too (SO_REUSEPORT)."""
    return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port, share=True)


def _bound(family: int, host: str, port: int, *, share: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Both where it is shared: else what lingers of connections that we closed keeps everybody off for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        if not share:
            sock.listen(1)
    except OSError:
        sock.close()
        raise
    return sock
