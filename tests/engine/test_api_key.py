"""API keys as credentials: which key counts, what it gives, and that nothing of it is kept or told."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import hmac
import inspect
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from tests.engine.make import handshake, page
from wsguard import Guard, Identity, Policy, Refusal, reasons
from wsguard.engine import tickets
from wsguard.engine.authenticators import api_key
from wsguard.engine.authenticators.api_key import APIKeyAuthenticator, APIKeys, KeyEntry, KeyTable, key_hash, new_key
from wsguard.engine.authenticators.bearer import BearerAuthenticator
from wsguard.engine.policy import Context
from wsguard.engine.ports import Authenticator, Carriage
from wsguard.vocabulary import secret
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.handshake import Handshake

NOW = 1_000_000.0
ROBOT_KEY = "wsg_" + "r" * 43
OLD_KEY = "wsg_" + "o" * 43
ROBOT = KeyEntry("robot", key_hash(ROBOT_KEY.encode()), frozenset({"chat"}), 500.0, NOW + 1)
OLD = KeyEntry("old", key_hash(OLD_KEY.encode()), frozenset({"chat"}), 400.0, NOW)
TABLE = KeyTable([ROBOT, OLD])


class Kept:
    """The keys of a test."""

    def __init__(self, table: KeyTable | None = TABLE) -> None:
        self.table = table

    async def current(self) -> KeyTable | None:
        return self.table


class Tokens:
    """Verifies the one token that there is."""

    async def verify(self, token: str, now: float) -> Identity | Refusal:
        good = Identity("alice", "https://id.test", "bearer", frozenset({"chat"}))
        return good if token == "good" else Refusal(reasons.CREDENTIAL_INVALID, "no such token")


def keys(table: KeyTable | None = TABLE, header: str = "X-API-Key") -> APIKeyAuthenticator:
    return APIKeyAuthenticator(Kept(table), APIKeys("keys.toml", header))


def decide(subject: Handshake, authenticators: Sequence[Authenticator] | None = None, **policy: Any) -> Decision:
    asked = [keys()] if authenticators is None else authenticators
    written: dict[str, Any] = {"origins": ["https://app.test"], "auth": [one.name for one in asked], **policy}
    guard = Guard(Policy(**written), authenticators=asked, wall_clock=lambda: NOW)
    return asyncio.run(guard.decide(subject, guard.client_of(subject)))


def code(decision: Decision) -> str | None:
    return decision.reason.code if isinstance(decision, Refuse) else None


def test_a_key_gives_its_identity() -> None:
    """Who it is, what it may do, until when, and since when: what routes, timers and revocation go by."""
    decision = decide(handshake({"X-API-Key": ROBOT_KEY}))
    assert isinstance(decision, Accept)
    assert decision.identity == Identity(
        subject="robot",
        issuer="api_key",
        method="api_key",
        scopes=frozenset({"chat"}),
        credential_id="robot",
        expires_at=NOW + 1,
        issued_at=500.0,
    )


def test_another_header_is_another_place() -> None:
    """The operator's header is the only one that is read, in any letter case."""
    authenticators = [keys(header="X-Robot")]
    assert code(decide(handshake({"x-rOBOT": ROBOT_KEY}), authenticators)) is None
    assert code(decide(handshake({"X-API-Key": ROBOT_KEY}), authenticators)) == "credential.missing"


@pytest.mark.parametrize("sent", [
    "", "wsg_", ROBOT_KEY[:-1], ROBOT_KEY + "r", ROBOT_KEY.upper(), ROBOT_KEY.removeprefix("wsg_"), "robot",
    key_hash(ROBOT_KEY.encode()).hex(), f"Bearer {ROBOT_KEY}", f"{ROBOT_KEY}, {ROBOT_KEY}", "x" * 4000, "\xff" * 47,
])  # fmt: skip
def test_what_is_no_key_is_refused(sent: str) -> None:
    """401 `api_key.unknown`; the hash of a key, should the file leak, is none either."""
    decision = decide(handshake({"X-API-Key": sent}))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.reason.code) == (401, "api_key.unknown")
    assert decision.headers == (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
    assert len(sent) < 5 or sent not in f"{decision.detail}{decision.headers}"


def test_a_key_ends_at_the_second() -> None:
    """`expires` is exact: at that very second the key is over (RULES §7)."""
    decision = decide(handshake({"X-API-Key": OLD_KEY}))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.reason.code, decision.detail) == (401, "api_key.expired", "old")
    assert code(decide(handshake({"X-API-Key": ROBOT_KEY}))) is None


