"""
Serve nothing that did not come over TLS, and let no TLS name choose another host's policy (B-TLS-01).

``ws://`` sends everything in the clear and is never served. Where the scheme is unknown it is not secure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, Refusal
from wsguard.vocabulary.host import Host, HostSyntaxError, is_loopback_address
from wsguard.vocabulary.origin import Origin, OriginSyntaxError

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Client, Handshake


_UNTOLD = "a server that tells the scheme, or a TLS-terminating proxy in front and in trusted_proxies=[…]"


class TransportCheck:
    """TLS always; the SNI, where one was sent and by no proxy, is the Host (RFC 6066 §3)."""

    name: ClassVar[str] = "transport"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Refuse an insecure or unknown scheme, then a server name that is not the Host."""
        if context.excused and not context.is_handshake:
            return PASSED
        client = context.client
        if client.doubt is not None:
            return client.doubt
        if client.secure is not True:
            if context.policy.insecure_loopback and client.secure is False and _all_loopback(handshake, client):
                return PASSED
            return Refusal(reasons.TRANSPORT_INSECURE, setting=_UNTOLD if client.secure is None else "")
        if client.through_proxy:
            return PASSED
        server_name = handshake.tls.server_name if handshake.tls is not None else None
        value = handshake.fields.first(b"host")
        if server_name is None or value is None:
            return PASSED
        try:
            host = Host.parse(value)
        except HostSyntaxError:
            return PASSED  # the host check refuses it next, with the reason that names the fault
        if host.name != server_name.lower().removesuffix("."):
            return Refusal(reasons.TRANSPORT_SNI_MISMATCH, f"server name {server_name}, Host {host.name}")
        return PASSED


def _all_loopback(handshake: Handshake, client: Client) -> bool:
    """Tell whether Host, Origin (where a page may leave it out) and any known peer are this machine."""
    fields, address = handshake.fields, client.peer.address
    try:
        host = Host.parse(fields.first(b"host") or b"")
        origins = [Origin.parse(value) for value in fields.values(b"origin")]
    except (HostSyntaxError, OriginSyntaxError):
        return False
    if not host.is_loopback or not all(origin.is_loopback for origin in origins):
        return False
    return address is None or address == "unix" or is_loopback_address(address)
