"""
What a mount asks is down, slow, locked or full while it runs: it says 503, lets nobody in, and recovers by itself.

Other routes, and sockets that are open, do not notice.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import sqlite3
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import trustme

from tests.credentials import Place, bearer, closed, echoes
from tests.engine.tokens import key_of, public
from tests.identity.tls_server import Answer, Asked, serving
from tests.mounts.conftest import Mount, StartMount

pytestmark = pytest.mark.slow

DEADLINE = 20.0
ROUTES = """
origins = ["https://app.test"]
hosts = ["app.test"]
public_url = "https://app.test"

[api_keys]
file = "keys.toml"

[[route]]
path = "/ws/keys"
auth = ["api_key"]

[[route]]
path = "/ws/*"
auth = ["bearer", "ticket"]

[[route]]
path = "/*"
anonymous = true

[ticket]
sold_for = ["bearer"]
"""
ISSUER = """
outbound = ["127.0.0.0/8"]
outbound_ca = "issuer-ca.pem"
{routes}
[jwt."{issuer}"]
audience = ["https://app.test"]
"""
IMPATIENT = """
[limits]
decision = "2s"
issuer_timeout = "1s"
"""
STORE = """
store = "sqlite:wsguard.db"
{routes}
[jwt."https://id.test"]
audience = ["https://app.test"]
jwks = "file:jwks.json"

[limits]
store_command = "0.5s"
store_patience = "1s"
"""


class Keys:
    """An issuer's metadata and keys, as `tests.identity.tls_server` answers them."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer

    def __call__(self, asked: Asked) -> Answer:
        if asked.target == "/keys":
            return Answer(parts=(public(key_of("ES256")),))
        metadata = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        return Answer(parts=(json.dumps(metadata).encode(),))


def comes(mount: Mount, fields: dict[str, str], path: str = "/ws/chat") -> int:
    """The status that a handshake gets."""
    raw = mount.visitor.connect()
    raw.send(mount.visitor.request(fields=fields, path=path))
    return int(raw.reader.head().split(b" ")[1])


def until(status: int, ask: Callable[[], int]) -> None:
    """Ask until *status* is answered: what recovers tells nobody."""
    end = time.monotonic() + DEADLINE
    while (last := ask()) != status:
        assert time.monotonic() < end, f"still {last}, not {status}"
        time.sleep(0.05)  # between two questions, within the deadline: a recovery sends no event


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "issuer-ca.pem")
    return authority


def test_an_issuer_that_is_down_at_start(start_mount: StartMount, ca: trustme.CA, tmp_path: Path) -> None:
    """The mount starts; its tokens get 503 and one line says why; keys open sockets meanwhile; back without a restart."""
    key = {"X-API-Key": Place(tmp_path).add_key("machine")}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen: whoever comes is refused
        port = nobody.getsockname()[1]
        issuer = f"https://localhost:{port}"
        mount = start_mount(ISSUER.format(routes=ROUTES, issuer=issuer))
        mine = bearer(iss=issuer)
        for _ in range(3):
            status, request_id = mount.visitor.refused(fields=mine)
            assert (status, mount.reason_of(request_id)) == (503, "token.unavailable")
        assert mount.visitor.ask("/.wsguard/ticket", mine, b'{"path": "/ws/chat"}').status == 503
        assert mount.reached() == 0
        (told,) = mount.events("issuer.failed")
        assert told["issuer"] == issuer
        assert echoes(mount.visitor.open(fields=key, path="/ws/keys")[0], "hello")
    with serving(ca, port=port) as server:
        server.answer = Keys(issuer)
        until(101, lambda: comes(mount, mine))
        assert echoes(mount.visitor.open(fields=mine)[0], "hello")
    assert [line["issuer"] for line in mount.events("issuer.recovered")] == [issuer]
    assert mount.events("issuer.failed") == [told]
    assert mount.stderr_faults() == []


