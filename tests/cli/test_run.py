"""`wsguard run`: an app behind TLS, the guard and deadlines, as a person starts it."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.asgi.server_process import free_port
from tests.credentials import bearer
from tests.engine.tokens import key_of, public
from tests.leaks import Sink, saw
from wsguard.admin.client import ask_admin

DEADLINE = 20.0
APP = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

async def echo(socket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)

async def page(request):
    return PlainTextResponse(f"{request.url.scheme} {request.client.host if request.client else None} %d" % os.getpid())

app = Starlette(routes=[Route("/", page), WebSocketRoute("/ws", echo)])

def make():
    return app
"""
GUARDED = """
from plain_app import app
from wsguard import Policy
from wsguard.asgi import WebSocketGuard

app.add_middleware(WebSocketGuard, policy=Policy(origins=["https://other.test"]))
"""
HANDSHAKE = (
    "GET {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)


class Running:
    """One ``wsguard run``, its JSON log, and its certificate's authority."""

    def __init__(self, arguments: list[str], folder: Path, context: ssl.SSLContext | None, address: Any) -> None:
        self.address = address
        self.context = context
        self._output = (folder / f"run-{time.monotonic_ns()}.log").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wsguard", "run", *arguments],
            cwd=folder,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_DATA_HOME": str(folder / "data")},
        )

    def output(self) -> str:
        return Path(self._output.name).read_text()

    def wait_for(self, text: str, *, after: int = 0) -> str:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and (self.process.poll() is None or text in self.output()[after:]):
            for line in self.output()[after:].splitlines():
                if text in line:
                    return line
            time.sleep(0.01)  # a file sends no event
        raise AssertionError(f"no {text!r} in\n{self.output()}")

    def connect(self) -> socket.socket:
        if isinstance(self.address, str):
            plain = socket.socket(socket.AF_UNIX)
            plain.settimeout(DEADLINE)
            plain.connect(self.address)
            return plain
        plain = socket.create_connection(self.address, timeout=DEADLINE)
        return plain if self.context is None else self.context.wrap_socket(plain, server_hostname="app.test")

    def ask(self, request: str) -> bytes:
        with self.connect() as connection:
            connection.sendall(request.encode())
            answer = b""
            while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
                answer += data
            return answer

    def handshake(self, *, origin: str, host: str = "app.test", target: str = "/ws", more: str = "") -> bytes:
        return self.ask(HANDSHAKE.format(origin=origin, host=host, target=target, more=more))

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(DEADLINE)
        self._output.close()
        saw(Sink.SERVER_OUTPUT, self.output(), "wsguard run")
        return code


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("run-certificates")
    authority = trustme.CA()
    leaf = authority.issue_cert("app.test", "other.test")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return folder, context


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, certificates: tuple[Path, ssl.SSLContext]) -> Iterator[Start]:
    """Start ``wsguard run`` with TLS on a free port; *arguments* come behind."""
    (tmp_path / "plain_app.py").write_text(APP)
    (tmp_path / "guarded_app.py").write_text(GUARDED)
    folder, context = certificates
    running: list[Running] = []

    def begin(app: str, *arguments: str, listen: str | None = None, wait: bool = True) -> Running:
        address: Any = ("127.0.0.1", free_port())
        if listen is None:
            files = ["--cert", str(folder / "cert.pem"), "--key", str(folder / "key.pem")]
            where = ["--listen", f"127.0.0.1:{address[1]}", *files]
        elif listen == "plain":
            where = ["--listen", f"plain:127.0.0.1:{address[1]}"]
        else:
            address = str(tmp_path / "app.sock")
            where = ["--listen", f"unix:{address}"]
        secure = context if listen is None else None
        begun = Running([app, *where, "--log-format", "json", *arguments], tmp_path, secure, address)
        running.append(begun)
        if wait:
            begun.wait_for("Application startup complete")
            begun.wait_for("running on")
        return begun

    yield begin
    for one in running:
        one.stop()


