"""
The relay: frames of one socket flow between client and upstream, on the *scan* path.

Every frame header is checked, payloads are forwarded as the bytes they came in (the gateway is a client to the
upstream, so the client's masking is legal there too), one write a read. The common case, one whole frame a read,
takes the fast path at the top of `RelayEnd.buffer_updated`: one comparison checks its whole header. A read of several
whole frames takes the next one. All else goes through the scanner.

Frames of ours (ping, close) go out only at a boundary of the stream they join. After a Close of ours nothing more is
forwarded in that direction. Two ends, client and upstream, are told apart only by masking and by what a violation of
theirs means to the other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.vocabulary import close_codes, reasons
from wsguard.vocabulary.decision import SocketLimits
from wsguard.vocabulary.errors import FrameViolation
from wsguard.wire import frames
from wsguard.wire.frames import FrameScanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsguard.engine.ports import Randomness
    from wsguard.engine.sessions import Session
    from wsguard.gateway.reaper import Reaper
    from wsguard.gateway.stream import ByteStream, ReadBuffer
    from wsguard.gateway.transports import TransportEngine
    from wsguard.vocabulary.bounds import Limits

_PING_BYTES = 8


@dataclass(frozen=True, slots=True)
class RelayOutcome:
    """How a socket ended: its close code, who closed it (client, upstream, wsguard), why, and what went each way."""

    code: int
    by: str
    reason: str
    bytes_from_client: int
    bytes_from_upstream: int
    messages_from_client: int
    messages_from_upstream: int
    bound: str = ""


class RelayEnd(asyncio.BufferedProtocol):
    """One end of a relayed socket: reads its transport, checks the frames, writes to its peer's transport."""

    __slots__ = (
        "_buffer",
        "_fast",
        "_known",
        "_masked",
        "_metered",
        "_pending",
        "_relay",
        "_view",
        "_whole_frames",
        "_write",
        "broken",
        "get_buffer",
        "gone",
        "name",
        "owes_pong",
        "peer",
        "per_second",
        "pinged",
        "rate_count",
        "rate_start",
        "read",
        "received",
        "said_close",
        "scanner",
        "seen",
        "silent_since",
        "stopped",
        "transport",
        "waiting",
    )

    def __init__(
        self, relay: Relay, name: str, transport: asyncio.Transport, scanner: FrameScanner, *, masked: bool
    ) -> None:
        self._relay = relay
        self.name = name
        self.transport = transport
        self.scanner = scanner
        self.peer: RelayEnd
        self._buffer = relay.buffer.data
        self._view = relay.buffer.view
        # Lends the loop's one buffer for each read. An attribute, so that the engine can do it without a Python frame.
        self.get_buffer = relay.engine.lender(relay.buffer.view)  # pyright: ignore[reportAttributeAccessIssue]
        self._write: Callable[[memoryview], None]
        self._masked = masked
        self._known = relay.buffer.from_clients if masked else relay.buffer.from_upstream
        self._whole_frames = 0
        self._fast = False
        self._pending: list[bytes] = []
        self.received = 0
        self.seen = 0
        self.silent_since = 0.0
        self.pinged = False
        self.owes_pong = False
        self.said_close = False
        self.stopped = False
        self.broken = False
        self.gone = False
        self.read = True
        self.waiting = False
        self.rate_start = 0.0
        self.rate_count = 0
        self.per_second: int | None = None
        self._metered = (0.0, 0)

    def begin(self, peer: RelayEnd, stream: ByteStream) -> None:
        """Join the two ends and take the transport over from the *stream* that served the handshake."""
        self.peer = peer
        stream.successor = self
        self._write = self._relay.engine.writer(peer.transport)
        self._choose_path()
        self.transport.set_write_buffer_limits(high=self._relay.limits.buffer)
        self.transport.set_protocol(self)

    def buffer_updated(self, nbytes: int) -> None:
        """Check what was read and send it on."""
        self.received += nbytes
        known = self._known.get(nbytes)
        if known is not None and self._fast and self._buffer.startswith(known[0]):
            self._whole_frames += 1
            self._write(known[1])
        elif self._fast and self.scanner.is_run(self._buffer, nbytes):
            self._write(self._view[:nbytes])
        elif self.stopped:
            self._listen(self._view[:nbytes])
        else:
            if known is None:
                self._relay.buffer.remember(nbytes, masked=self._masked)
            self._scan(self._buffer, self._view, nbytes)

    def feed(self, data: bytes) -> None:
        """Take bytes that were read before the relay began."""
        if data and not self.stopped:
            self.received += len(data)
            self._scan(data, memoryview(data), len(data))

    @property
    def messages(self) -> int:
        """How many messages came whole from this end."""
        return self.scanner.messages + self._whole_frames

    def send_own(self, frame: bytes) -> None:
        """Send a frame of ours to the peer, at the next boundary of the stream that this end sends."""
        if self.stopped:
            return
        if self.scanner.at_boundary and not self._pending:
            self.peer.transport.write(frame)
        else:
            self._pending.append(frame)
            self._choose_path()

    def finish_with(self, close_frame: bytes) -> None:
        """Send a Close of ours to the peer at the next boundary, then forward nothing more from this end."""
        if self.stopped:
            return  # a Close has gone this way already
        if self.scanner.at_boundary:
            self.peer.transport.write(close_frame)
            self.stop()
        else:
            self.waiting = True
            self._pending.append(close_frame)
        self._choose_path()

    def stop(self) -> None:
        """Forward nothing more from this end; what it still sends is read and thrown away."""
        self.stopped = True
        self.waiting = False
        self._pending.clear()
        self._fast = False

    def close(self) -> None:
        """Flush, say close_notify, end. Once: a second close makes asyncio's TLS forget how to abort."""
        if not self.transport.is_closing():
            self.transport.close()

    def part(self, stream: ByteStream) -> None:
        """
        Undo `begin`, once both sides are gone: what has ended must be freed at once, not when the collector looks.

        With ten thousand sockets it looks for half a second, and nothing else happens meanwhile.
        """
        stream.successor = None
        del self.peer, self.transport, self._write, self._relay

    def eof_received(self) -> bool:
        """Let the transport close itself: a WebSocket has no half-closed state worth keeping."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is gone."""
        if not self.gone:
            self.gone = True
            self.stop()
            self._relay.reaper.forget(self.transport)
            self._relay.lost(self)

    def pause_writing(self) -> None:
        """This side does not read fast enough: its peer is not read meanwhile."""
        self.peer.read = False
        self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side reads again."""
        self.peer.read = True
        self.peer.transport.resume_reading()

    def _choose_path(self) -> None:
        # Work the fast path may skip is decided here, whenever something changed, not for every read.
        self._fast = (
            not self.stopped
            and not self._pending
            and self.scanner.at_rest
            and self._relay.max_message >= len(self._buffer)
            and self.per_second is None
        )

    def _scan(self, data: bytes | bytearray, view: memoryview, size: int) -> None:
        scanner = self.scanner
        if scanner.held:
            data = scanner.held + bytes(view[:size])
            view, size = memoryview(data), len(data)
        try:
            end = scanner.scan(data, size)
        except FrameViolation as violation:
            self._forward(view, violation.position)
            self._relay.violated(self, violation)
            return
        if scanner.controls or self._pending:
            self._forward(view, end)
        elif end:
            self._write(view[:end])
        if scanner.small_frames:
            self._count_small_frames()
        if self.per_second is not None:
            self._count_messages(self.per_second)
        self._choose_path()

    def _forward(self, data: memoryview, end: int) -> None:
        """Write data[:end] without the pongs that are ours, with frames of ours at the first boundary."""
        scanner = self.scanner
        position = 0
        boundary = scanner.first_boundary
        if self._pending and boundary is not None and boundary <= end:
            self._write(data[:boundary])
            position = boundary
            for frame in self._pending:
                self.peer.transport.write(frame)
            self._pending.clear()
            if self.waiting:
                self.stop()
                self._relay.one_finished()
                if scanner.closed:  # its own Close stands in the same read, behind the boundary
                    self.said_close = True
                    self._relay.said_close(self)
                return
        for control in scanner.controls:
            if control.end > end or control.start < position:
                continue
            if self._is_answer_to_us(control):
                self._write_if_any(data[position : control.start])
                position = control.end
            self._note(control)
        self._write_if_any(data[position:end])
        if self.said_close:
            self.stop()
            self._relay.said_close(self)

    def _listen(self, view: memoryview) -> None:
        """Throw away what comes after our Close, but see the Close that answers it."""
        if self.broken or self.said_close:
            return
        scanner = self.scanner
        try:
            data = scanner.held + bytes(view)
            scanner.scan(data, len(data))
        except FrameViolation:
            self.broken = True
            return
        if scanner.closed:
            self.said_close = True
            self._relay.said_close(self)

    def _write_if_any(self, piece: memoryview) -> None:
        if len(piece):
            self._write(piece)

    def _is_answer_to_us(self, control: frames.ControlFrame) -> bool:
        return control.opcode == frames.PONG and control.payload == self._relay.ping_payload

    def _note(self, control: frames.ControlFrame) -> None:
        if control.opcode == frames.PING:
            self.peer.owes_pong = True
        elif control.opcode == frames.PONG:
            self.owes_pong = False
        else:
            self.said_close = True
            self._relay.note_end(frames.close_code_of(control.payload), self.name, control.payload[2:].decode("utf-8"))

    def _count_small_frames(self) -> None:
        now = self._relay.now()
        if now - self.rate_start >= 1.0:
            self.rate_start, self.rate_count = now, 0
        self.rate_count += self.scanner.small_frames
        self.scanner.small_frames = 0
        if self.rate_count > self._relay.limits.frame_rate:
            self._relay.violated(self, FrameViolation(close_codes.POLICY_VIOLATION, reasons.LIMITS_RATE))

    def _count_messages(self, per_second: int) -> None:
        start, counted = self._metered
        now = self._relay.now()
        if now - start >= 1.0:
            self._metered = (now, self.messages)
        elif self.messages - counted > per_second:
            self._relay.violated(self, FrameViolation(close_codes.POLICY_VIOLATION, reasons.LIMITS_RATE))


class Relay:
    """One socket: its two ends, its end, and the frames of our own that it needs."""

    def __init__(
        self,
        session: Session,
        *,
        client: ByteStream,
        upstream: ByteStream,
        engine: TransportEngine,
        buffer: ReadBuffer,
        reaper: Reaper,
        limits: Limits,
        max_message: int,
        deflate: bool,
        socket_limits: SocketLimits | None,
        randomness: Randomness,
        on_end: Callable[[Relay, RelayOutcome], None],
    ) -> None:
        self.session = session
        self.engine = engine
        self.buffer = buffer
        self.reaper = reaper
        self.limits = limits
        self.max_message = max_message
        self.ping_payload = randomness(_PING_BYTES)
        self._randomness = randomness
        self._on_end: Callable[[Relay, RelayOutcome], None] | None = on_end
        self._loop = asyncio.get_running_loop()
        self._end_told: tuple[int, str, str] | None = None
        self._closing = False
        self._ends_lost = 0
        self._timer: asyncio.TimerHandle | None = None
        self._streams = (client, upstream)
        self._bound = ""

        def end(name: str, transport: asyncio.Transport, *, masked: bool) -> RelayEnd:
            scanner = FrameScanner(
                masked=masked, max_message=max_message, max_fragments=limits.fragments, deflate=deflate
            )
            return RelayEnd(self, name, transport, scanner, masked=masked)

        self.client = end("client", client.transport, masked=True)
        self.upstream = end("upstream", upstream.transport, masked=False)
        self._socket_limits = socket_limits or SocketLimits()
        self.client.per_second = self._socket_limits.messages_per_second
        self._said_something = (0, self.now())
        self._lifetime: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Seconds of the loop's clock."""
        return self._loop.time()

    def begin(self) -> None:
        """Let the frames flow, beginning with what both sides sent too early to be read by the relay."""
        client_stream, upstream_stream = self._streams
        self.client.silent_since = self.upstream.silent_since = self.now()
        self.client.begin(self.upstream, client_stream)
        self.upstream.begin(self.client, upstream_stream)
        for end, stream in ((self.client, client_stream), (self.upstream, upstream_stream)):
            end.transport.resume_reading()
            end.feed(stream.take_all())
        self.session.bind(self.close)
        if self._socket_limits.max_lifetime is not None:
            self._lifetime = self._loop.call_later(
                self._socket_limits.max_lifetime, self._end, close_codes.GOING_AWAY, reasons.LIMITS_LIFETIME.code
            )
        for end, stream in ((self.client, client_stream), (self.upstream, upstream_stream)):
            if stream.lost:
                end.connection_lost(None)

    def tick(self, now: float) -> None:
        """Look for silence: ping a side that has been silent for `Limits.ping`, close after `Limits.idle`."""
        if self._end_told is not None:
            return
        if self._socket_limits.idle is not None and self._client_is_mute(now, self._socket_limits.idle):
            self._end(close_codes.GOING_AWAY, reasons.LIMITS_IDLE.code)
            return
        for end in (self.client, self.upstream):
            # A side that we do not read, because the other does not take what it sent, is not silent.
            if end.received != end.seen or not end.read:
                end.seen = end.received
                end.silent_since = now
                end.pinged = False
                continue
            silence = now - end.silent_since
            if silence >= self.limits.idle:
                self._end(close_codes.GOING_AWAY, reasons.LIMITS_IDLE.code)
                return
            if silence >= self.limits.ping and not end.pinged and not end.owes_pong:
                end.pinged = True
                end.peer.send_own(self._control(frames.PING, self.ping_payload, toward=end))

    def _client_is_mute(self, now: float, idle: float) -> bool:
        """Tell whether the client has sent no message for *idle* seconds; pongs do not count here."""
        messages, since = self._said_something
        if self.client.messages != messages or not self.client.read:
            self._said_something = (self.client.messages, now)
            return False
        return now - since >= idle

    def close(self, code: int, reason: str) -> None:
        """End both sides with *code* and *reason*: what `Session.close` does."""
        self._end(code, self.session.cause, text=reason)

    def violated(self, end: RelayEnd, violation: FrameViolation) -> None:
        """*end* sent what must not go on: it is told what it did, the other side what that means to it."""
        end.broken = True
        code = violation.close_code
        if end is self.client:
            self._end(code, violation.reason.code, toward_upstream=close_codes.GOING_AWAY)
        elif code == close_codes.MESSAGE_TOO_BIG:
            self._end(code, violation.reason.code, toward_upstream=close_codes.PROTOCOL_ERROR)
        else:
            self._end(close_codes.BAD_GATEWAY, violation.reason.code, toward_upstream=close_codes.PROTOCOL_ERROR)

    def note_end(self, code: int, by: str, reason: str) -> None:
        """Keep what ended the socket; what was first counts."""
        if self._end_told is None:
            self._end_told = (code, by, reason)
            self.session.note_end(code, reason)

    def said_close(self, end: RelayEnd) -> None:
        """*end* has sent its Close. A side that has also got one is done; both done, the socket is."""
        answered = end.peer.said_close or (self._closing and end.peer.stopped)
        if not answered:
            if not (self.client.waiting or self.upstream.waiting):
                self._start_timer(self.limits.close_handshake)
            return
        if self._closing and not end.peer.said_close:
            end.close()
        else:
            self._close_transports()

    def one_finished(self) -> None:
        """A Close of ours that waited for a boundary has gone out."""
        if not (self.client.waiting or self.upstream.waiting):
            self._start_timer(self._answer_seconds())

    def lost(self, end: RelayEnd) -> None:
        """One side's connection has ended."""
        self._ends_lost += 1
        if self._ends_lost == 2:  # noqa: PLR2004 - both ends
            self._finish()
            return
        if end is self.upstream and self._end_told is None:
            self.note_end(close_codes.BAD_GATEWAY, "upstream", reasons.UPSTREAM_BROKEN.code)
            if not end.scanner.at_boundary:
                # The client is in the middle of a frame that will never end: only an abort is honest.
                self.client.transport.abort()
                return
            self.client.transport.write(self._close_frame(close_codes.BAD_GATEWAY, toward=self.client))
        self._close_transports()

    def _end(self, code: int, reason: str, *, toward_upstream: int | None = None, text: str | None = None) -> None:
        """Close both sides: *reason* stands in the log, *text* (by default the code's own) in the Close frames."""
        if self._closing or self._ends_lost:
            return
        self._closing = True
        self.note_end(code, "wsguard", reason)
        # The stream that the upstream sends ends in the client's Close, and the other way round.
        self.upstream.finish_with(self._close_frame(code, text, toward=self.client))
        self.client.finish_with(self._close_frame(toward_upstream or code, text, toward=self.upstream))
        waiting = self.client.waiting or self.upstream.waiting
        self._start_timer(self.limits.close_deadline if waiting else self._answer_seconds())

    def _answer_seconds(self) -> float:
        # Who broke the protocol is not waited for as long as who is merely asked to go.
        broken = self.client.broken or self.upstream.broken
        return self.limits.close_deadline if broken else self.limits.close_handshake

    def _close_frame(self, code: int, text: str | None = None, *, toward: RelayEnd) -> bytes:
        payload = frames.close_payload(code, close_codes.TEXTS.get(code, "") if text is None else text)
        return self._control(frames.CLOSE, payload, toward=toward)

    def _control(self, opcode: int, payload: bytes, *, toward: RelayEnd) -> bytes:
        mask = self._randomness(4) if toward is self.upstream else None
        return frames.control_frame(opcode, payload, mask)

    def _start_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._deadline)

    def _deadline(self) -> None:
        # A frame of ours that still waits for a boundary will not get one: nothing honest is left to send.
        self._timer = None
        for end in (self.client, self.upstream):
            if end.waiting:
                self._bound = "close_deadline"
                end.peer.transport.abort()
        self._close_transports()

    def _close_transports(self) -> None:
        # close() flushes and says close_notify. A peer that has yet to read has its time for it; one that has taken
        # everything and merely says no close_notify is not waited for as long.
        flushing = any(end.transport.get_write_buffer_size() for end in (self.client, self.upstream) if not end.gone)
        for end in (self.client, self.upstream):
            end.stop()
            end.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._ends_lost < 2:  # noqa: PLR2004 - both ends
            seconds = self.limits.close_handshake if flushing else self.limits.close_deadline
            self._timer = self._loop.call_later(seconds, self._abort)

    def _abort(self) -> None:
        self._timer = None
        self.client.transport.abort()
        self.upstream.transport.abort()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lifetime is not None:
            self._lifetime.cancel()
        self._end_told = self._end_told or (close_codes.ABNORMAL, "client", "")
        code, by, reason = self._end_told
        outcome = RelayOutcome(
            code=code,
            by=by,
            reason=reason,
            bytes_from_client=self.client.received,
            bytes_from_upstream=self.upstream.received,
            messages_from_client=self.client.messages,
            messages_from_upstream=self.upstream.messages,
            bound=self._bound,
        )
        on_end, self._on_end = self._on_end, None
        for end, stream in zip((self.client, self.upstream), self._streams, strict=True):
            end.part(stream)
        if on_end is not None:
            on_end(self, outcome)


class Heartbeat:
    """Looks at every relay of a loop now and then: one timer for all of them."""

    def __init__(self, limits: Limits) -> None:
        self._relays: set[Relay] = set()
        self._interval = min(1.0, limits.ping / 4, limits.idle / 4)
        self._timer: asyncio.TimerHandle | None = None
        self._none_left = asyncio.Event()
        self._none_left.set()

    def add(self, relay: Relay) -> None:
        """Look after *relay* from now on."""
        self._relays.add(relay)
        self._none_left.clear()
        if self._timer is None:
            self._schedule()

    def remove(self, relay: Relay) -> None:
        """Forget *relay*; it has ended."""
        self._relays.discard(relay)
        if not self._relays:
            self._none_left.set()

    async def all_ended(self) -> None:
        """Wait until no relay is left."""
        await self._none_left.wait()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._relays:
            self._schedule()
        now = asyncio.get_running_loop().time()
        for relay in list(self._relays):
            relay.tick(now)
