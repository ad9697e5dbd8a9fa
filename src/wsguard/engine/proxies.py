"""
Who the client is, where proxies may stand before us: a listed proxy is believed, nobody else is (RULES §9).

Header fields of the forwarded family are anybody's to send. They count only where the TCP peer is listed, are read from
the right, over listed proxies, up to the first address that is none (B-PROXY-02), and must then say ``https``
(B-TLS-03). No list trusts nobody (B-PROXY-01), and what they say of the host is never read (B-ORIGIN-07).

An ASGI server may have rewritten peer and scheme from these fields before we see them. So there, beside a peer that is
not listed, they make both unknown.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.engine.forwarding import holds_managed, is_forwarded
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.handshake import Client, Peer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsguard.vocabulary.fields import Fields
    from wsguard.vocabulary.handshake import Handshake

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

UNIX_PEER = "unix"
"""The address of a peer on a Unix socket."""

_SECURE = {"https": True, "wss": True, "http": False, "ws": False}
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 7239 §4: forwarded-pair = token "=" ( token / quoted-string )
_PAIR = re.compile(rf'[ \t]*({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")[ \t]*(;|,|$)', re.ASCII)


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose word on the client counts. *unix* lists the peers of a Unix socket."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def read(cls, entries: Iterable[str], *, trust_any: bool = False) -> TrustedProxies:
        """
        Read *entries*: an address, a CIDR range, or ``unix``.

        Raises ConfigurationError for one that is none, and for a range that is everybody unless *trust_any*.
        """
        if isinstance(entries, str):
            raise ConfigurationError("trusted_proxies", repr(entries), f"a list: [{entries!r}]")
        networks: list[Network] = []
        unix = False
        for entry in entries:
            if entry == UNIX_PEER:
                unix = True
                continue
            try:
                network = ipaddress.ip_network(entry)
            except ValueError as error:
                expected = "an address, a range like 10.0.0.0/8, or unix"
                raise ConfigurationError("trusted_proxies", repr(entry), f"{expected} ({error})") from None
            if network.prefixlen == 0 and not trust_any:
                raise ConfigurationError(
                    "trusted_proxies", repr(entry), "the proxies' own addresses; everybody only with trust_any_proxy"
                )
            networks.append(network)
        return cls(tuple(networks), unix)

    def __bool__(self) -> bool:
        """Tell whether any proxy is listed."""
        return bool(self.networks) or self.unix

    @property
    def is_anybody(self) -> bool:
        """Tell whether a listed range is everybody."""
        return any(network.prefixlen == 0 for network in self.networks)

    def lists_peer(self, peer: Peer) -> bool:
        """Tell whether *peer* is a listed proxy."""
        if peer.address == UNIX_PEER:
            return self.unix
        return peer.address is not None and self.lists(_address(peer.address))

    def lists(self, address: Address | None) -> bool:
        """Tell whether *address* stands in one of the ranges; an IPv4-mapped one as its IPv4 address."""
        return address is not None and any(
            address.version == network.version and address in network for network in self.networks
        )


NOBODY = TrustedProxies()


class ForwardedSyntaxError(ValueError):
    """A field of a listed proxy that cannot be read. The message never quotes it."""


def client_of(handshake: Handshake, proxies: TrustedProxies = NOBODY) -> Client:
    """
    Return who sent *handshake* and whether it came over TLS.

    A doubt in the answer is a refusal that `TransportCheck` tells in its place; this function itself refuses nobody.
    """
    peer = handshake.peer
    if proxies and proxies.lists_peer(peer):
        try:
            return _told_by_proxy(handshake.fields, proxies)
        except ForwardedSyntaxError as error:
            return Client(peer, None, through_proxy=True, doubt=Refusal(reasons.PROXIES_MALFORMED, str(error)))
    claims = handshake.reported and holds_managed(handshake.fields) and any(map(is_forwarded, handshake.fields.names))
    if not claims:
        return Client(peer, handshake.secure)
    if _rewritten(handshake):
        detail = "the server has rewritten the client's address from X-Forwarded-For"
        return _unknown(detail, "trusted_proxies=[…] here, and the server's own reading off: --no-proxy-headers")
    written = f'"{peer.address}"' if peer.address is not None else "…"
    return _unknown("forwarded fields from a peer that is no listed proxy", f"trusted_proxies=[{written}]")


def _unknown(detail: str, setting: str) -> Client:
    return Client(Peer(None), None, doubt=Refusal(reasons.TRANSPORT_INSECURE, detail, setting))


def _rewritten(handshake: Handshake) -> bool:
    peer = None if handshake.peer.address is None else _address(handshake.peer.address)
    if peer is None:
        return False
    values = handshake.fields.values(b"x-forwarded-for")
    nodes = [part.strip(" \t") for value in values for part in value.decode("latin-1").split(",")]
    return any(_node_address(node) == peer for node in nodes)


def _told_by_proxy(fields: Fields, proxies: TrustedProxies) -> Client:
    families = (_x_forwarded_hops(fields), _forwarded_hops(fields))
    clients = {_client_hop(hops, proxies) for hops in families if hops is not None}
    if len(clients) > 1:
        # One of the two families is the client's own, which the proxy let through.
        raise ForwardedSyntaxError("X-Forwarded-* and Forwarded contradict each other")
    address, secure = clients.pop() if clients else (None, None)
    doubt = None
    if secure is not True:
        doubt = Refusal(reasons.TRANSPORT_INSECURE, "the proxy does not say https", "X-Forwarded-Proto in the proxy")
    return Client(Peer(address), secure, through_proxy=True, doubt=doubt)


_Hop = tuple[str | None, bool | None]


def _client_hop(hops: list[_Hop], proxies: TrustedProxies) -> _Hop:
    """Return the hop of the client: from the right, the first that no listed proxy is; else the leftmost."""
    for node, secure in reversed(hops):
        address = None if node is None else _address_of_node(node)
        if not proxies.lists(address):
            return (None if address is None else str(address), secure)
    node, secure = hops[0]
    return (None if node is None else str(_address_of_node(node)), secure)


def _x_forwarded_hops(fields: Fields) -> list[_Hop] | None:
    nodes = _members(fields, b"x-forwarded-for")
    schemes = [_scheme(member) for member in _members(fields, b"x-forwarded-proto")]
    if not nodes and not schemes:
        return None
    if not nodes:
        nodes_or_none: list[str | None] = [None] * len(schemes)
    else:
        nodes_or_none = list(nodes)
    if len(schemes) == 1:
        schemes = schemes * len(nodes_or_none)
    if not schemes:
        return [(node, None) for node in nodes_or_none]
    if len(schemes) != len(nodes_or_none):
        raise ForwardedSyntaxError("X-Forwarded-Proto and X-Forwarded-For count different hops")
    return list(zip(nodes_or_none, schemes, strict=True))


def _forwarded_hops(fields: Fields) -> list[_Hop] | None:
    values = fields.values(b"forwarded")
    if not values:
        return None
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    text = ",".join(_text(value) for value in values)
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise ForwardedSyntaxError("Forwarded does not follow its grammar")
        name = match[1].lower()
        if name in pairs:
            raise ForwardedSyntaxError(f"two {name} in one element of Forwarded")
        pairs[name] = match[2] if match[2] is not None else re.sub(r"\\(.)", r"\1", match[3])
        position = match.end()
        if match[4] != ";":
            hops.append((pairs.get("for"), _scheme(pairs["proto"]) if "proto" in pairs else None))
            pairs = {}
    if pairs or not hops or text.endswith(","):
        raise ForwardedSyntaxError("Forwarded does not follow its grammar")
    return hops


def _members(fields: Fields, name: bytes) -> list[str]:
    # An empty member is no hop: kept, so that it is refused where it is read.
    return [part.strip(" \t") for value in fields.values(name) for part in _text(value).split(",")]


def _text(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise ForwardedSyntaxError("a forwarded field is not ASCII") from None


def _scheme(word: str) -> bool:
    try:
        return _SECURE[word.lower()]
    except KeyError:
        raise ForwardedSyntaxError("the proxy names a scheme that is neither https nor http") from None


def _address_of_node(node: str) -> Address:
    address = _node_address(node)
    if address is None:
        raise ForwardedSyntaxError("the proxy names a client that is no address")
    return address


def _node_address(node: str) -> Address | None:
    """Read ``192.0.2.1``, ``192.0.2.1:5``, ``2001:db8::1``, ``[2001:db8::1]`` or ``[2001:db8::1]:5`` (RFC 7239 §6)."""
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", node, re.ASCII)
    return _address(node if match is None else match[1] or match[2])


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