def test_an_issuer_that_is_slow(start_mount: StartMount, ca: trustme.CA, tmp_path: Path) -> None:
    """A handshake waits for it no longer than its deadline, and nobody else waits for it at all."""
    key = {"X-API-Key": Place(tmp_path).add_key("machine")}
    with serving(ca) as server:
        issuer = server.url("")
        server.says(Answer(wait=60))
        mount = start_mount(ISSUER.format(routes=ROUTES, issuer=issuer) + IMPATIENT)
        live, _ = mount.visitor.open(fields=key, path="/ws/keys")
        waiting = mount.visitor.connect()
        began = time.monotonic()
        waiting.send(mount.visitor.request(fields=bearer(iss=issuer)))
        assert server.arrived.acquire(timeout=DEADLINE)
        assert echoes(mount.visitor.open(fields=key, path="/ws/keys")[0], "hello")
        assert echoes(live, "still there")
        assert comes(mount, {}, "/open") == 101
        noticed = time.monotonic() - began
        assert waiting.reader.head().startswith(b"HTTP/1.1 503 ")
        took = time.monotonic() - began
        print(f"others after {noticed:.2f} s, its own after {took:.2f} s")
        assert noticed < took < 2 + 1.5  # the decision's bound, and a machine that does other things
        server.answer = Keys(issuer)
        until(101, lambda: comes(mount, bearer(iss=issuer)))
    assert mount.stderr_faults() == []


@contextlib.contextmanager
def locked(mount: Mount, file: Path) -> Generator[None]:
    """Somebody else writes, and does not end."""
    del mount
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def down(mount: Mount, file: Path) -> Generator[None]:
    """The file is not there, as when a file system is gone."""
    del mount
    files = [file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))]
    there = [one for one in files if one.exists()]
    for one in there:
        one.rename(one.with_name(f"aside-{one.name}"))
    yield
    for one in there:
        one.with_name(f"aside-{one.name}").rename(one)


@contextlib.contextmanager
def full(mount: Mount, file: Path) -> Generator[None]:
    """No file may become longer than a page of the store, as on a full disk."""
    del file
    before = resource.prlimit(mount.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(mount.process.pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.prlimit(mount.process.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("outage", [locked, down, full])
def test_a_store_that_fails(
    outage: Callable[[Mount, Path], contextlib.AbstractContextManager[None]], start_mount: StartMount, tmp_path: Path
) -> None:
    """No ticket is sold or taken and nobody is let in by one; what was sold before opens once the store is back."""
    Place(tmp_path).add_key("machine")
    mount = start_mount(STORE.format(routes=ROUTES))
    live, _ = mount.visitor.open(protocols=mount.visitor.buy(bearer(120))["protocols"])
    sold = mount.visitor.buy(bearer(120))["protocols"]
    reached = mount.reached()
    with outage(mount, tmp_path / "wsguard.db"):
        answer = mount.visitor.ask("/.wsguard/ticket", bearer(), b'{"path": "/ws/chat"}')
        assert answer.status == 503
        for _ in range(2):
            status, request_id = mount.visitor.refused(protocols=sold)
            assert (status, mount.reason_of(request_id)) == (503, "store.unavailable")
        assert mount.reached() == reached
        assert comes(mount, {}, "/open") == 101
        assert echoes(live, "still there")
    until(200, lambda: mount.visitor.ask("/.wsguard/ticket", bearer(), b'{"path": "/ws/chat"}').status)
    opened, _ = mount.visitor.open(protocols=sold)
    assert echoes(opened, "hello")
    status, request_id = mount.visitor.refused(protocols=sold)
    assert (status, mount.reason_of(request_id)) == (401, "ticket.used")
    assert closed(opened) == (3000, "ticket.replayed")
    assert mount.stderr_faults() == []


@pytest.mark.parametrize("outage", [down])
def test_while_nobody_can_say_what_was_revoked(
    outage: Callable[[Mount, Path], contextlib.AbstractContextManager[None]], start_mount: StartMount, tmp_path: Path
) -> None:
    """After `store_patience` nobody with a name is let in, token or key; who has none is, and open sockets live."""
    key = {"X-API-Key": Place(tmp_path).add_key("machine")}
    mount = start_mount(STORE.format(routes=ROUTES))
    live, _ = mount.visitor.open(fields=bearer(120))
    with outage(mount, tmp_path / "wsguard.db"):
        until(503, lambda: comes(mount, bearer(120)))
        assert comes(mount, key, "/ws/keys") == 503
        assert comes(mount, {}, "/open") == 101
        assert echoes(live, "still there")
    until(101, lambda: comes(mount, bearer(120)))
    assert comes(mount, key, "/ws/keys") == 101
    assert echoes(live, "still there")
    assert mount.stderr_faults() == []
