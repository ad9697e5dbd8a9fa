"""
JWT access tokens (RFC 7519, 9068, 8725): what one issuer's must be like, and whom they name.

Nothing here waits or asks anybody: keys are found elsewhere (`wsguard.identity.jwks`).
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from wsguard.engine.tokens.jwk import ASYMMETRIC, SYMMETRIC
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, nearest_name
from wsguard.vocabulary.identity import LATEST_TIME, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wsguard.engine.tokens.early import EarlyTokens
    from wsguard.engine.tokens.jws import JSONObject, UnverifiedToken

SKEW = 60.0
"""Seconds that another clock may be ahead: for ``nbf`` and ``iat``, never for ``exp``."""

_DEFAULT_ALGORITHMS = ("ES256", "EdDSA", "RS256", "PS256")
_MAY_BE_MISSING = ("iss", "aud")
# Signed by the same keys for another purpose: none of them is ever an access token (RFC 8725 §3.11).
_OTHER_PURPOSES = frozenset(
    {
        "client-authentication+jwt",
        "dpop+jwt",
        "entity-statement+jwt",
        "logout+jwt",
        "oauth-authz-req+jwt",
        "oauth-id-jag+jwt",
        "secevent+jwt",
        "token-introspection+jwt",
    }
)
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"  # a name, never called


@dataclass(frozen=True)
class JWT:
    """
    One issuer of JWT access tokens.

    *issuer* is compared exactly, *audience* are the names of which ``aud`` must hold one. *jwks* is where its keys
    stand: ``file:PATH``, an https URL, or None: the issuer tells (``/.well-known/openid-configuration``, RFC 8414).
    *algorithms* are those it may use. *typ* are the types of token that count, by default ``at+jwt`` (RFC 9068); many
    providers write ``JWT``, and ``""`` stands for a token that names none. *scopes* and *groups* are claim names.

    *secret_file* instead of *jwks* is a file with the secret that the app signs with: at least 32 bytes, HS256 alone,
    *typ* then by default ``JWT``. Such tokens may lack ``iss`` or ``aud`` where *missing_claims* says so; one that is
    there is compared all the same.

    Raises ConfigurationError for what can never count, and where joserfc is not installed.
    """

    issuer: str
    audience: Sequence[str] = ()
    jwks: str | None = None
    algorithms: Sequence[str] | None = None
    typ: Sequence[str] | None = None
    scopes: str = "scope"
    groups: str = "groups"
    secret_file: str | None = None
    missing_claims: Sequence[str] = ()
    allowed_algorithms: frozenset[str] = field(init=False, repr=False)
    types: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what can never count, all at once."""
        errors = [ConfigurationError(self.key(name), found, expected) for name, found, expected in _mistakes(self)]
        if errors:
            raise ConfigurationErrors(errors)
        _require_joserfc(self.key())
        by_default = (SYMMETRIC,) if self.is_symmetric else _DEFAULT_ALGORITHMS
        object.__setattr__(self, "allowed_algorithms", frozenset(self.algorithms or by_default))
        object.__setattr__(self, "types", frozenset(map(_media_type, self.written_types)))

    @property
    def is_symmetric(self) -> bool:
        """Tell whether its tokens are signed with a secret that is shared with the app."""
        return self.secret_file is not None

    @property
    def written_types(self) -> tuple[str, ...]:
        """The types that count, as they are written or by default."""
        by_default = ("JWT",) if self.is_symmetric else ("at+jwt",)
        return by_default if self.typ is None else tuple(self.typ)

    @property
    def jwks_path(self) -> str | None:
        """The file of ``file:PATH``, None where the keys are elsewhere."""
        path = (self.jwks or "").removeprefix("file:")
        return None if path in ("", self.jwks) else path

    def key(self, name: str = "") -> str:
        """Return how the configuration calls this issuer, or its key *name*."""
        table = f"jwt.{json.dumps(self.issuer)}"
        return f"{table}.{name}" if name else table

    def setting(self, name: str, values: Sequence[str] | None = None) -> str:
        """Return what the log tells to write: the key *name* of this issuer, with *values*."""
        written = "" if values is None else f" = {json.dumps(list(values))}"
        return f"[jwt.{json.dumps(self.issuer)}] {name}{written}"

    @property
    def notices(self) -> list[str]:
        """Return what the log says at start."""
        return [
            f"{self.key('missing_claims')}: tokens without {name} are let in: the secret alone tells for whom they are"
            for name in self.missing_claims
        ]