def test_two_keys_are_one_too_many() -> None:
    """400, also where both are the same: two readers might take different ones."""
    for second in (ROBOT_KEY, OLD_KEY, ""):
        subject = handshake({"X-API-Key": ROBOT_KEY}, extra=((b"x-api-key", second.encode()),))
        decision = decide(subject)
        assert isinstance(decision, Refuse)
        assert (decision.status, decision.reason.code) == (400, "credential.repeated")


def test_keys_that_cannot_be_had_are_503() -> None:
    """Where the file is away nobody is let in, and nobody is told that a good key is bad."""
    decision = decide(handshake({"X-API-Key": ROBOT_KEY}), [keys(None)])
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.reason.code) == (503, "credential.unavailable")
    assert code(decide(handshake(), [keys(None)])) == "credential.missing"


def test_scopes_are_those_of_the_file() -> None:
    """A route that requires more than the key holds answers 403."""
    subject = handshake({"X-API-Key": ROBOT_KEY})
    assert code(decide(subject, require={"scopes": ["chat"]})) is None
    assert code(decide(subject, require={"scopes": ["chat", "admin"]})) == "authorization.scope"


def test_a_key_is_explicit_and_in_a_header() -> None:
    """Programs send no Origin: with the word for it a key lets them in, and a bad one does not."""
    word: dict[str, Any] = {"origin_required": "unless-header-credential"}
    for origin in (None, "https://evil.test"):
        assert code(decide(handshake({"X-API-Key": ROBOT_KEY, "Origin": origin}), **word)) is None
        assert code(decide(handshake({"X-API-Key": "wsg_no", "Origin": origin}), **word)) == "api_key.unknown"
    assert code(decide(handshake({"X-API-Key": ROBOT_KEY, "Origin": "https://evil.test"}))) == "origin.not_allowed"


def test_pages_under_the_route_need_the_key_too() -> None:
    """The fallback transports of a socket are plain requests (RULES §1)."""
    assert code(decide(page({"X-API-Key": ROBOT_KEY}))) is None
    assert code(decide(page({"X-API-Key": "wsg_no"}))) == "api_key.unknown"
    assert code(decide(page())) == "credential.missing"


def wrongly_let_in(authenticator: Authenticator) -> list[str]:
    """What gets in though its key is no good, with *authenticator* in the place of ours."""
    bearer = BearerAuthenticator(Tokens())
    sent: dict[str, tuple[dict[str, str | None], list[Authenticator]]] = {
        "empty": ({"X-API-Key": ""}, [authenticator]),
        "any": ({"X-API-Key": "1"}, [authenticator]),
        "expired": ({"X-API-Key": OLD_KEY}, [authenticator]),
        "its own scopes": ({"X-API-Key": "1", "X-Scopes": "chat", "X-WSGuard-Scopes": "chat"}, [authenticator]),
        "a good token behind it": ({"X-API-Key": "1", "Authorization": "Bearer good"}, [authenticator, bearer]),
    }
    origins = {"with": "https://app.test", "without": None}
    return [
        f"{name}, {word} an Origin"
        for name, (fields, asked) in sent.items()
        for word, origin in origins.items()
        if code(decide(handshake({**fields, "Origin": origin}), asked, origin_required="unless-header-credential"))
        != ("api_key.expired" if name == "expired" else "api_key.unknown")
    ]


class Presence:
    """What fell: whoever sends the field at all is in."""

    name = "api_key"
    carriage: Carriage = "explicit"
    in_header = True

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        return Identity("robot", "api_key", "api_key") if b"x-api-key" in handshake.fields else None


def test_presence_is_not_validity() -> None:
    """
    B-CARRY-03: a field that is there proves nothing, scopes come from the file, and a bad credential ends the asking.

    So for bearer tokens: one that is there and bad is refused, though a good key stands beside it.
    """
    assert wrongly_let_in(keys()) == []
    assert len(wrongly_let_in(Presence())) == 10
    asked: list[Authenticator] = [BearerAuthenticator(Tokens()), keys()]
    for bad in ("bad", "", "good good", "Good"):
        decision = decide(handshake({"Authorization": f"Bearer {bad}", "X-API-Key": ROBOT_KEY}), asked)
        assert isinstance(decision, Refuse), bad
        assert decision.status == 401
    assert code(decide(handshake({"Authorization": "Bearer good"}), asked)) is None
    assert code(decide(handshake({"Authorization": "Basic Z29vZA==", "X-API-Key": ROBOT_KEY}), asked)) is None
    assert code(decide(handshake({"X-API-Key": ROBOT_KEY, "X-Scopes": "admin"}), require={"scopes": ["admin"]})) == (
        "authorization.scope"
    )


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_secrets_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """B-CARRY-06: `compare_digest` has the last word on every secret, and `==` is said of none."""
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    assert code(decide(handshake({"X-API-Key": ROBOT_KEY}))) == "api_key.unknown"
    assert secret.Secret(b"same") != secret.Secret(b"same")
    digest = hashlib.sha256(ROBOT_KEY.encode()).digest()
    assert compared == [(digest, digest), (b"same", b"same")]
    monkeypatch.undo()
    assert [plain for module in (api_key, secret, tickets) for plain in plain_comparisons(module)] == []
    assert plain_comparisons_of("if sent == entry.hash: pass\nkey.digest() in digests\nx._value != y._value") == [
        "sent == entry.hash",
        "key.digest() in digests",
        "x._value != y._value",
    ]


