"""The gateway's protocol in: one HTTP/1.1 head and what is known of its connection, as a Handshake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.vocabulary.handshake import Handshake, Peer, TLSFacts, asks_for_upgrade

if TYPE_CHECKING:
    from wsguard.wire.request_head import RequestHead


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """What the listener knows of a connection: its peer and its TLS."""

    peer: Peer
    tls: TLSFacts


def handshake_from(head: RequestHead, facts: ConnectionFacts) -> Handshake:
    """Return what the engine judges. The gateway sees everything, so nothing is unknown."""
    return Handshake(
        kind="handshake" if asks_for_upgrade(head.fields) else "page",
        method=head.method,
        target=head.target,
        fields=head.fields,
        http_version=head.version,
        peer=facts.peer,
        secure=True,
        tls=facts.tls,
    )
