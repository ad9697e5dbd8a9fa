"""Bodies out of their framing: strict chunks, exact lengths, and the same payload however it was cut."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsguard.vocabulary.errors import BodyViolation
from wsguard.wire.bodies import LAST_CHUNK, ChunkedDecoder, LengthDecoder, UntilCloseDecoder, decoder_for, encode_chunk
from wsguard.wire.request_head import CHUNKED, NO_BODY, UNTIL_CLOSE, Body

BAD_CHUNKS = [
    b"g\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x1\r\n",
    b" 1\r\n",
    b"\r\n",
    b"1\n",
    b"1\r\nab\r\n",
    b"1\r\na\n",
    b"1\r\naX\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\n",
    b"1;" + b"x" * 5000,
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 4000,
    b"1;a\x00b\r\n",
]


@pytest.mark.parametrize("data", BAD_CHUNKS)
def test_bad_chunks_are_refused(data: bytes) -> None:
    """Request smuggling: a chunk that two readers could frame differently ends the request."""
    with pytest.raises(BodyViolation):
        ChunkedDecoder().feed(data)


def test_extensions_and_trailers_are_read_over() -> None:
    """They are legal, bounded, and dropped; bytes behind the body are given back."""
    decoder = ChunkedDecoder()
    assert decoder.feed(b"3;name=value\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\nGET /") == (b"abc", b"GET /")
    assert decoder.done
    decoder.end()


@pytest.mark.parametrize("decoder", [ChunkedDecoder(), LengthDecoder(3)])
def test_a_body_cut_short_is_seen(decoder: ChunkedDecoder | LengthDecoder) -> None:
    """Half a body is never taken for a whole one."""
    with pytest.raises(BodyViolation):
        decoder.end()


def test_each_framing_has_its_decoder() -> None:
    """A body without framing is empty and done at once."""
    assert decoder_for(NO_BODY).done
    assert isinstance(decoder_for(CHUNKED), ChunkedDecoder)
    assert isinstance(decoder_for(UNTIL_CLOSE), UntilCloseDecoder)
    length = decoder_for(Body("length", 2))
    assert length.feed(b"abc") == (b"ab", b"c")
    until_close = decoder_for(UNTIL_CLOSE)
    assert until_close.feed(b"abc") == (b"abc", b"")
    until_close.end()
    assert until_close.done


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.lists(st.integers(1, 20), max_size=40))
def test_what_is_encoded_is_decoded_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    """The payload does not depend on how the network cut it."""
    data = b"".join(encode_chunk(piece) for piece in pieces) + LAST_CHUNK + b"next"
    decoder, payload, rest = ChunkedDecoder(), b"", b""
    for cut in [*cuts, len(data)]:
        more, rest = decoder.feed(rest + data[:cut])
        payload += more
        data = data[cut:]
    assert decoder.done
    assert payload == b"".join(pieces)
    assert rest + data == b"next"


def h11_reads(data: bytes) -> bytes | None:
    """Return the oracle's payload of a chunked body, None where it refuses or waits."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    payload = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                payload += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return payload
            elif event is h11.NEED_DATA:
                return None
    except h11.RemoteProtocolError:
        return None


PIECES = st.sampled_from(
    [b"0", b"1", b"a", b"3", b"abc", b"\r\n", b"\n", b"\r", b";x", b" ", b"X: y", b"\x00", b"-", b"+"]
)


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_what_the_oracle_refuses_we_refuse(data: bytes) -> None:
    """Differential with h11: a body that is whole for us is whole, and the same, for it."""
    decoder = ChunkedDecoder()
    try:
        payload, _ = decoder.feed(data)
    except BodyViolation:
        return
    if decoder.done:
        assert h11_reads(data) == payload
