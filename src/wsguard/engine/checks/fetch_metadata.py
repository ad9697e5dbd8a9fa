"""
A second look at where the request comes from: Fetch Metadata (W3C), where a browser sends it.

Firefox and WebKit send it on handshakes, Chromium does not, so it can only contradict: if present it must fit, and it
never lets anybody in. ``Sec-Fetch-Site: same-origin`` is no proof of a same-origin page (BROWSERS.md §0.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from wsguard.engine.checks.origin import same_origin_as_host
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, Passed, Refusal
from wsguard.vocabulary.origin import Origin, OriginSyntaxError

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake

_NAMES = (b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
_SITES = frozenset({b"same-origin", b"same-site", b"cross-site", b"none"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class FetchMetadataCheck:
    """Judge Sec-Fetch-Site, -Mode and -Dest of handshakes, and of pages under ``http = "same-policy"``."""

    name: ClassVar[str] = "fetch"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Refuse metadata that does not fit a WebSocket handshake, or contradicts the Origin."""
        fields = handshake.fields
        if not context.is_handshake and context.policy.page_rule != "same-policy":
            return PASSED
        if context.is_handshake and not fields.has_any(_NAMES):
            return PASSED
        for name in _NAMES if fields.has_repeated else ():
            if len(fields.values(name)) > 1:
                return Refusal(reasons.FETCH_MALFORMED, name.decode())
        site = fields.first(b"sec-fetch-site")
        if site is not None and site not in _SITES:
            return Refusal(reasons.FETCH_MALFORMED, "sec-fetch-site")
        if not context.is_handshake:
            return _judge_page(handshake, context, site)
        if fields.first(b"sec-fetch-mode") not in (None, b"websocket"):
            return Refusal(reasons.FETCH_MODE)
        if fields.first(b"sec-fetch-dest") not in (None, b"empty", b"websocket"):
            return Refusal(reasons.FETCH_DEST)
        return _judge_site(handshake, context, site)


def _judge_site(handshake: Handshake, context: Context, site: bytes | None) -> Verdict:
    if site == b"none":
        return Refusal(reasons.FETCH_SITE, "none")
    origin = _origin_of(handshake)
    if site is None or b"origin" not in handshake.fields:
        return PASSED
    scheme = "http" if context.client.secure is False else "https"  # only insecure_loopback gets as far as here
    is_same = origin == same_origin_as_host(context.host, scheme=scheme)
    # An extension's background page says same-origin with an origin of its own: listed exactly, it may.
    if site == b"same-origin" and not is_same and not _listed_exactly(origin, context):
        return Refusal(reasons.FETCH_SITE, "same-origin, but the Origin is not the Host's")
    if site == b"cross-site" and is_same:
        return Refusal(reasons.FETCH_SITE, "cross-site, but the Origin is the Host's")
    return PASSED


def _listed_exactly(origin: Origin | None, context: Context) -> bool:
    return origin in context.origin_rules.exact or bool(context.origin_listed)


def _judge_page(handshake: Handshake, context: Context, site: bytes | None) -> Verdict:
    fields = handshake.fields
    if b"origin" in fields or site in (b"same-origin", b"none"):
        return PASSED
    if site is None and handshake.method in _SAFE_METHODS:
        return PASSED
    followed_link = (
        handshake.method in {"GET", "HEAD"}
        and fields.first(b"sec-fetch-mode") == b"navigate"
        and fields.first(b"sec-fetch-dest") == b"document"
    )
    if followed_link:
        return PASSED
    refusal = Refusal(reasons.FETCH_SITE, (site or b"absent").decode("ascii"))
    return Passed(unless_explicit=refusal) if context.takes_explicit_header else refusal


def _origin_of(handshake: Handshake) -> Origin | None:
    value = handshake.fields.first(b"origin")
    if value is None or value == b"null":
        return None
    try:
        return Origin.parse(value)
    except OriginSyntaxError:
        return None
