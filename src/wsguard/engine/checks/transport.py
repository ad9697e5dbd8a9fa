"""
Serve nothing that did not come over TLS, and let no TLS name choose another host's policy (B-TLS-01).

``ws://`` sends everything in the clear and is never served. Where the scheme is unknown it is not secure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Passed, Refusal
from wsguard.vocabulary.host import Host, HostSyntaxError

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake


class TransportCheck:
    """TLS always; the SNI, where one was sent, is the Host (RFC 6066 §3)."""

    name: ClassVar[str] = "transport"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Refuse an insecure or unknown scheme, then a server name that is not the Host."""
        if context.excused and not handshake.is_handshake:
            return Passed()
        if handshake.secure is not True:
            return Refusal(reasons.TRANSPORT_INSECURE)
        server_name = handshake.tls.server_name if handshake.tls is not None else None
        value = handshake.fields.first(b"host")
        if server_name is None or value is None:
            return Passed()
        try:
            host = Host.parse(value)
        except HostSyntaxError:
            return Passed()  # the host check refuses it next, with the reason that names the fault
        if host.name != server_name.lower().removesuffix("."):
            return Refusal(reasons.TRANSPORT_SNI_MISMATCH, f"server name {server_name}, Host {host.name}")
        return Passed()