def has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_an_app_without_a_guard_gets_one(start: Start) -> None:
    """Without a policy the served host's own pages may connect, and nobody else's."""
    run = start("plain_app:app")
    assert json.loads(run.wait_for("run.starting"))["guard"] == "wsguard run"
    assert status(run.handshake(origin="https://app.test")) == 101
    assert status(run.handshake(origin="https://evil.test")) == 403
    assert status(run.handshake(origin="https://app.test", host="evil.test")) == 421
    assert run.stop() == 0


def test_an_app_with_a_guard_keeps_to_it(start: Start) -> None:
    """Two policies that nobody wrote would refuse each other's pages; a written one stands before the app's own."""
    run = start("guarded_app:app")
    assert json.loads(run.wait_for("run.starting"))["guard"] == "the app's own"
    assert status(run.handshake(origin="https://other.test", host="other.test")) == 101
    assert status(run.handshake(origin="https://app.test")) == 421
    both = start("guarded_app:app", "--origin", "https://other.test", "--origin", "https://app.test")
    assert status(both.handshake(origin="https://other.test", host="other.test")) == 101
    assert status(both.handshake(origin="https://app.test")) == 421
    assert status(both.handshake(origin="https://evil.test", host="other.test")) == 403


def test_no_query_string_reaches_the_log(start: Start) -> None:
    """uvicorn's own lines hold it for every socket; a query may be a secret (RULES §10)."""
    run = start("plain_app:app", "--origin", "https://app.test")
    assert status(run.handshake(origin="https://app.test", target="/ws?token=s3cret")) == 101
    assert status(run.handshake(origin="https://evil.test", target="/ws?token=s3cret")) == 403
    run.wait_for("handshake.refused")
    run.wait_for("session.closed")
    assert run.stop() == 0
    assert "s3cret" not in run.output()
    assert "without completing handshake" not in run.output()


