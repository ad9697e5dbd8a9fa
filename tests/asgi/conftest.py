"""Certificates, and running servers: the two apps under each server once a session, others as a test wants them."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.asgi.client import Client
from tests.asgi.server_process import SERVERS, Certificates, ServerName, ServerProcess, trusting
from tests.asgi.server_table import ROOT, ServerResult, run, running

StartServer = Callable[..., ServerProcess]
# uvicorn says so after each refusal that an app answers by the denial response extension.
_EXPECTED = "ASGI callable returned without completing handshake."


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def context(certificates: Certificates) -> ssl.SSLContext:
    return trusting(certificates.authority)


@pytest.fixture
def start_server(certificates: Certificates, tmp_path: Path) -> Iterator[StartServer]:
    """Start a server with an app of tests/asgi/apps; what it wrote is looked through for faults in the end."""
    started: list[ServerProcess] = []

    def start(name: ServerName, app: str = "plain:app", *, tls: bool = True, **keys: Any) -> ServerProcess:
        output = tmp_path / f"{name}-{len(started)}.log"
        files = certificates if tls else None
        started.append(ServerProcess(name, f"tests.asgi.apps.{app}", ROOT, files, output=output, **keys))
        return started[-1]

    yield start
    for server in started:
        server.stop()
        assert faults(server) == []


@pytest.fixture(scope="session")
def sessions_servers(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[ServerName], ServerProcess]]:
    """The sessions app under each server: started when it is first asked for, stopped at the end."""
    folder = tmp_path_factory.mktemp("sessions")
    started: dict[ServerName, ServerProcess] = {}

    def give(name: ServerName) -> ServerProcess:
        if name not in started:
            app, output = "tests.asgi.apps.sessions:app", folder / f"{name}.log"
            started[name] = ServerProcess(name, app, ROOT, certificates, output=output)
        return started[name]

    yield give
    for server in started.values():
        server.stop()


@pytest.fixture(params=SERVERS)
def server(
    request: pytest.FixtureRequest, sessions_servers: Callable[[ServerName], ServerProcess]
) -> Iterator[ServerProcess]:
    """The sessions app under one server. No test may leave a traceback or an error in what the server writes."""
    process = sessions_servers(request.param)
    before = len(process.output())
    yield process
    assert faults(process, before) == []


@pytest.fixture
def client(server: ServerProcess, context: ssl.SSLContext) -> Iterator[Client]:
    """Opens sockets to *server*, with a case of its own by which the app's record is found."""
    with ExitStack() as stack:
        yield Client(server, context, uuid.uuid4().hex, stack)


@pytest.fixture(scope="session")
def table_result(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[ServerName], ServerResult]:
    """The hostile table through one server, sent once a session."""
    folder = tmp_path_factory.mktemp("table")
    results: dict[ServerName, ServerResult] = {}

    def give(name: ServerName) -> ServerResult:
        if name not in results:
            with running(name, certificates, folder) as (_, mount):
                results[name] = run(name, mount)
        return results[name]

    return give


def faults(server: ServerProcess, after: int = 0) -> list[str]:
    """The lines of *server*'s output that tell of a fault."""
    words = ("Traceback", "ERROR", "CRITICAL", "Exception", "never awaited", "never retrieved", "was destroyed")
    lines = server.output()[after:].splitlines()
    return [line for line in lines if any(word in line for word in words) and _EXPECTED not in line]
