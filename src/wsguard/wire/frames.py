"""
WebSocket frames on the *scan* path (RFC 6455 §5): every header is checked, no payload is touched, raw bytes go on.

A `FrameScanner` follows one direction. It is fed what was read and tells how many bytes are fit to go on. An
incomplete header, and a control frame until it is whole, are held back (at most `LONGEST_HELD` bytes), so that whatever
has gone on ends either inside a payload or at a **boundary**: the only place where frames of ours may go out.
UTF-8 of text messages is the receiving end's to judge on this path.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wsguard.vocabulary import close_codes, reasons
from wsguard.vocabulary.errors import FrameViolation

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RSV1, _RSV, _OPCODE, _MASK, _LENGTH = 0x80, 0x40, 0x70, 0x0F, 0x80, 0x7F
_LENGTH_16, _LENGTH_64 = 126, 127
_WHOLE_DATA = (_FIN | BINARY, _FIN | TEXT)
_LONGEST_16 = 0xFFFF
MAX_CONTROL_PAYLOAD = 125
LONGEST_HELD = 2 + 4 + MAX_CONTROL_PAYLOAD


_FOUR_BYTES = struct.Struct(">HH").unpack_from


def _whole_data_heads(mask_bit: int) -> tuple[dict[int, int], frozenset[int]]:
    # The first two bytes of a whole data frame: with a length of 1 to 125 the frame's size, and those of longer ones.
    header = 6 if mask_bit else 2
    short = {
        first << 8 | mask_bit | length: header + length for first in _WHOLE_DATA for length in range(1, _LENGTH_16)
    }
    return short, frozenset(first << 8 | mask_bit | _LENGTH_16 for first in _WHOLE_DATA)


_MASKED, _UNMASKED = _whole_data_heads(_MASK), _whole_data_heads(0)


def whole_frame_prefixes(size: int, *, masked: bool) -> tuple[bytes, ...]:
    """
    Return what *size* bytes begin with when they are exactly one whole, unfragmented data frame (§5.2); () if none.

    FIN, opcode, reserved bits, mask bit and shortest length form are fixed by the size alone, so that one comparison
    checks them all.
    """
    mask_bit, short = (_MASK, 6) if masked else (0, 2)
    length = size - short
    if 0 < length < _LENGTH_16:
        form = bytes((mask_bit | length,))
    elif _LENGTH_16 <= length - 2 <= 0xFFFF:  # noqa: PLR2004
        form = bytes((mask_bit | _LENGTH_16,)) + (length - 2).to_bytes(2, "big")
    elif length - 8 > _LONGEST_16:
        form = bytes((mask_bit | _LENGTH_64,)) + (length - 8).to_bytes(8, "big")
    else:
        return ()
    return tuple(bytes((first,)) + form for first in _WHOLE_DATA)


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A whole control frame, at [start, end) of the data that was scanned; *payload* unmasked."""

    opcode: int
    payload: bytes
    start: int
    end: int


