"""`workers = 2`: two processes on one port, and whatever concerns a socket reaches the one that holds it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.credentials import Place, bearer, closed, echoes
from tests.gateway.raw_client import RawClient
from tests.mounts.conftest import Mount, StartMount
from tests.processes import watched
from wsguard.admin.client import ask_admin

pytestmark = pytest.mark.slow

DEADLINE = 20.0
CONFIGURATION = """
origins = ["https://app.test"]
hosts = ["app.test"]
public_url = "https://app.test"
workers = 2
store = "sqlite:wsguard.db"
admin = "unix:run/admin.sock"
auth = ["ticket", "bearer"]

[jwt."https://id.test"]
audience = ["https://app.test"]
jwks = "file:jwks.json"

[limits]
close_deadline = "0.5s"
close_handshake = "0.5s"

[ticket]
sold_for = ["bearer"]
"""
LIVING = "replay_closes = false\n"


class Workers:
    """A mount of two workers, and a page that chooses which of them it speaks to."""

    def __init__(self, folder: Path, mount: Mount) -> None:
        self.folder, self.mount, self.page = folder, mount, mount.visitor

    @property
    def pids(self) -> list[int]:
        """The workers that run now."""
        ended = {line["pid"] for line in self.mount.events("worker.ended")}
        return [line["pid"] for line in self.mount.events("worker.started") if line["pid"] not in ended]

    def connect(self, pid: int) -> RawClient:
        """A TLS connection that this worker has accepted."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            raw = self.page.connect()
            if owner_of(raw, self.pids) == pid:
                return raw
        raise AssertionError(f"no connection reached {pid} of {self.pids}")

    def open(self, pid: int, protocols: list[str] | None = None, fields: dict[str, str] | None = None) -> RawClient:
        """A socket at this worker."""
        raw = self.connect(pid)
        raw.open(self.page.request(protocols, fields))
        return raw

    def post(
        self, worker: int | RawClient, path: str, members: dict[str, Any], fields: dict[str, str]
    ) -> tuple[int, Any]:
        """Ask an endpoint at this worker, or over a connection to it; return the status and the answer's members."""
        raw = self.connect(worker) if isinstance(worker, int) else worker
        body = json.dumps(members).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: app.test", "Origin: https://app.test"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        raw.send("\r\n".join([*lines, "", ""]).encode() + body)
        head = raw.reader.head().decode()
        assert head.lower().count("access-control-allow-origin") == 1, head
        assert head.lower().count("x-request-id") == 1, head
        (length,) = [line for line in head.split("\r\n") if line.lower().startswith("content-length")]
        content = raw.reader.exactly(int(length.partition(":")[2]))
        assert content is not None
        return int(head.split(" ")[1]), json.loads(content)

    def sessions(self, *words: str) -> Any:
        command = [sys.executable, "-m", "wsguard", "sessions", *words, "--json", "--config", "wsguard.toml"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def owner_of(raw: RawClient, pids: list[int]) -> int | None:
    """Which process holds the other end, as the kernel tells it."""
    mine, theirs = raw.sock.getsockname()[1], raw.sock.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if int(parts[1].rpartition(":")[2], 16) == theirs and int(parts[2].rpartition(":")[2], 16) == mine:
            return next((pid for pid in pids if f"socket:[{parts[9]}]" in open_files(pid)), None)
    return None


def lives(raw: RawClient) -> bool:
    """Tell whether the socket still echoes."""
    try:
        return echoes(raw, "still there")
    except OSError:
        return False


def open_files(pid: int) -> set[str]:
    """What its descriptors are."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in list(Path(f"/proc/{pid}/fd").iterdir()):
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


StartWorkers = Callable[..., Workers]


@pytest.fixture
def start_workers(start_mount: StartMount, tmp_path: Path) -> Iterator[StartWorkers]:
    """Start both workers; in the end they have ended, and have told of no fault."""
    started: list[Workers] = []
    Place(tmp_path)

    def start(ticket: str = "") -> Workers:
        subject = Workers(tmp_path, start_mount(CONFIGURATION + ticket))
        started.append(subject)
        for pid in subject.pids:
            subject.connect(pid).close()
        return subject

    yield start
    for workers in started:
        pids = workers.pids
        assert workers.mount.stop() == 0, workers.mount.stderr()
        assert workers.mount.stderr_faults() == []
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert not (tmp_path / "run" / "admin.sock").exists()


@pytest.fixture
def workers(start_workers: StartWorkers) -> Workers:
    return start_workers()


def test_renewal_and_revocation_reach_the_worker_that_holds_the_socket(workers: Workers) -> None:
    """Opened at one, called at the other: renewed in place, listed, closed; and the count is that of both."""
    first, second = workers.pids
    print(f"opened by {first}, called at {second}")
    assert first != second
    sold = workers.page.buy(bearer(30))
    raw = workers.open(first, sold["protocols"])
    status, answer = workers.post(second, "/.wsguard/renew", {"session": sold["session"]}, bearer(60))
    assert status == 200
    assert answer["session_expires_at"] > sold["session_expires_at"] + 20
    assert workers.mount.wait_for("session.renewed")["pid"] == first
    assert echoes(raw, "still there")
    # What is refused there is refused here: another subject, a handle that nobody has.
    assert workers.post(second, "/.wsguard/renew", {"session": sold["session"]}, bearer(60, sub="eve"))[0] == 403
    assert workers.post(second, "/.wsguard/renew", {"session": "x" * 43}, bearer(60))[0] == 404
    other = workers.open(second, fields=bearer(60))
    listed = workers.sessions("list")
    assert sorted(one["pid"] for one in listed) == sorted([first, second])
    assert workers.sessions("close", "--subject", "alice") == {"closed": 2, "processes": 2}
    assert closed(raw) == closed(other) == (3000, "revoked")


def test_many_renewals_at_once_reach_the_worker_that_holds_the_sockets(workers: Workers) -> None:
    """All pages of a company renew in one minute: a question that waits its turn is answered, and none is a 404."""
    first, second = workers.pids
    who = [f"user{number}" for number in range(40)]
    sold = {sub: workers.page.buy(bearer(30, sub=sub)) for sub in who}
    opened = [workers.open(first, one["protocols"]) for one in sold.values()]
    connections = {sub: workers.connect(second) for sub in who}

    def renewed(sub: str) -> int:
        members = {"session": sold[sub]["session"]}
        return workers.post(connections[sub], "/.wsguard/renew", members, bearer(60, sub=sub))[0]

    with ThreadPoolExecutor(len(who)) as pool:
        assert list(pool.map(renewed, who)) == [200] * len(who)
    assert all(lives(raw) for raw in opened)


def test_a_worker_that_hangs_holds_neither_revocation_nor_renewal(workers: Workers) -> None:
    """A hung worker's sockets are closed once it goes on; what it may hold is no 404 meanwhile, and it counts as silent."""
    for hung in list(workers.pids):
        other = next(pid for pid in workers.pids if pid != hung)
        sold = workers.page.buy(bearer(60, sub="dora"))
        held, kept = workers.open(hung, sold["protocols"]), workers.open(other, fields=bearer(60, sub="dora"))
        connection = workers.connect(other)
        os.kill(hung, signal.SIGSTOP)
        try:
            renewed = workers.post(connection, "/.wsguard/renew", {"session": sold["session"]}, bearer(60, sub="dora"))
            assert renewed[0] == 503
            told = ask_admin(workers.folder / "run" / "admin.sock", "POST", "/revocations", {"subject": "dora"})
        finally:
            os.kill(hung, signal.SIGCONT)
        assert told == {"closed": 1, "processes": 1}
        assert closed(kept) == (3000, "revoked")
        assert closed(held) == (3000, "revoked")
        lines = [line for line in workers.mount.log if line["event"] == "session.revoked" and "heard" not in line]
        assert [line["peer_uid"] for line in lines] == [os.geteuid()] * len(lines)
        # The hung one may have been asked first: once it goes on it does as it was told, and there is nothing to close.
        assert 1 in [line["closed"] for line in lines if line["pid"] == other]


def test_one_session_is_closed_wherever_it_lives(workers: Workers) -> None:
    first, second = workers.pids
    kept, ended = workers.open(first, fields=bearer(60)), workers.open(second, fields=bearer(60))
    (session,) = [one["session"] for one in workers.sessions("list") if one["pid"] == second]
    assert workers.sessions("close", session)["closed"] == 1
    assert closed(ended) == (3000, "closed")
    assert echoes(kept, "still there")


def test_a_replay_at_the_other_worker_closes_the_socket(workers: Workers) -> None:
    """Redeemed at one, and again at the other: that one is refused, and within a second the first one's socket is closed."""
    for first, second in (workers.pids, workers.pids[::-1]):
        print(f"redeemed by {first}, again by {second}")
        assert first != second
        sold = workers.page.buy(bearer(60))
        opened = workers.open(first, sold["protocols"])
        replay = workers.connect(second)
        replay.send(workers.page.request(sold["protocols"]))
        assert replay.reader.head().startswith(b"HTTP/1.1 401 ")
        begun = time.monotonic()
        assert closed(opened) == (3000, "ticket.replayed")
        assert time.monotonic() - begun < 1


@pytest.mark.parametrize("ticket", ["", LIVING], ids=["replay closes", "replay is let be"])
def test_two_hundred_redemptions_at_two_workers_open_one_socket(start_workers: StartWorkers, ticket: str) -> None:
    """All at once, to both workers: exactly one 101. That socket closes within a second, or lives where that is off."""
    workers = start_workers(ticket)
    protocols = workers.page.buy(bearer(60))["protocols"]
    request = workers.page.request(protocols)
    connections = [workers.page.connect() for _ in range(200)]
    owners = [owner_of(raw, workers.pids) for raw in connections]
    together = Barrier(len(connections))

    def come(raw: RawClient) -> int:
        together.wait(DEADLINE)
        raw.send(request)
        return int(raw.reader.head().split(b" ")[1])

    with ThreadPoolExecutor(len(connections)) as pool:
        statuses = list(pool.map(come, connections))
    begun = time.monotonic()
    print(*(f"{owner}:{status}" for owner, status in zip(owners, statuses, strict=True)))
    assert set(owners) == set(workers.pids), "one worker answered all"
    assert sorted(statuses) == [101] + [401] * 199
    opened = connections[statuses.index(101)]
    if ticket == LIVING:
        assert echoes(opened, "hello")
        refused = workers.open(workers.pids[0], fields=bearer(60))  # and it lives on while others come
        assert echoes(refused, "hello")
        assert echoes(opened, "still there")
    else:
        assert closed(opened) == (3000, "ticket.replayed")
        assert time.monotonic() - begun < 1


def test_a_worker_that_is_killed_comes_back(workers: Workers) -> None:
    """Its sockets end, those of the other live; within two seconds there are two again, on the same port."""
    first, second = workers.pids
    ended, kept = workers.open(first, fields=bearer(60)), workers.open(second, fields=bearer(60))
    mark = len(workers.mount.log)
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    again = workers.mount.wait_for("worker.started", after=mark)
    assert echoes(workers.open(again["pid"], fields=bearer(60)), "hello")
    assert time.monotonic() - began < 5  # two on a machine that does nothing else
    assert again["pid"] not in (first, second)
    assert not lives(ended)
    assert echoes(kept, "still there")
    assert workers.mount.wait_for("worker.ended")["code"] == -signal.SIGKILL


def test_the_end_of_the_parent_is_the_end_of_all(start_mount: StartMount, tmp_path: Path) -> None:
    """However it ended: nobody serves on without the one who would bring them back."""
    Place(tmp_path)
    workers = Workers(tmp_path, start_mount(CONFIGURATION))
    pids = workers.pids
    assert len(pids) == 2
    with watched(pids) as all_of_them:
        workers.mount.process.kill()
        assert workers.mount.stop() == -signal.SIGKILL
        assert all_of_them.survivors() == []


def test_what_cannot_be_several(start_mount: StartMount, tmp_path: Path) -> None:
    """A store in memory, a port where somebody listens: told once, by the parent, and nothing is started."""
    Place(tmp_path)

    def told(configuration: str, port: int) -> str:
        command, _ = start_mount.write(configuration, port)
        done = subprocess.run(
            [sys.executable, "-m", "wsguard", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        return done.stderr

    memory = CONFIGURATION.replace('store = "sqlite:wsguard.db"\n', "")
    assert 'workers: found 2 and a store in the memory of each, expected store = "sqlite:wsguard.db"' in told(memory, 0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"listen: found 127.0.0.1:{port} (Address already in use)" in told(CONFIGURATION, port)
