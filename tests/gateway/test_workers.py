"""`workers = 2`: two processes on one port, and whatever concerns a socket reaches the one that holds it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.credentials import Place, Visitor, bearer, closed, echoes
from tests.gateway.conftest import Certificates
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.raw_client import RawClient
from tests.gateway.recording_upstream import RecordingUpstream, echo
from tests.processes import watched
from wsguard.admin.client import ask_admin

pytestmark = pytest.mark.slow

DEADLINE = 20.0
CONFIGURATION = """
listen = ["127.0.0.1:{port}"]
cert = "{cert}"
key = "{key}"
upstream = "{upstream}"
origins = ["https://app.test"]
hosts = ["app.test"]
workers = 2
{store}
admin = "unix:run/admin.sock"
auth = ["ticket", "bearer"]

[jwt."https://id.test"]
audience = ["https://app.test"]
jwks = "file:jwks.json"

[ticket]
sold_for = ["bearer"]
"""
STORE = 'store = "sqlite:wsguard.db"'


class Workers:
    """A gateway of two workers, and a page that chooses which of them it speaks to."""

    def __init__(self, folder: Path, gateway: GatewayProcess, page: Visitor) -> None:
        self.folder, self.gateway, self.page = folder, gateway, page

    @property
    def pids(self) -> list[int]:
        """The workers that run now."""
        ended = {line["pid"] for line in self.gateway.log if line["event"] == "worker.ended"}
        started = [line["pid"] for line in self.gateway.log if line["event"] == "worker.started"]
        return [pid for pid in started if pid not in ended]

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


@pytest.fixture
def place(certificates: Certificates, tmp_path: Path) -> Iterator[tuple[Path, ExitStack]]:
    """A folder with the configuration of two workers."""
    with ExitStack() as stack:
        upstream = RecordingUpstream(echo)
        stack.callback(upstream.close)
        Place(tmp_path)
        write(tmp_path, certificates, upstream.url)
        yield tmp_path, stack


def write(folder: Path, certificates: Certificates, upstream: str, store: str = STORE, port: int = 0) -> Path:
    file = folder / "wsguard.toml"
    cert, key = certificates.cert, certificates.key
    file.write_text(CONFIGURATION.format(cert=cert, key=key, upstream=upstream, store=store, port=port))
    return file


@pytest.fixture
def workers(place: tuple[Path, ExitStack], client_context: ssl.SSLContext) -> Iterator[Workers]:
    folder, stack = place
    gateway = GatewayProcess(folder / "wsguard.toml")
    gateway.wait_for("gateway.listening", after=gateway.log.index(gateway.start_line) + 1)
    subject = Workers(folder, gateway, Visitor(gateway.address, client_context, stack))
    yield subject
    pids = subject.pids
    assert gateway.stop() == 0, gateway.stderr()
    assert gateway.stderr() == ""
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not (folder / "run" / "admin.sock").exists()


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
    assert workers.gateway.wait_for("session.renewed")["pid"] == first
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
        lines = [line for line in workers.gateway.log if line["event"] == "session.revoked" and "heard" not in line]
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


def test_two_hundred_redemptions_at_two_workers_open_one_socket(workers: Workers) -> None:
    """Exactly one 101, and that socket closes within a second, for others had its ticket too; both workers answered."""
    sold = workers.page.buy(bearer(60))

    def come(_: int) -> tuple[int | None, int]:
        raw = workers.page.connect()
        pid = owner_of(raw, workers.pids)
        raw.send(workers.page.request(sold["protocols"]))
        status = int(raw.reader.head().split(b" ")[1])
        return pid, status if status != 101 else closed(raw)[0]

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(come, range(200)))
    answered = {pid: sum(1 for owner, _ in outcomes if owner == pid) for pid in workers.pids}
    print(f"who answered: {answered}")
    assert min(answered.values()) > 0
    assert sorted(status for _, status in outcomes) == [401] * 199 + [3000]


def test_a_worker_that_is_killed_comes_back(workers: Workers) -> None:
    """Its sockets end, those of the other live; within two seconds there are two again, on the same port."""
    first, second = workers.pids
    ended, kept = workers.open(first, fields=bearer(60)), workers.open(second, fields=bearer(60))
    mark = workers.gateway.mark()
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    again = workers.gateway.wait_for("gateway.listening", after=mark)
    assert time.monotonic() - began < 5  # two on a machine that does nothing else
    assert again["pid"] not in (first, second)
    assert not lives(ended)
    assert echoes(kept, "still there")
    assert echoes(workers.open(again["pid"], fields=bearer(60)), "hello")
    assert workers.gateway.wait_for("worker.ended")["code"] == -signal.SIGKILL


def test_the_end_of_the_parent_is_the_end_of_all(place: tuple[Path, ExitStack]) -> None:
    """However it ended: nobody serves on without the one who would bring them back."""
    folder, _ = place
    gateway = GatewayProcess(folder / "wsguard.toml")
    gateway.wait_for("gateway.listening", after=gateway.log.index(gateway.start_line) + 1)
    pids = [line["pid"] for line in gateway.log if line["event"] == "worker.started"]
    with watched(pids) as workers:
        gateway.process.kill()
        gateway.process.wait(DEADLINE)
        assert workers.survivors() == []
    gateway.stop()


def test_what_cannot_be_several(place: tuple[Path, ExitStack], certificates: Certificates, tmp_path: Path) -> None:
    """A store in memory, a port where somebody listens: told once, by the parent, and nothing is started."""
    folder, stack = place
    upstream = "http://127.0.0.1:1"

    def told() -> str:
        command = [sys.executable, "-m", "wsguard", "gateway", "--config", str(folder / "wsguard.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        return done.stderr

    write(folder, certificates, upstream, store="")
    assert 'workers: found 2 and a store in the memory of each, expected store = "sqlite:wsguard.db"' in told()
    other = RecordingUpstream(echo)
    stack.callback(other.close)
    write(folder, certificates, upstream, port=other.port)
    assert f"listen: found 127.0.0.1:{other.port} (Address already in use)" in told()
