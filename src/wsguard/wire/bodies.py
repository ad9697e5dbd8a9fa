"""
Message bodies, taken out of their framing (RFC 9112 §6, §7.1).

The proxy decodes one side's framing and writes its own toward the other, so that no two readers can ever disagree on
where a body ends (request smuggling). Chunk extensions and trailers are read over, bounded, and dropped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from wsguard.vocabulary.errors import BodyViolation

if TYPE_CHECKING:
    from wsguard.wire.request_head import Body

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_MAX_LINE = 4096
_MAX_TRAILERS = 16384

LAST_CHUNK = b"0\r\n\r\n"


class BodyDecoder(Protocol):
    """Takes bytes as they come, gives payload; knows when the body is whole."""

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, bytes behind the body). Raises BodyViolation."""
        ...

    def end(self) -> None:
        """Note that the connection ended. Raises BodyViolation if the body was cut short."""
        ...


def decoder_for(body: Body) -> BodyDecoder:
    """Return the decoder for *body*'s framing."""
    if body.framing == "chunked":
        return ChunkedDecoder()
    if body.framing == "close":
        return UntilCloseDecoder()
    return LengthDecoder(body.length if body.framing == "length" else 0)


def encode_chunk(payload: bytes) -> bytes:
    """Frame *payload*, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class LengthDecoder:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, bytes behind the body)."""
        payload, rest = data[: self._left], data[self._left :]
        self._left -= len(payload)
        self.done = self._left == 0
        return payload, rest

    def end(self) -> None:
        """Raise BodyViolation if bytes are missing."""
        if not self.done:
            raise BodyViolation(f"{self._left} bytes are missing")


class UntilCloseDecoder:
    """A response body that ends with the connection."""

    done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return all of it."""
        return data, b""

    def end(self) -> None:
        """Note the end: this is how such a body is whole."""
        self.done = True


class ChunkedDecoder:
    """Chunks, strictly: CRLF line ends, hexadecimal sizes without a sign, bounded lines and trailers."""

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0
        self._state = self._size_line
        self._trailer_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, bytes behind the body). Raises BodyViolation for bad framing."""
        data = self._pending + data
        self._pending = b""
        payload: list[bytes] = []
        position = 0
        # An index instead of slices of the rest: many tiny chunks in one read cost linear time.
        while position < len(data) and not self.done:
            if self._left:
                piece = data[position : position + self._left]
                payload.append(piece)
                self._left -= len(piece)
                position += len(piece)
                continue
            end = data.find(b"\r\n", position, position + _MAX_LINE + 2)
            if end < 0:
                if len(data) - position > _MAX_LINE or data.find(b"\n", position) >= 0:
                    raise BodyViolation("a chunk line that does not end")
                self._pending = data[position:]
                return b"".join(payload), b""
            self._state(data[position:end])
            position = end + 2
        return b"".join(payload), data[position:]

    def end(self) -> None:
        """Raise BodyViolation unless the last chunk and its trailers have come."""
        if not self.done:
            raise BodyViolation("the last chunk is missing")

    def _size_line(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BodyViolation("a chunk size that is none")
        self._left = int(match[1], 16)
        self._state = self._chunk_end if self._left else self._trailer_line

    def _chunk_end(self, line: bytes) -> None:
        if line:
            raise BodyViolation("a chunk longer than its size")
        self._state = self._size_line

    def _trailer_line(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if not line:
            self.done = True
        elif self._trailer_bytes > _MAX_TRAILERS or not _TRAILER_LINE.fullmatch(line):
            raise BodyViolation("trailers that are none, or too many")
