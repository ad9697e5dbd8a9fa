"""Access tokens as JWTs: what counts as one, by which key, and whom it names."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tests.engine.tokens import (
    ABSENT,
    AUDIENCE,
    CLAIMS,
    ISSUER,
    NOW,
    SECRET,
    as_json,
    code,
    encoded,
    issuer,
    judged,
    key_of,
    public,
    signed,
    token,
)
from tests.identity.open import World
from wsguard.engine.revocations import Revocation, Revocations
from wsguard.engine.tokens.early import EarlyTokens
from wsguard.engine.tokens.jwk import KeySet, VerificationKey
from wsguard.engine.tokens.jws import UnverifiedToken, decode_base64url, read_compact, read_object
from wsguard.engine.tokens.jwt import JWT
from wsguard.identity.jwks import IssuerTokens
from wsguard.identity.outbound import Outbound
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.identity import Identity

ALL_ALGORITHMS = ["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
Verify = Callable[[str], Identity | Refusal]


@pytest.fixture(scope="module")
def outbound() -> Outbound:
    return Outbound(DEFAULTS)


@pytest.fixture
def opened(tmp_path: Path, outbound: Outbound) -> Callable[..., Verify]:
    """Opens an issuer whose keys stand in a file: all of it is asked, as a Guard would."""

    def with_keys(keys: bytes | None = None, **changes: Any) -> Verify:
        path = tmp_path / "jwks.json"
        path.write_bytes(public(key_of("ES256"), key_of("RS256"), key_of("EdDSA")) if keys is None else keys)
        return over(outbound, issuer(**{"jwks": f"file:{path}", **changes}))

    return with_keys


def over(outbound: Outbound, *issuers: JWT) -> Verify:
    world = World()
    tokens = IssuerTokens(issuers, outbound=outbound, limits=DEFAULTS, clock=world.clock, log=world.log())
    return lambda text: asyncio.run(tokens.verify(text, NOW))


@pytest.fixture
def verify(opened: Callable[..., Verify]) -> Verify:
    return opened()


@pytest.fixture
def minted(tmp_path: Path, outbound: Outbound) -> Callable[..., Verify]:
    """Opens an issuer with a secret, as many apps mint tokens themselves."""

    def with_secret(secret: bytes = SECRET.encode(), **changes: Any) -> Verify:
        path = tmp_path / "secret"
        path.write_bytes(secret)
        path.chmod(0o600)
        return over(outbound, issuer(**{"secret_file": str(path), **changes}))

    return with_secret


# --- What counts ---


@pytest.mark.parametrize("algorithm", ALL_ALGORITHMS)
def test_every_algorithm_that_can_be_listed_verifies(opened: Callable[..., Verify], algorithm: str) -> None:
    """Each name of the allow-list stands for an algorithm that works, and only with its own kind of key."""
    key = key_of(algorithm)
    answer = opened(public(key), algorithms=[algorithm])(token(algorithm=algorithm))
    assert answer == Identity("alice", ISSUER, "bearer", expires_at=NOW + 60, issued_at=NOW - 1)


@pytest.mark.parametrize(
    ("claims", "changes", "expected"),
    [
        ({"scope": "chat  read"}, {}, {"scopes": {"chat", "read"}}),
        ({"scope": ["chat", "read"]}, {}, {"scopes": {"chat", "read"}}),
        ({"scp": "chat", "scope": "admin"}, {"scopes": "scp"}, {"scopes": {"chat"}}),
        ({"groups": ["staff", "not admins"]}, {}, {"groups": {"staff", "not admins"}}),
        ({"groups": "not admins"}, {}, {"groups": {"not admins"}}),
        ({"https://id.test/roles": ["x"]}, {"groups": "https://id.test/roles"}, {"groups": {"x"}}),
        ({"jti": "j1", "sid": "s1"}, {}, {"credential_id": "j1", "sid": "s1"}),
        ({"iat": ABSENT}, {}, {"issued_at": None}),
        ({"exp": NOW + 0.5}, {}, {"expires_at": NOW + 0.5}),
        ({"iat": NOW - 0.5}, {}, {"issued_at": NOW - 1}),
        ({"aud": ["https://other.test", AUDIENCE]}, {}, {}),
        ({"aud": "two"}, {"audience": ("one", "two")}, {}),
        ({"nbf": NOW + 60, "iat": NOW + 60}, {}, {"issued_at": NOW}),
        ({"sub": "ålice 用户"}, {}, {"subject": "ålice 用户"}),
    ],
)
def test_claims_become_an_identity(claims: dict[str, Any], changes: dict[str, Any], expected: dict[str, Any]) -> None:
    """Scopes may be a spaced text or a list; a group's name is never split; other clocks may be a minute ahead."""
    answer = judged(token(claims), issuer(**changes))
    assert isinstance(answer, Identity)
    assert {name: getattr(answer, name) for name in expected} == expected
    assert answer.method == "bearer"


