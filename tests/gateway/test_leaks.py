"""The leak test finds what leaks (RULES.md §11): one leak planted in each place, in a gateway that does its work."""

from __future__ import annotations

import base64
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.asgi.server_process import Certificates as ServerCertificates
from tests.asgi.server_process import ServerProcess
from tests.credentials import Place, Visitor, minted
from tests.engine.tokens import AUDIENCE, ISSUER
from tests.gateway.conftest import StartGateway
from tests.gateway.recording_upstream import RecordingUpstream, answer_anything
from tests.leaks import Kind, Leak, Ledger, Sink, secret
from wsguard import Guard, Policy
from wsguard.vocabulary.errors import ConfigurationErrors

TELLING = """
import json, sys
import wsguard.gateway.connection as connection
built = connection.handshake_from
def handshake_from(head, facts):
    fields = str(list(head.fields))
    {tell}
    return built(head, facts)
connection.handshake_from = handshake_from
"""
PLANTED = {
    Sink.STDOUT: TELLING.format(tell="print(fields, flush=True)"),
    Sink.STDERR: TELLING.format(tell="print(fields, file=sys.stderr, flush=True)"),
    Sink.JSON_LOG: TELLING.format(tell="print(json.dumps({'event': 'planted', 'fields': fields}), flush=True)"),
    Sink.REFUSALS: """
import wsguard.gateway.connection as connection
last, built, refused = [], connection.handshake_from, connection.refusal
def handshake_from(head, facts):
    last[:] = [value for name, value in head.fields if name == b"Authorization"]
    return built(head, facts)
def refusal(*arguments, **keys):
    return refused(*arguments, **keys).replace(b"\\r\\n", b"\\r\\nX-Debug: " + b"".join(last) + b"\\r\\n", 1)
connection.handshake_from, connection.refusal = handshake_from, refusal
""",
    Sink.UPSTREAM: """
import msgspec, wsguard.gateway.connection as connection
forwarded = connection.forwarded_fields
connection.forwarded_fields = lambda handshake, accept, upstream: forwarded(
    handshake, msgspec.structs.replace(accept, consumed=None), upstream
)
""",
    Sink.STORE: """
import wsguard.endpoints.ticket as ticket
made = ticket.new_ticket
def new_ticket(store, randomness):
    text, key = made(store, randomness)
    return text, text.rpartition(".")[2].encode()
ticket.new_ticket = new_ticket
""",
}
ROUTES = [{"path": "/ws/*", "auth": ["bearer", "ticket"]}]
APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    print(dict(scope["headers"]), flush=True)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
"""


def sinks_of(found: list[Leak], kind: Kind) -> set[Sink]:
    return {leak.sink for leak in found if leak.kind is kind}


@pytest.mark.slow
@pytest.mark.parametrize("sink", [None, *PLANTED], ids=lambda sink: "nothing planted" if sink is None else sink.value)
def test_a_leak_of_the_gateway_is_found(
    sink: Sink | None,
    start_gateway: StartGateway,
    start_upstream: Callable[..., RecordingUpstream],
    client_context: ssl.SSLContext,
    tmp_path: Path,
    leaks: Ledger,
) -> None:
    """A token or a ticket on its way through, with one line of the gateway changed; with none changed nothing leaks."""
    Place(tmp_path)
    upstream = start_upstream(answer_anything)
    gateway = start_gateway(
        upstream.url,
        hosts=["app.test"],
        public_url="https://app.test",
        jwt={ISSUER: {"audience": [AUDIENCE], "jwks": "file:jwks.json"}},
        ticket={"sold_for": ["bearer"]},
        store="sqlite:wsguard.db",
        routes=ROUTES,
        planted="pass" if sink is None else PLANTED[sink],
    )
    with ExitStack() as stack:
        page = Visitor(gateway.address, client_context, stack)
        page.open(fields={"Authorization": f"Bearer {minted()}"})
        page.buy({"Authorization": f"Bearer {minted(61)}"})
        assert page.refused(fields={"Authorization": f"Bearer {minted(-600)}"})[0] == 401
    gateway.stop()
    leaks.saw(Sink.STORE, (tmp_path / "wsguard.db").read_bytes(), "wsguard.db")
    found = leaks.look()
    expected = set[Sink]() if sink is None else {sink, Sink.STDOUT} if sink is Sink.JSON_LOG else {sink}
    assert sinks_of(found, Kind.TICKET if sink is Sink.STORE else Kind.TOKEN) == expected, found
    if sink is Sink.STORE:  # the end of the test looks there again
        (tmp_path / "wsguard.db").unlink()


@pytest.mark.slow
def test_a_leak_of_an_asgi_server_is_found(tmp_path: Path, leaks: Ledger) -> None:
    """An app that prints what it is sent."""
    (tmp_path / "leaking.py").write_text(APP)
    files = ServerCertificates.issue(tmp_path)
    server = ServerProcess("uvicorn", "leaking:app", tmp_path, files)
    try:
        context = ssl.create_default_context(cafile=files.authority)
        context.check_hostname = False
        with ExitStack() as stack:
            page = Visitor(server.address, context, stack)
            assert page.ask("/", {"Authorization": f"Bearer {minted()}"}, None, method="GET").status == 204
    finally:
        server.stop()
    assert sinks_of(leaks.look(), Kind.TOKEN) == {Sink.SERVER_OUTPUT}


@pytest.mark.slow
def test_a_secret_in_a_command_line_is_found(leaks: Ledger) -> None:
    """Whatever program a test starts."""
    key = secret(Kind.API_KEY, "planted-in-a-command-line-0123456789")
    subprocess.run([sys.executable, "-c", "input()", key], check=False, input=b"\n", timeout=20)
    assert sinks_of(leaks.look(), Kind.API_KEY) == {Sink.COMMAND_LINE}


class _Telling:
    """An object of ours whose repr tells all."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"_Telling({self.value})"


