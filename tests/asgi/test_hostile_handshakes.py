"""The table of hostile handshakes through each ASGI server on raw sockets, and the page that tells how it went."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from tests.asgi.client import Client
from tests.asgi.conftest import StartServer
from tests.asgi.server_process import ServerName
from tests.asgi.server_table import HIDES, PAGE, ServerResult, section, written_section
from tests.gateway.raw_client import RawClient, handshake

pytestmark = pytest.mark.slow

TableResult = Callable[[ServerName], ServerResult]
FACTS = frozenset[str]().union(*HIDES.values())


@pytest.mark.parametrize("name", list(HIDES))
def test_every_row_is_refused_or_named_as_hidden(table_result: TableResult, name: ServerName) -> None:
    """No hostile handshake gets through a server but the rows of a fact that this server hides, none of them foreign."""
    result = table_result(name)
    print(f"{result.label}: {result.count('as written')} as written, {result.count('refused earlier')} refused earlier")
    for one in result.results:
        if one.result == "hidden":
            print(f"  hidden: {one.row.name}: {one.detail}")
    failed = [f"{one.row.name}: {one.detail}" for one in result.results if one.result == "failed"]
    assert not failed, "\n".join(failed)
    assert len(result.results) > 100
    assert result.count("as written") > 50
    through = {one.row.name for one in result.results if one.detail == "it reached the app"}
    assert not [one.row.name for one in result.results if one.row.foreign and one.row.name in through]


def test_the_page_tells_what_each_server_hides(table_result: TableResult) -> None:
    """The table that operators read is the one that these servers give today."""
    made = section([table_result(name) for name in HIDES])
    assert written_section() == made, "run .venv/bin/python -m tests.asgi.server_table --write"


def test_the_page_explains_every_fact() -> None:
    """A reader of the table finds what a hidden fact is, and which servers hide it."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {row.split("`")[1]: row for row in rows}
    assert told.keys() == FACTS
    for fact, row in told.items():
        assert {name for name, hidden in HIDES.items() if fact in hidden} == {name for name in HIDES if name in row}


def test_a_refusal_costs_the_server_nothing(client: Client) -> None:
    """A refused handshake ends its connection, and the server serves the next one as if nothing had been."""
    for _ in range(20):
        refused = client.connect()
        assert refused.status(client.request("/plain/wait", origin="https://evil.test")) == 403
        assert refused.reader.everything().endswith(b"\n"), "the text, then the end of the connection"
    assert client.events("called") == []
    client.open("/plain/wait")
    assert client.wait_for("called")["admission"] == "ASGISession"


def test_daphne_alone_refuses_everything(start_server: StartServer, context: ssl.SSLContext) -> None:
    """daphne tells no scheme of a socket, and an unknown scheme is never taken for a secure one."""
    server = start_server("daphne")
    for origin in ("https://app.test", "https://evil.test"):
        mark = len(server.output())
        client = RawClient(server.address, context)
        assert client.status(handshake(origin=origin)) == 403
        client.close()
        line = server.wait_for("handshake.refused", after=mark)
        assert "reason=transport.insecure" in line
    assert "trusted_proxies" in server.output()
    assert server.record.reached() == 0