def test_a_token_that_came_before_its_iat_is_as_old_as_it_is(tmp_path: Path, outbound: Outbound) -> None:
    """
    An issuer's clock may be ahead: whoever is thrown out must not come back with the same token when its ``iat`` is past.

    It is known by what was signed: an ECDSA signature has a second form that verifies, too.
    """
    path = tmp_path / "jwks.json"
    path.write_bytes(public(key_of("ES256")))
    world = World()
    tokens = IssuerTokens(
        [issuer(jwks=f"file:{path}")], outbound=outbound, limits=DEFAULTS, clock=world.clock, log=world.log()
    )

    def issued_at(text: str, now: float) -> float | None:
        answer = asyncio.run(tokens.verify(text, now))
        assert isinstance(answer, Identity), answer
        assert revocations.revokes(answer) is (answer.issued_at is not None and answer.issued_at <= NOW + 5)
        return answer.issued_at

    revocations = Revocations([Revocation(NOW + 5, subject="alice")])
    early = token({"iat": NOW + 30, "exp": NOW + 600})
    assert issued_at(early, NOW) == NOW
    assert issued_at(early, NOW + 6) == NOW
    assert issued_at(early, NOW + 40) == NOW
    assert issued_at(other_signature_of(early), NOW + 40) == NOW
    assert issued_at(token({"iat": NOW + 35, "exp": NOW + 601}), NOW + 40) == NOW + 35
    assert issued_at(token({"iat": NOW + 41, "exp": NOW + 602}), NOW + 40) == NOW + 40


