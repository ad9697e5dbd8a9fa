"""
The keys of one issuer (RFC 7517), and which of them verifies a token.

The key says which algorithms it may be used with; the token only chooses among them (RFC 8725 §3.1). What stands in a
key set and could forge or break a signature does not count: symmetric keys, private parts, short ones (B-TOKEN-03).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from wsguard.engine.tokens.jws import JSONObject, decode_base64url, read_object
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from joserfc.jwk import Key

    from wsguard.engine.tokens.jws import UnverifiedToken

SHORTEST_SECRET = 32
_RSA_BITS = range(2048, 8193)
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# JWK "kty" and "crv" (RFC 7518 §6, RFC 8037 §2): the algorithms for which such a key can be used.
_ALGORITHMS: dict[tuple[str, str | None], frozenset[str]] = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
    ("RSA", None): _RSA,
}
ASYMMETRIC = frozenset[str]().union(*_ALGORITHMS.values())
SYMMETRIC = "HS256"
_PUBLIC_MEMBERS = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}
# joserfc's name for the algorithm: its "EdDSA" would take Ed448 too, and warns (RFC 9864).
_MODELS = {"EdDSA": "Ed25519"}
_RESEMBLES_A_KEY = re.compile(rb'-----BEGIN |---- BEGIN |ssh-[a-z0-9]+ |ecdsa-sha2-|\A\s*\{.*"kty"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One key: how tokens name it, and the *algorithms* that it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    key: Key = field(repr=False)

    def verifies(self, token: UnverifiedToken) -> bool:
        """Tell whether *token* was signed with this key, by the algorithm that its header names."""
        from joserfc.jws import JWSRegistry

        algorithm = cast("str", token.header["alg"])
        if algorithm not in self.algorithms:
            return False
        name = _MODELS.get(algorithm, algorithm)
        model = JWSRegistry(algorithms=[name]).get_alg(name)
        model.check_key(self.key)
        return model.verify(token.signing_input, token.signature, self.key) is True


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys that count, and why others of the same set do not (*ignored*, one text each)."""

    keys: tuple[VerificationKey, ...]
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: bytes) -> KeySet:
        """Read a JWK set (RFC 7517 §5). Raises ValueError for what is none, and where no key of it counts."""
        written = cast("object", read_object(data).get("keys"))
        if not isinstance(written, list):
            raise ValueError("no JWK set: keys is no array")  # noqa: TRY004 - one error for whatever is wrong
        keys: list[VerificationKey] = []
        ignored: list[str] = []
        for number, jwk in enumerate(cast("list[object]", written), 1):
            try:
                keys.append(_read_key(jwk))
            except ValueError as error:
                ignored.append(f"key {number}: {error}")
        if not keys:
            raise ValueError("; ".join(["no key that counts", *ignored]))
        return cls(tuple(keys), tuple(ignored))

    @classmethod
    def of_secret(cls, written: bytes) -> KeySet:
        """
        Make the one key for HS256 from a file's bytes; the line's end behind text is not part of it.

        Raises ValueError for fewer than 32 bytes, and for what is a key of another kind.
        """
        from joserfc.jwk import OctKey

        secret = written.rstrip(b"\r\n") if written.isascii() else written
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(f"a secret of {len(secret)} bytes")
        if _RESEMBLES_A_KEY.search(secret):
            raise ValueError("a key of another kind, which may be public")
        return cls((VerificationKey(None, frozenset({SYMMETRIC}), OctKey.import_key(secret)),))

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | Refusal | None:
        """Return the one key that fits; None where there is none, which another set could have."""
        named = [key for key in self.keys if kid is None or key.kid == kid]
        fitting = [key for key in named if algorithm in key.algorithms]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            return Refusal(reasons.TOKEN_KEY, "several keys fit")
        if named and kid is not None:
            return Refusal(reasons.TOKEN_ALG, "the key that it names is for another algorithm")
        return None


def _read_key(jwk: object) -> VerificationKey:
    """Read one JWK. Raises ValueError that says why it does not count."""
    if not isinstance(jwk, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - see read
    members = cast("JSONObject", jwk)
    kid, kty, crv = members.get("kid"), members.get("kty"), members.get("crv")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("kid is no text")
    if kty == "oct":
        raise ValueError("symmetric")
    if not isinstance(kty, str) or not (crv is None or isinstance(crv, str)):
        raise ValueError("kty or crv is no text")
    algorithms = _ALGORITHMS.get((kty, None if kty == "RSA" else crv))
    if algorithms is None:
        raise ValueError("of a kind that is not used here")
    if members.keys() & {"d", "p", "q", "dp", "dq", "qi", "oth"}:
        raise ValueError("its private part stands beside it")
    return VerificationKey(kid, _designed(members, algorithms), _imported(kty, members))


def _designed(members: JSONObject, algorithms: frozenset[str]) -> frozenset[str]:
    """Return those of *algorithms* that ``use``, ``key_ops`` and ``alg`` leave (RFC 7517 §4.2-4.4)."""
    key_ops = members.get("key_ops", ["verify"])
    if members.get("use", "sig") != "sig" or not isinstance(key_ops, list) or "verify" not in key_ops:
        raise ValueError("not meant for signatures")
    if "alg" in members:
        algorithms &= {members["alg"]} if isinstance(members["alg"], str) else set()
    if not algorithms:
        raise ValueError("meant for an algorithm that is not used here")
    return algorithms


def _imported(kty: str, members: JSONObject) -> Key:
    from joserfc.jwk import JWKRegistry

    public: dict[str, Any] = {name: members.get(name) for name in _PUBLIC_MEMBERS[kty]}
    if not all(isinstance(value, str) for value in public.values()):
        raise ValueError("a member is missing")
    if kty == "RSA" and int.from_bytes(decode_base64url(public["n"])).bit_length() not in _RSA_BITS:
        raise ValueError(f"RSA has {_RSA_BITS.start} to {_RSA_BITS.stop - 1} bits")
    try:
        return JWKRegistry.import_key({"kty": kty, **public})
    except Exception as error:  # noqa: BLE001 - whatever the libraries raise is a key that is none
        raise ValueError(f"no such key ({type(error).__name__})") from None
