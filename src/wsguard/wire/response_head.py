"""
One HTTP/1.1 response head of the upstream, and the check that makes a 101 a WebSocket tunnel (RFC 6455 §4.2.2).

A tunnel opens only on a whole, right 101. Everything else is plain HTTP or a broken upstream, never a tunnel: that is
how WebSocket smuggling worked elsewhere (B-UPSTREAM-01, B-UPSTREAM-02).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httptools

from wsguard.vocabulary import reasons
from wsguard.vocabulary.errors import HeadViolation, UpstreamFailure
from wsguard.vocabulary.fields import Fields
from wsguard.wire.head_grammar import BARE_LINE_END, CONTROL, END_OF_HEAD, OBS_FOLD
from wsguard.wire.request_head import CHUNKED, NO_BODY, UNTIL_CLOSE, Body, content_length

if TYPE_CHECKING:
    from collections.abc import Sequence

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_WITHOUT_BODY = frozenset({204, 304})
_FIRST_STATUS, _FIRST_FINAL = 100, 200
SWITCHING_PROTOCOLS = 101

DEFLATE = "permessage-deflate"
_WINDOW_BITS = frozenset({"8", "9", "10", "11", "12", "13", "14", "15"})


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """One response head. *fields* are raw; *phrase* is the reason phrase, which nothing is decided by."""

    status: int
    phrase: bytes
    version: str
    fields: Fields
    body: Body

    @property
    def is_interim(self) -> bool:
        """Tell whether another head follows (1xx but 101)."""
        return self.status < _FIRST_FINAL and self.status != SWITCHING_PROTOCOLS

    @property
    def keep_alive(self) -> bool:
        """Tell whether the connection can carry another request once this body has ended."""
        options = {option.lower() for option in self.fields.list_members(b"connection")}
        return self.version == "1.1" and b"close" not in options and self.body.framing != "close"


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What a right 101 selected. *extension* is the whole value to answer, or None."""

    subprotocol: str | None
    extension: str | None


def response_head_end(data: bytes | bytearray, searched: int, limit: int) -> int | None:
    """Return the index behind the head that *data* begins with, or None. Raises UpstreamFailure over *limit* bytes."""
    end = data.find(END_OF_HEAD, max(0, searched - len(END_OF_HEAD)))
    if end >= 0 and end + len(END_OF_HEAD) <= limit:
        return end + len(END_OF_HEAD)
    if end >= 0 or len(data) > limit:
        raise UpstreamFailure(reasons.UPSTREAM_MALFORMED, "the response head is larger than the bound")
    return None


def parse_response_head(data: bytes, request_method: str) -> ResponseHead:
    """Parse a whole response head to *request_method*. Raises UpstreamFailure for anything doubtful."""
    if BARE_LINE_END.search(data) or OBS_FOLD.search(data) or CONTROL.search(data):
        raise UpstreamFailure(reasons.UPSTREAM_MALFORMED, "a bare line end, a folded field or a control byte")
    collector = _Collector()
    parser = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        # llhttp also stops behind the whole head of a 101 that upgrades nothing: `check_upgrade` judges that.
        if not collector.complete:
            raise UpstreamFailure(reasons.UPSTREAM_MALFORMED, type(error).__name__) from None
    version = parser.get_http_version()
    status = parser.get_status_code()
    if not collector.complete or version not in ("1.0", "1.1") or data[:1] != b"H" or status < _FIRST_STATUS:
        raise UpstreamFailure(reasons.UPSTREAM_MALFORMED, "no HTTP/1.1 response head")
    fields = Fields(collector.fields)
    body = _response_body(status, request_method, fields)
    return ResponseHead(status, b"".join(collector.phrase), version, fields, body)