@pytest.mark.slow
def test_two_workers_serve_one_port(start: Start) -> None:
    """Both answer, both judge; the end of the parent is a good end of both."""
    more = ["--workers", "2", "--store", "sqlite:wsguard.db", "--origin", "https://app.test"]
    run = start("plain_app:app", *more, wait=False)
    begun = run.wait_for("Application startup complete")
    run.wait_for("Application startup complete", after=run.output().index(begun) + len(begun))
    deadline = time.monotonic() + DEADLINE
    pids: set[int] = set()
    while len(pids) < 2 and time.monotonic() < deadline:
        answer = run.ask("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        assert status(answer) == 200
        for line in run.output().splitlines():
            if "worker.started" in line:
                pids.add(json.loads(line)["pid"])
        assert status(run.handshake(origin="https://evil.test")) == 403
    refused = [json.loads(line)["pid"] for line in run.output().splitlines() if "handshake.refused" in line]
    while set(refused) != pids and time.monotonic() < deadline:
        run.handshake(origin="https://evil.test")
        refused = [json.loads(line)["pid"] for line in run.output().splitlines() if "handshake.refused" in line]
    print(f"refused by {sorted(set(refused))}")
    assert len(pids) == 2
    assert set(refused) == pids
    assert status(run.handshake(origin="https://app.test")) == 101
    assert run.stop() == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


WORKED = """
from plain_app import app
from wsguard import Guard, JWT, Policy, Ticket
from wsguard.asgi import WebSocketGuard

jwt = JWT("https://id.test", audience=["https://app.test"], jwks="file:jwks.json")
policy = Policy(origins=["https://app.test"], hosts=["app.test"], auth=["ticket", "bearer"])
more = {{"ticket": Ticket(sold_for=["bearer"]), "public_url": "https://app.test", "store": {store!r}}}
app = WebSocketGuard(app, guard=Guard(policy, authenticators=[jwt], **more))
"""


@pytest.mark.slow
def test_the_apps_own_guard_is_one_of_several(start: Start, tmp_path: Path) -> None:
    """A ticket of one worker opens at the other, all sessions are listed, and one revocation closes them all."""
    (tmp_path / "worked_app.py").write_text(WORKED.format(store="sqlite:wsguard.db"))
    (tmp_path / "jwks.json").write_bytes(public(key_of("ES256")))
    more = ["--workers", "2", "--store", "sqlite:wsguard.db", "--admin", "unix:run/admin.sock"]
    run = start("worked_app:app", *more, wait=False)
    begun = run.wait_for("Application startup complete")
    run.wait_for("Application startup complete", after=run.output().index(begun) + len(begun))
    protocol = "Sec-WebSocket-Protocol: wsguard.v1, {}\r\n"
    with ExitStack() as stack:
        for _ in range(8):
            body = b'{"path": "/ws"}'
            fields = {"Host": "app.test", "Origin": "https://app.test", "Content-Type": "application/json"}
            fields |= {"Content-Length": str(len(body)), **bearer()}
            head_lines = ["POST /.wsguard/ticket HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
            request = "\r\n".join([*head_lines, "", ""])
            with run.connect() as connection:
                connection.sendall(request.encode() + body)
                answer = b""
                while b"}" not in answer:
                    answer += connection.recv(65536)
            assert status(answer) == 200, answer
            ticket = json.loads(answer.partition(b"\r\n\r\n")[2])["protocols"][-1]
            opened = stack.enter_context(run.connect())
            more_fields = {"target": "/ws", "host": "app.test", "origin": "https://app.test"}
            opened.sendall(HANDSHAKE.format(**more_fields, more=protocol.format(ticket)).encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += opened.recv(65536)
            assert status(head) == 101, head
        admin = tmp_path / "run" / "admin.sock"
        held = {one["pid"] for one in ask_admin(admin, "GET", "/sessions")["sessions"]}
        told = ask_admin(admin, "POST", "/revocations", {"issuer": "https://id.test"})
    print(f"held by {sorted(held)}, closed {told}")
    assert told == {"closed": 8, "processes": 2}
    assert run.stop() == 0


@pytest.mark.slow
def test_an_own_guard_with_a_store_of_its_own_process_is_not_several(start: Start, tmp_path: Path) -> None:
    """Its tickets would open nothing at the other worker: an error at start."""
    (tmp_path / "worked_app.py").write_text(WORKED.format(store="memory"))
    (tmp_path / "jwks.json").write_bytes(public(key_of("ES256")))
    run = start("worked_app:app", "--workers", "2", "--store", "sqlite:wsguard.db", wait=False)
    run.wait_for('store = "sqlite:wsguard.db"')
    assert run.process.wait(DEADLINE) == 2
    run.stop()


@pytest.mark.slow
def test_two_guards_are_not_several(start: Start, tmp_path: Path) -> None:
    """Only the outer one would join the other workers, so the inner one's sockets could not be renewed or revoked there."""
    (tmp_path / "worked_app.py").write_text(WORKED.format(store="sqlite:wsguard.db"))
    (tmp_path / "jwks.json").write_bytes(public(key_of("ES256")))
    more = ["--workers", "2", "--store", "sqlite:wsguard.db", "--origin", "https://app.test"]
    run = start("worked_app:app", *more, wait=False)
    run.wait_for("found a policy, and an app with a guard of its own, expected one of the two")
    assert run.process.wait(DEADLINE) == 2
    run.stop()


@pytest.mark.slow
def test_a_guard_that_starlette_would_make_later_stops_the_start(start: Start, tmp_path: Path) -> None:
    """A policy that cannot work is told before anything is served, not in a traceback at the first request."""
    (tmp_path / "late_app.py").write_text(
        GUARDED.replace("policy=Policy(origins=", "policy=Policy(auth=['nobody'], origins=")
    )
    run = start("late_app:app", wait=False)
    assert run.process.wait(DEADLINE) == 2
    assert "nobody" in run.output()
    assert "Traceback" not in run.output()
    run.stop()


@pytest.mark.slow
def test_slow_connections_end(start: Start, tmp_path: Path) -> None:
    """uvicorn has no deadline for a head: a slow one, and a slow TLS handshake, cost a bounded time."""
    config = tmp_path / "wsguard.toml"
    config.write_text('[limits]\nhead_timeout = "1s"\ntls_handshake = "1s"\n')
    run = start("plain_app:app", "--config", str(config))
    with run.connect() as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: app.test\r\n")
        begun = time.monotonic()
        assert slow.recv(1) == b""
        assert 0.5 < time.monotonic() - begun < 5
    with run.connect() as later:
        later.sendall(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        answer = b""
        while b"\r\n\r\nhttps" not in answer:
            answer += later.recv(65536)
        later.sendall(b"GET / HTTP/1.1\r\n")
        begun = time.monotonic()
        assert later.recv(65536) == b""
        assert 0.5 < time.monotonic() - begun < 5
    with run.connect() as unasked:
        more = "".join(f"X-Many-{number}: x\r\n" for number in range(200))
        unasked.sendall(HANDSHAKE.format(target="/ws", host="app.test", origin="https://app.test", more=more).encode())
        begun = time.monotonic()
        assert unasked.recv(65536) == b""
        assert 0.5 < time.monotonic() - begun < 5
    with socket.create_connection(run.address, timeout=DEADLINE) as silent:
        begun = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - begun < 5


@pytest.mark.slow
def test_a_short_socket_leaves_no_traceback_on_asyncios_own_loop(start: Start, tmp_path: Path) -> None:
    """``wsguard[run]`` alone brings no uvloop: whoever looks after a handshake finds its transport gone."""
    (tmp_path / "uvloop.py").write_text("raise ImportError\n")
    config = tmp_path / "wsguard.toml"
    config.write_text('[limits]\nhead_timeout = "1s"\n')
    run = start("plain_app:app", "--config", str(config), "--origin", "https://app.test")
    with run.connect() as short:
        short.sendall(HANDSHAKE.format(target="/ws", host="app.test", origin="https://app.test", more="").encode())
        assert status(short.recv(65536)) == 101
    run.wait_for("session.closed")
    with run.connect() as later:
        assert later.recv(1) == b""  # its deadline ends later than that of the handshake before
    assert "Traceback" not in run.output()


@pytest.mark.slow
def test_silent_clients_do_not_hold_up_the_end(start: Start, tmp_path: Path) -> None:
    """SIGTERM: a socket hears 1012 at once; one that never answers, and a page's open connection, cost a bounded time."""
    config = tmp_path / "wsguard.toml"
    config.write_text('max_lifetime = "1h"\n[limits]\nclose_deadline = "0.5s"\nclose_handshake = "0.5s"\n')
    run = start("plain_app:app", "--config", str(config), "--origin", "https://app.test")
    with run.connect() as silent, run.connect() as page:
        page.sendall(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        assert page.recv(65536).startswith(b"HTTP/1.1 200")
        silent.sendall(HANDSHAKE.format(target="/ws", host="app.test", origin="https://app.test", more="").encode())
        assert status(silent.recv(65536)) == 101
        run.process.terminate()
        assert silent.recv(65536)[2:4] == (1012).to_bytes(2)
        begun = time.monotonic()
        assert run.process.wait(DEADLINE) == 0
        took = time.monotonic() - begun
    assert took < 5, "one second, and a machine that does other things"
    assert json.loads(run.wait_for("session.closed"))["by"] == "server"


@pytest.mark.slow
def test_a_client_that_is_just_leaving_does_not_break_the_end(start: Start, tmp_path: Path) -> None:
    """It has closed, and its connection still stands: the others hear 1012 all the same, and nothing is a fault."""
    config = tmp_path / "wsguard.toml"
    config.write_text('[limits]\nclose_deadline = "0.5s"\nclose_handshake = "0.5s"\n')
    run = start("plain_app:app", "--config", str(config), "--origin", "https://app.test")
    request = HANDSHAKE.format(target="/ws", host="app.test", origin="https://app.test", more="").encode()
    with run.connect() as leaving, run.connect() as other:
        for connection in (leaving, other):
            connection.sendall(request)
            assert status(connection.recv(65536)) == 101
        leaving.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        assert leaving.recv(65536) == b"\x88\x02\x03\xe8"  # answered; TLS itself is not closed by this side
        run.process.terminate()
        assert other.recv(65536)[2:4] == (1012).to_bytes(2)
        assert run.process.wait(DEADLINE) == 0
    assert "Traceback" not in run.output()
    assert "Finished server process" in run.output()


SLOW = """
import asyncio
from plain_app import app
from wsguard import Guard, Identity, Policy
from wsguard.asgi import WebSocketGuard

class Slow:
    name = "slow"
    carriage = "explicit"

    async def authenticate(self, handshake, context):
        print("is asked", flush=True)
        await asyncio.sleep(1)
        return Identity("alice", "app", "slow")

app = WebSocketGuard(app, guard=Guard(Policy(origins=["https://app.test"], auth=["slow"]), authenticators=[Slow()]))
"""


@pytest.mark.slow
def test_a_handshake_that_is_still_judged_does_not_break_the_end(start: Start, tmp_path: Path) -> None:
    """It is answered at once, and who is let in afterwards is served on no dead connection."""
    (tmp_path / "slow_app.py").write_text(SLOW)
    config = tmp_path / "wsguard.toml"
    config.write_text('[limits]\nclose_deadline = "2s"\nclose_handshake = "2s"\n')
    run = start("slow_app:app", "--config", str(config))
    with run.connect() as judged:
        judged.sendall(HANDSHAKE.format(target="/ws", host="app.test", origin="https://app.test", more="").encode())
        run.wait_for("is asked")
        begun = time.monotonic()
        run.process.terminate()
        assert status(judged.recv(65536)) == 500
    assert run.process.wait(DEADLINE) == 0
    assert time.monotonic() - begun < 3.5, "it ends with the judgement, not when it is given up"
    assert "Traceback" not in run.output()


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"all": {"class": "logging.StreamHandler"}},
    "root": {"level": "DEBUG", "handlers": ["all"]},
    "loggers": {name: {"level": "DEBUG"} for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi")},
}


def test_a_log_configuration_shows_no_secret_either(start: Start, tmp_path: Path) -> None:
    """At DEBUG uvicorn writes whole requests, whoever asks for that."""
    (tmp_path / "logging.json").write_text(json.dumps(LOGGING))
    more = ["--origin", "https://app.test", "--", "--log-config", str(tmp_path / "logging.json")]
    run = start("plain_app:app", *more)
    answer = run.handshake(origin="https://app.test", target="/ws?token=s3cret", more="Cookie: sid=s3cret\r\n")
    assert status(answer) == 101
    run.wait_for("session.closed")
    assert run.stop() == 0
    assert "s3cret" not in run.output()
    assert "Shutting down" in run.output()


def test_connections_that_are_not_admitted_are_capped(start: Start, tmp_path: Path) -> None:
    """One address may hold so many open heads and no more (RULES §9)."""
    config = tmp_path / "wsguard.toml"
    config.write_text("[limits]\npreauth_address = 2\n")
    run = start("plain_app:app", "--config", str(config))
    with run.connect() as first, run.connect() as second, run.connect() as third:
        assert has_ended(third)
        for held in (first, second):
            held.sendall(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
            assert held.recv(65536).startswith(b"HTTP/1.1 200")
    assert run.ask("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_behind_a_proxy(start: Start) -> None:
    """plain: and unix: need a listed proxy, which must say https; the app sees the client that it names."""
    said = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n"
    for listen, proxy in (("plain", "127.0.0.1"), ("unix", "unix")):
        run = start("plain_app:app", "--trusted-proxy", proxy, "--origin", "https://app.test", listen=listen)
        if isinstance(run.address, str):
            assert stat.S_IMODE(Path(run.address).stat().st_mode) == 0o660  # whoever may connect is the proxy
        assert status(run.handshake(origin="https://app.test", more=said)) == 101
        assert status(run.handshake(origin="https://evil.test", more=said)) == 403
        assert status(run.handshake(origin="https://app.test")) == 403
        assert status(run.handshake(origin="https://app.test", more="X-Forwarded-Proto: http\r\n")) == 403
        with run.connect() as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{said}\r\n".encode())
            assert b"https 192.0.2.7" in b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.slow
def test_reload_starts_anew_with_the_guard(start: Start, tmp_path: Path) -> None:
    """A changed file is served, and the policy stands before it as before."""
    run = start("plain_app:app", "--reload", "--origin", "https://app.test", wait=False)
    run.wait_for("Application startup complete")
    assert status(run.handshake(origin="https://app.test")) == 101
    mark = len(run.output())
    (tmp_path / "plain_app.py").write_text(APP + "\n# changed\n")
    run.wait_for("Application startup complete", after=mark)
    assert status(run.handshake(origin="https://app.test")) == 101
    assert status(run.handshake(origin="https://evil.test")) == 403


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing:app"], "app: found 'nothing:app'"),
        (["plain_app:app", "--listen", "plain:127.0.0.1:8000"], "trusted_proxies"),
        (["plain_app:app", "--listen", "unix:"], "listen"),
        (["plain_app:app", "--listen", "0.0.0.0:8443"], "cert"),
        (["plain_app:app", "--trusted-proxy", "0.0.0.0/0"], "trust_any_proxy"),
        (["plain_app:app", "--origin", "http://app.test"], "origins"),
        (["plain_app:app", "--", "--proxy-headers"], "--trusted-proxy"),
        (["plain_app:app", "--", "--host", "0.0.0.0"], "--listen"),
        (["plain_app:app", "--", "--workers", "2"], "--workers of wsguard run"),
        (["plain_app:app", "--workers", "2"], 'store = "sqlite:wsguard.db"'),
        (["plain_app:app", "--workers", "2", "--store", "sqlite:w.db", "--reload"], "one process while you develop"),
        (["plain_app:app", "--workers", "2", "--store", "sqlit:w.db"], "sqlite:w.db"),
        (["plain_app:app", "--", "--no-such-option"], "uvicorn"),
        (["plain_app:app", "--", "--header", "X-A"], "NAME:VALUE"),
        (["plain_app:app", "--", "--log-level", "debug"], "query string"),
        (["plain_app:app", "--", "--log-level", "trace"], "query string"),
    ],
)
def test_what_cannot_be_served_says_what_to_write(arguments: list[str], told: str, tmp_path: Path) -> None:
    """Exit code 2, one line, before anything is served."""
    (tmp_path / "plain_app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-m", "wsguard", "run", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")},
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_uvicorn_stay_reachable(start: Start) -> None:
    """What stands behind -- is uvicorn's: here a factory and the root path."""
    run = start("plain_app:make", "--", "--factory", "--root-path", "/below", "--date-header", "--header", "X-A:b")
    answer = run.ask("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nx-a: b\r\n" in answer.lower()
    ours = run.ask("GET /.wsguard/ticket HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
    assert ours.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("missing", ["uvicorn", "httptools", "cryptography", "websockets"])
def test_without_the_extra_the_command_says_what_to_install(missing: str, tmp_path: Path) -> None:
    """One line: which extra (LIBRARIES: a command whose extra is absent says in one line what to install)."""
    (tmp_path / f"{missing}.py").write_text(f"raise ImportError('not here', name={missing!r})\n")
    done = subprocess.run(
        [sys.executable, "-m", "wsguard", "run", "plain_app:app"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"wsguard: wsguard run: found {missing} not installed, expected pip install 'wsguard[run]'"
    ]


@pytest.mark.slow
def test_a_store_for_an_app_with_a_guard_of_its_own_is_not_passed_over(start: Start, tmp_path: Path) -> None:
    """The app keeps to its guard, whose revocations would be forgotten at a restart though a store was named."""
    (tmp_path / "worked_app.py").write_text(WORKED.format(store="memory"))
    (tmp_path / "jwks.json").write_bytes(public(key_of("ES256")))
    run = start("worked_app:app", "--store", "sqlite:x.db", "--admin", "unix:run/admin.sock", wait=False)
    assert run.process.wait(DEADLINE) == 2
    assert "expected Guard(…, store=…) in the app" in run.output()
    assert "expected Guard(…, admin=…) in the app" in run.output()
    run.stop()
