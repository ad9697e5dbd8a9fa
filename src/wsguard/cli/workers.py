"""What `wsguard gateway` and `wsguard run` share about workers: be one, or be the parent of several."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from wsguard.admin.neighbours import Neighbours
from wsguard.admin.server import AdminServer
from wsguard.supervisor.fleet import Fleet
from wsguard.supervisor.place import ENVIRONMENT, WorkerPlace, end_with_parent, reserved_sockets, worker_place
from wsguard.supervisor.processes import Workforce, supervise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsguard.guard import Guard

_SPARE_SECONDS = 5.0


def own_place() -> WorkerPlace | None:
    """Return the place of this process among workers, if it is one. What it starts itself is none."""
    place = worker_place(os.environ)
    os.environ.pop(ENVIRONMENT, None)
    return place


def worker_flags(place: WorkerPlace | None) -> dict[str, Any]:
    """Return what a worker's configuration says instead: its own admin socket; the file's is the parent's."""
    return {} if place is None else {"admin": f"unix:{place.socket}"}


def join(place: WorkerPlace, guard: Guard) -> None:
    """Make *guard* one of several, which ends with its parent and says in each line of its log which one it is."""
    guard.log.always = {"pid": os.getpid()}
    guard.join(Neighbours(place.socket.parent, place.socket), place.socket)
    end_with_parent(place)


def run_workers(guard: Guard, count: int, addresses: Sequence[tuple[str, int]]) -> int:
    """Run *count* workers of this very command, with the admin socket of *guard* for all; return the exit code."""
    sockets = reserved_sockets(addresses)
    limits = guard.limits
    if guard.admin is not None:
        guard.admin.bind()

    def administer(folder: str) -> Callable[[], None]:
        if guard.admin is None:
            return lambda: None
        server = AdminServer(guard.admin.path, Fleet(folder, guard.wall_clock), guard.log, guard.admin.released())
        server.start()
        return server.stop

    command = [sys.executable, "-m", "wsguard", *sys.argv[1:]]
    stop_seconds = limits.close_deadline + limits.close_handshake + _SPARE_SECONDS
    return supervise(Workforce(command, count, sockets, stop_seconds, guard.log, administer))