def judge_header(token: UnverifiedToken, jwt: JWT) -> Refusal | None:
    """Judge algorithm and type by what *jwt* allows, before any key is looked for."""
    algorithm = cast("object", token.header.get("alg"))
    if not isinstance(algorithm, str) or algorithm not in jwt.allowed_algorithms:
        # No hint: an attacker who writes `none` must not make the log suggest it.
        return Refusal(reasons.TOKEN_ALG, str(algorithm))
    typ = cast("object", token.header.get("typ", ""))
    if not isinstance(typ, str) or (typ == "" and "typ" in token.header):
        return Refusal(reasons.TOKEN_TYPE, "typ is no text")
    if _media_type(typ) not in jwt.types:
        is_foreign = _media_type(typ) in _OTHER_PURPOSES
        hint = "" if is_foreign else jwt.setting("typ", [*jwt.written_types, typ])
        return Refusal(reasons.TOKEN_TYPE, typ or "none", hint)
    events = cast("object", token.claims.get("events"))
    if isinstance(events, dict) and _LOGOUT_EVENT in events:
        return Refusal(reasons.TOKEN_TYPE, "a logout token")
    return None


def identify(token: UnverifiedToken, jwt: JWT, now: float, early: EarlyTokens) -> Identity | Refusal:
    """
    Say whom *token*, whose signature verifies, names at *now* (Unix seconds), or why it does not count.

    *early* knows what came before its ``iat``.
    """
    claims = token.claims
    refusal = _wrong_issuer(claims, jwt) or _wrong_audience(claims, jwt) or _wrong_times(claims, now)
    if refusal is not None:
        return refusal
    subject = cast("object", claims.get("sub"))
    if not isinstance(subject, str) or not subject:
        return Refusal(reasons.TOKEN_CLAIMS, "sub")
    scopes, groups = _names(claims, jwt.scopes, separator=" "), _names(claims, jwt.groups)
    credential_id, sid = _text(claims, "jti"), _text(claims, "sid")
    for found in (scopes, groups, credential_id, sid):
        if isinstance(found, Refusal):
            return found
    return Identity(
        subject,
        jwt.issuer,
        method="bearer",
        scopes=cast("frozenset[str]", scopes),
        groups=cast("frozenset[str]", groups),
        credential_id=cast("str | None", credential_id),
        sid=cast("str | None", sid),
        expires_at=float(claims["exp"]),
        issued_at=early.issued_at(token, now) if "iat" in claims else None,
    )


def _wrong_issuer(claims: JSONObject, jwt: JWT) -> Refusal | None:
    if "iss" not in claims and "iss" in jwt.missing_claims:
        return None
    return None if claims.get("iss") == jwt.issuer else Refusal(reasons.TOKEN_ISSUER)


def _wrong_audience(claims: JSONObject, jwt: JWT) -> Refusal | None:
    if "aud" not in claims and "aud" in jwt.missing_claims:
        return None
    written = cast("object", claims.get("aud", []))
    audience = cast("list[object]", written if isinstance(written, list) else [written])
    if not all(isinstance(one, str) for one in audience):
        return Refusal(reasons.TOKEN_CLAIMS, "aud")
    if any(one in jwt.audience for one in audience):
        return None
    return Refusal(reasons.TOKEN_AUDIENCE, " ".join(map(str, audience)), jwt.setting("audience"))


def _wrong_times(claims: JSONObject, now: float) -> Refusal | None:
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_date(claims[name]):
            return Refusal(reasons.TOKEN_CLAIMS, name)
    if "exp" not in claims:
        return Refusal(reasons.TOKEN_EXPIRY, "no exp")
    if claims["exp"] <= now:
        return Refusal(reasons.TOKEN_EXPIRY)
    for name in ("nbf", "iat"):
        if claims.get(name, now) > now + SKEW:
            return Refusal(reasons.TOKEN_NOT_YET, name)
    return None


