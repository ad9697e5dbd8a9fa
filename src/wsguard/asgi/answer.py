"""The mount's protocol out: a refusal as ASGI messages, and the fields of what the app answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from wsguard.endpoints.messages import MAX_BODY, EndpointResponse
from wsguard.engine.answers import refusal_answer, refused_subprotocol
from wsguard.engine.delivery import delivered_fields
from wsguard.engine.forwarding import is_ours, returned_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.asgi.types import Message, Receive, Scope, Send
    from wsguard.engine.forwarding import RawFields
    from wsguard.vocabulary.decision import Refuse
    from wsguard.vocabulary.handshake import Client, Handshake

DENIAL = "websocket.http.response"


async def refuse_page(
    send: Send, refuse: Refuse, request_id: str, *, host: bytes | None, secure: bool, head_only: bool
) -> None:
    """Answer a page, or a handshake that came as plain HTTP, with the refusal's status."""
    fields, body = refusal_answer(refuse.status, request_id, host=host, secure=secure, headers=refuse.headers)
    await send({"type": "http.response.start", "status": refuse.status, "headers": _lowered(fields)})
    await send({"type": "http.response.body", "body": b"" if head_only else body})


async def refuse_socket(
    scope: Scope, receive: Receive, send: Send, refuse: Refuse, request_id: str, *, host: bytes | None, secure: bool
) -> None:
    """Refuse a handshake: with its status where the server can say one, else by a close before the accept."""
    await receive()  # websocket.connect, or the disconnect of a client that did not wait
    if refuse.close_code is not None:
        subprotocol = refused_subprotocol(cast("Sequence[str]", scope.get("subprotocols") or ()))
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        await send({"type": "websocket.close", "code": refuse.close_code, "reason": request_id})
    elif DENIAL in cast("dict[str, object]", scope.get("extensions") or {}):
        fields, body = refusal_answer(refuse.status, request_id, host=host, secure=secure, headers=refuse.headers)
        await send({"type": f"{DENIAL}.start", "status": refuse.status, "headers": _lowered(fields)})
        # One message: granian 2.8 answers 403 to a second one.
        await send({"type": f"{DENIAL}.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})


async def whole_body(receive: Receive) -> bytes:
    """Return a request's body, or more than `MAX_BODY` bytes of it, which the endpoint refuses."""
    body = b""
    while len(body) <= MAX_BODY:
        message = await receive()
        body += cast("bytes", message.get("body") or b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return body


async def answer_endpoint(send: Send, response: EndpointResponse, handshake: Handshake, client: Client) -> None:
    """Answer a page under ``/.wsguard/``."""
    host = handshake.fields.first(b"host")
    delivered = delivered_fields(response.framed_fields, host=host, secure=client.secure is True)
    await send({"type": "http.response.start", "status": response.status, "headers": _lowered(delivered)})
    await send({"type": "http.response.body", "body": b"" if handshake.method == "HEAD" else response.body})


def page_answer(message: Message, *, host: bytes | None, secure: bool) -> Message:
    """Return the app's ``…response.start`` with its fields as they are delivered: HSTS, Secure cookies."""
    fields = [(bytes(name), bytes(value)) for name, value in _headers_of(message)]
    theirs = [(name, value) for name, value in fields if not is_ours(name)]
    return {**message, "headers": _lowered(delivered_fields(theirs, host=host, secure=secure))}


def socket_answer(
    message: Message, subprotocol: str | None, *, host: bytes | None, secure: bool, handle: str | None = None
) -> Message:
    """Return the app's ``websocket.accept`` with *subprotocol*, its other fields as on any answer, and the *handle*."""
    theirs: RawFields = []
    if message.get("headers"):
        fields = [(bytes(name), bytes(value)) for name, value in _headers_of(message)]
        theirs = [pair for pair in returned_fields(fields) if not pair[0].lower().startswith(b"sec-websocket-")]
    headers = _lowered(delivered_fields(theirs, host=host, secure=secure))
    if handle is not None:
        headers.append((b"x-wsguard-session", handle.encode("ascii")))
    return {**message, "subprotocol": subprotocol, "headers": headers}


def _headers_of(message: Message) -> Sequence[tuple[bytes, bytes]]:
    return cast("Sequence[tuple[bytes, bytes]]", message.get("headers") or ())


def _lowered(fields: RawFields) -> RawFields:
    return [(name.lower(), value) for name, value in fields]
