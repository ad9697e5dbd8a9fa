"""Requests and responses of the endpoints, and what CORS lets a page of a listed origin read (Fetch standard §3.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.engine.forwarding import RawFields
    from wsguard.vocabulary.handshake import Client, Handshake
    from wsguard.vocabulary.identity import Identity

MAX_BODY = 8 * 1024
PREFLIGHT_SECONDS = 600
_JSON = re.compile(rb"application/json(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """One request to an endpoint: the page that asks, who sent it, and its whole *body* of at most `MAX_BODY` bytes."""

    handshake: Handshake
    client: Client
    body: bytes


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """
    What is answered: *status*, *fields* and *body*.

    The log gets *refusal*, or the *event* with its *values*; none of them holds a secret.
    """

    status: int
    fields: RawFields = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""
    refusal: Refusal | None = None
    event: str = ""
    values: dict[str, Any] = field(default_factory=dict[str, Any])

    def json(self) -> dict[str, Any]:
        """Return the members of the body."""
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def framed_fields(self) -> RawFields:
        """The fields and the body's length; a 204 has neither body nor length (RFC 9110 §8.6)."""
        if self.status == HTTPStatus.NO_CONTENT:
            return self.fields
        return [*self.fields, (b"Content-Length", b"%d" % len(self.body))]


def answered(members: dict[str, Any], *, event: str = "", values: dict[str, Any] | None = None) -> EndpointResponse:
    """Return 200 with *members* as JSON, which nobody may keep."""
    fields = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
    return EndpointResponse(200, fields, msgspec.json.encode(members), event=event, values=values or {})


def refused(refusal: Refusal, identity: Identity | None = None) -> EndpointResponse:
    """Return the refusal's status as JSON: never the reason. *identity* is who was refused, for the log."""
    if identity is not None:
        refusal = replace(refusal, identity=identity)
    status = refusal.reason.status
    fields = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
    fields += [(name.encode("ascii"), value.encode("ascii")) for name, value in refusal.headers]
    body = msgspec.json.encode({"status": status, "error": HTTPStatus(status).phrase})
    return EndpointResponse(status, fields, body, refusal=refusal)


def with_cors(response: EndpointResponse, origin: bytes | None, *, credentials: bool) -> EndpointResponse:
    """Let the page of *origin*, which is listed, read *response*; with *credentials* it may have sent a cookie."""
    fields = [*response.fields, (b"Vary", b"Origin")]
    if origin is not None:
        fields.append((b"Access-Control-Allow-Origin", origin))
        if credentials:
            fields.append((b"Access-Control-Allow-Credentials", b"true"))
    return EndpointResponse(response.status, fields, response.body, response.refusal, response.event, response.values)


def preflight(origin: bytes, *, methods: str, headers: list[str], credentials: bool) -> EndpointResponse:
    """Answer a CORS preflight of a listed *origin*."""
    fields = [
        (b"Access-Control-Allow-Methods", methods.encode("ascii")),
        (b"Access-Control-Allow-Headers", ", ".join(headers).encode("ascii")),
        (b"Access-Control-Max-Age", b"%d" % PREFLIGHT_SECONDS),
    ]
    return with_cors(EndpointResponse(204, fields), origin, credentials=credentials)


def json_members(request: EndpointRequest) -> dict[str, Any] | Refusal:
    """Return the JSON object of the body, or why there is none."""
    if len(request.body) > MAX_BODY:
        return Refusal(reasons.ENDPOINT_BODY_TOO_LARGE, str(len(request.body)))
    content_type = request.handshake.fields.first(b"content-type")
    if content_type is None or not _JSON.fullmatch(content_type):
        return Refusal(reasons.ENDPOINT_CONTENT_TYPE)
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except msgspec.DecodeError:
        return Refusal(reasons.TICKET_BODY, "no JSON object")
