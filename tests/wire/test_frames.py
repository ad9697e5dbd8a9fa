"""The scan path's frame rules, with the `websockets` library as the oracle for what a valid stream is."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame
from websockets.protocol import CLIENT, SERVER, Protocol

from tests.gateway.raw_client import frame
from wsguard.vocabulary.errors import FrameViolation
from wsguard.wire.frames import (
    LONGEST_HELD,
    FrameScanner,
    close_code_of,
    close_payload,
    control_frame,
    whole_frame_prefixes,
)

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
MAX = 1 << 20


def scanner(
    *, masked: bool = True, max_message: int = MAX, max_fragments: int = 1000, deflate: bool = False
) -> FrameScanner:
    return FrameScanner(masked=masked, max_message=max_message, max_fragments=max_fragments, deflate=deflate)


def scan_all(data: bytes, cuts: list[int] | None = None, **options: bool | int) -> tuple[bytes, FrameScanner]:
    """Feed *data* in pieces as the relay does; return what went on."""
    subject = scanner(**options)  # type: ignore[arg-type]
    passed = b""
    position = 0
    for cut in [*(cuts or []), len(data)]:
        piece = subject.held + data[position : position + cut]
        position += cut
        end = subject.scan(piece, len(piece))
        passed += piece[:end]
        assert len(subject.held) <= LONGEST_HELD
        if subject.closed:
            break
    return passed, subject


def violation(data: bytes, **options: bool | int) -> tuple[int, str]:
    with pytest.raises(FrameViolation) as raised:
        scan_all(data, None, **options)
    return raised.value.close_code, raised.value.reason.code


VIOLATIONS = [
    (frame(TEXT, b"x", masked=False), 1002, "frames.mask"),
    (frame(PING, b"x", masked=False), 1002, "frames.mask"),
    (frame(TEXT, b"x", rsv=4), 1002, "frames.reserved"),
    (frame(TEXT, b"x", rsv=2), 1002, "frames.reserved"),
    (frame(TEXT, b"x", rsv=1), 1002, "frames.reserved"),
    (frame(PING, b"x", rsv=4), 1002, "frames.reserved"),
    *[(frame(opcode, b"x"), 1002, "frames.opcode") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    (frame(CONTINUATION, b"x"), 1002, "frames.sequence"),
    (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002, "frames.sequence"),
    (frame(PING, b"x", fin=False), 1002, "frames.control"),
    (b"\x89\xfe\x00\x7e", 1002, "frames.control"),
    (b"\x82\xfe\x00\x7d", 1002, "frames.length"),
    (b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", 1002, "frames.length"),
    (b"\x82\xff\x80", 1002, "frames.length"),
    (frame(CLOSE, b"\x03"), 1002, "frames.close"),
    (frame(CLOSE, b"\x03\xed"), 1002, "frames.close"),
    (frame(CLOSE, b"\x03\xe7"), 1002, "frames.close"),
    (frame(CLOSE, b"\x13\x88"), 1002, "frames.close"),
    (frame(CLOSE, b"\x03\xe8\xff"), 1007, "frames.utf8"),
    (b"\x82\xff\x00\x00\x00\x00\x00\x10\x00\x01", 1009, "frames.too_large"),
]


@pytest.mark.parametrize(("data", "code", "reason"), VIOLATIONS)
def test_a_bad_frame_is_refused_with_its_code(data: bytes, code: int, reason: str) -> None:
    """RULES §6: each rule of RFC 6455 §5 has its close code."""
    assert violation(data) == (code, reason)
    assert violation(frame(BINARY, b"before") + data) == (code, reason)


@pytest.mark.parametrize(("data", "code", "reason"), VIOLATIONS)
def test_a_bad_frame_is_refused_wherever_it_is_cut(data: bytes, code: int, reason: str) -> None:
    """Cutting a frame at any byte changes neither the verdict nor what went on before it."""
    for cut in range(1, len(data)):
        with pytest.raises(FrameViolation) as raised:
            scan_all(data, [cut])
        assert (raised.value.close_code, raised.value.reason.code) == (code, reason)


def test_length_is_checked_before_memory() -> None:
    """B-FRAME-01: a length with its top bit, or a huge one, is refused when it is read, and nothing is allocated."""
    tracemalloc.start()
    assert violation(b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00")[0] == 1002
    assert violation(b"\x83\xff\x7f\xff\xff\xff\xff\xff\xff\xff")[1] == "frames.opcode"
    assert violation(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff")[0] == 1009
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_library_default_is_not_unlimited() -> None:
    """B-FRAME-02: the bound is one byte wide: the largest message passes, one byte more is 1009."""
    assert scan_all(frame(BINARY, b"x" * 1000), max_message=1000)[1].messages == 1
    assert violation(frame(BINARY, b"x" * 1001), max_message=1000) == (1009, "frames.too_large")


def test_fragments_sum_and_count() -> None:
    """B-FRAME-03: a message's fragments are added up, and counted, also when they are empty."""
    begin, more = frame(BINARY, b"x" * 600, fin=False), frame(CONTINUATION, b"x" * 400, fin=False)
    assert scan_all(begin + more, max_message=1000)[1].fragmented
    assert violation(begin + more + frame(CONTINUATION, b"x"), max_message=1000)[1] == "frames.too_large"
    empty = frame(CONTINUATION, b"", fin=False)
    assert scan_all(begin + empty * 9, max_fragments=10)[1].fragmented
    assert violation(begin + empty * 10, max_fragments=10) == (1008, "frames.fragments")
    whole = begin + frame(CONTINUATION, b"")
    assert scan_all(whole * 20, max_fragments=10)[1].messages == 20