def other_signature_of(text: str) -> str:
    """The same token with the other signature that verifies: (r, n - s) for (r, s)."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signed, _, signature = text.rpartition(".")
    raw = decode_base64url(signature)
    other = order - int.from_bytes(raw[32:], "big")
    return f"{signed}.{encoded(raw[:32] + other.to_bytes(32, 'big'))}"


def test_as_many_early_tokens_are_remembered_as_the_bound_says() -> None:
    """The first of them goes first."""
    early = EarlyTokens(2)
    texts = [token({"iat": NOW + 30, "jti": str(number), "exp": NOW + 600}) for number in range(3)]
    for text in texts:
        judged(text, early=early)
    answers = [judged(text, now=NOW + 40, early=early) for text in texts]
    assert [getattr(answer, "issued_at", None) for answer in answers] == [NOW + 30, NOW, NOW]


@pytest.mark.parametrize(
    ("typ", "sent", "counts"),
    [
        (None, "at+jwt", True),
        (None, "AT+JWT", True),
        (None, "application/at+jwt", True),
        (None, "JWT", False),
        (["JWT"], "jwt", True),
        (["JWT"], "at+jwt", False),
        (["application/at+jwt", "JWT"], "at+jwt", True),
        (["at+jwt"], ABSENT, False),
        (["at+jwt", ""], ABSENT, True),
        (["at+jwt", ""], "", False),
        (["at+jwt", ""], None, False),
    ],
)
def test_types_are_compared_as_media_types(typ: Any, sent: Any, counts: bool) -> None:
    """RFC 7515 §4.1.9 and RFC 9068 §4; a token that names none counts only where the operator wrote so."""
    assert code(judged(token(typ=sent), issuer(typ=typ))) == (None if counts else "token.type")


def test_the_refusal_of_a_type_names_the_key_to_write() -> None:
    """Many providers write JWT: their operator finds in the log what to write, ready to be copied."""
    answer = judged(token(typ="JWT"))
    assert isinstance(answer, Refusal)
    assert (answer.detail, answer.setting) == ("JWT", '[jwt."https://id.test"] typ = ["at+jwt", "JWT"]')


def test_a_kid_that_is_missing_is_no_matter_where_one_key_fits(opened: Callable[..., Verify]) -> None:
    """A small issuer names no key; as soon as two would fit nobody guesses."""
    second = ECKey.generate_key("P-256")
    assert code(opened(public(key_of("ES256"), key_of("RS256")))(token(kid=ABSENT))) is None
    assert code(opened(public(key_of("ES256"), second))(token(kid=ABSENT))) == "token.key"
    assert code(opened(public(key_of("RS256")))(token(kid=ABSENT))) == "token.key"


def test_the_app_s_own_secret_verifies(minted: Callable[..., Verify]) -> None:
    """What many FastAPI apps mint: HS256, typ JWT, whatever kid, the secret in a file that an editor ended."""
    assert code(minted()(token(algorithm="HS256"))) is None
    assert code(minted(SECRET.encode() + b"\r\n")(token(algorithm="HS256", kid="whatever"))) is None
    assert code(minted()(token(algorithm="HS256", typ="at+jwt"))) == "token.type"
    assert code(minted(b"another secret of thirty-two bytes")(token(algorithm="HS256"))) == "token.signature"


@pytest.mark.parametrize(
    ("claims", "missing", "expected"),
    [
        ({"iss": ABSENT}, ["iss"], None),
        ({"aud": ABSENT}, ["aud"], None),
        ({"iss": ABSENT, "aud": ABSENT}, ["iss", "aud"], None),
        ({"iss": ABSENT}, ["aud"], "token.issuer"),
        ({"aud": ABSENT}, ["iss"], "token.audience"),
        ({"iss": "https://other.test"}, ["iss", "aud"], "token.issuer"),
        ({"iss": None}, ["iss", "aud"], "token.issuer"),
        ({"aud": "https://other.test"}, ["iss", "aud"], "token.audience"),
        ({"aud": []}, ["iss", "aud"], "token.audience"),
        ({"exp": ABSENT}, ["iss", "aud"], "token.expiry"),
    ],
)
def test_a_claim_that_may_be_missing_is_compared_if_it_is_there(
    minted: Callable[..., Verify], claims: dict[str, Any], missing: list[str], expected: str | None
) -> None:
    """`missing_claims` lets a claim be absent, never be wrong."""
    answer = minted(missing_claims=missing)(token(claims, algorithm="HS256"))
    assert code(answer) == expected
    assert isinstance(answer, Refusal) or answer.issuer == ISSUER


def test_an_audience_may_be_empty_only_where_it_may_be_missing(minted: Callable[..., Verify]) -> None:
    """Then a token that has one is meant for somebody else, whoever that is."""
    verify = minted(audience=[], missing_claims=["aud"])
    assert code(verify(token({"aud": ABSENT}, algorithm="HS256"))) is None
    assert code(verify(token(algorithm="HS256"))) == "token.audience"


# --- What does not ---


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"sub": ABSENT}, "token.claims"),
        ({"sub": ""}, "token.claims"),
        ({"sub": None}, "token.claims"),
        ({"sub": 7}, "token.claims"),
        ({"sub": ["alice"]}, "token.claims"),
        ({"aud": None}, "token.claims"),
        ({"aud": 5}, "token.claims"),
        ({"aud": [AUDIENCE, 5]}, "token.claims"),
        ({"aud": {AUDIENCE: 1}}, "token.claims"),
        ({"exp": True}, "token.claims"),
        ({"exp": str(NOW + 60)}, "token.claims"),
        ({"exp": None}, "token.claims"),
        ({"exp": -1}, "token.claims"),
        ({"exp": 1e300}, "token.claims"),
        ({"exp": 253_402_300_800}, "token.claims"),
        ({"exp": NOW}, "token.expiry"),
        ({"exp": NOW - 0.001}, "token.expiry"),
        ({"nbf": True}, "token.claims"),
        ({"nbf": NOW + 60.5}, "token.not_yet"),
        ({"nbf": None}, "token.claims"),
        ({"iat": NOW + 61}, "token.not_yet"),
        ({"iat": "yesterday"}, "token.claims"),
        ({"jti": 5}, "token.claims"),
        ({"jti": ""}, "token.claims"),
        ({"sid": ["s"]}, "token.claims"),
        ({"scope": None}, "token.claims"),
        ({"scope": 5}, "token.claims"),
        ({"scope": ["chat", 5]}, "token.claims"),
        ({"groups": {"staff": True}}, "token.claims"),
    ],
)
def test_claims_have_one_type_and_a_range(claims: dict[str, Any], expected: str) -> None:
    """JSON's true is no number, a date has an end, `exp` is exact: nothing is converted until it fits."""
    assert code(judged(token(claims))) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": ABSENT}, "token.alg"),
        ({"alg": None}, "token.alg"),
        ({"alg": ["ES256"]}, "token.alg"),
        ({"alg": "es256"}, "token.alg"),
        ({"alg": "ES256 "}, "token.alg"),
        ({"alg": "ES384"}, "token.alg"),
        ({"kid": 5}, "token.malformed"),
        ({"kid": None}, "token.malformed"),
        ({"kid": "another"}, "token.key"),
        ({"kid": ""}, "token.key"),
        ({"typ": 5}, "token.type"),
        ({"b64": False}, "token.crit"),
        ({"b64": True}, "token.crit"),
        ({"enc": "A128GCM"}, "token.malformed"),
        ({"zip": "DEF"}, "token.malformed"),
        ({"x5t": "whatever", "cty": "x", "unknown": {"a": 1}}, None),
    ],
)
def test_headers_demand_nothing(verify: Verify, header: dict[str, Any], expected: str | None) -> None:
    """What nobody here understands is passed over (RFC 7515 §4), what would change how it is read is refused."""
    assert code(verify(token(**header))) == expected


def test_the_log_never_suggests_an_algorithm(verify: Verify) -> None:
    """An attacker who sends `none` could else have the operator told to allow it."""
    answer = verify(token(alg="none"))
    assert isinstance(answer, Refusal)
    assert (answer.reason.code, answer.detail, answer.setting) == ("token.alg", "none", "")


@pytest.mark.parametrize("signature", ["", "AAAA", encoded(bytes(64)), encoded(b"\xff" * 64), encoded(bytes(256))])
@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_a_wrong_signature_is_refused(verify: Verify, algorithm: str, signature: str) -> None:
    """Empty, short, all zeros (CVE-2022-21449), all ones: a refusal, never an error."""
    unsigned = token(algorithm=algorithm).rpartition(".")[0]
    assert code(verify(f"{unsigned}.{signature}")) == "token.signature"


