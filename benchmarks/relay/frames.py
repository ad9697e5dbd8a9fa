"""
WebSocket frames as the load and the upstream need them (RFC 6455 §5).

Written apart from `wsguard.wire`, so that a bug there cannot hide from the byte check here.
"""

import secrets
from dataclasses import dataclass
from typing import Self

from websockets.speedups import apply_mask

TEXT = 0x81
BINARY = 0x82
CLOSE = 0x88


def server_frame(first_byte: int, payload: bytes) -> bytes:
    return bytes((first_byte,)) + _length(len(payload), 0) + payload


def client_frame(first_byte: int, payload: bytes) -> bytes:
    mask = secrets.token_bytes(4)
    return bytes((first_byte,)) + _length(len(payload), 0x80) + mask + apply_mask(payload, mask)


def _length(size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes((mask_bit | size,))
    if size < 1 << 16:
        return bytes((mask_bit | 126,)) + size.to_bytes(2, "big")
    return bytes((mask_bit | 127,)) + size.to_bytes(8, "big")


@dataclass(frozen=True)
class Reel:
    """A loop of distinct messages, as the client sends them and as their echoes must arrive."""

    sent: list[bytes]
    echoed: memoryview
    """The frames twice in a row, so that a run of them that passes the loop's end is still one slice."""
    echoed_frame: int
    """Bytes of one echoed frame."""

    @classmethod
    def of(cls, payload_size: int, count: int) -> Self:
        payloads = [secrets.token_bytes(payload_size) for _ in range(count)]
        echoed = [server_frame(BINARY, payload) for payload in payloads]
        sent = [client_frame(BINARY, payload) for payload in payloads]
        return cls(sent, memoryview(b"".join(echoed * 2)), len(echoed[0]))
