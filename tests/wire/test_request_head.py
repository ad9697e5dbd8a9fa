"""Request heads: httptools with a strict layer, h11 as the oracle. What either refuses, we refuse."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsguard.vocabulary.bounds import DEFAULTS, Limits
from wsguard.vocabulary.errors import HeadViolation
from wsguard.wire.request_head import head_end, parse_request_head

GOOD = b"GET /ws?a=b HTTP/1.1\r\nHost: app.test\r\nCookie: a=b\r\nX-Empty:\r\n\r\n"

HOSTILE = [
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"GET / HTTP/1.1\nHost: a\n\n", "syntax.line_ending"),
    (b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "syntax.line_ending"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "syntax.grammar"),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "syntax.grammar"),
    (b"GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "syntax.grammar"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", "syntax.field_value"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", "syntax.field_value"),
    (b"GET / HTTP/1.1\r\n\r\n", "syntax.host"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "syntax.repeated_field"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "syntax.http_version"),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "syntax.http_version"),
    (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nHost: a\r\n\r\n", "syntax.grammar"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "syntax.grammar"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", "syntax.grammar"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", "syntax.grammar"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "syntax.grammar"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "syntax.framing"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", None),
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "syntax.framing"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", "syntax.too_many_fields"),
]


def test_a_good_head_is_read_raw() -> None:
    """Target and values keep their bytes: what is matched is what goes on."""
    head = parse_request_head(GOOD, DEFAULTS)
    assert (head.method, head.target, head.version) == ("GET", b"/ws?a=b", "1.1")
    assert list(head.fields) == [(b"Host", b"app.test"), (b"Cookie", b"a=b"), (b"X-Empty", b"")]
    assert head.keep_alive


@pytest.mark.parametrize(("data", "reason"), HOSTILE)
def test_lenient_grammar_is_refused(data: bytes, reason: str | None) -> None:
    """B-HEAD-08: a head that two parsers could read differently is refused, with its reason."""
    with pytest.raises(HeadViolation) as violation:
        parse_request_head(data, DEFAULTS)
    assert reason is None or violation.value.reason.code == reason


@pytest.mark.parametrize(
    ("fields", "version", "keep"),
    [
        ("", "1.1", True),
        ("Connection: close\r\n", "1.1", False),
        ("", "1.0", False),
        ("Connection: Keep-Alive\r\n", "1.0", True),
    ],
)
def test_persistence(fields: str, version: str, keep: bool) -> None:
    """RFC 9112 §9.3."""
    head = parse_request_head(f"GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode(), DEFAULTS)
    assert head.keep_alive is keep


@pytest.mark.parametrize("cut", range(len(GOOD)))
def test_a_head_cut_at_every_byte_is_found_when_it_is_whole(cut: int) -> None:
    """However a head arrives, it is parsed once, when its last byte is there."""
    assert head_end(GOOD[:cut], 0, DEFAULTS) is None
    assert head_end(GOOD, cut, DEFAULTS) == len(GOOD)
    assert head_end(GOOD + b"early bytes", cut, DEFAULTS) == len(GOOD)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\r", "syntax.grammar"),
        (b"\n", "syntax.grammar"),
        (b"GET / HTTP/1.1\nHost", "syntax.line_ending"),
        (b"GET / HTTP/1.1\r\nA: b\rc", "syntax.line_ending"),
        (b"A" * (16 * 1024 + 1), "syntax.head_too_large"),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 16384 + b"\r\n\r\n", "syntax.head_too_large"),
    ],
)
def test_what_can_become_no_head_is_refused_at_once(data: bytes, reason: str) -> None:
    """Nobody waits for the end of what is wrong already."""
    with pytest.raises(HeadViolation) as violation:
        head_end(data, 0, DEFAULTS)
    assert violation.value.reason.code == reason


def test_head_is_bounded_and_linear() -> None:
    """B-HEAD-07: waiting for a head byte by byte looks at each byte a constant number of times."""
    limits = Limits(head=256 * 1024)
    data = bytearray()
    piece = b"GET / HTTP/1.1\r\n" + b"X-Field: value\r\n" * 4000
    for index in range(len(piece)):
        data.append(piece[index])
        assert head_end(data, index, limits) is None


def h11_accepts(data: bytes) -> bool:
    """Tell whether the oracle reads *data* as a request."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    try:
        return isinstance(connection.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        return False


PIECES = st.sampled_from(
    [
        b"GET",
        b"POST",
        b" ",
        b"  ",
        b"/",
        b"/ws",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: a",
        b"Host:",
        b":",
        b"\t",
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"X: y",
        b"\x00",
        b"\x0b",
        b"\x85",
        b"\xff",
        b",",
        b"=",
    ]
)


@given(st.lists(PIECES, max_size=14).map(b"".join))
def test_what_the_oracle_refuses_we_refuse(begin: bytes) -> None:
    """Differential: llhttp and our strict layer accept no head that h11 does not."""
    data = begin + b"\r\n\r\n"
    end = data.index(b"\r\n\r\n") + 4
    try:
        parse_request_head(data[:end], DEFAULTS)
    except HeadViolation:
        return
    assert h11_accepts(data[:end]), data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_the_documented_error(data: bytes) -> None:
    """Fuzz: nothing else is ever raised."""
    for step in (head_end,):
        with contextlib.suppress(HeadViolation):
            step(data, 0, DEFAULTS)
    with contextlib.suppress(HeadViolation):
        parse_request_head(data + b"\r\n\r\n", DEFAULTS)