def test_a_signature_belongs_to_its_payload(verify: Verify) -> None:
    """The signature of one token does not carry the claims of another."""
    mine, theirs = token().split("."), token({"sub": "mallory"}).split(".")
    assert code(verify(".".join([mine[0], mine[1], theirs[2]]))) == "token.signature"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{} x",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": 1, "a": 1}',
        b'{"b": [{"c": {"a": 1, "\\u0061": 2}}]}',
        b'{"a": ' + b"[" * 7000 + b"]" * 7000 + b"}",
        b'{"a": 1,}',
        b'{"a": 01}',
        b'{"a": "\n"}',
    ],
)
def test_json_that_can_be_read_in_two_ways_is_none(data: bytes) -> None:
    """One meaning for every reader, and an end: no NaN, no second member, no nesting that ends the stack."""
    with pytest.raises(ValueError, match="JSON"):
        read_object(data)


@pytest.mark.parametrize("text", ["A", "AB==", "A+/B", "A_-B=", " AAAA", "AAAA\n", "AB", "AAB", "é", "AAAAA"])
def test_base64url_has_one_spelling(text: str) -> None:
    """No padding, no other alphabet, no bits left over: a token that was revoked or seen has no twin."""
    with pytest.raises(ValueError, match="base64url"):
        decode_base64url(text)


@given(st.binary(max_size=300))
def test_base64url_reads_what_was_written(data: bytes) -> None:
    """Every byte sequence has its one spelling, and it is read."""
    assert decode_base64url(base64.urlsafe_b64encode(data).rstrip(b"=").decode()) == data


@given(st.text(max_size=300) | st.from_regex(r"\A[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){0,4}\Z"))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    """Whatever somebody sends is refused with a reason; nothing raises."""
    assert isinstance(read_compact(text, 8192), Refusal)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "scope", "groups", "events", "x"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES))
def test_no_claim_raises(claims: dict[str, Any]) -> None:
    """An issuer's honest mistakes are refusals with a reason; what is accepted has the types that Identity says."""
    answer = judged(token(claims))
    if isinstance(answer, Identity):
        assert isinstance(answer.subject, str)
        assert answer.expires_at is not None
        assert answer.expires_at > NOW
        assert all(isinstance(name, str) for name in answer.scopes | answer.groups)
    else:
        assert answer.reason.status == 401


SIGNED_ONCE = token()


@given(st.data())
def test_a_token_with_a_character_changed_is_no_token(data: st.DataObject) -> None:
    """Every bit of what was signed, and of the signature, counts."""
    good = SIGNED_ONCE  # its signature is random: data drawn after it must find it as it was
    position = data.draw(st.integers(0, len(good) - 1))
    character = data.draw(st.sampled_from("ABCwxyz0129_-.").filter(lambda one: one != good[position]))
    read = read_compact(good[:position] + character + good[position + 1 :], 8192)
    if isinstance(read, UnverifiedToken) and read.header.get("alg") == "ES256":
        key = KeySet.read(public(key_of("ES256"))).keys[0]
        assert not key.verifies(read)


def test_a_token_shows_nothing_of_itself() -> None:
    """A repr in a traceback or a log must not hold the credential (RULES §10)."""
    read = read_compact(token({"sub": "alice-in-the-log"}), 8192)
    assert isinstance(read, UnverifiedToken)
    assert "alice" not in repr(read)
    assert SECRET not in repr(KeySet.of_secret(SECRET.encode()))


# --- Keys ---


RSA_1024 = {"kty": "RSA", "e": "AQAB", "n": encoded(b"\xc1" + b"\x01" * 127)}
OTHER_MEMBERS: dict[str, Any] = {"kty": "EC", "crv": "P-256", "x": encoded(bytes(32)), "y": encoded(bytes(32))}


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        ({"kty": "oct", "k": encoded(SECRET.encode())}, "symmetric"),
        ({"kty": "oct", "k": ""}, "symmetric"),
        (RSA_1024, "RSA has 2048 to 8192 bits"),
        ({"kty": "RSA", "e": "AQAB", "n": ""}, "RSA has 2048 to 8192 bits"),
        ({"kty": "RSA", "e": "AQAB", "n": encoded(b"\xc1" + b"\x01" * 2047)}, "RSA has 2048 to 8192 bits"),
        ({"kty": "RSA", "e": "AQ", "n": encoded(b"\xc1" + b"\x01" * 255)}, "no such key (ValueError)"),
        ({"kty": "RSA", "n": encoded(b"\xc1" + b"\x01" * 255)}, "a member is missing"),
        (OTHER_MEMBERS, "no such key (ValueError)"),
        ({**OTHER_MEMBERS, "x": 5}, "a member is missing"),
        ({**OTHER_MEMBERS, "crv": "secp256k1"}, "of a kind that is not used here"),
        ({"kty": "OKP", "crv": "X25519", "x": encoded(bytes(32))}, "of a kind that is not used here"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "no such key (ValueError)"),
        ({"kty": "AKP", "alg": "ML-DSA-44"}, "of a kind that is not used here"),
        ({"kty": 5}, "kty or crv is no text"),
        ({"kty": "EC", "crv": ["P-256"]}, "kty or crv is no text"),
        ({**OTHER_MEMBERS, "kid": 5}, "kid is no text"),
        ({**OTHER_MEMBERS, "d": encoded(bytes(32))}, "its private part stands beside it"),
        ({**OTHER_MEMBERS, "use": "enc"}, "not meant for signatures"),
        ({**OTHER_MEMBERS, "key_ops": ["sign"]}, "not meant for signatures"),
        ({**OTHER_MEMBERS, "key_ops": "verify"}, "not meant for signatures"),
        ({**OTHER_MEMBERS, "alg": "ES384"}, "meant for an algorithm that is not used here"),
        ({**OTHER_MEMBERS, "alg": "none"}, "meant for an algorithm that is not used here"),
        ({**OTHER_MEMBERS, "alg": ["ES256"]}, "meant for an algorithm that is not used here"),
        ("text", "no JSON object"),
    ],
)
def test_keys_that_do_not_count_are_named(jwk: Any, why: str) -> None:
    """One key that cannot be used does not take the others with it (RFC 7517 §5), and the operator can read why."""
    good = json.loads(public(key_of("ES256")))["keys"]
    found = KeySet.read(as_json({"keys": [jwk, *good]}))
    assert [key.kid for key in found.keys] == ["ES256"]
    assert found.ignored == (f"key 1: {why}",)
    with pytest.raises(ValueError, match="no key that counts"):
        KeySet.read(as_json({"keys": [jwk]}))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [], "keys": [1]}'])
