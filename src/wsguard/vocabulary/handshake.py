"""One opening request as a mount saw it: immutable, raw where the raw bytes matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

# Not for checkers alone: a Struct's signature, which help() shows, resolves its hints.
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.fields import Fields

HTTPVersion = Literal["1.0", "1.1", "2"]
Kind = Literal["handshake", "page"]


class Peer(msgspec.Struct, frozen=True):
    """The other end of the TCP connection. *address* is None where the mount does not know it."""

    address: str | None
    port: int | None = None

    def __str__(self) -> str:
        """Write address and port for the log."""
        if self.address is None:
            return "unknown"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return host if self.port is None else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """
    What a client certificate says that TLS has verified, and whose private key the client has shown to hold.

    *fingerprint* is the SHA-256 of its DER in hexadecimal digits; *not_before* and *not_after* are Unix seconds. *dns*,
    *email* and *uri* are names of its subjectAltName (RFC 5280 §4.2.1.6), at most two of a kind: more tell nothing that
    two do not. *fault* says why it cannot be read, where it cannot; then it names nobody.
    """

    fingerprint: str
    not_before: float = 0
    not_after: float = 0
    dns: tuple[str, ...] = field(default=(), repr=False)
    email: tuple[str, ...] = field(default=(), repr=False)
    uri: tuple[str, ...] = field(default=(), repr=False)
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """
    What the mount knows of the TLS connection.

    *server_name* is the SNI as sent, or None if there was none; *certificate* the client's, or None where it showed
    none or was asked for none.
    """

    server_name: str | None = None
    version: str | None = None
    cipher: str | None = None
    certificate: PeerCertificate | None = None


class Client(msgspec.Struct, frozen=True):
    """
    Who sent the request, and over what, once listed proxies have been believed and nobody else (RULES §9).

    *secure* is None where nobody who may say so has said it. *doubt* names what makes it unknown, for the log.
    *through_proxy* tells that a listed proxy spoke for the client.
    """

    peer: Peer
    secure: bool | None
    through_proxy: bool = False
    doubt: Refusal | None = None


class Handshake(msgspec.Struct, frozen=True):
    """
    One opening request (RFC 6455 §4.1, RFC 8441), or a page request judged by the same policy.

    *target* and *fields* are raw bytes. *secure* is None where the mount cannot know the scheme: unknown is never
    taken for secure. *method* is None where the mount's protocol does not show it, and *hidden* names the fields (in
    lower case) that it may keep to itself: their absence means nothing. *reported* tells that peer and scheme come
    from a server that may have taken them from header fields. *prefix* is what stands before the app's own paths in
    *target* (ASGI's root_path); a server may have put it there.
    """

    kind: Kind
    method: str | None
    target: bytes
    fields: Fields
    http_version: HTTPVersion
    peer: Peer
    secure: bool | None
    tls: TLSFacts | None = None
    hidden: frozenset[bytes] = frozenset()
    reported: bool = False
    prefix: bytes = b""

    @property
    def is_handshake(self) -> bool:
        """Tell a WebSocket handshake from a page."""
        return self.kind == "handshake"

    @property
    def raw_path(self) -> bytes:
        """The target up to its query, as received."""
        return self.target.partition(b"?")[0]


def asks_for_upgrade(fields: Fields) -> bool:
    """
    Tell whether an HTTP/1.1 request must be judged as a handshake: an Upgrade or any Sec-WebSocket-* field.

    A lone ``Connection: upgrade`` is a page's: the usual nginx configuration sends it with every request.
    """
    return b"upgrade" in fields or any(name.startswith(b"sec-websocket-") for name in fields.names)