_Telling.__module__ = "wsguard.planted"


def test_a_secret_in_a_repr_is_found(leaks: Ledger) -> None:
    """Of an object that lives when a test ends."""
    cookie = secret(Kind.COOKIE, "planted-in-a-repr-0123456789")
    telling = _Telling(cookie)
    leaks.saw_reprs("a test")
    assert sinks_of(leaks.look(), Kind.COOKIE) == {Sink.REPRS}
    del telling


def test_an_object_whose_constructor_failed_is_passed_over(leaks: Ledger) -> None:
    """The traceback of a guard that could not be made keeps it, and it has not yet what its repr names."""
    with pytest.raises(ConfigurationErrors) as failed:
        Guard(Policy(origins=["https://app.example.com"], auth=["nobody"]))
    half_built = [frame.locals["self"] for frame in failed.traceback if type(frame.locals.get("self")) is Guard]
    assert half_built
    leaks.saw_reprs("a test")
    assert leaks.look() == []


@pytest.mark.parametrize("form", ["whole", "cut", "encoded"])
def test_a_piece_of_a_secret_is_one(form: str, leaks: Ledger) -> None:
    """What stands behind a token's second dot, in part, and as it stands in a subprotocol."""
    token = minted()
    texts = {
        "whole": token,
        "cut": token.rpartition(".")[2][11:36],
        "encoded": base64.urlsafe_b64encode(token.encode()).decode(),
    }
    leaks.saw(Sink.STDOUT, f"something before {texts[form]} something behind", "a test")
    assert sinks_of(leaks.look(), Kind.TOKEN) == {Sink.STDOUT}
    leaks.saw(Sink.STDOUT, f"what everybody knows: {token.rpartition('.')[0]}", "a test")
    assert leaks.look() == []
    leaks.let_through(Sink.STDOUT, token)
    leaks.saw(Sink.STDOUT, token, "a test")
    assert leaks.look() == []