def test_what_is_no_key_set_is_refused_whole(data: bytes) -> None:
    """An empty set is no set: it would refuse everybody in silence."""
    with pytest.raises(ValueError, match=r"JSON|JWK|no key that counts"):
        KeySet.read(data)


def algorithms(data: bytes) -> set[str]:
    return set(KeySet.read(data).keys[0].algorithms)


def test_a_key_says_what_it_may_be_used_for() -> None:
    """Type, curve, use, key_ops and alg of the JWK narrow it; the token chooses only among what is left."""
    every_rsa = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert algorithms(public(key_of("RS256"))) == every_rsa
    assert algorithms(public(key_of("RS256"), use="sig", key_ops=["verify"])) == every_rsa
    assert algorithms(public(key_of("RS256"), alg="PS256")) == {"PS256"}
    assert algorithms(public(key_of("ES384"))) == {"ES384"}
    assert algorithms(public(key_of("EdDSA"))) == {"EdDSA", "Ed25519"}


def test_a_kid_is_searched_among_the_keys_that_fit() -> None:
    """RFC 7517 §4.5 lets keys of different kinds share one kid; two that fit are one too many."""
    shared = public(key_of("ES256", "k"), key_of("RS256", "k"))
    keys = KeySet.read(shared)
    assert isinstance(keys.find("k", "ES256"), VerificationKey)
    assert isinstance(keys.find("k", "RS256"), VerificationKey)
    assert keys.find("other", "ES256") is None
    twice = KeySet.read(public(ECKey.generate_key("P-256", {"kid": "k"}), key_of("ES256", "k"))).find("k", "ES256")
    assert isinstance(twice, Refusal)
    assert twice.reason.code == "token.key"


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (b"", "a secret of 0 bytes"),
        (b"x" * 31, "a secret of 31 bytes"),
        (b"x" * 31 + b"\n", "a secret of 31 bytes"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDummyDummyDummyDummy", "a key of another kind"),
    ],
)
def test_a_secret_has_32_bytes_of_its_own(secret: bytes, why: str) -> None:
    """A short one can be guessed from one token; the line's end that an editor adds is none of it."""
    with pytest.raises(ValueError, match=why):
        KeySet.of_secret(secret)


# --- Written wrongly ---