def test_reserved_bits_mask_utf8() -> None:
    """B-FRAME-04: RSV1 stands only where deflate was negotiated, on a data message's first frame; masking by side."""
    assert scan_all(frame(TEXT, b"x", rsv=4), deflate=True)[1].messages == 1
    assert violation(frame(PING, b"x", rsv=4), deflate=True)[1] == "frames.reserved"
    assert (
        violation(frame(TEXT, b"x", rsv=4, fin=False) + frame(CONTINUATION, b"x", rsv=4), deflate=True)[1]
        == "frames.reserved"
    )
    assert violation(frame(TEXT, b"x"), masked=False)[1] == "frames.mask"
    assert violation(frame(CLOSE, b"\x03\xe8\xc3\x28"))[0] == 1007


@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 6, 7, 125, 126, 131, 132, 133, 134, 4096, 65535, 65543, 65544, 65545, 65546, 65550, 70000]
)
@pytest.mark.parametrize("masked", [True, False])
def test_the_fast_path_takes_exactly_the_whole_frames(size: int, masked: bool) -> None:
    """One comparison replaces the rules: it must hold for every whole frame of that size, and for nothing else."""
    prefixes = whole_frame_prefixes(size, masked=masked)
    for opcode in (TEXT, BINARY):
        lengths = [
            length
            for length in range(max(1, size - 14), size)
            if len(frame(opcode, b"x" * length, masked=masked)) == size
        ]
        assert bool(lengths) is any(prefix[0] & 15 == opcode for prefix in prefixes)
        for length in lengths:
            assert frame(opcode, b"x" * length, masked=masked).startswith(prefixes)


def test_the_fast_path_agrees_with_the_scanner() -> None:
    """Whatever begins like a whole frame of its size is one for the scanner, too."""
    chance = random.Random(6455)
    for _ in range(4000):
        size = chance.randrange(2, 300)
        data = bytes(
            (chance.choice((0x81, 0x82, 0x01, 0xC1, 0x88)), chance.choice((chance.randrange(256), 0xFE)))
        ) + bytes(chance.choice((0, 0, 1, chance.randrange(256))) for _ in range(size - 2))
        if data.startswith(whole_frame_prefixes(size, masked=True)):
            passed, subject = scan_all(data)
            assert passed == data
            assert subject.messages == 1
            assert subject.at_rest


@pytest.mark.parametrize(
    ("data", "run"),
    [
        (frame(BINARY, b"x") * 20, True),
        (frame(TEXT, b"x" * 125) + frame(BINARY, b"y" * 126) + frame(BINARY, b"z" * 65535), True),
        (frame(BINARY, b"x") * 3 + frame(BINARY, b"y")[:-1], False),
        (frame(BINARY, b"x") + frame(PING, b""), False),
        (frame(BINARY, b"x") + frame(BINARY, b""), False),
        (frame(BINARY, b"x") + frame(BINARY, b"y", fin=False), False),
        (frame(BINARY, b"x") + frame(BINARY, b"y", rsv=4), False),
        (frame(BINARY, b"x") + frame(BINARY, b"y", masked=False), False),
        (frame(BINARY, b"x") + b"\x82\xfe\x00\x05" + b"m" * 9, False),
        (frame(BINARY, b"x" * 65536), False),
    ],
)
def test_a_run_is_whole_messages_and_nothing_else(data: bytes, run: bool) -> None:
    """The relay's second fast path: it counts what `scan` counts, and leaves no trace where it says no."""
    subject = scanner()
    assert subject.is_run(data, len(data)) is run
    assert subject.messages == (scan_all(data)[1].messages if run else 0)
    assert subject.at_rest


