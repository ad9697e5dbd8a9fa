"""Two gateways, two processes, one store file: what happens at one counts at the other, and after a restart."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.credentials import Place, Visitor, bearer, closed, echoes
from tests.gateway.conftest import Certificates
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.recording_upstream import RecordingUpstream, echo

pytestmark = pytest.mark.slow

CONFIGURATION = """
listen = ["127.0.0.1:0"]
cert = "{cert}"
key = "{key}"
upstream = "{upstream}"
origins = ["https://app.test"]
hosts = ["app.test"]
store = "sqlite:wsguard.db"
admin = "unix:run/{name}.sock"
auth = ["ticket", "bearer"]

[jwt."https://id.test"]
audience = ["https://app.test"]
jwks = "file:jwks.json"

[ticket]
sold_for = ["bearer"]
"""


class Workers:
    """Gateways that share a file, and a page that comes to any of them."""

    def __init__(self, folder: Path, start: ExitStack, certificates: Certificates, context: ssl.SSLContext) -> None:
        self.folder, self._stack, self._certificates, self._context = folder, start, certificates, context
        Place(folder)
        self._upstream = RecordingUpstream(echo)
        start.callback(self._upstream.close)

    def write(self, name: str) -> Path:
        """Write the configuration of one of them."""
        file = self.folder / f"{name}.toml"
        cert, key = self._certificates.cert, self._certificates.key
        file.write_text(CONFIGURATION.format(cert=cert, key=key, upstream=self._upstream.url, name=name))
        return file

    def start(self, name: str) -> tuple[GatewayProcess, Visitor]:
        gateway = GatewayProcess(self.write(name))
        self._stack.callback(ended, gateway)
        return gateway, Visitor(gateway.address, self._context, self._stack)

    def close_sessions(self, name: str, *words: str) -> int:
        """Revoke over the admin socket of one of them; return how many sockets that one closed."""
        command = [sys.executable, "-m", "wsguard", "sessions", "close", *words, "--json"]
        command += ["--config", str(self.folder / f"{name}.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return int(json.loads(done.stdout)["closed"])


def ended(gateway: GatewayProcess) -> None:
    assert gateway.stop() == 0, gateway.stderr()
    assert gateway.stderr() == ""


@pytest.fixture
def workers(certificates: Certificates, client_context: ssl.SSLContext, tmp_path: Path) -> Iterator[Workers]:
    with ExitStack() as stack:
        yield Workers(tmp_path, stack, certificates, client_context)


def test_every_worker_hears_it(workers: Workers) -> None:
    """B-STORE-02: a revocation in one process closes what another one holds, and is refused there at once after it."""
    first, page = workers.start("first")
    second, other = workers.start("second")
    print(f"opened by {second.pid}, revoked by {first.pid}")
    assert first.pid != second.pid
    token = bearer(60)
    raw, _ = other.open(page.buy(token)["protocols"])
    assert echoes(raw, "hello")
    assert workers.close_sessions("first", "--subject", "alice") == 0
    assert closed(raw) == (3000, "revoked")
    assert second.wait_for("session.revoked")["heard"] == "store"
    assert other.ask("/.wsguard/ticket", token, b'{"path": "/ws/chat"}').status == 401


def test_one_ticket_at_two_processes_opens_one_socket(workers: Workers) -> None:
    """Sixty come at once to both: one 101, and that one closes, because others had its ticket too."""
    first, page = workers.start("first")
    second, other = workers.start("second")
    sold = page.buy(bearer(60))

    def come(number: int) -> tuple[int, int]:
        gateway, visitor = ((first, page), (second, other))[number % 2]
        raw = visitor.connect()
        raw.send(visitor.request(sold["protocols"]))
        status = int(raw.reader.head().split(b" ")[1])
        return gateway.pid, status if status != 101 else closed(raw)[0]

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(come, range(60)))
    print({pid: [status for answered, status in outcomes if answered == pid] for pid in (first.pid, second.pid)})
    assert {pid for pid, _ in outcomes} == {first.pid, second.pid}
    assert sorted(status for _, status in outcomes) == [401] * 59 + [3000]


def test_a_restart_forgets_no_revocation(workers: Workers) -> None:
    """A token that is still valid stays out; one that was issued later is let in. Tickets live on too."""
    first, page = workers.start("first")
    token, sold = bearer(60), page.buy(bearer(60, sub="bob"))
    workers.close_sessions("first", "--subject", "alice")
    ended(first)
    again, page = workers.start("first")
    assert again.pid != first.pid
    assert page.ask("/.wsguard/ticket", token, b'{"path": "/ws/chat"}').status == 401
    raw, _ = page.open(sold["protocols"])
    assert echoes(raw, "hello")


def test_a_store_that_cannot_be_had_stops_the_start(workers: Workers) -> None:
    """Told with its key, its path and what to do; nothing is served meanwhile."""
    (workers.folder / "wsguard.db").write_text("nonsense")
    (workers.folder / "wsguard.db").chmod(0o600)
    command = [sys.executable, "-m", "wsguard", "gateway", "--config", str(workers.write("first"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"store: found {workers.folder}/wsguard.db" in done.stderr