def mistakes(changes: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationErrors) as caught:
        issuer(**changes)
    assert all(error.found and error.expected for error in caught.value.errors)
    return [error.key for error in caught.value.errors]


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"issuer": ""}, ["issuer", "jwks"]),
        ({"issuer": "a\nb", "jwks": "file:x"}, ["issuer"]),
        ({"issuer": 5, "jwks": "file:x"}, ["issuer"]),
        ({"issuer": "my-app"}, ["jwks"]),
        ({"issuer": "http://id.test"}, ["jwks"]),
        ({"issuer": "https://id.test?x=1"}, ["jwks"]),
        ({"audience": []}, ["audience"]),
        ({"audience": AUDIENCE}, ["audience"]),
        ({"audience": [""]}, ["audience"]),
        ({"audience": [5]}, ["audience"]),
        ({"jwks": ""}, ["jwks"]),
        ({"jwks": "jwks.json"}, ["jwks"]),
        ({"jwks": "file:"}, ["jwks"]),
        ({"jwks": "http://id.test/jwks"}, ["jwks"]),
        ({"jwks": "https://id.test/jwks#a"}, ["jwks"]),
        ({"algorithms": []}, ["algorithms"]),
        ({"algorithms": "ES256"}, ["algorithms"]),
        ({"algorithms": ["none"]}, ["algorithms"]),
        ({"algorithms": ["HS256"]}, ["algorithms"]),
        ({"algorithms": ["ES256", "HS512"]}, ["algorithms"]),
        ({"algorithms": ["es256"]}, ["algorithms"]),
        ({"typ": []}, ["typ"]),
        ({"typ": "JWT"}, ["typ"]),
        ({"typ": [5]}, ["typ"]),
        ({"typ": ["logout+jwt"]}, ["typ"]),
        ({"typ": ["application/DPoP+jwt"]}, ["typ"]),
        ({"scopes": ""}, ["scopes"]),
        ({"groups": 5}, ["groups"]),
        ({"secret_file": ""}, ["secret_file"]),
        ({"secret_file": "s", "jwks": "file:x"}, ["secret_file"]),
        ({"secret_file": "s", "algorithms": ["HS256", "ES256"]}, ["algorithms"]),
        ({"missing_claims": ["iss"]}, ["missing_claims"]),
        ({"secret_file": "s", "missing_claims": ["exp"]}, ["missing_claims"]),
        ({"secret_file": "s", "missing_claims": "aud"}, ["missing_claims"]),
        ({"audience": [], "algorithms": [], "typ": []}, ["audience", "algorithms", "typ"]),
    ],
)
def test_an_issuer_that_could_never_work_stops_the_start(changes: dict[str, Any], keys: list[str]) -> None:
    """All mistakes at once, each with its key as the file has it, what stood there and what would be right."""
    name = json.dumps(changes.get("issuer", ISSUER))
    assert mistakes(changes) == [f"jwt.{name}.{key}" for key in keys]


def test_a_password_in_a_url_is_not_told() -> None:
    """A start error stands in terminals and logs."""
    with pytest.raises(ConfigurationError) as caught:
        issuer(jwks="http://user:hunter2@id.test/jwks")
    assert "hunter2" not in str(caught.value)


def test_a_near_miss_is_told() -> None:
    """A name that is nearly right is named."""
    with pytest.raises(ConfigurationError, match="did you mean 'ES256'"):
        issuer(algorithms=["ES265"])


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library is told when the issuer is written down, not when the first token comes."""
    monkeypatch.setitem(sys.modules, "joserfc.jws", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'wsguard\[oauth\]'"):
        issuer()


# --- How others were bypassed ---


def attackers_key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": "ES256"})


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": attackers_key().as_dict(private=False)},
        {"jku": "https://evil.test/jwks.json"},
        {"x5u": "https://evil.test/chain.pem"},
        {"x5c": ["MIIB"]},
        {"jwk": None},
    ],
    ids=["jwk", "jku", "x5u", "x5c", "null"],
)
def test_header_brings_no_key(verify: Verify, header: dict[str, Any]) -> None:
    """B-TOKEN-01: a key in the header, or where to fetch one, is refused even beside a signature that verifies."""
    forged = token({"sub": "admin"}, key=attackers_key(), **header)
    assert code(verify(forged)) == "token.key"
    assert code(verify(token(**header))) == "token.key"


def public_pem(algorithm: str) -> bytes:
    key: Any = key_of(algorithm)
    return key.as_pem(private=False)


WRONG_ALGORITHMS: dict[str, tuple[Callable[[], str], str]] = {
    "none": (lambda: f"{token(alg='none').rpartition('.')[0]}.", "token.alg"),
    "None": (lambda: f"{token(alg='None').rpartition('.')[0]}.", "token.alg"),
    "HS256": (lambda: token(alg="HS256"), "token.alg"),
    "not listed": (lambda: token(algorithm="ES384", kid="ES256"), "token.alg"),
    # The key would verify it, but the issuer may not use it.
    "not listed, and the key fits": (lambda: token(algorithm="RS512", key=key_of("RS256")), "token.alg"),
    # Listed as text, but the key that kid names is for another one.
    "ES256 by the RSA key": (lambda: token(algorithm="ES256", kid="RS256"), "token.alg"),
    "RS256 by the EC key": (lambda: token(algorithm="RS256", kid="ES256"), "token.alg"),
    "PS256 signed as RS256": (lambda: crossed("PS256", "RS256"), "token.signature"),
    "ES256 signed as RS256": (lambda: crossed("ES256", "ES256"), "token.signature"),
}


def crossed(algorithm: str, kid: str) -> str:
    """A token that says *algorithm* and is signed with RS256."""
    return signed({"alg": algorithm, "typ": "at+jwt", "kid": kid}, CLAIMS, key_of("RS256"), "RS256")


@pytest.mark.parametrize("attack", WRONG_ALGORITHMS)
def test_key_fixes_algorithm(verify: Verify, attack: str) -> None:
    """B-TOKEN-02: neither `none` nor what the token wishes: the issuer's list and the key say how it is verified."""
    made, expected = WRONG_ALGORITHMS[attack]
    assert code(verify(made())) == expected


def test_a_key_is_never_asked_for_another_algorithm() -> None:
    """B-TOKEN-02 beside: whoever found the key, it verifies only what it is for."""
    read = read_compact(token(), 8192)
    assert isinstance(read, UnverifiedToken)
    assert KeySet.read(public(key_of("ES256"))).keys[0].verifies(read)
    assert not KeySet.read(public(key_of("RS256"))).keys[0].verifies(read)