def test_frames_of_ours_are_valid() -> None:
    """What the gateway sends itself passes its own rules, both ways."""
    assert scan_all(control_frame(PING, b"12345678"), masked=False)[1].controls[0].payload == b"12345678"
    masked = control_frame(CLOSE, close_payload(1001, "going away"), b"abcd")
    control = scan_all(masked)[1].controls[0]
    assert close_code_of(control.payload) == 1001
    assert control.payload[2:] == b"going away"
    assert close_code_of(b"") == 1005
    assert len(close_payload(1000, "é" * 200)) <= 125
    with pytest.raises(ValueError, match="125"):
        control_frame(PING, b"x" * 126)
    with pytest.raises(ValueError, match="4 bytes"):
        control_frame(PING, b"x", b"abc")


def test_bytes_behind_a_close_are_neither_checked_nor_passed() -> None:
    """After a Close nothing more goes on (RFC 6455 §5.5.1)."""
    close = frame(CLOSE, b"\x03\xe8")
    passed, subject = scan_all(close + b"\xff\xff\xff")
    assert passed == close
    assert subject.closed


def test_boundaries_are_told() -> None:
    """Frames of ours may stand only where a frame has ended."""
    data = frame(BINARY, b"x" * 10)
    subject = scanner()
    assert subject.scan(data[:8], 8) == 8
    assert not subject.at_boundary
    assert subject.scan(data[8:] + data, len(data) * 2 - 8) == len(data) * 2 - 8
    assert subject.first_boundary == len(data) - 8
    assert subject.at_boundary


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([TEXT, BINARY, PING, PONG]), st.binary(max_size=125)),
        st.tuples(st.sampled_from([TEXT, BINARY]), st.integers(126, 70000).map(lambda size: b"x" * size)),
    ),
    max_size=6,
)


@given(MESSAGES, st.lists(st.integers(1, 400), max_size=30), st.booleans())
def test_a_valid_stream_goes_on_unchanged_however_it_is_cut(
    messages: list[tuple[int, bytes]], cuts: list[int], masked: bool
) -> None:
    """Not a byte is lost, added or changed, and every message is counted once."""
    data = b"".join(frame(opcode, payload, masked=masked) for opcode, payload in messages)
    passed, subject = scan_all(data, cuts, masked=masked)
    assert passed == data
    assert subject.messages == sum(1 for opcode, _ in messages if opcode in (TEXT, BINARY))
    assert subject.at_rest


HEADS = st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=20)).map(
    lambda head: bytes(head[:2]) + head[2]
)


@given(
    st.lists(
        st.one_of(HEADS, st.binary(max_size=3).map(lambda x: frame(TEXT, x)), st.just(frame(TEXT, b"a", fin=False))),
        max_size=5,
    ),
    st.booleans(),
)
def test_what_the_oracle_refuses_we_refuse(pieces: list[bytes], masked: bool) -> None:
    """Differential: every stream that breaks RFC 6455 for `websockets` breaks it here (UTF-8 of text apart)."""
    data = b"".join(pieces)
    try:
        _, subject = scan_all(data, masked=masked)
    except FrameViolation:
        return
    protocol = Protocol(SERVER if masked else CLIENT, max_size=MAX)
    protocol.receive_data(data)
    error = protocol.parser_exc
    if subject.closed or error is None:
        return
    assert not isinstance(error, ProtocolError | PayloadTooBig), (data, error)


@given(MESSAGES)
def test_what_the_oracle_writes_we_pass(messages: list[tuple[int, bytes]]) -> None:
    """Differential the other way: what the library serialises goes on."""
    data = b"".join(
        Frame(opcode, payload).serialize(mask=True)  # type: ignore[arg-type]  # an Opcode is an int
        for opcode, payload in messages
    )
    assert scan_all(data)[0] == data