def plain_comparisons(module: ModuleType) -> list[str]:
    return plain_comparisons_of(inspect.getsource(module))


def plain_comparisons_of(source: str) -> list[str]:
    """The comparisons in *source* by ==, != or `in` of something that is called what secrets and digests are called."""
    secrets = re.compile(r"(?<![a-z])(sent|hash|digest|key|token|secret|_value|handle)(?![a-z_])")
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops)
        and any(secrets.search(ast.unparse(one)) for one in (node.left, *node.comparators))
    ]


def test_a_new_key_is_256_random_bits() -> None:
    """Nothing but the randomness decides it; its beginning is what secret scanners look for."""
    asked: list[int] = []

    def randomness(count: int) -> bytes:
        asked.append(count)
        return bytes(range(count))

    key = new_key(randomness)
    assert asked == [32]
    assert key == "wsg_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert "?" not in new_key(lambda count: b"\xff" * count)


def test_the_hash_is_what_sha256sum_prints() -> None:
    """Of the whole key: an operator can check a file with `printf %s "$KEY" | sha256sum`."""
    assert key_hash(b"wsg_example").hex() == "8544dac09ed146e1d177b41ad503d15fd4da4435bf10d6c138a28a1fc00010a8"


def test_a_repr_shows_no_hash() -> None:
    """Not a secret, but a thing to guess against where somebody put a poor key there."""
    assert ROBOT.hash.hex() not in repr(ROBOT)
    assert repr(ROBOT.hash) not in repr(ROBOT)


NEW = key_hash(b"new")


@pytest.mark.parametrize(("change", "withdrawn"), [
    ({}, False),
    ({"scopes": frozenset({"chat", "admin"})}, False),
    ({"expires": None}, False),
    ({"expires": NOW + 2}, False),
    ({"scopes": frozenset[str]()}, True),
    ({"expires": NOW}, True),
    ({"hash": NEW}, True),
    ({"name": "other"}, True),
])  # fmt: skip
def test_what_allows_less_is_withdrawn(change: dict[str, Any], withdrawn: bool) -> None:
    """A live socket holds what its key gave: where the file gives less now, the socket must end."""
    values: dict[str, Any] = {
        "name": "robot",
        "hash": ROBOT.hash,
        "scopes": ROBOT.scopes,
        "added": ROBOT.added,
        "expires": NOW + 1,
    }
    newer = KeyTable([KeyEntry(**{**values, **change}), OLD])
    assert TABLE.withdrawn(newer) == (frozenset({"robot"}) if withdrawn else frozenset())
    assert TABLE.withdrawn(KeyTable()) == {"robot", "old"}
    decision = decide(handshake({"X-API-Key": ROBOT_KEY}))
    assert isinstance(decision, Accept)
    assert decision.identity is not None
    # An identity does not tell its key's hash: a key made anew is told by when it was added.
    assert newer.holds(decision.identity) is (not withdrawn or "hash" in change)


def test_an_identity_of_another_source_is_not_held() -> None:
    """A token's subject may be called what a key is called; a key made anew under a name is another key."""
    values: dict[str, Any] = {"scopes": ROBOT.scopes, "credential_id": "robot", "expires_at": NOW + 1}
    assert TABLE.holds(Identity("robot", "api_key", "api_key", issued_at=500.0, **values))
    assert not TABLE.holds(Identity("robot", "https://id.test", "bearer", issued_at=500.0, **values))
    assert not TABLE.holds(Identity("robot", "api_key", "api_key", issued_at=499.0, **values))
    assert not TABLE.holds(Identity("robot", "api_key", "api_key"))


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [
    "", "X Key", "X-Key:", "X-Schlüssel", "x\nkey", "Cookie", "authorization", "HOST", "Origin", "Sec-WebSocket-Protocol",
    "Proxy-Authorization", "X-Forwarded-For", "X_Forwarded_For", "X-WSGuard-Key", "Forwarded", "X-Real-IP", "Upgrade",
])  # fmt: skip
def test_a_header_that_cannot_hold_a_key(header: str) -> None:
    """What browsers, proxies or the protocol set would be ambient, or would be taken out; said at start."""
    with pytest.raises(ConfigurationError, match=r"api_keys\.header"):
        APIKeys("keys.toml", header)