class FrameScanner:
    """
    Checks one direction's frames.

    *masked* tells whether frames of this direction must be masked (a client's) or must not (a server's);
    *max_message* bounds a message's payload in bytes, *max_fragments* its frames; *deflate* lets RSV1 stand on the
    first frame of a data message (RFC 7692 §6).
    """

    __slots__ = (
        "_deflate",
        "_fragments",
        "_long_header",
        "_long_heads",
        "_mask_bit",
        "_max_fragments",
        "_max_message",
        "_message_size",
        "_short_frames",
        "closed",
        "controls",
        "first_boundary",
        "fragmented",
        "held",
        "messages",
        "remaining",
        "small_frames",
    )

    def __init__(self, *, masked: bool, max_message: int, max_fragments: int, deflate: bool = False) -> None:
        self._mask_bit = _MASK if masked else 0
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._short_frames, self._long_heads = _MASKED if masked else _UNMASKED
        self._long_header = 8 if masked else 4
        self._deflate = deflate
        self._message_size = 0
        self._fragments = 0
        self.remaining = 0
        self.fragmented = False
        self.held = b""
        self.closed = False
        self.messages = 0
        self.small_frames = 0
        self.controls: list[ControlFrame] = []
        self.first_boundary: int | None = None

    @property
    def at_boundary(self) -> bool:
        """Tell whether what has gone on so far ends between two frames."""
        return self.remaining == 0

    @property
    def at_rest(self) -> bool:
        """Tell whether the next byte begins a new message and nothing is held: the relay's fast path may look."""
        return self.remaining == 0 and not self.fragmented and not self.held and not self.closed

    def scan(self, data: bytes | bytearray, size: int) -> int:
        """
        Check data[:size], which begins with what the last call held; return how many bytes of it may go on.

        Afterwards `controls` lists the control frames among them, `first_boundary` is the first index at which a frame
        of ours may stand (None if there is none), and `held` keeps the rest. A Close ends the stream: what follows it
        is neither checked nor held. Raises FrameViolation; its position tells what may still go on.
        """
        self.controls = []
        self.held = b""
        if self.remaining:
            if size < self.remaining:
                self.remaining -= size
                self.first_boundary = None
                return size
            position = self.remaining
            self.remaining = 0
        else:
            position = 0
        self.first_boundary = position
        while position < size:
            position = self._whole_messages(data, position, size)
            if position == size:
                break
            end = self._frame(data, position, size)
            if end is None:
                self.held = bytes(data[position:size])
                break
            position = end
            if self.closed:
                break
        return position

    def is_run(self, data: bytes | bytearray, size: int) -> bool:
        """
        Tell whether data[:size] is nothing but whole messages of one frame each, and count them if so.

        For a scanner that is `at_rest`; whatever else the data are, they are left to `scan`.
        """
        before = self.messages
        if self._whole_messages(data, 0, size) == size:
            return True
        self.messages = before
        return False

    def _whole_messages(self, data: bytes | bytearray, position: int, size: int) -> int:
        # Most of what flows: one message, one frame, up to 64 KiB. One look a frame, at its first four bytes; `_frame`
        # judges everything else, and is asked alone where a message may not be as long as 64 KiB.
        if self.fragmented or self._max_message < _LONGEST_16:
            return position
        look, short_frames, long_heads, long_header = (
            _FOUR_BYTES,
            self._short_frames,
            self._long_heads,
            self._long_header,
        )
        messages = 0
        last = size - 4
        while position <= last:
            head, length = look(data, position)
            if head in long_heads:
                if length < _LENGTH_16:
                    break
                end = position + long_header + length
            else:
                whole = short_frames.get(head)
                if whole is None:
                    break
                end = position + whole
            if end > size:
                break
            messages += 1
            position = end
        self.messages += messages
        return position

    def _frame(self, data: bytes | bytearray, position: int, size: int) -> int | None:
        # Returns where what may go on of this frame ends, or None to hold it back. A header that is not whole is
        # judged as far as it is there: a bad first byte is refused at once.
        first = data[position]
        opcode = first & _OPCODE
        if opcode & 0x8:
            return self._control(data, position, size)
        self._check_first_byte(first, opcode, position)
        if size - position < 2:  # noqa: PLR2004 - the two bytes that every header has
            return None
        second = data[position + 1]
        if second & _MASK != self._mask_bit:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_MASK, position)
        length = second & _LENGTH
        header = 6 if self._mask_bit else 2
        if length >= _LENGTH_16:
            header += 2 if length == _LENGTH_16 else 8
            extended = self._extended_length(data, position, size, length)
            if extended is None:
                return None
            length = extended
        self._check_bounds(length, position)
        if size - position < header:
            return None
        self._account(length, first)
        end = position + header + length
        if end > size:
            self.remaining = end - size
            return size
        return end

    def _check_first_byte(self, first: int, opcode: int, position: int) -> None:
        if first & _RSV and (first & _RSV != _RSV1 or not self._deflate or opcode == CONTINUATION):
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_RESERVED, position)
        if opcode > BINARY:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_OPCODE, position)
        if (opcode == CONTINUATION) != self.fragmented:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_SEQUENCE, position)

    def _extended_length(self, data: bytes | bytearray, position: int, size: int, form: int) -> int | None:
        if form == _LENGTH_16:
            if size - position < 4:  # noqa: PLR2004
                return None
            length = data[position + 2] << 8 | data[position + 3]
            if length < _LENGTH_16:
                raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_LENGTH, position)
            return length
        if size - position > 2 and data[position + 2] & 0x80:  # noqa: PLR2004 - the top bit, as soon as it is there
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_LENGTH, position)
        if size - position < 10:  # noqa: PLR2004
            return None
        length = int.from_bytes(data[position + 2 : position + 10], "big")
        if length <= 0xFFFF:  # noqa: PLR2004
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_LENGTH, position)
        return length

    def _check_bounds(self, length: int, position: int) -> None:
        if self._message_size + length > self._max_message:
            raise FrameViolation(close_codes.MESSAGE_TOO_BIG, reasons.FRAMES_TOO_LARGE, position)
        if self._fragments >= self._max_fragments:
            raise FrameViolation(close_codes.POLICY_VIOLATION, reasons.FRAMES_FRAGMENTS, position)

    def _account(self, length: int, first: int) -> None:
        if length == 0:
            self.small_frames += 1
        if first & _FIN:
            self.messages += 1
            self.fragmented = False
            self._message_size = 0
            self._fragments = 0
        else:
            self.fragmented = True
            self._message_size += length
            self._fragments += 1

    def _control(self, data: bytes | bytearray, position: int, size: int) -> int | None:
        first = data[position]
        opcode = first & _OPCODE
        if first & _RSV:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_RESERVED, position)
        if opcode > PONG:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_OPCODE, position)
        if not first & _FIN:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_CONTROL, position)
        if size - position < 2:  # noqa: PLR2004
            return None
        second = data[position + 1]
        if second & _MASK != self._mask_bit:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_MASK, position)
        length = second & _LENGTH
        if length > MAX_CONTROL_PAYLOAD:
            raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_CONTROL, position)
        start = position + (6 if self._mask_bit else 2)
        end = start + length
        if end > size:
            return None
        payload = bytes(data[start:end])
        if self._mask_bit:
            payload = apply_mask(payload, bytes(data[start - 4 : start]))
        if opcode == CLOSE:
            check_close_payload(payload, position)
            self.closed = True
        self.small_frames += 1
        self.controls.append(ControlFrame(opcode, payload, position, end))
        return end


