"""
Pages: the HTTPS delivery of the app itself, streamed both ways in bounded memory (RFC 9110, 9112).

Framing is decoded on one side and written anew on the other. An upstream connection serves another page only after
both messages have ended cleanly. Nothing unsafe is ever sent twice: only safe methods use a kept connection, and only
they are tried once more when it turns out to be dead. A body that was cut short is seen as cut short.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.engine.delivery import delivered_fields
from wsguard.engine.forwarding import RawFields, forwarded_fields, returned_fields
from wsguard.gateway.stream import ByteStream, StreamEnded
from wsguard.gateway.upstream import Upstream, read_response_head
from wsguard.vocabulary import reasons
from wsguard.vocabulary.errors import BodyViolation, UpstreamFailure, WSGuardError
from wsguard.wire.bodies import LAST_CHUNK, decoder_for, encode_chunk
from wsguard.wire.head_writer import write_request_head, write_response_head
from wsguard.wire.response_head import SWITCHING_PROTOCOLS

if TYPE_CHECKING:
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.decision import Accept
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.reasons import Reason
    from wsguard.wire.request_head import RequestHead
    from wsguard.wire.response_head import ResponseHead

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestBodyFailure(WSGuardError):
    """The client's body is broken or too slow; *reason* carries the status."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.code)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One accepted page request on its client's stream."""

    head: RequestHead
    handshake: Handshake
    accept: Accept
    client: ByteStream
    limits: Limits


class CutShort(WSGuardError):
    """The response could not be finished: the client must see that it is not whole."""


async def serve_page(page: PageRequest, upstream: Upstream) -> bool:
    """
    Send one page request upstream and its answer back; return whether the client's connection can serve another.

    Raises UpstreamFailure and RequestBodyFailure while nothing was answered, CutShort once something was.
    """
    stream = upstream.reusable() if page.head.method in _SAFE_METHODS and page.head.body.framing == "none" else None
    if stream is not None:
        try:
            return await _exchange(page, upstream, stream)
        except _DeadConnection:
            pass  # it was closing under our hands; a safe request may be sent once more
    return await _exchange(page, upstream, await upstream.connect())


class _DeadConnection(UpstreamFailure):
    """The connection ended before it answered a byte. On a kept one that is no wonder."""

    def __init__(self) -> None:
        super().__init__(reasons.UPSTREAM_UNREACHABLE, "the connection ended before a response")


async def forward_refusal(page: PageRequest, head: ResponseHead, stream: ByteStream) -> None:
    """
    Send the app's own refusal of a handshake to the client as it is, body included; then both connections end.

    Raises CutShort when its body does not come whole.
    """
    async with asyncio.timeout(page.limits.upstream_response):
        await _send_response(page, head, stream, keep=False)


async def _exchange(page: PageRequest, upstream: Upstream, stream: ByteStream) -> bool:
    kept = False
    sender: asyncio.Task[bool] | None = None
    try:
        await _send_head(page, upstream, stream)
        if page.head.body.framing != "none":
            sender = asyncio.create_task(_send_body(page, stream))
        head = await _response_head(page, stream, sender)
        keep_client = await _send_response(page, head, stream, keep=page.head.keep_alive and _was_read(sender))
        kept = head.keep_alive and _was_read(sender)
        return keep_client and _was_read(sender)
    finally:
        if sender is not None:
            await _settle(sender)
        if kept:
            upstream.release(stream)
        else:
            stream.abort()


async def _send_head(page: PageRequest, upstream: Upstream, stream: ByteStream) -> None:
    fields = forwarded_fields(page.handshake, page.accept, upstream.address.name)
    body = page.head.body
    if body.framing == "chunked":
        fields.append((b"Transfer-Encoding", b"chunked"))
    elif body.framing == "length":
        fields.append((b"Content-Length", b"%d" % body.length))
    try:
        await stream.write(write_request_head(page.head.method, page.head.target, fields))
    except StreamEnded:
        raise _DeadConnection from None


def _was_read(sender: asyncio.Task[bool] | None) -> bool:
    """Tell whether the client's body was read to its end: only then can another request stand behind it."""
    return sender is None or (
        sender.done() and not sender.cancelled() and sender.exception() is None and sender.result()
    )


async def read_body(head: RequestHead, client: ByteStream, limits: Limits, longest: int) -> bytes:
    """
    Return the body of a request that we answer ourselves, or a little more than *longest* bytes of it.

    Raises RequestBodyFailure for one that is broken, or that is not whole within ``limits.body_timeout``.
    """
    decoder = decoder_for(head.body)
    body = b""
    try:
        async with asyncio.timeout(limits.body_timeout):
            while not decoder.done and len(body) <= longest:
                payload, rest = decoder.feed(client.take_all())
                client.put_back(rest)
                body += payload
                if not decoder.done and len(body) <= longest and not client.data:
                    await client.more()
    except TimeoutError:
        raise RequestBodyFailure(reasons.BODY_SLOW) from None
    except BodyViolation:
        raise RequestBodyFailure(reasons.BODY_BROKEN) from None
    return body


