"""Frames flow: every rule, in both directions, on the running gateway; and frames of ours only where they may stand."""

from __future__ import annotations

import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.raw_client import Frame, RawClient, frame, handshake
from tests.gateway.recording_upstream import Received, RecordingUpstream, echo, hold

StartUpstream = Callable[..., RecordingUpstream]
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
WHOLE = frame(BINARY, b"0123456789")


def present(got: Frame | None) -> Frame:
    assert got is not None, "the stream ended"
    return got


def connected(
    gateway_address: tuple[str, int], context: ssl.SSLContext, upstream: RecordingUpstream, stack: ExitStack
) -> tuple[RawClient, Received]:
    """Open one socket; return both ends of it."""
    number = upstream.count() + 1
    client = stack.enter_context(RawClient(gateway_address, context))
    client.open()
    return client, upstream.wait_for(number)


BAD_FROM_CLIENT = [
    (frame(TEXT, b"x", masked=False), 1002, "frames.mask"),
    (frame(TEXT, b"x", rsv=4), 1002, "frames.reserved"),
    (frame(3, b"x"), 1002, "frames.opcode"),
    (frame(CONTINUATION, b"x"), 1002, "frames.sequence"),
    (frame(PING, b"x", fin=False), 1002, "frames.control"),
    (b"\x82\xfe\x00\x05", 1002, "frames.length"),
    (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", 1002, "frames.length"),
    (b"\x82\xff\x00\x00\x00\x00\x01\x00\x00\x01", 1009, "frames.too_large"),
    (frame(CLOSE, b"\x03"), 1002, "frames.close"),
    (frame(CLOSE, b"\x03\xe8\xff\xfe"), 1007, "frames.utf8"),
]


def test_bad_frames_of_a_client(
    engine: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Each breach has its code; what stood before it has gone on; the app is told that the client goes away."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, tls_engine=engine)
    for bad, code, reason in BAD_FROM_CLIENT:
        with ExitStack() as stack:
            client, received = connected(gateway.address, client_context, upstream, stack)
            mark = gateway.mark()
            client.send(WHOLE + bad + WHOLE)
            got = present(client.frame())
            assert (got.opcode, got.close_code) == (CLOSE, code), reason
            assert present(received.frame()).payload == b"0123456789"
            told = present(received.frame())
            assert (told.opcode, told.close_code, told.masked) == (CLOSE, 1001, True)
        line = gateway.wait_for("session.closed", after=mark)
        assert (line["reason"], line["code"], line["by"]) == (reason, code, "wsguard")


BAD_FROM_UPSTREAM = [
    (frame(TEXT, b"x", masked=True), 1014, "frames.mask"),
    (frame(TEXT, b"x", masked=False, rsv=1), 1014, "frames.reserved"),
    (frame(CONTINUATION, b"x", masked=False), 1014, "frames.sequence"),
    (b"\x82\x7f\x00\x00\x00\x00\x01\x00\x00\x01", 1009, "frames.too_large"),
    (frame(CLOSE, b"\x03\xed", masked=False), 1014, "frames.close"),
]


def test_bad_frames_of_an_upstream(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """The client learns that the gateway's other side is broken (1014, or 1009), the upstream gets 1002."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url)
    for bad, code, reason in BAD_FROM_UPSTREAM:
        with ExitStack() as stack:
            client, received = connected(gateway.address, client_context, upstream, stack)
            mark = gateway.mark()
            received.sock.sendall(frame(TEXT, b"good", masked=False) + bad)
            assert present(client.frame()).payload == b"good"
            got = present(client.frame())
            assert (got.opcode, got.close_code) == (CLOSE, code), reason
            assert present(received.frame()).close_code == 1002
        assert gateway.wait_for("session.closed", after=mark)["reason"] == reason


@pytest.mark.parametrize("engine_name", ["aiofastnet", "stdlib"])
def test_a_stream_cut_anywhere_arrives_whole(
    engine_name: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Fast path and scanner alike: bytes arrive in order and unchanged, however the packets are cut."""
    gateway = start_gateway(start_upstream(echo).url, tls_engine=engine_name)
    payloads = [
        b"a",
        b"b" * 125,
        b"c" * 126,
        b"d" * 255,
        b"e" * 4088,
        b"f" * 4089,
        b"g" * 65535,
        b"h" * 65536,
        b"i" * 300_000,
    ]
    with RawClient(gateway.address, client_context) as client:
        client.open()
        for payload in payloads:
            data = frame(BINARY, payload)
            for cut in {1, 2, 3, 5, 7, 9, 13, len(data) // 2, len(data) - 1} & set(range(len(data))):
                client.send(data[:cut])
                client.send(data[cut:])
                assert present(client.frame()).payload == payload
        client.send(b"".join(frame(BINARY, payload) for payload in payloads))
        assert [present(client.frame()).payload for _ in payloads] == payloads


CUTS = list(range(1, len(WHOLE)))


def test_a_ping_of_ours_at_every_cut_of_a_frame(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """
    A ping waits for the boundary of the stream that it joins, in both directions.

    Both sides are silent with half a frame sent. The ping that the *other* direction gets at once, in the same tick,
    shows that one is due; then the frame is completed, and it must arrive whole, before the ping or behind it.
    """
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, limits={"ping": "400ms", "idle": "20s"})
    unmasked = frame(BINARY, b"0123456789", masked=False)
    with ExitStack() as stack:
        pairs = [connected(gateway.address, client_context, upstream, stack) for _ in CUTS]
        for cut, (client, _) in zip(CUTS, pairs, strict=True):
            client.send(WHOLE[:cut])
        for cut, (client, received) in zip(CUTS, pairs, strict=True):
            assert present(client.frame()).opcode == PING
            client.send(WHOLE[cut:])
            got = [present(received.frame()), present(received.frame())]
            assert sorted(piece.opcode for piece in got) == [BINARY, PING], cut
            assert all(piece.masked for piece in got)
            assert next(piece for piece in got if piece.opcode == BINARY).payload == b"0123456789"
    with ExitStack() as stack:
        cuts = list(range(1, len(unmasked)))
        pairs = [connected(gateway.address, client_context, upstream, stack) for _ in cuts]
        for cut, (_, received) in zip(cuts, pairs, strict=True):
            received.sock.sendall(unmasked[:cut])
        for cut, (client, received) in zip(cuts, pairs, strict=True):
            assert present(received.frame()).opcode == PING
            received.sock.sendall(unmasked[cut:])
            got = [present(client.frame()), present(client.frame())]
            assert sorted(piece.opcode for piece in got) == [BINARY, PING], cut
            assert next(piece for piece in got if piece.opcode == BINARY).payload == b"0123456789"


@pytest.mark.slow
def test_a_close_of_ours_at_every_cut_of_a_frame(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """
    Shutdown closes through `Session.close` while frames are cut everywhere.

    A frame that is completed in time arrives whole, then the Close; one that is not is cut off without a Close.
    """
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, limits={"close_deadline": "3s"})
    unmasked = frame(BINARY, b"0123456789", masked=False)
    cases = [("client", cut, completes) for cut in CUTS for completes in (True, False)]
    cases += [("upstream", cut, completes) for cut in range(1, len(unmasked)) for completes in (True, False)]
    with ExitStack() as stack:
        pairs = [connected(gateway.address, client_context, upstream, stack) for _ in cases]
        for (side, cut, _), (client, received) in zip(cases, pairs, strict=True):
            client.send(WHOLE[:cut]) if side == "client" else received.sock.sendall(unmasked[:cut])
        # A byte that has come through shows that every half frame sent before it has been read.
        probe, probed = connected(gateway.address, client_context, upstream, stack)
        probe.send(WHOLE)
        assert present(probed.frame()).payload == b"0123456789"
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        for (side, cut, completes), (client, received) in zip(cases, pairs, strict=True):
            # The direction that is at a boundary gets its Close at once: the stop has reached this socket.
            first = present(client.frame() if side == "client" else received.frame())
            assert (first.opcode, first.close_code) == (CLOSE, 1001)
            if completes:
                client.send(WHOLE[cut:]) if side == "client" else received.sock.sendall(unmasked[cut:])
        for (side, cut, completes), (client, received) in zip(cases, pairs, strict=True):
            read = received.frame if side == "client" else client.frame
            header = 6 if side == "client" else 2
            if completes and cut >= header:
                assert present(read()).payload == b"0123456789", (side, cut)
            if completes or cut < header:
                got = present(read())
                assert (got.opcode, got.close_code) == (CLOSE, 1001), (side, cut)
            assert read() is None, (side, cut)
        stopping.join(30)
    assert gateway.process.returncode == 0
    assert gateway.wait_for("session.closed", bound="close_deadline")


def test_a_ping_of_ours_is_answered_to_us_alone(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """The pong to our ping is consumed; other pongs, and pings of the two ends, pass."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, limits={"ping": "300ms", "idle": "20s"})
    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        ping = present(client.frame())
        assert ping.opcode == PING
        client.send(frame(PONG, ping.payload) + frame(PONG, b"unsolicited") + frame(PING, b"theirs"))
        got = [present(received.frame()) for _ in range(3)]
        assert [
            (piece.opcode, piece.payload) for piece in got if piece.opcode != PING or piece.payload == b"theirs"
        ] == [
            (PONG, b"unsolicited"),
            (PING, b"theirs"),
        ]


def test_a_side_that_owes_a_pong_is_not_pinged(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """A peer may answer only the newest ping: ours must not hide the app's."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, limits={"ping": "200ms", "idle": "1s"})
    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        received.sock.sendall(frame(PING, b"the app's", masked=False))
        assert present(client.frame()).payload == b"the app's"
        # The upstream, which owes nothing, is pinged; the client is not, until silence ends the socket.
        assert present(received.frame()).opcode == PING
        got = present(client.frame())
        assert (got.opcode, got.close_code) == (CLOSE, 1001)


def test_silence_ends_a_socket_and_pongs_are_sound(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """60 s by default: 1001 `limits.idle`. A side that answers pings lives."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, limits={"ping": "200ms", "idle": "700ms"})

    def answer_pings(read: Callable[[], Frame | None], send: Callable[[bytes], None], *, masked: bool) -> None:
        while (got := read()) is not None and got.opcode != CLOSE:
            if got.opcode == PING:
                send(frame(PONG, got.payload, masked=masked))

    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        upstream_thread = threading.Thread(
            target=answer_pings, args=(received.frame, received.sock.sendall), kwargs={"masked": False}
        )
        upstream_thread.start()
        begin = time.monotonic()
        for _ in range(4):
            ping = present(client.frame())
            assert ping.opcode == PING
            client.send(frame(PONG, ping.payload))
        assert time.monotonic() - begin > 0.7
        got = present(client.frame())
        while got.opcode == PING:
            got = present(client.frame())
        assert (got.opcode, got.close_code) == (CLOSE, 1001)
        upstream_thread.join(20)
    assert gateway.wait_for("session.closed")["reason"] == "limits.idle"


def test_a_close_of_the_two_ends_passes_untouched(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Code and reason are theirs, in either direction, and the connections end after the second Close."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url)
    for code, text in ((4321, "bye"), (1000, ""), (3000, "é" * 61)):
        payload = code.to_bytes(2, "big") + text.encode()
        with ExitStack() as stack:
            client, received = connected(gateway.address, client_context, upstream, stack)
            received.sock.sendall(frame(CLOSE, payload, masked=False))
            assert present(client.frame()).payload == payload
            client.send(frame(CLOSE, payload))
            assert present(received.frame()).payload == payload
            assert client.frame() is None
            assert received.frame() is None
        gateway.wait_for("session.closed", code=code, by="upstream")
    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        client.send(frame(CLOSE, b""))
        assert present(received.frame()).payload == b""
        received.sock.sendall(frame(CLOSE, b"", masked=False))
        assert present(client.frame()).opcode == CLOSE
    gateway.wait_for("session.closed", code=1005, by="client")


def test_a_close_that_is_not_answered_ends_by_the_deadline(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Nobody can hold a socket open by not answering a Close; what comes after a Close is not passed on."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, limits={"close_handshake": "300ms"})
    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        client.send(frame(CLOSE, b"\x03\xe8") + WHOLE)
        assert present(received.frame()).opcode == CLOSE
        assert received.frame() is None
        assert client.frame() is None


def test_an_upstream_reset_in_mid_frame_is_no_clean_end(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """A client in the middle of a frame that will never end gets an abort, not a Close inside the payload."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url)
    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        received.sock.sendall(frame(BINARY, b"x" * 1000, masked=False)[:500])
        assert client.reader.exactly(500) is not None
        received.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        received.done.set()
        assert client.reader.everything() == b""
    gateway.wait_for("session.closed", reason="upstream.broken")


def test_many_fragments_pass_and_floods_do_not(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """100,000 one-byte fragments are relayed; a flood of empty frames is 1008."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url)
    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        piece = frame(CONTINUATION, b"x", fin=False)
        data = frame(BINARY, b"x", fin=False) + piece * 99_998 + frame(CONTINUATION, b"x")
        sending = threading.Thread(target=client.send, args=(data,))
        sending.start()
        got = received.reader.exactly(len(data))
        sending.join(20)
        assert got == data
        empty = frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 2000
        client.send(empty)
        closed = present(client.frame())
        assert (closed.opcode, closed.close_code) == (CLOSE, 1008)
    assert gateway.wait_for("session.closed")["reason"] == "limits.rate"


@contextmanager
def pinging(address: tuple[str, int], context: ssl.SSLContext, times: list[float]) -> Generator[None]:
    """Measure round trips of small messages beside whatever the test does."""
    stop = threading.Event()

    def run() -> None:
        with RawClient(address, context) as client:
            client.open()
            while not stop.is_set():
                begin = time.perf_counter()
                client.send(frame(BINARY, b"ping"))
                if client.frame() is None:
                    return
                times.append(time.perf_counter() - begin)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


@pytest.mark.slow
def test_a_client_beside_hostile_ones_notices_nothing(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Malformed handshakes and frames cost bounded time: a neighbour's p99 stays below a bound far under a stall."""
    gateway = start_gateway(start_upstream(echo).url)
    before: list[float] = []
    during: list[float] = []
    with pinging(gateway.address, client_context, before):
        while len(before) < 500:
            time.monotonic()
    with pinging(gateway.address, client_context, during):
        for _ in range(15):
            for bad, _, _ in BAD_FROM_CLIENT:
                with RawClient(gateway.address, client_context) as client:
                    client.open()
                    client.send(bad)
                    present(client.frame())
            with RawClient(gateway.address, client_context) as client:
                client.status(handshake(origin="https://evil.test"))
            with RawClient(gateway.address, client_context) as client:
                client.status(b"GET / HTTP/1.1\r\nHost: app.test\r\n" + b"X: y\r\n" * 2500 + b"\r\n")
    p99 = [statistics.quantiles(times, n=100)[98] for times in (before, during)]
    print(f"p99 before {p99[0] * 1000:.2f} ms, during {p99[1] * 1000:.2f} ms, {len(during)} round trips")
    assert p99[1] < max(0.05, p99[0] * 20)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["from upstream", "from client"])
@pytest.mark.parametrize("engine_name", ["aiofastnet", "stdlib"])
def test_a_side_that_does_not_read_costs_bounded_memory(
    engine_name: str,
    direction: str,
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
) -> None:
    """64 MiB are offered to a peer that reads nothing: less than 1 MiB a pair is kept, and the sender has to wait."""
    pairs = 8
    offered = 64 * 1024 * 1024
    message = frame(BINARY, b"x" * 65536, masked=direction == "from client")
    upstream = start_upstream(hold)
    upstream.receive_buffer(16 * 1024)
    gateway = start_gateway(upstream.url, tls_engine=engine_name, limits={"idle": "1h", "ping": "30m"})
    with ExitStack() as stack:
        opened: list[tuple[RawClient, Received]] = []
        for number in range(pairs + 1):
            client = stack.enter_context(RawClient(gateway.address, client_context, receive_buffer=16 * 1024))
            client.open()
            opened.append((client, upstream.wait_for(number + 1)))
        warm_client, warm_received = opened.pop()
        sender = warm_client.sock if direction == "from client" else warm_received.sock
        sender.sendall(message)
        assert present((warm_received if direction == "from client" else warm_client).frame()).payload == b"x" * 65536
        before = gateway.memory()
        stuck = [
            _offer(client.sock if direction == "from client" else received.sock, message, offered)
            for client, received in opened
        ]
        growth = (gateway.memory() - before) / pairs
        print(
            f"{engine_name}, {direction}: {growth / 1024:.0f} KiB a pair, sent {[round(sent / 1024) for sent in stuck]} KiB of {offered // 1024}"
        )
        assert all(sent < offered for sent in stuck), "the bytes were drained: the test shows nothing"
        assert all(sent > 0 for sent in stuck)
        assert growth < 1024 * 1024


def _offer(sock: socket.socket, message: bytes, offered: int) -> int:
    """Send until nothing more is taken for half a second; return how many bytes were."""
    sock.settimeout(0.5)
    sent = 0
    try:
        while sent < offered:
            sent += sock.send(message[sent % len(message) :])
    except (TimeoutError, ssl.SSLWantWriteError):
        pass
    return sent


def test_compression_passes_where_it_was_negotiated(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """`compression = "passthrough"`: RSV1 is legal then, and only then."""

    def script(received: Received) -> None:
        received.sock.settimeout(20)
        received.sock.sendall(
            received.switching_protocols("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover")
        )
        received.done.wait(20)

    upstream = start_upstream(script)
    gateway = start_gateway(upstream.url, compression="passthrough")
    offer = "Sec-WebSocket-Extensions: x-other, permessage-deflate; client_max_window_bits\r\n"
    with RawClient(gateway.address, client_context) as client:
        head = client.open(handshake(extra=offer))
        assert b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n" in head
        received = upstream.wait_for(1)
        assert received.value("Sec-WebSocket-Extensions") == "permessage-deflate; client_max_window_bits"
        data = frame(TEXT, b"compressed", rsv=4)
        client.send(data)
        assert received.reader.exactly(len(data)) == data


def test_shutdown_tells_every_socket(
    engine: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """SIGTERM: nobody new, 1001 to both sides, exit 0."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, tls_engine=engine)
    with ExitStack() as stack:
        pairs = [connected(gateway.address, client_context, upstream, stack) for _ in range(5)]
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        for client, received in pairs:
            got = present(client.frame())
            assert (got.opcode, got.close_code, got.payload[2:]) == (CLOSE, 1001, b"shutdown")
            client.send(frame(CLOSE, got.payload))
            told = present(received.frame())
            assert (told.opcode, told.close_code) == (CLOSE, 1001)
            received.sock.sendall(frame(CLOSE, told.payload, masked=False))
            assert client.frame() is None
        begin = time.monotonic()
        stopping.join(20)
        assert time.monotonic() - begin < 5
    assert gateway.process.returncode == 0
    assert gateway.wait_for("gateway.stopped")["closed"] == 5


def test_a_close_behind_the_boundary_that_ours_waited_for_is_an_answer(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """The rest of a frame and a Close in one read, while our Close waits: the client is done at once, not by a deadline."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url, limits={"close_deadline": "10s", "close_handshake": "60s"})
    with ExitStack() as stack:
        client, received = connected(gateway.address, client_context, upstream, stack)
        client.send(WHOLE[:-3])
        assert received.reader.exactly(len(WHOLE) - 3) is not None
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        got = present(client.frame())
        assert (got.opcode, got.close_code) == (CLOSE, 1001)
        begin = time.monotonic()
        client.send(WHOLE[-3:] + frame(CLOSE, got.payload))
        assert received.reader.exactly(3) is not None
        told = present(received.frame())
        assert (told.opcode, told.close_code) == (CLOSE, 1001)
        assert client.frame() is None
        assert time.monotonic() - begin < 5
        received.done.set()
    stopping.join(20)
    assert gateway.process.returncode == 0
