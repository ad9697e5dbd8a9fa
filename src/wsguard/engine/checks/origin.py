"""
Stop cross-site WebSocket hijacking (CWE-1385): the page's origin must be on the allow-list.

A browser attaches cookies, client certificates and HTTP authentication to a cross-origin handshake, and WebSockets are
not bound by the Same-Origin Policy. Every browser sends Origin on every handshake, so a browser without one is none.
Origins are compared whole, as values: never as text, never by prefix or suffix (B-ORIGIN-03).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, OriginProof, Passed, Refusal
from wsguard.vocabulary.errors import ConfigurationError, check_text
from wsguard.vocabulary.origin import DEFAULT_PORTS, Origin, OriginPattern, OriginSyntaxError, parse_origin_entry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.host import Host

FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class OriginRules:
    """
    One allow-list, normalised.

    With *same_origin* the page must come from the served Host itself; then nothing is listed. An empty list without it
    allows nobody.
    """

    exact: frozenset[Origin] = frozenset()
    patterns: tuple[OriginPattern, ...] = ()
    same_origin: bool = False
    allow_missing: bool = False
    allow_null: bool = False
    allow_http_loopback: bool = False

    @classmethod
    def read(
        cls,
        entries: Iterable[str] | None,
        *,
        allow_missing: bool = False,
        allow_null: bool = False,
        allow_http_loopback: bool = False,
    ) -> OriginRules:
        """
        Normalise the operator's *entries*; None means same origin.

        Raises ConfigurationError for an entry that is no origin, is a bare pattern, or can never be let in.
        """
        if isinstance(entries, str):
            raise ConfigurationError("origins", repr(entries), f"a list: [{entries!r}]")
        rules = cls(
            same_origin=entries is None,
            allow_missing=allow_missing,
            allow_null=allow_null,
            allow_http_loopback=allow_http_loopback,
        )
        if entries is None:
            return rules
        texts = list(entries)
        for entry in texts:
            check_text("origins", entry)
        return rules.with_entries(texts)

    def with_entries(self, entries: Iterable[str]) -> OriginRules:
        """Return these rules with another list. Raises ConfigurationError as `read` does."""
        exact: set[Origin] = set()
        patterns: list[OriginPattern] = []
        for text in entries:
            entry = _read_entry(text)
            if entry.scheme == "http" and not self._may_list_http(entry):
                raise ConfigurationError(
                    "origins",
                    repr(text),
                    "https:// (a page over http can be rewritten on its way; for loopback alone there is "
                    "allow_http_loopback_origins)",
                )
            if isinstance(entry, OriginPattern):
                patterns.append(entry)
            else:
                exact.add(entry)
        return replace(self, exact=frozenset(exact), patterns=tuple(patterns))

    @property
    def is_explicit(self) -> bool:
        """Tell whether any entry is written out."""
        return bool(self.exact or self.patterns)

    def lists(self, origin: Origin) -> bool:
        """Tell whether *origin* is on the list. An empty list allows nobody. Source: RFC 6454 §5. Stops: CWE-1385."""
        return origin in self.exact or any(pattern.matches(origin) for pattern in self.patterns)

    def _may_list_http(self, entry: Origin | OriginPattern) -> bool:
        return self.allow_http_loopback and isinstance(entry, Origin) and entry.is_loopback


class OriginCheck:
    """Judge Origin for every handshake, and for pages under ``http = "same-policy"`` that send one."""

    name: ClassVar[str] = "origin"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Return what was proven: LISTED, SAME_ORIGIN, or (only where the policy says so) ABSENT, UNLISTED."""
        values = handshake.fields.values(b"origin")
        if not context.is_handshake:
            return self._check_page(handshake, context)
        policy = context.policy
        if policy.browsers == "refuse":
            return Refusal(reasons.ORIGIN_BROWSER) if values else Passed(origin=OriginProof.ABSENT)
        verdict = judge_origin(values, context)
        if (
            policy.origin_required == "unless-header-credential"
            and isinstance(verdict, Refusal)
            and verdict.reason.status == FORBIDDEN
            and context.takes_header_credential
        ):
            if not values:
                verdict = replace(verdict, setting=_credential(context))
            return Passed(origin=OriginProof.UNLISTED if values else OriginProof.ABSENT, unless_explicit=verdict)
        return verdict

    def _check_page(self, handshake: Handshake, context: Context) -> Verdict:
        # A valid credential in an explicit header needs no origin (RULES §1); whether there is one is known later.
        values = handshake.fields.values(b"origin")
        if context.policy.page_rule != "same-policy" or not values:
            return PASSED
        verdict = judge_origin(values, context)
        if isinstance(verdict, Refusal) and verdict.reason.status == FORBIDDEN and context.takes_explicit_header:
            return Passed(origin=OriginProof.UNLISTED, unless_explicit=verdict)
        return verdict