def test_an_empty_list_of_algorithms_does_not_start() -> None:
    """B-TOKEN-02 beside: what means "the defaults" to joserfc allows nothing here, and stops the start."""
    with pytest.raises(ConfigurationError, match="algorithms"):
        issuer(algorithms=[])
    assert code(judged(token(), issuer(algorithms=["PS256"]))) == "token.alg"


def pkcs1_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key: Any = key_of("RS256")
    return key.public_key.public_bytes(Encoding.PEM, PublicFormat.PKCS1)


def der() -> bytes:
    key: Any = key_of("RS256")
    return key.as_der(private=False)


PUBLIC_KEYS: dict[str, Callable[[], bytes]] = {
    "spki": lambda: public_pem("RS256"),
    "pkcs1": pkcs1_pem,
    "indented": lambda: b"   " + public_pem("RS256"),
    "without its last line": lambda: public_pem("RS256").rstrip(b"\n"),
    "jwk": lambda: as_json(key_of("RS256").as_dict(private=False)),
    "jwks": lambda: public(key_of("RS256")),
    "der": der,
    "empty": lambda: b"",
}


@pytest.mark.parametrize("form", PUBLIC_KEYS)
def test_public_key_is_no_hmac_secret(
    verify: Verify, minted: Callable[..., Verify], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """B-TOKEN-03: what everybody can read never verifies an HS256 token, nor can it be configured as a secret."""
    import hashlib
    import hmac

    public_bytes = PUBLIC_KEYS[form]()
    for kid in ("RS256", "ES256"):
        unsigned = f"{encoded(as_json({'alg': 'HS256', 'typ': 'at+jwt', 'kid': kid}))}.{encoded(as_json(CLAIMS))}"
        mac = hmac.new(public_bytes, unsigned.encode(), hashlib.sha256).digest()
        assert code(verify(f"{unsigned}.{encoded(mac)}")) == "token.alg"
    with pytest.raises(ConfigurationError, match="secret_file"):
        minted(public_bytes)


def test_a_symmetric_key_of_a_key_set_verifies_nothing(opened: Callable[..., Verify]) -> None:
    """B-TOKEN-03 beside: a secret in a JWKS is public; RSA members do not make it one with an empty `k`."""
    oct_key = {"kty": "oct", "k": encoded(SECRET.encode()), "kid": "HS256", "alg": "HS256"}
    keys = as_json({"keys": [oct_key, *json.loads(public(key_of("ES256")))["keys"]]})
    assert code(opened(keys)(token(algorithm="HS256", kid="HS256", typ="at+jwt"))) == "token.alg"
    assert code(opened(keys)(token(kid="HS256"))) == "token.key"


@pytest.mark.parametrize("crit", [["x"], ["exp"], ["b64"], ["alg"], [], "x", None, {"x": 1}])
def test_unknown_crit(verify: Verify, crit: Any) -> None:
    """B-TOKEN-04: who demands to be understood is refused, for nothing is (RFC 7515 §4.1.11)."""
    assert code(verify(token(crit=crit, x=1))) == "token.crit"


def json_serialisation(**members: Any) -> str:
    header, payload, signature = token().split(".")
    return json.dumps({"payload": payload, "protected": header, "signature": signature, **members})


TWO_SUBJECTS = json.dumps(CLAIMS)[:-1].encode() + b', "sub": "admin"}'
GOOD_HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": "ES256"}


AMBIGUOUS: dict[str, Callable[[], str]] = {
    "flattened JSON": json_serialisation,
    "no signatures": lambda: json.dumps({"payload": token().split(".")[1], "signatures": []}),
    "payload alone": lambda: json.dumps({"payload": encoded(as_json(CLAIMS))}),
    "two subjects": lambda: payload(TWO_SUBJECTS),
    "two algs": lambda: signed(b'{"alg":"none","alg":"ES256"}', CLAIMS, key_of("ES256"), "ES256"),
    "two members inside": lambda: payload(b'{"a":{"b":1,"b":2}}'),
    "an array": lambda: payload([CLAIMS]),
    "nested": lambda: signed({**GOOD_HEADER, "cty": "JWT"}, token().encode(), key_of("ES256"), "ES256"),
    "four parts": lambda: token() + ".",
    "an empty part before": lambda: "." + token(),
    "padded": lambda: token() + "=",
    "line end": lambda: token() + "\n",
    "blank": lambda: " " + token(),
    "two dots": lambda: token().replace(".", "..", 1),
    "empty": lambda: "",
    "dots alone": lambda: "..",
    "scheme": lambda: "Bearer " + token(),
}


def payload(written: Any) -> str:
    return signed(GOOD_HEADER, written, key_of("ES256"), "ES256")


@pytest.mark.parametrize("attack", AMBIGUOUS)
def test_compact_and_unambiguous(verify: Verify, attack: str) -> None:
    """B-TOKEN-05: one serialisation, one spelling, one value for each member; whatever else is no token."""
    assert code(verify(AMBIGUOUS[attack]())) == "token.malformed"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://other.test"}, "token.issuer"),
        ({"iss": ISSUER + "/"}, "token.issuer"),
        ({"iss": ISSUER.upper()}, "token.issuer"),
        ({"iss": [ISSUER]}, "token.issuer"),
        ({"iss": ABSENT}, "token.issuer"),
        ({"iss": None}, "token.issuer"),
        ({"iss": 5}, "token.issuer"),
        ({"aud": "https://other.test"}, "token.audience"),
        ({"aud": AUDIENCE + "/"}, "token.audience"),
        ({"aud": "https://app.test.evil"}, "token.audience"),
        ({"aud": ["https://other.test"]}, "token.audience"),
        ({"aud": []}, "token.audience"),
        ({"aud": ABSENT}, "token.audience"),
        ({"exp": ABSENT}, "token.expiry"),
        ({"exp": NOW}, "token.expiry"),
        ({"exp": 0}, "token.expiry"),
    ],
)
def test_iss_aud_exp_required(verify: Verify, claims: dict[str, Any], expected: str) -> None:
    """B-TOKEN-08: the only issuer is not everybody's, the audience is ours or nobody's, and every token ends."""
    assert code(verify(token(claims))) == expected


