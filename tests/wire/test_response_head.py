"""Upstream answers: what makes a 101 a tunnel, and how everything else is framed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsguard.vocabulary.errors import UpstreamFailure
from wsguard.wire.head_writer import write_request_head, write_response_head
from wsguard.wire.response_head import accept_for, check_upgrade, parse_response_head, response_head_end

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3
GOOD = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT]


def answer(lines: list[bytes], status: bytes = b"HTTP/1.1 101 Switching Protocols") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""])


def without(index: int) -> list[bytes]:
    return [line for position, line in enumerate(GOOD) if position != index]


def upgrade_reason(
    lines: list[bytes], status: bytes = b"HTTP/1.1 101 Switching Protocols", deflate: str | None = None
) -> str:
    with pytest.raises(UpstreamFailure) as failure:
        check_upgrade(parse_response_head(answer(lines, status), "GET"), KEY, ("chat", "v2"), deflate_offer=deflate)
    return failure.value.reason.code


def test_the_accept_value_is_the_rfcs() -> None:
    """RFC 6455 §1.3's own example."""
    assert accept_for(KEY) == ACCEPT


def test_a_right_101_is_a_tunnel() -> None:
    """What it selected comes back."""
    lines = [
        *GOOD,
        b"Sec-WebSocket-Protocol: v2",
        b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
    ]
    upgraded = check_upgrade(
        parse_response_head(answer(lines), "GET"), KEY, ("chat", "v2"), deflate_offer="permessage-deflate"
    )
    assert upgraded.subprotocol == "v2"
    assert upgraded.extension == "permessage-deflate; server_no_context_takeover"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (without(0), "upstream.bad_upgrade"),
        (without(1), "upstream.bad_upgrade"),
        (without(2), "upstream.bad_accept"),
        ([b"Upgrade: h2c", *without(0)], "upstream.bad_upgrade"),
        ([b"Connection: close", *without(1)], "upstream.bad_upgrade"),
        ([b"Sec-WebSocket-Accept: AAAA", *without(2)], "upstream.bad_accept"),
        ([*GOOD, GOOD[2]], "upstream.bad_accept"),
        ([*GOOD, b"Content-Length: 5"], "upstream.bad_upgrade"),
        ([*GOOD, b"Transfer-Encoding: chunked"], "upstream.bad_upgrade"),
        ([*GOOD, b"Sec-WebSocket-Protocol: other"], "upstream.bad_subprotocol"),
        ([*GOOD, b"Sec-WebSocket-Protocol: CHAT"], "upstream.bad_subprotocol"),
        ([*GOOD, b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Protocol: v2"], "upstream.bad_subprotocol"),
        ([*GOOD, b"Sec-WebSocket-Extensions: permessage-deflate"], "upstream.bad_extension"),
    ],
)
def test_bare_101_is_not_enough(lines: list[bytes], reason: str) -> None:
    """B-UPSTREAM-02: a 101 that is not the answer to our handshake opens no tunnel."""
    assert upgrade_reason(lines) == reason


@pytest.mark.parametrize(
    "extension",
    [
        b"permessage-deflate; server_max_window_bits=1000",
        b"permessage-deflate; server_max_window_bits=7",
        b"permessage-deflate; server_max_window_bits",
        b"permessage-deflate; client_max_window_bits=10",
        b"permessage-deflate; unknown",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        b"permessage-deflate, permessage-deflate",
        b"x-webkit-deflate-frame",
    ],
)
def test_upgrade_answer_is_filtered(extension: bytes) -> None:
    """B-UPSTREAM-05: an extension, or a parameter, that was not offered is a broken upstream."""
    assert (
        upgrade_reason([*GOOD, b"Sec-WebSocket-Extensions: " + extension], deflate="permessage-deflate")
        == "upstream.bad_extension"
    )


def test_http_1_0_is_no_tunnel() -> None:
    """RFC 6455 §4.2.2 wants HTTP/1.1."""
    assert upgrade_reason(GOOD, b"HTTP/1.0 101 Switching Protocols") == "upstream.bad_upgrade"


@pytest.mark.parametrize(
    ("head", "method", "framing"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", "length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", "none"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", "none"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", "none"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", "GET", "chunked"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "GET", "close"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "POST", "none"),
    ],
)
def test_framing_of_answers(head: bytes, method: str, framing: str) -> None:
    """RFC 9112 §6.3."""
    assert parse_response_head(head, method).body.framing == framing


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_a_doubtful_answer_is_a_broken_upstream(head: bytes) -> None:
    """Two readings of one answer are how caches and tunnels were poisoned."""
    with pytest.raises(UpstreamFailure) as failure:
        parse_response_head(head, "GET")
    assert failure.value.reason.code == "upstream.malformed"


def test_an_endless_head_is_bounded() -> None:
    """An upstream's head has a bound too."""
    assert response_head_end(b"HTTP/1.1 200 OK\r\n", 0, 100) is None
    for data in (b"x" * 101, b"x" * 100 + b"\r\n\r\n"):
        with pytest.raises(UpstreamFailure):
            response_head_end(data, 0, 100)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_the_documented_error(data: bytes) -> None:
    """Fuzz: a hostile upstream raises nothing else."""
    try:
        head = parse_response_head(b"HTTP/1.1 101 X\r\n" + data + b"\r\n\r\n", "GET")
        check_upgrade(head, KEY, ("chat",), deflate_offer="permessage-deflate")
    except UpstreamFailure:
        pass


@pytest.mark.parametrize("bad", [b"a\r\nX: y", b"a\nb", b"a\x00b", b"a\x7f"])
def test_writers_refuse_control_bytes(bad: bytes) -> None:
    """B-HEAD-10: a value with a line end is never spliced into a head."""
    with pytest.raises(ValueError, match="cannot be written"):
        write_request_head("GET", b"/", [(b"X", bad)])
    with pytest.raises(ValueError, match="cannot be written"):
        write_request_head("GET", b"/" + bad, [])
    with pytest.raises(ValueError, match="cannot be written"):
        write_response_head(200, [], phrase=bad)
    with pytest.raises(ValueError, match="cannot be written"):
        write_response_head(200, [(bad, b"x")])


def test_heads_are_written_as_they_are_read() -> None:
    """Status without a standard phrase included."""
    assert write_response_head(299, [(b"A", b"b")]) == b"HTTP/1.1 299 \r\nA: b\r\n\r\n"
    assert write_request_head("GET", b"/x", [(b"Host", b"a")]) == b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