def _credential(context: Context) -> str:
    """Say what a program has to send: who brings neither that nor an Origin has most likely forgotten it."""
    fields = [getattr(one, "field_name", None) for one in (context.route.authenticators if context.route else ())]
    names = [name.decode("ascii").title() for name in fields if isinstance(name, bytes)]
    return f"a program sends a credential: {' or '.join(dict.fromkeys(names)) or 'in a header'}"


def judge_origin(values: list[bytes], context: Context) -> Verdict:
    """Judge the Origin fields of one request by the rules of its route: the heart of the check."""
    rules = context.origin_rules
    if not values:
        if rules.allow_missing:
            return Passed(origin=OriginProof.ABSENT)
        return Refusal(reasons.ORIGIN_MISSING, setting="allow_missing_origin = true")
    if len(values) > 1:
        return Refusal(reasons.ORIGIN_MALFORMED, "two Origin fields")
    if values[0] == b"null":
        if rules.allow_null:
            return Passed(origin=OriginProof.UNLISTED)
        return Refusal(reasons.ORIGIN_NULL, setting="allow_null_origin = true")
    try:
        origin = Origin.parse(values[0])
    except OriginSyntaxError as error:
        return Refusal(reasons.ORIGIN_MALFORMED, str(error))
    return _judge_origin(origin, context)


def same_origin_as_host(host: Host | None, *, scheme: str = "https") -> Origin | None:
    """Return the origin of pages that the served *host* delivers, from the Host field alone (B-ORIGIN-06)."""
    if host is None:
        return None
    return Origin(scheme, host.name, None if host.port == DEFAULT_PORTS[scheme] else host.port)


def _judge_origin(origin: Origin, context: Context) -> Verdict:
    rules, host = context.origin_rules, context.host
    if origin.scheme == "http" and not (rules.allow_http_loopback and origin.is_loopback):
        return Refusal(reasons.ORIGIN_SCHEME, str(origin))
    if rules.same_origin and origin in _own_origins(context):
        return Passed(origin=OriginProof.SAME_ORIGIN)
    if rules.lists(origin):
        return Passed(origin=OriginProof.LISTED)
    if context.origin_listed:
        return Passed(origin=OriginProof.LISTED, source=context.origin_listed)
    return Refusal(reasons.ORIGIN_NOT_ALLOWED, str(origin), setting=_setting(origin, rules, host))


def _own_origins(context: Context) -> tuple[Origin | None, ...]:
    own = same_origin_as_host(context.host)
    if context.policy.insecure_loopback and context.client.secure is False:
        return (own, same_origin_as_host(context.host, scheme="http"))
    return (own,)


def _setting(origin: Origin, rules: OriginRules, host: Host | None) -> str:
    # Writing a list ends "same origin", so the hint holds the served host's own origin too.
    own = same_origin_as_host(host)
    return f'origins = ["{own}", "{origin}"]' if rules.same_origin else f'origins += ["{origin}"]'


def _read_entry(text: str) -> Origin | OriginPattern:
    try:
        return parse_origin_entry(text)
    except OriginSyntaxError as error:
        raise ConfigurationError("origins", repr(text), str(error)) from None
