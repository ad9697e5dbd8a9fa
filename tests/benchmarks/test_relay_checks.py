"""The relay benchmark's own checks fail when they should: otherwise its figures prove nothing."""

import asyncio
import ssl
from unittest.mock import Mock

import pytest
import trustme

from benchmarks.relay.client import Budget, Client
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import CLOSE, TEXT, Reel, server_frame
from benchmarks.relay.handshake import HOST, field, response_head
from benchmarks.relay.violation import check_bad_frame

MESSAGES = 2


class Echoed:
    """A client that has sent two messages, and whatever a test lets arrive."""

    def __init__(self) -> None:
        self.reel = Reel.of(payload_size=256, count=4)
        self.client = Client(self.reel, first=3)
        self.client.connection_made(Mock(asyncio.Transport))
        self.client.opened.set_result(None)
        self.budget = Budget(MESSAGES)
        self.client.start(self.budget, in_flight=MESSAGES)
        begin = 3 * self.reel.echoed_frame
        self.right = bytes(self.reel.echoed[begin : begin + MESSAGES * self.reel.echoed_frame])

    async def arrive(self, data: bytes, *, cut_at: int) -> None:
        for piece in (data[:cut_at], data[cut_at:]):
            self.client.get_buffer(-1)[: len(piece)] = piece
            self.client.buffer_updated(len(piece))
        async with asyncio.timeout(1):
            await self.budget.done


@pytest.mark.parametrize("cut_at", [1, 4, 259, 260, 261])
def test_the_right_echoes_end_the_round(cut_at: int) -> None:
    async def scenario() -> None:
        echoed = Echoed()
        await echoed.arrive(echoed.right, cut_at=cut_at)
        assert echoed.client.bytes_compared == len(echoed.right)

    asyncio.run(scenario())


@pytest.mark.parametrize("at", [0, 3, 4, 259, 260, 519])
def test_one_wrong_byte_fails_the_run(at: int) -> None:
    async def scenario() -> None:
        echoed = Echoed()
        wrong = bytearray(echoed.right)
        wrong[at] ^= 1
        with pytest.raises(BenchmarkError, match="not the echo"):
            await echoed.arrive(bytes(wrong), cut_at=100)

    asyncio.run(scenario())


def test_the_same_echo_twice_fails_the_run() -> None:
    async def scenario() -> None:
        echoed = Echoed()
        with pytest.raises(BenchmarkError, match="not the echo"):
            await echoed.arrive(echoed.right[:260] * 2, cut_at=260)

    asyncio.run(scenario())


def test_a_connection_lost_between_rounds_fails_the_next_one() -> None:
    async def scenario() -> None:
        echoed = Echoed()
        await echoed.arrive(echoed.right, cut_at=260)
        echoed.client.connection_lost(None)
        budget = Budget(1)
        echoed.client.start(budget, in_flight=1)
        with pytest.raises(BenchmarkError, match="connection lost"):
            await budget.done

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(server_frame(CLOSE, (1000).to_bytes(2, "big")), id="another-code"),
        pytest.param(server_frame(TEXT, b"unmasked"), id="echo"),
        pytest.param(b"", id="end-without-close"),
    ],
)
def test_a_server_that_is_not_the_guard_fails_the_run(answer: bytes) -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(serving)
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(calling)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = field(await reader.readuntil(b"\r\n\r\n"), b"sec-websocket-key")
        assert key is not None
        writer.write(response_head(key) + answer)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving) as server:
            with pytest.raises(BenchmarkError):
                await check_bad_frame(server.sockets[0].getsockname()[1], calling)

    asyncio.run(scenario())
