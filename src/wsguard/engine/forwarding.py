"""
What goes on toward the app or upstream: one function for pages and for upgrades (B-PROXY-06).

The client can set no field that an app takes for a proxy's word: the whole forwarded family is removed in every
spelling that folds to it, then ours is set. ``Connection`` is rebuilt and can strip nothing (B-PROXY-03 to B-PROXY-05).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from wsguard.vocabulary.decision import Accept
    from wsguard.vocabulary.fields import Fields
    from wsguard.vocabulary.handshake import Client, Handshake
    from wsguard.vocabulary.identity import Identity

RawFields = list[tuple[bytes, bytes]]

# RFC 9110 §7.6.1 and what older agents send in the same sense.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What Connection may not name: an app's own check must see what we saw (B-PROXY-07).
_NEVER_STRIPPED = frozenset(
    {b"host", b"origin", b"referer", b"cookie", b"authorization", b"content-length", b"content-type"}
)
_MANAGED = frozenset({b"x-forwarded", b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip"})
_MANAGED_PREFIXES = (b"x-forwarded-", b"x-wsguard-")
# Visible ASCII but "%": what stands for itself in an identity field.
_VISIBLE = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("%"))
_LONGEST_IDENTITY_FIELD = 1024
_LONGEST_CHARACTER = 12  # four bytes of UTF-8, three characters each
_FOLDED = bytes.maketrans(b"_.", b"--")
_LONGEST_NAME_KEPT = 64
_LONGEST_KEPT = 1024  # bytes of names; more are looked at, and remembered by nobody


@dataclass(frozen=True, slots=True)
class UpstreamName:
    """How the upstream is called: *scheme* and *authority* (host[:port]) of its URL."""

    scheme: str
    authority: str

    @property
    def origin(self) -> str:
        """Its origin, for ``upstream_origin = "upstream"``."""
        return f"{self.scheme}://{self.authority}"


def holds_managed(fields: Fields) -> bool:
    """Tell whether any of *fields* is one that only a proxy may set."""
    joined = fields.joined_names
    return _any_managed(joined) if len(joined) <= _LONGEST_KEPT else _any_managed.__wrapped__(joined)


@lru_cache(256)  # clients of one kind send the same fields
def _any_managed(joined_names: bytes) -> bool:
    return any(map(is_managed, joined_names.split(b"\n")))


def is_managed(name: bytes) -> bool:
    """Tell whether *name*, with ``-``, ``_``, ``.`` and case folded, is one that only a proxy may set."""
    return _is_managed(name) if len(name) <= _LONGEST_NAME_KEPT else _is_managed.__wrapped__(name)


@lru_cache(256)  # the names that clients send hardly differ
def _is_managed(name: bytes) -> bool:
    folded = name.lower().translate(_FOLDED)
    return folded in _MANAGED or folded.startswith(_MANAGED_PREFIXES)


def is_forwarded(name: bytes) -> bool:
    """Tell whether *name* is of the forwarded family, in any spelling: what a proxy says of its client."""
    return is_managed(name) and not is_ours(name)


def is_ours(name: bytes) -> bool:
    """Tell whether *name* is ``X-WSGuard-*``, in any spelling: only wsguard says such a thing, to either side."""
    return name.lower().translate(_FOLDED).startswith(b"x-wsguard-")


def forwarded_fields(handshake: Handshake, accept: Accept, upstream: UpstreamName) -> RawFields:
    """
    Return the fields that go upstream, without framing and without ``Connection``: those are the writer's to add.

    Order and spelling are kept. Origin and Host go on as received unless the policy names others (after our verdict).
    """
    dropped = _dropped_names(handshake)
    if accept.drop_cookies:
        dropped.add(b"cookie")
    if accept.consumed is not None:
        dropped.add(accept.consumed)
    fields: RawFields = []
    for name, value in handshake.fields:
        lower = name.lower()
        if lower in dropped or is_managed(name):
            continue
        if lower == b"host":
            fields.append((name, _host_for(value, accept.terms.upstream_host, upstream)))
        elif lower == b"origin":
            fields.append((name, _origin_for(value, accept, upstream)))
        else:
            fields.append((name, value))
    if b"host" not in handshake.fields:
        # HTTP/1.0 may come without one, and goes on as HTTP/1.1, which may not.
        fields.insert(0, (b"Host", upstream.authority.encode("ascii")))
    if handshake.is_handshake:
        fields += _handshake_fields(handshake, accept)
    if accept.identity is not None:
        fields += identity_fields(accept.identity)
    return fields + _proxy_fields(handshake, accept.client)


def asked_fields(
    handshake: Handshake, client: Client, upstream_host: str, app: UpstreamName, credential: RawFields
) -> RawFields:
    """
    Return the fields of a page request that asks *app* whose *credential* it is, in place of *handshake*.

    Host is what a page of that client would bring, by *upstream_host*. Origin and ``Sec-Fetch-*`` stay away: an app
    that checks them takes the question for a foreign page's. What the client sent reaches the app only in *credential*.
    """
    host = _host_for(handshake.fields.first(b"host") or app.authority.encode("ascii"), upstream_host, app)
    return [(b"Host", host), (b"Accept", b"*/*"), *credential, *_proxy_fields(handshake, client)]


def identity_fields(identity: Identity) -> RawFields:
    """
    Return who it is, as fields for an upstream: ``X-WSGuard-`` Subject, Issuer, Method, Scopes, Groups.

    ``%`` and everything outside visible ASCII is percent-encoded (RFC 3986 §2.1); a space stands between values.
    """
    return [(name, " ".join(map(_encoded, sorted(texts))).encode("ascii")) for name, texts in _identity_texts(identity)]


def overlong_identity_field(identity: Identity) -> str | None:
    """Return the name of one of these fields that has more than 1 KiB, or None."""
    for name, texts in _identity_texts(identity):
        # A character takes twelve bytes at most, so that hardly any field has to be written to know.
        if len(texts) + _LONGEST_CHARACTER * sum(map(len, texts)) > _LONGEST_IDENTITY_FIELD:
            written = len(texts) - 1 + sum(len(_encoded(text)) for text in texts)
            if written > _LONGEST_IDENTITY_FIELD:
                return name.decode("ascii")
    return None


def _identity_texts(identity: Identity) -> tuple[tuple[bytes, Collection[str]], ...]:
    return (
        (b"X-WSGuard-Subject", (identity.subject,)),
        (b"X-WSGuard-Issuer", (identity.issuer,)),
        (b"X-WSGuard-Method", (identity.method,)),
        (b"X-WSGuard-Scopes", identity.scopes),
        (b"X-WSGuard-Groups", identity.groups),
    )


def _encoded(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text and "%" not in text:
        return text  # nearly every name, at a hundredth of what quote takes
    return quote(text.encode("utf-8", "surrogatepass"), safe=_VISIBLE)


def deflate_offer(handshake: Handshake, accept: Accept) -> bytes | None:
    """Return the permessage-deflate offers that may go on, or None. Every other extension is taken out."""
    if not accept.terms.compression:
        return None
    offers = [
        offer
        for offer in handshake.fields.list_members(b"sec-websocket-extensions")
        if offer.partition(b";")[0].strip() == b"permessage-deflate"
    ]
    return b", ".join(offers) or None


def _dropped_names(handshake: Handshake) -> set[bytes]:
    dropped = set(HOP_BY_HOP) | {b"content-length"}
    for option in handshake.fields.list_members(b"connection"):
        lower = option.lower()
        if lower not in _NEVER_STRIPPED and not lower.startswith(b"sec-"):
            dropped.add(lower)
    if handshake.is_handshake:
        dropped |= {b"sec-websocket-protocol", b"sec-websocket-extensions"}
    return dropped


def _handshake_fields(handshake: Handshake, accept: Accept) -> RawFields:
    fields: RawFields = []
    if accept.subprotocols.forwarded:
        fields.append((b"Sec-WebSocket-Protocol", ", ".join(accept.subprotocols.forwarded).encode("ascii")))
    deflate = deflate_offer(handshake, accept)
    if deflate is not None:
        fields.append((b"Sec-WebSocket-Extensions", deflate))
    return fields


def _host_for(value: bytes, upstream_host: str, upstream: UpstreamName) -> bytes:
    if upstream_host == "preserve":
        return value
    name = upstream.authority if upstream_host == "upstream" else upstream_host
    return name.encode("ascii")


def _origin_for(value: bytes, accept: Accept, upstream: UpstreamName) -> bytes:
    if accept.terms.upstream_origin == "preserve":
        return value
    origin = upstream.origin if accept.terms.upstream_origin == "upstream" else accept.terms.upstream_origin
    return origin.encode("ascii")


def app_fields(handshake: Handshake, accept: Accept) -> RawFields:
    """
    Return the fields that an app in this process sees: what the client claims as a proxy is gone, ours is set.

    Framing, ``Connection`` and extensions stay: the server has acted on them. Secrets among the subprotocols do not.
    """
    fields = list(handshake.fields.raw)
    if holds_managed(handshake.fields):
        fields = [(name, value) for name, value in fields if not is_managed(name)]
    if accept.drop_cookies or b"sec-websocket-protocol" in handshake.fields:
        dropped = (b"sec-websocket-protocol", b"cookie" if accept.drop_cookies else b"")
        fields = [(name, value) for name, value in fields if name.lower() not in dropped]
    offered = accept.subprotocols.forwarded
    if offered:
        fields.append((b"sec-websocket-protocol", ", ".join(offered).encode("ascii")))
    return fields + _proxy_fields(handshake, accept.client, _APP_NAMES)


_PROXY_NAMES = (b"X-Forwarded-Proto", b"X-Forwarded-For", b"X-Real-IP", b"X-Forwarded-Host", b"Forwarded")
_APP_NAMES = tuple(map(bytes.lower, _PROXY_NAMES))


def _proxy_fields(handshake: Handshake, client: Client, names: tuple[bytes, ...] = _PROXY_NAMES) -> RawFields:
    proto, forwarded_for, real_ip, forwarded_host, forwarded = names
    scheme = b"https" if client.secure else b"http"
    fields: RawFields = [(proto, scheme)]
    node = b"unknown"
    if client.peer.address is not None:
        address = client.peer.address.encode("ascii")
        node = b'"[%b]"' % address if b":" in address else address
        fields += [(forwarded_for, address), (real_ip, address)]
    host = handshake.fields.first(b"host")
    if host is None:
        return [*fields, (forwarded, b"for=%b;proto=%b" % (node, scheme))]
    return [*fields, (forwarded_host, host), (forwarded, b'for=%b;host="%b";proto=%b' % (node, host, scheme))]


def returned_fields(fields: Iterable[tuple[bytes, bytes]], connection_options: Iterable[bytes] = ()) -> RawFields:
    """Return an upstream's fields without hop-by-hop, framing and X-WSGuard-* ones; `delivery` does the rest."""
    dropped = HOP_BY_HOP | {b"content-length"} | {option.lower() for option in connection_options}
    return [(name, value) for name, value in fields if name.lower() not in dropped and not is_ours(name)]
