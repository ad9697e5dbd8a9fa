"""Tokens as an issuer makes them, and as attackers do: any header, any payload, signed with any key."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tests.leaks import Kind, secret
from wsguard.engine.tokens.early import EarlyTokens
from wsguard.engine.tokens.jwk import KeySet, VerificationKey
from wsguard.engine.tokens.jws import read_compact
from wsguard.engine.tokens.jwt import JWT, identify, judge_header
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.identity import Identity

NOW = 1_900_000_000.0
ISSUER = "https://id.test"
AUDIENCE = "https://app.test"
ABSENT = object()
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 60, "iat": NOW - 1}
SECRET = "a secret of the tests, long enough for HS256"

Key = ECKey | OKPKey | RSAKey | OctKey


@cache
def key_of(algorithm: str, kid: str = "") -> Key:
    """A private key for *algorithm*, named after it unless *kid* says otherwise."""
    named: Any = {"kid": kid or algorithm}
    if algorithm.startswith("ES"):
        return ECKey.generate_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm], named)
    if algorithm.startswith("Ed"):
        return OKPKey.generate_key("Ed25519", named)
    if algorithm.startswith("HS"):
        return OctKey.import_key(SECRET.encode())
    return RSAKey.generate_key(2048, named)


def public(*keys: Key, **members: Any) -> bytes:
    """The JWK set of *keys*, *members* added to each; ABSENT takes one out."""
    jwks = [without_absent({**key.as_dict(private=False), **members}) for key in keys]
    return json.dumps({"keys": jwks}).encode()


def without_absent(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def signed(header: Any, payload: Any, key: Key, algorithm: str) -> str:
    """Sign whatever *header* and *payload* are, with *key*, by *algorithm*, whatever the header says."""
    signing_input = f"{encoded(as_json(header))}.{encoded(as_json(payload))}"
    model = JWSRegistry.algorithms[{"EdDSA": "Ed25519"}.get(algorithm, algorithm)]
    return secret(Kind.TOKEN, f"{signing_input}.{encoded(model.sign(signing_input.encode(), key))}")


def token(
    claims: dict[str, Any] | None = None, *, algorithm: str = "ES256", key: Key | None = None, **header: Any
) -> str:
    """A good token with *claims* and *header* changed; ABSENT takes one out."""
    key = key_of(algorithm) if key is None else key
    typ = "JWT" if algorithm.startswith("HS") else "at+jwt"
    written = without_absent({"alg": algorithm, "typ": typ, "kid": key.kid or ABSENT, **header})
    return signed(written, without_absent({**CLAIMS, **(claims or {})}), key, algorithm)


def issuer(**changes: Any) -> JWT:
    """An issuer whose tokens are good."""
    written: dict[str, Any] = {"issuer": ISSUER, "audience": [AUDIENCE], **changes}
    return JWT(**written)


def judged(
    text: str,
    jwt: JWT | None = None,
    keys: KeySet | None = None,
    now: float = NOW,
    early: EarlyTokens | None = None,
) -> Identity | Refusal:
    """Judge a token of *jwt*'s issuer by *keys*, as `IssuerTokens` does once it has them."""
    jwt = issuer() if jwt is None else jwt
    keys = KeySet.read(public(key_of("ES256"))) if keys is None else keys
    read = read_compact(text, 8192)
    if isinstance(read, Refusal):
        return read
    refusal = judge_header(read, jwt)
    if refusal is not None:
        return refusal
    found = keys.find(read.kid, read.header["alg"])
    assert isinstance(found, VerificationKey), found
    assert found.verifies(read)
    return identify(read, jwt, now, EarlyTokens(DEFAULTS.cookies_seen) if early is None else early)


def code(answer: Identity | Refusal) -> str | None:
    """The reason of a refusal, None for an identity."""
    return answer.reason.code if isinstance(answer, Refusal) else None