def accept_for(key: bytes) -> bytes:
    """Compute Sec-WebSocket-Accept (RFC 6455 §4.2.2, step 5.4)."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 - the RFC's choice; proves no secret


def check_upgrade(
    head: ResponseHead, key: bytes, subprotocols: Sequence[str], *, deflate_offer: str | None
) -> Upgraded:
    """
    Check a 101 against what was offered upstream. Raises UpstreamFailure; returns what it selected.

    *deflate_offer* is the Sec-WebSocket-Extensions value that went upstream, or None where none did.
    """
    fields = head.fields
    if head.version != "1.1" or len(fields.values(b"upgrade")) != 1:
        raise UpstreamFailure(reasons.UPSTREAM_BAD_UPGRADE)
    if (fields.first(b"upgrade") or b"").lower() != b"websocket":
        raise UpstreamFailure(reasons.UPSTREAM_BAD_UPGRADE, "Upgrade")
    if b"upgrade" not in {option.lower() for option in fields.list_members(b"connection")}:
        raise UpstreamFailure(reasons.UPSTREAM_BAD_UPGRADE, "Connection")
    if b"transfer-encoding" in fields or fields.first(b"content-length") not in (None, b"0"):
        raise UpstreamFailure(reasons.UPSTREAM_BAD_UPGRADE, "a body")
    accepts = fields.values(b"sec-websocket-accept")
    if len(accepts) != 1 or not hmac.compare_digest(accepts[0], accept_for(key)):
        raise UpstreamFailure(reasons.UPSTREAM_BAD_ACCEPT)
    return Upgraded(_selected_subprotocol(fields, subprotocols), _selected_extension(fields, deflate_offer))


def _selected_subprotocol(fields: Fields, offered: Sequence[str]) -> str | None:
    selected = fields.values(b"sec-websocket-protocol")
    if not selected:
        return None
    text = selected[0].decode("latin-1")
    if len(selected) > 1 or text not in offered:
        raise UpstreamFailure(reasons.UPSTREAM_BAD_SUBPROTOCOL, text)
    return text


def _selected_extension(fields: Fields, offer: str | None) -> str | None:
    selected = fields.values(b"sec-websocket-extensions")
    if not selected:
        return None
    text = selected[0].decode("latin-1")
    name, *parameters = [part.strip() for part in text.split(";")]
    if offer is None or len(selected) > 1 or name != DEFLATE or not _valid_deflate(parameters, offer):
        raise UpstreamFailure(reasons.UPSTREAM_BAD_EXTENSION, text)
    return text


def _valid_deflate(parameters: list[str], offer: str) -> bool:
    # RFC 7692 §7.1: each parameter once, window bits 8 to 15, client_max_window_bits only if it was offered.
    seen: set[str] = set()
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition("="))
        value = value.removeprefix('"').removesuffix('"')
        if name in seen:
            return False
        seen.add(name)
        if name in {"server_no_context_takeover", "client_no_context_takeover"}:
            valid = not equals
        elif name == "server_max_window_bits":
            valid = value in _WINDOW_BITS
        elif name == "client_max_window_bits":
            valid = value in _WINDOW_BITS and "client_max_window_bits" in offer
        else:
            valid = False
        if not valid:
            return False
    return True


def _response_body(status: int, request_method: str, fields: Fields) -> Body:
    # RFC 9112 §6.3, without its lenient readings: two framings, or two lengths, are a broken upstream.
    codings, lengths = fields.values(b"transfer-encoding"), fields.values(b"content-length")
    if codings and (lengths or len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise UpstreamFailure(reasons.UPSTREAM_MALFORMED, "Transfer-Encoding")
    try:
        length = content_length(lengths) if lengths else None
    except HeadViolation:
        raise UpstreamFailure(reasons.UPSTREAM_MALFORMED, "Content-Length") from None
    if request_method == "HEAD" or status in _WITHOUT_BODY or status < _FIRST_FINAL:
        return NO_BODY
    if codings:
        return CHUNKED
    if length is not None:
        return Body("length", length)
    return UNTIL_CLOSE


class _Collector:
    """The callbacks of httptools: keeps what comes, judges nothing."""

    __slots__ = ("complete", "fields", "phrase")

    def __init__(self) -> None:
        self.phrase: list[bytes] = []
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_status(self, phrase: bytes) -> None:
        self.phrase.append(phrase)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))  # OWS is no part of a value (RFC 9112 §5.1)

    def on_headers_complete(self) -> None:
        self.complete = True