def check_close_payload(payload: bytes, position: int = 0) -> None:
    """Refuse a Close of one byte, with a code that must not be sent, or a reason that is not UTF-8 (§5.5.1, §7.4)."""
    if not payload:
        return
    if len(payload) == 1 or not close_codes.may_be_sent(int.from_bytes(payload[:2], "big")):
        raise FrameViolation(close_codes.PROTOCOL_ERROR, reasons.FRAMES_CLOSE, position)
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise FrameViolation(close_codes.INVALID_DATA, reasons.FRAMES_UTF8, position) from None


def close_code_of(payload: bytes) -> int:
    """Return the code of a checked Close payload; 1005 where it has none (RFC 6455 §7.1.5)."""
    return int.from_bytes(payload[:2], "big") if payload else close_codes.NO_STATUS


def control_frame(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """
    Write a control frame of ours; masked with the four bytes of *mask* toward a server (§5.3).

    Raises ValueError for a payload over 125 bytes or a mask that is not 4 bytes.
    """
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError("a control frame holds at most 125 bytes")
    if mask is None:
        return bytes((_FIN | opcode, len(payload))) + payload
    if len(mask) != 4:  # noqa: PLR2004
        raise ValueError("a mask is 4 bytes")
    return bytes((_FIN | opcode, _MASK | len(payload))) + mask + apply_mask(payload, mask)


def close_payload(code: int, reason: str = "") -> bytes:
    """Write a Close payload; the reason is cut to 123 bytes at a character's end."""
    text = reason.encode("utf-8")[: MAX_CONTROL_PAYLOAD - 2].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + text.encode("utf-8")


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a short payload (§5.3)."""
    length = len(payload)
    # As one number: a fifth of the time of a byte after the other.
    whole = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(length, "big")
