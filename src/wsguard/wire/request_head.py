"""
One HTTP/1.1 request head, bytes to words (RFC 9112 §2 to §6).

httptools (llhttp) does the grammar; a strict layer refuses what it lets pass: a leading CRLF, other than single blanks
in the request line, obs-fold, no or two Hosts, doubtful framing. h11 is the oracle of the differential test: what
either refuses, we refuse. A head is parsed once, when it is whole; waiting for it costs linear time (B-HEAD-07).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import httptools

from wsguard.vocabulary import reasons
from wsguard.vocabulary.errors import HeadViolation
from wsguard.vocabulary.fields import Fields
from wsguard.wire.head_grammar import BARE_LINE_END, CONTROL, END_OF_HEAD, OBS_FOLD

if TYPE_CHECKING:
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.handshake import HTTPVersion

_DIGITS = re.compile(rb"[0-9]{1,18}")

Framing = Literal["none", "length", "chunked", "close"]


@dataclass(frozen=True, slots=True)
class Body:
    """How a body is framed: nothing, *length* bytes, chunks, or (responses only) whatever comes until the end."""

    framing: Framing
    length: int = 0


NO_BODY = Body("none")
CHUNKED = Body("chunked")
UNTIL_CLOSE = Body("close")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """One request head. *target* and *fields* are raw."""

    method: str
    target: bytes
    version: HTTPVersion
    fields: Fields
    body: Body

    @property
    def keep_alive(self) -> bool:
        """Tell whether the client wants the connection kept (RFC 9112 §9.3)."""
        options = {option.lower() for option in self.fields.list_members(b"connection")}
        if b"close" in options:
            return False
        return self.version == "1.1" or b"keep-alive" in options


def head_end(data: bytes | bytearray, searched: int, limits: Limits) -> int | None:
    """
    Return the index behind the head that *data* begins with, or None while it is not whole.

    *searched* is how many bytes earlier calls have seen. Raises HeadViolation as soon as the bytes can no longer
    become a head: too long, a bare line end, an empty first line.
    """
    if data[:1] in (b"\r", b"\n"):
        raise HeadViolation(reasons.SYNTAX_GRAMMAR, "a line end before the request line")
    start = max(0, searched - len(END_OF_HEAD))
    end = data.find(END_OF_HEAD, start)
    # A CR at the very end may get its LF with the next read.
    until = end + len(END_OF_HEAD) if end >= 0 else len(data) - data.endswith(b"\r")
    if BARE_LINE_END.search(data, start, until):
        raise HeadViolation(reasons.SYNTAX_LINE_ENDING)
    if end >= 0 and end + len(END_OF_HEAD) <= limits.head:
        return end + len(END_OF_HEAD)
    if end >= 0 or len(data) > limits.head:
        raise HeadViolation(reasons.SYNTAX_HEAD_TOO_LARGE)
    return None


def parse_request_head(data: bytes, limits: Limits) -> RequestHead:
    """Parse a whole head, up to and with its empty line. Raises HeadViolation with the reason that answers it."""
    _check_raw(data)
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise HeadViolation(reasons.SYNTAX_GRAMMAR, type(error).__name__) from None
    if not collector.complete:
        raise HeadViolation(reasons.SYNTAX_GRAMMAR, "no head")
    version = parser.get_http_version()
    if version not in ("1.0", "1.1"):
        raise HeadViolation(reasons.SYNTAX_HTTP_VERSION, "neither 1.0 nor 1.1")
    if len(collector.fields) > limits.fields:
        raise HeadViolation(reasons.SYNTAX_TOO_MANY_FIELDS, str(len(collector.fields)))
    fields = Fields(collector.fields)
    _check_host_count(fields, version)
    return RequestHead(
        method=parser.get_method().decode("ascii"),
        target=b"".join(collector.target),
        version=cast("HTTPVersion", version),
        fields=fields,
        body=request_body(fields, version),
    )


def request_body(fields: Fields, version: str) -> Body:
    """Tell a request body's framing (RFC 9112 §6.3). Raises HeadViolation where two readers could differ."""
    codings = fields.values(b"transfer-encoding")
    lengths = fields.values(b"content-length")
    if codings:
        if lengths or version != "1.1" or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise HeadViolation(reasons.SYNTAX_FRAMING, "Transfer-Encoding")
        return CHUNKED
    if not lengths:
        return NO_BODY
    return Body("length", content_length(lengths))


def content_length(values: list[bytes]) -> int:
    """Read the one Content-Length (RFC 9110 §8.6): digits only, once. Raises HeadViolation."""
    if len(values) > 1 or not _DIGITS.fullmatch(values[0]):
        raise HeadViolation(reasons.SYNTAX_FRAMING, "Content-Length")
    return int(values[0])


class _Collector:
    """The callbacks of httptools: keeps what comes, judges nothing."""

    __slots__ = ("complete", "fields", "target")

    def __init__(self) -> None:
        self.target: list[bytes] = []
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))  # OWS is no part of a value (RFC 9112 §5.1)

    def on_headers_complete(self) -> None:
        self.complete = True


def _check_raw(data: bytes) -> None:
    if BARE_LINE_END.search(data):
        raise HeadViolation(reasons.SYNTAX_LINE_ENDING)
    line = data[: data.find(b"\r\n")]
    if line.count(b" ") != 2 or b"\t" in line:  # noqa: PLR2004 - method SP target SP version
        raise HeadViolation(reasons.SYNTAX_GRAMMAR, "the request line")
    if OBS_FOLD.search(data):
        raise HeadViolation(reasons.SYNTAX_GRAMMAR, "a folded field")
    if CONTROL.search(data):
        raise HeadViolation(reasons.SYNTAX_FIELD_VALUE, "a control byte")


def _check_host_count(fields: Fields, version: str) -> None:
    hosts = len(fields.values(b"host"))
    if hosts > 1:
        raise HeadViolation(reasons.SYNTAX_REPEATED_FIELD, "host")
    if hosts == 0 and version == "1.1":
        raise HeadViolation(reasons.SYNTAX_HOST)
