"""One opening request as a mount saw it: immutable, raw where the raw bytes matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wsguard.vocabulary.fields import Fields

HTTPVersion = Literal["1.0", "1.1", "2"]
Kind = Literal["handshake", "page"]


@dataclass(frozen=True, slots=True)
class Peer:
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
class TLSFacts:
    """What the mount knows of the TLS connection. *server_name* is the SNI as sent, or None if there was none."""

    server_name: str | None = None
    version: str | None = None
    cipher: str | None = None


@dataclass(frozen=True, slots=True)
class Handshake:
    """
    One opening request (RFC 6455 §4.1, RFC 8441), or a page request judged by the same policy.

    *target* and *fields* are raw bytes. *secure* is None where the mount cannot know the scheme: unknown is never
    taken for secure.
    """

    kind: Kind
    method: str
    target: bytes
    fields: Fields
    http_version: HTTPVersion
    peer: Peer
    secure: bool | None
    tls: TLSFacts | None = None

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
