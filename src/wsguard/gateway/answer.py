"""The gateway's protocol out: a refusal, and the 101 of an accepted handshake, as HTTP/1.1 heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsguard.engine.answers import answered_subprotocol, refusal_answer, refused_subprotocol
from wsguard.engine.delivery import delivered_fields
from wsguard.engine.forwarding import returned_fields
from wsguard.wire import frames
from wsguard.wire.head_writer import write_response_head
from wsguard.wire.response_head import SWITCHING_PROTOCOLS, Upgraded, accept_for

if TYPE_CHECKING:
    from wsguard.endpoints.messages import EndpointResponse
    from wsguard.vocabulary.decision import Accept
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.wire.response_head import ResponseHead

_UPGRADE_OWN = frozenset(
    {b"sec-websocket-accept", b"sec-websocket-protocol", b"sec-websocket-extensions", b"sec-websocket-version"}
)


def refusal(
    status: int,
    request_id: str,
    *,
    host: bytes | None,
    headers: tuple[tuple[str, str], ...] = (),
    head_only: bool = False,
) -> bytes:
    """Write a whole refusal: status, fixed short text, request id, and the connection's end. Never the reason."""
    fields, text = refusal_answer(status, request_id, host=host, secure=True, headers=headers)
    head = write_response_head(status, fields)
    return head if head_only else head + text


def told_by_close(handshake: Handshake, code: int, request_id: str) -> bytes:
    """Write a 101 and at once the Close that tells a browser's script *code*: it sees no status of a refusal."""
    key = handshake.fields.first(b"sec-websocket-key") or b""
    fields = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", accept_for(key))]
    offered = [name.decode("ascii") for name in handshake.fields.list_members(b"sec-websocket-protocol")]
    subprotocol = refused_subprotocol(offered)
    if subprotocol is not None:
        fields.append((b"Sec-WebSocket-Protocol", subprotocol.encode("ascii")))
    host = handshake.fields.first(b"host")
    fields = [*fields, *delivered_fields([], host=host, secure=True)]
    return write_response_head(SWITCHING_PROTOCOLS, fields) + frames.control_frame(
        frames.CLOSE, frames.close_payload(code, request_id), None
    )


def endpoint_answer(response: EndpointResponse, handshake: Handshake) -> bytes:
    """Write what an endpoint of ours answers, and the connection's end."""
    fields = [*response.framed_fields, (b"Connection", b"close")]
    host = handshake.fields.first(b"host")
    head = write_response_head(response.status, delivered_fields(fields, host=host, secure=True))
    return head if handshake.method == "HEAD" else head + response.body


def switching_protocols(
    handshake: Handshake, accept: Accept, head: ResponseHead, upgraded: Upgraded, handle: str | None = None
) -> bytes:
    """Write the 101: upgrade fields of ours, the app's other fields as on any answer (RFC 6455 §4.2.2)."""
    key = handshake.fields.first(b"sec-websocket-key") or b""
    fields = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", accept_for(key))]
    subprotocol = answered_subprotocol(accept, upgraded.subprotocol)
    if subprotocol is not None:
        fields.append((b"Sec-WebSocket-Protocol", subprotocol.encode("ascii")))
    if upgraded.extension is not None:
        fields.append((b"Sec-WebSocket-Extensions", upgraded.extension.encode("ascii")))
    if handle is not None:
        fields.append((b"X-WSGuard-Session", handle.encode("ascii")))
    theirs = [
        (name, value)
        for name, value in returned_fields(head.fields, head.fields.list_members(b"connection"))
        if name.lower() not in _UPGRADE_OWN
    ]
    host = handshake.fields.first(b"host")
    return write_response_head(SWITCHING_PROTOCOLS, fields + delivered_fields(theirs, host=host, secure=True))
