"""
Who sent the handshake: the authenticators that the route names are asked in turn; then carriage has its say.

The first that finds a credential of its kind decides, for good or bad: a bad credential never falls through to the
next kind. Where nobody finds one, there is none (401, RFC 6750 §3).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from wsguard.engine.carriage import in_header, may_decide
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import OriginProof, Refusal
from wsguard.vocabulary.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Authenticator
    from wsguard.vocabulary.handshake import Handshake

_CHALLENGE = (("WWW-Authenticate", "Bearer"),)
_INVALID = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
_PROVEN = frozenset({OriginProof.LISTED, OriginProof.SAME_ORIGIN})


async def authenticate(
    handshake: Handshake, context: Context, authenticators: Sequence[Authenticator]
) -> Identity | Refusal:
    """Return the Identity that counts, or the Refusal of what was found, or of nothing."""
    for authenticator in authenticators:
        if context.unless_explicit is not None and authenticator.carriage == "ambient":
            continue  # it cannot decide here, and must not stand in the way of what can
        try:
            answer = cast("object", await authenticator.authenticate(handshake, context))
        except Exception as error:  # noqa: BLE001 - fail closed: whatever an authenticator raises refuses
            return Refusal(reasons.CREDENTIAL_UNAVAILABLE, f"{authenticator.name} raised {type(error).__name__}")
        if answer is None:
            continue
        if isinstance(answer, Refusal):
            return challenged(answer)
        if not isinstance(answer, Identity):
            return Refusal(reasons.POLICY_BAD_VERDICT, f"{authenticator.name} answered {type(answer).__name__}")
        if answer.expires_at is not None and answer.expires_at <= context.now:
            return challenged(Refusal(reasons.CREDENTIAL_EXPIRED, authenticator.name, identity=answer))
        context.in_header = in_header(authenticator)
        context.field_name = getattr(authenticator, "field_name", None)
        refusal = may_decide(authenticator, handshake, context)
        return answer if refusal is None else replace(refusal, identity=answer)
    if context.unless_explicit is not None:
        return context.unless_explicit
    return Refusal(reasons.CREDENTIAL_MISSING, headers=_CHALLENGE)


def is_preflight(handshake: Handshake, context: Context) -> bool:
    """Tell a CORS preflight of a page that may connect: it can carry no credential, and goes to the app without one."""
    return (
        not handshake.is_handshake
        and handshake.method == "OPTIONS"
        and b"access-control-request-method" in handshake.fields
        and context.origin in _PROVEN
    )


def same_login(one: Identity, other: Identity) -> bool:
    """Tell whether two identities are one subject of one issuer, and not two logins of it where both name theirs."""
    if (one.subject, one.issuer) != (other.subject, other.issuer):
        return False
    return one.sid is None or other.sid is None or one.sid == other.sid


def challenged(refusal: Refusal) -> Refusal:
    """Return *refusal* with the field that a 401 carries (RFC 6750 §3.1), if it is one and has none."""
    if refusal.reason.status != 401 or refusal.headers:  # noqa: PLR2004 - Unauthorized
        return refusal
    return Refusal(refusal.reason, refusal.detail, refusal.setting, _INVALID, refusal.identity)