async def _send_body(page: PageRequest, stream: ByteStream) -> bool:
    """
    Pump the request body upstream; return whether it was read to its end.

    Its failures abort the upstream, so that nobody takes half a body for a whole one.
    """
    decoder = decoder_for(page.head.body)
    chunked = page.head.body.framing == "chunked"
    client = page.client
    try:
        while not decoder.done:
            payload, rest = decoder.feed(client.take_all())
            client.put_back(rest)
            if payload:
                await stream.write(encode_chunk(payload) if chunked else payload)
            if not decoder.done and not client.data:
                async with asyncio.timeout(page.limits.body_timeout):
                    await client.more()
        if chunked:
            await stream.write(LAST_CHUNK)
    except TimeoutError:
        stream.abort()
        raise RequestBodyFailure(reasons.BODY_SLOW) from None
    except BodyViolation:
        stream.abort()
        raise RequestBodyFailure(reasons.BODY_BROKEN) from None
    except StreamEnded:
        # Either side may be gone: an upstream that answers early closes its end, and its answer still counts.
        if client.ended:
            stream.abort()
        return False
    return True


async def _response_head(page: PageRequest, stream: ByteStream, sender: asyncio.Task[bool] | None) -> ResponseHead:
    try:
        async with asyncio.timeout(None if sender is not None else page.limits.upstream_response) as deadline:
            if sender is not None:
                # A long upload is no slow upstream: its clock starts when the body has been sent.
                sender.add_done_callback(lambda _: _start_clock(deadline, page.limits.upstream_response))
            while True:
                head = await read_response_head(stream, page.head.method, page.limits)
                if head.status == SWITCHING_PROTOCOLS:
                    raise UpstreamFailure(reasons.UPSTREAM_UNEXPECTED_101)
                if not head.is_interim:
                    return head
                if page.head.version == "1.1":
                    await page.client.write(write_response_head(head.status, returned_fields(head.fields)))
    except TimeoutError:
        raise UpstreamFailure(reasons.UPSTREAM_SLOW, "the response head") from None
    except UpstreamFailure:
        if sender is not None and sender.done() and not sender.cancelled() and sender.exception() is not None:
            raise sender.exception() or RequestBodyFailure(reasons.BODY_BROKEN) from None
        if stream.ended and not stream.data and sender is None:
            raise _DeadConnection from None
        raise


def _start_clock(deadline: asyncio.Timeout, seconds: float) -> None:
    if not deadline.expired():
        with contextlib.suppress(RuntimeError):  # the response has come meanwhile, and the clock is no more
            deadline.reschedule(asyncio.get_running_loop().time() + seconds)


async def _send_response(page: PageRequest, head: ResponseHead, stream: ByteStream, *, keep: bool) -> bool:
    """Send the answer; return whether the client's connection stays open."""
    fields = returned_fields(head.fields, head.fields.list_members(b"connection"))
    chunked = head.body.framing in ("chunked", "close") and page.head.version == "1.1"
    if chunked:
        fields.append((b"Transfer-Encoding", b"chunked"))
    elif head.body.framing == "length":
        fields.append((b"Content-Length", b"%d" % head.body.length))
    elif head.body.framing == "none":
        fields += _announced_length(head)
    else:
        keep = False
    if head.body.framing == "chunked" and not chunked:
        keep = False
    host = page.handshake.fields.first(b"host")
    fields = delivered_fields(fields, host=host, secure=True)
    fields += _connection_fields(page, keep=keep)
    await page.client.write(write_response_head(head.status, fields, head.phrase))
    try:
        await _send_response_body(page, head, stream, chunked=chunked)
    except (BodyViolation, TimeoutError, StreamEnded) as error:
        raise CutShort(type(error).__name__) from None
    return keep


def _announced_length(head: ResponseHead) -> RawFields:
    # An answer to HEAD, and a 304, tell the length of a body that does not follow (RFC 9110 §8.6).
    length = head.fields.first(b"content-length")
    return [(b"Content-Length", length)] if length is not None and head.status >= 200 else []  # noqa: PLR2004


def _connection_fields(page: PageRequest, *, keep: bool) -> RawFields:
    if not keep:
        return [(b"Connection", b"close")]
    return [(b"Connection", b"keep-alive")] if page.head.version == "1.0" else []


async def _send_response_body(page: PageRequest, head: ResponseHead, stream: ByteStream, *, chunked: bool) -> None:
    decoder = decoder_for(head.body)
    if head.body.framing == "none":
        return
    while not decoder.done:
        payload, rest = decoder.feed(stream.take_all())
        stream.put_back(rest)
        if payload:
            await page.client.write(encode_chunk(payload) if chunked else payload)
        # What came while the client was slow waits already, the end of the connection behind it.
        if not decoder.done and not stream.data:
            try:
                async with asyncio.timeout(page.limits.upstream_idle):
                    await stream.more()
            except StreamEnded:
                if stream.reset:
                    raise
                decoder.end()
    if chunked:
        await page.client.write(LAST_CHUNK)


async def _settle(sender: asyncio.Task[bool]) -> None:
    sender.cancel()
    await asyncio.wait([sender])
    if not sender.cancelled():
        sender.exception()
