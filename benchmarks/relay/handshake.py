"""The opening handshake, as a browser's page on `ORIGIN` would send it (RFC 6455 §4)."""

import secrets
from base64 import b64encode
from hashlib import sha1

HOST = "bench.test"
ORIGIN = f"https://{HOST}"
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def new_key() -> bytes:
    return b64encode(secrets.token_bytes(16))


def accept_for(key: bytes) -> bytes:
    return b64encode(sha1(key + _ACCEPT_GUID, usedforsecurity=False).digest())


def request_head(key: bytes) -> bytes:
    fields = (
        ("Host", HOST),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key.decode()),
        ("Origin", ORIGIN),
    )
    return _head("GET /echo HTTP/1.1", fields)


def response_head(key: bytes) -> bytes:
    fields = (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_for(key).decode()),
    )
    return _head("HTTP/1.1 101 Switching Protocols", fields)


def field(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    return None


def is_tunnel(head: bytes, key: bytes) -> bool:
    return head.startswith(b"HTTP/1.1 101 ") and field(head, b"sec-websocket-accept") == accept_for(key)


def _head(first_line: str, fields: tuple[tuple[str, str], ...]) -> bytes:
    return "".join([first_line, "\r\n", *(f"{name}: {value}\r\n" for name, value in fields), "\r\n"]).encode()
