"""The ASGI benchmark runs, and fails where its figures would prove nothing. Speed is not asserted here."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest
import trustme

from benchmarks.asgi import in_process
from benchmarks.asgi.handshakes import check_foreign_origin, count_handshakes, open_and_close
from benchmarks.asgi.report import Spread, added
from benchmarks.asgi.variants import BARE, FOREIGN_STATUS, GUARD, GUARDED, VARIANTS
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import CLOSE, server_frame
from benchmarks.relay.handshake import HOST, field, response_head

ROOT = Path(__file__).parents[2]
ROUNDS = 1
HANDSHAKES, MESSAGES = 100, 2000
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
NORMAL_CLOSE = server_frame(CLOSE, (1000).to_bytes(2, "big"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("asgi") / "report.json"
    command = [sys.executable, "-m", "benchmarks.asgi", "--rounds", str(ROUNDS), "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # On a terminal or into a file the log of the guards without sockets would be a good part of the figure.
    assert "session." not in done.stdout
    return json.loads(path.read_text())


@pytest.mark.slow
class TestTheRun:
    def test_every_app_is_measured_in_every_round(self, report: dict[str, Any]) -> None:
        for part in ("handshakes", "messages"):
            figures = report["sockets"][part]
            assert set(figures) == set(VARIANTS)
            assert all(len(each["rounds"]) == ROUNDS and each["median"] > 0 for each in figures.values())
            assert set(report["in_process"][part]) >= {BARE, *GUARDED}

    def test_every_message_and_handshake_is_counted(self, report: dict[str, Any]) -> None:
        """A byte that was not the echo, or a socket that did not open, would have failed the run."""
        checks = report["sockets"]["checks"]
        payload = 256 * MESSAGES * (ROUNDS + 1)
        assert set(checks["bytes_compared"]) == set(VARIANTS)
        assert all(count > payload for count in checks["bytes_compared"].values())
        assert checks["handshakes_opened"] == dict.fromkeys(VARIANTS, HANDSHAKES * ROUNDS)

    def test_the_guards_that_were_measured_wrote_their_log(self, report: dict[str, Any]) -> None:
        """A guard with its log off is cheaper, and not what runs."""
        logged = report["sockets"]["checks"]["sockets_logged"]
        assert set(logged) == set(GUARDED)
        assert all(lines > HANDSHAKES * ROUNDS for lines in logged.values())

    def test_the_guards_that_were_measured_guard(self, report: dict[str, Any]) -> None:
        """In that very run: the bare app opens a socket for a stranger, all others answer 403."""
        assert report["sockets"]["checks"]["foreign_origin"] == {
            "bare": 101,
            "by hand": 403,
            "guard": 403,
            "guard, identity": 403,
            "guard, limits": 403,
        }

    def test_versions_and_load_are_told(self, report: dict[str, Any]) -> None:
        """A figure without them cannot be compared with another one."""
        facts = report["facts"]
        assert all(name in facts["versions"] for name in ("wsguard", "uvicorn", "fastapi", "starlette", "websockets"))
        assert set(facts) >= {"Python", "machine", "load average", "rounds", "TLS"}


class Server:
    """A TLS server that answers each handshake with the same bytes, whoever asks."""

    def __init__(self, *, accepts: bool, then: bytes = b"") -> None:
        self._accepts = accepts
        self._then = then
        authority = trustme.CA()
        self._serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self._serving)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.context)
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._serving)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = field(await reader.readuntil(b"\r\n\r\n"), b"sec-websocket-key")
        assert key is not None
        writer.write(response_head(key) if self._accepts else REFUSED)
        if self._accepts:
            await reader.read(64)  # the client's Close
            writer.write(self._then)
        writer.close()


class TestWhatMustFail:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_a_guard_that_lets_a_stranger_in_and_a_bare_app_that_does_not(self, name: str) -> None:
        async def scenario() -> None:
            right = FOREIGN_STATUS[name] == 101
            async with Server(accepts=right, then=NORMAL_CLOSE) as server:
                assert await check_foreign_origin(name, server.port, server.context) == FOREIGN_STATUS[name]
            async with Server(accepts=not right, then=NORMAL_CLOSE) as server:
                with pytest.raises(BenchmarkError, match=r"answers https://evil\.example with"):
                    await check_foreign_origin(name, server.port, server.context)

        asyncio.run(scenario())

    def test_sockets_that_do_not_open(self) -> None:
        """Refusing is cheaper than opening: a cap in the way would make the guard look fast."""

        async def scenario() -> None:
            async with Server(accepts=False) as server:
                assert await open_and_close(server.port, server.context, 9) == 0
                with pytest.raises(BenchmarkError, match="9 handshakes were sent, 0 sockets opened"):
                    await count_handshakes(server.port, server.context, 9, lambda: 0.0)

        asyncio.run(scenario())

    @pytest.mark.parametrize("then", [b"", server_frame(CLOSE, (1011).to_bytes(2, "big"))], ids=["cut", "1011"])
    def test_a_close_that_is_not_answered(self, then: bytes) -> None:
        async def scenario() -> None:
            async with Server(accepts=True, then=then) as server:
                with pytest.raises(ExceptionGroup) as raised:
                    await open_and_close(server.port, server.context, 1)
                assert raised.group_contains(BenchmarkError, match="the Close was answered with")

        asyncio.run(scenario())

    def test_the_sockets_that_open_are_all_counted(self) -> None:
        """Many at once: a lost count would make each look dearer."""

        async def scenario() -> int:
            async with Server(accepts=True, then=NORMAL_CLOSE) as server:
                return await open_and_close(server.port, server.context, 41)

        assert asyncio.run(scenario()) == 41


class TestWithoutSockets:
    @pytest.mark.parametrize("name", [BARE, *GUARDED])
    def test_every_app_answers_all(self, name: str) -> None:
        async def scenario() -> None:
            with in_process.apps() as apps:
                assert await in_process.time_messages(apps[name], 100) > 0
                assert await in_process.time_handshakes(apps[name], 10) > 0

        asyncio.run(scenario())

    def test_a_wrapper_that_drops_a_message_fails(self) -> None:
        async def forgetful(scope: Any, receive: Any, send: Any) -> None:
            async def receive_but_one() -> Any:
                message = await receive()
                return await receive() if message["type"] == "websocket.receive" and next(first, False) else message

            first = iter([True])
            await in_process.echo(scope, receive_but_one, send)

        with pytest.raises(BenchmarkError, match="should have been sent"):
            asyncio.run(in_process.time_messages(forgetful, 10))

    def test_an_app_that_no_guard_keeps_from_a_stranger_fails(self) -> None:
        with in_process.apps() as apps:
            with pytest.raises(BenchmarkError, match="should have been sent"):
                asyncio.run(in_process.time_refusals(apps[BARE], 1))
            assert asyncio.run(in_process.time_refusals(apps[GUARD], 1)) > 0

    def test_a_handshake_that_is_refused_fails(self) -> None:
        async def refusing(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.close"})

        with pytest.raises(BenchmarkError, match="should have been sent"):
            asyncio.run(in_process.time_handshakes(refusing, 1))


def test_what_is_added_is_taken_within_each_round() -> None:
    """What disturbs the machine for one round disturbs both: not the difference of two medians."""
    figures = {BARE: [100.0, 200.0, 300.0], GUARD: [340.0, 210.0, 310.0]}
    assert added(figures, GUARD) == Spread(10.0, 10.0, 240.0)