def _is_date(value: Any) -> bool:
    """Tell a NumericDate (RFC 7519 §2): a number, which JSON's true is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LATEST_TIME


def _names(claims: JSONObject, claim: str, separator: str | None = None) -> frozenset[str] | Refusal:
    """Read a list of names, or one text: several names between *separator* (RFC 8693 §4.2), or one."""
    value = cast("object", claims.get(claim, []))
    if isinstance(value, str):
        value = [value] if separator is None else value.split(separator)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in cast("list[object]", value)):
        return Refusal(reasons.TOKEN_CLAIMS, claim)
    return frozenset(name for name in cast("list[str]", value) if name)


def _text(claims: JSONObject, claim: str) -> str | Refusal | None:
    value = cast("object", claims.get(claim))
    if claim in claims and (not isinstance(value, str) or not value):
        return Refusal(reasons.TOKEN_CLAIMS, claim)
    return cast("str | None", value)


def _media_type(typ: str) -> str:
    """Return *typ* in one spelling: ``application/`` may be left out (RFC 7515 §4.1.9), letter case means nothing."""
    return typ.lower().removeprefix("application/")


def _mistakes(jwt: JWT) -> Iterator[tuple[str, str, str]]:
    """Tell what is wrong, as (key, found, expected)."""
    if not _is_name(jwt.issuer):
        yield "issuer", repr(jwt.issuer), "the issuer's name, exactly as its tokens hold it"
    if not _are_names(jwt.missing_claims) or any(name not in _MAY_BE_MISSING for name in jwt.missing_claims):
        yield "missing_claims", repr(jwt.missing_claims), 'a list of "iss" and "aud", or nothing'
    elif jwt.missing_claims and not jwt.is_symmetric:
        yield "missing_claims", repr(jwt.missing_claims), "nothing: only tokens of a secret_file may lack them"
    may_be_empty = not isinstance(jwt.missing_claims, str) and "aud" in jwt.missing_claims
    if not _are_names(jwt.audience) or (not jwt.audience and not may_be_empty):
        yield "audience", repr(jwt.audience), 'a list of names like ["https://app.example.com"], one of them in aud'
    yield from _mistaken_keys(jwt)
    yield from _mistaken_algorithms(jwt)
    for name, claim in (("scopes", jwt.scopes), ("groups", jwt.groups)):
        if not _is_name(claim):
            yield name, repr(claim), "the name of a claim"
    if jwt.typ is not None:
        yield from _mistaken_types(jwt.typ)


def _mistaken_keys(jwt: JWT) -> Iterator[tuple[str, str, str]]:
    if jwt.secret_file is not None:
        if jwt.jwks is not None:
            yield "secret_file", "jwks beside it", "one of them: a secret never stands beside public keys"
        if not _is_name(jwt.secret_file):
            yield "secret_file", repr(jwt.secret_file), "the path of a file"
    elif jwt.jwks is None:
        if isinstance(cast("object", jwt.issuer), str) and (not _can_be_called(jwt.issuer) or "?" in jwt.issuer):
            yield "jwks", "nothing", "file:PATH or an https URL, where the issuer itself is no https URL"
    elif not _is_name(jwt.jwks) or not (_can_be_called(jwt.jwks) or jwt.jwks_path is not None):
        found = "a URL with a user or password" if "@" in str(jwt.jwks) else repr(jwt.jwks)
        yield "jwks", found, "file:PATH or an https URL"


def _can_be_called(url: str) -> bool:
    return url.startswith("https://") and "#" not in url


def _mistaken_algorithms(jwt: JWT) -> Iterator[tuple[str, str, str]]:
    written = jwt.algorithms
    if written is None:
        return
    if not _are_names(written) or not written:
        yield "algorithms", repr(written), 'a list like ["ES256"]; an empty one would allow nothing'
        return
    known = frozenset({SYMMETRIC}) if jwt.is_symmetric else ASYMMETRIC
    for name in written:
        if name in known:
            continue
        if jwt.is_symmetric:
            yield "algorithms", repr(name), f"{SYMMETRIC} alone, which is what secret_file is for"
        elif name == SYMMETRIC:
            yield "algorithms", repr(name), f"secret_file beside it: {name} has no public keys"
        else:
            nearest = nearest_name(name, known)
            hint = f" (did you mean {nearest!r}?)" if nearest else ""
            yield "algorithms", repr(name), f"some of {', '.join(sorted(known))}{hint}"


def _mistaken_types(types: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    if isinstance(types, str) or not types or not all(isinstance(cast("object", one), str) for one in types):
        yield "typ", repr(types), 'a list like ["at+jwt"]'
        return
    for one in types:
        if _media_type(one) in _OTHER_PURPOSES:
            yield "typ", repr(one), "a type of access token: this one has another purpose"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_name, cast("Sequence[object]", value)))


def _require_joserfc(key: str) -> None:
    try:
        importlib.import_module("joserfc.jws")
    except ImportError:
        raise ConfigurationError(key, "no joserfc", "what `pip install 'wsguard[oauth]'` installs") from None