@pytest.mark.parametrize(
    ("typ", "sent", "claims"),
    [
        (None, "JWT", {"nonce": "n", "at_hash": "h"}),
        (None, ABSENT, {"nonce": "n"}),
        (None, "logout+jwt", {}),
        (["JWT", "at+jwt"], "logout+jwt", {}),
        (["JWT", "at+jwt"], "application/logout+jwt", {}),
        (["JWT"], "JWT", {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
        (["JWT"], "dpop+jwt", {}),
        (None, "secevent+jwt", {}),
    ],
)
def test_token_type(opened: Callable[..., Verify], typ: Any, sent: Any, claims: dict[str, Any]) -> None:
    """B-TOKEN-09: the issuer signs logout, ID and other tokens with the same key; none of them opens a socket."""
    answer = opened(typ=typ)(token(claims, typ=sent))
    assert isinstance(answer, Refusal)
    assert answer.reason.code == "token.type"
    # And the log does not tell an operator to let them in.
    assert "logout" not in answer.setting
    assert "dpop" not in answer.setting


def jwe(header: dict[str, Any]) -> str:
    return ".".join([encoded(as_json(header)), "AAAA", "AAAA", "AAAA", "AAAA"])


TOO_MUCH: dict[str, tuple[Callable[[], str], str]] = {
    "a million dots": (lambda: "." * 1_000_000, "token.size"),
    "half a million parts": (lambda: "a." * 500_000, "token.size"),
    "well signed": (lambda: token({"x": "x" * 6200}), "token.size"),
    "dots within the bound": (lambda: "." * 8192, "token.malformed"),
    "compressed JWE": (lambda: jwe({"alg": "dir", "enc": "A128GCM", "zip": "DEF"}), "token.malformed"),
    "JWE with p2c": (lambda: jwe({"alg": "PBES2-HS256+A128KW", "p2c": 2**31}), "token.malformed"),
    "JWS with p2c": (lambda: token(alg="PBES2-HS256+A128KW", p2c=2**31), "token.alg"),
    "nesting": (lambda: payload(b"[" * 5900), "token.malformed"),
}


@pytest.mark.parametrize("attack", TOO_MUCH)
def test_size_before_parsing(verify: Verify, monkeypatch: pytest.MonkeyPatch, attack: str) -> None:
    """B-TOKEN-10: more than 8 KiB is not even split, nothing is inflated, no key derived."""
    made, expected = TOO_MUCH[attack]
    text = made()
    if expected == "token.size":
        monkeypatch.setattr("wsguard.engine.tokens.jws.decode_base64url", must_not_run)
    assert code(verify(text)) == expected
    assert len(token()) < 8192


def must_not_run(text: str) -> Iterator[bytes]:
    raise AssertionError("parsed")


def test_the_bound_is_a_limit_of_the_operator_s(outbound: Outbound, tmp_path: Path) -> None:
    """`token_bytes` counts, and the refusal names it."""
    from wsguard.vocabulary.bounds import Limits

    path = tmp_path / "jwks.json"
    path.write_bytes(public(key_of("ES256")))
    world, limits = World(), Limits(token_bytes=1024)
    tokens = IssuerTokens(
        [issuer(jwks=f"file:{path}")], outbound=outbound, limits=limits, clock=world.clock, log=world.log()
    )
    answer = asyncio.run(tokens.verify(token({"x": "x" * 700}), NOW))
    assert isinstance(answer, Refusal)
    assert (answer.reason.code, answer.setting) == ("token.size", "limits: token_bytes")


def test_keys_of_the_libraries_are_what_the_tests_think() -> None:
    """The keys above are real ones of three kinds; else every refusal would be for the wrong reason."""
    assert isinstance(key_of("RS256"), RSAKey)
    assert isinstance(key_of("EdDSA"), OKPKey)
    assert isinstance(key_of("ES256"), ECKey)
