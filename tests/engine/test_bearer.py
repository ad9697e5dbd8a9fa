"""Bearer tokens in a header or among the subprotocols: where one stands, what is none, and what is sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.engine.make import handshake, page
from tests.engine.tokens import encoded
from wsguard import Guard, Identity, Policy, Refusal, reasons
from wsguard.engine.authenticators.bearer import Bearer, BearerAuthenticator, BearerSubprotocolAuthenticator
from wsguard.engine.ports import Authenticator
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.handshake import Handshake

NOW = 1_000_000.0
ALICE = Identity("alice", "app", "bearer")
GOOD = "good.token-~+/_=="
K8S = "base64url.bearer.authorization.k8s.io."


@dataclass
class Verifier:
    """Knows one token."""

    asked: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    async def verify(self, token: str, now: float) -> Identity | Refusal:
        self.asked.append((token, now))
        return ALICE if token == GOOD else Refusal(reasons.TOKEN_SIGNATURE)


class Cookie:
    """A kind that would let everybody in, if it were asked."""

    name = "cookie"
    carriage: Any = "ambient"

    async def authenticate(self, handshake: Handshake, context: Any) -> Identity:
        return ALICE


def decide(
    subject: Handshake,
    authenticators: Sequence[Authenticator] | None = None,
    *,
    auth: Sequence[str] | None = None,
    **policy: Any,
) -> Decision:
    kinds = [BearerAuthenticator(Verifier())] if authenticators is None else authenticators
    named = [one.name for one in kinds] if auth is None else auth
    guard = Guard(
        Policy(origins=["https://app.test"], auth=named, **policy), authenticators=kinds, wall_clock=lambda: NOW
    )
    return asyncio.run(guard.decide(subject, guard.client_of(subject)))


def told(decision: Decision) -> str | tuple[int, str]:
    """The subject, or status and reason."""
    if isinstance(decision, Refuse):
        return decision.status, decision.reason.code
    assert decision.identity is not None
    return decision.identity.subject


def both() -> list[Authenticator]:
    verifier = Verifier()
    return [BearerAuthenticator(verifier), BearerSubprotocolAuthenticator(verifier)]


def offering(*subprotocols: str) -> dict[str, str]:
    return {"Sec-WebSocket-Protocol": ", ".join(subprotocols)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"Bearer {GOOD}", "alice"),
        (f"bearer {GOOD}", "alice"),
        (f"BEARER   {GOOD}", "alice"),
        ("Bearer other", (401, "token.signature")),
        ("Bearer", (401, "token.malformed")),
        ("bearer,", (401, "token.malformed")),
        ("Bearer =", (401, "token.malformed")),
        (f"Bearer\t{GOOD}", (401, "token.malformed")),
        (f"Bearer {GOOD} {GOOD}", (401, "token.malformed")),
        (f"Bearer {GOOD}, Bearer {GOOD}", (401, "token.malformed")),
        (f"Bearer {GOOD},", (401, "token.malformed")),
        (f'Bearer "{GOOD}"', (401, "token.malformed")),
        (f"Bearer token={GOOD}", (401, "token.malformed")),
        (f"Bearer{GOOD}", (401, "credential.missing")),
        (f"Basic {GOOD}", (401, "credential.missing")),
        (f"DPoP {GOOD}", (401, "credential.missing")),
        (GOOD, (401, "credential.missing")),
        ("", (401, "credential.missing")),
        (f", Bearer {GOOD}", (401, "credential.missing")),
    ],
)
def test_the_authorization_field_holds_one_scheme_and_one_token(value: str, expected: str | tuple[int, str]) -> None:
    """RFC 6750 §2.1, RFC 9110 §11.4: another scheme is somebody else's, a Bearer that is none is refused."""
    assert told(decide(handshake({"Authorization": value}))) == expected


def test_a_bad_token_never_falls_through_to_a_cookie() -> None:
    """Presence of a good cookie does not save a bad token (RULES §7)."""
    kinds = [BearerAuthenticator(Verifier()), Cookie()]
    assert told(decide(handshake({"Authorization": "Bearer bad"}), kinds)) == (401, "token.signature")
    assert told(decide(handshake({"Authorization": "Bearer"}), kinds)) == (401, "token.malformed")
    assert told(decide(handshake({"Authorization": "Basic YTpi"}), kinds)) == "alice"


def test_a_bad_token_is_challenged() -> None:
    """RFC 6750 §3.1: 401 with invalid_token, and nothing of the reason."""
    decision = decide(handshake({"Authorization": "Bearer bad"}))
    assert isinstance(decision, Refuse)
    assert decision.headers == (("WWW-Authenticate", 'Bearer error="invalid_token"'),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GOOD, "alice"),
        ("other", (401, "token.signature")),
        (f"Bearer {GOOD}", (401, "token.malformed")),
        ("", (401, "token.malformed")),
        (None, (401, "credential.missing")),
    ],
)
def test_a_field_of_the_operator_s_holds_the_bare_token(value: str | None, expected: str | tuple[int, str]) -> None:
    """`[bearer] header`: the token alone; Authorization is then somebody else's."""
    kind = BearerAuthenticator(Verifier(), Bearer("X-Token"))
    subject = handshake({"X-Token": value, "Authorization": f"Bearer {GOOD}"})
    assert told(decide(subject, [kind])) == expected


def test_two_fields_of_the_operator_s_are_refused() -> None:
    """Nobody can say which of two was meant."""
    kind = BearerAuthenticator(Verifier(), Bearer("X-Token"))
    subject = handshake({"X-Token": GOOD}, extra=((b"x-token", GOOD.encode()),))
    assert told(decide(subject, [kind])) == (400, "credential.repeated")


def test_two_authorization_fields_are_refused() -> None:
    """The syntax check knows it for a field that stands once; and so does the authenticator, wherever it is asked."""
    subject = handshake({"Authorization": f"Bearer {GOOD}"}, extra=((b"authorization", f"Bearer {GOOD}".encode()),))
    assert told(decide(subject)) == (400, "syntax.repeated_field")
    context: Any = None
    assert len(BearerAuthenticator(Verifier()).sent(subject, context)) == 2


def test_no_byte_outside_ascii_is_a_token() -> None:
    """What is no ASCII is refused as none, before anybody decodes it."""
    kind = BearerAuthenticator(Verifier(), Bearer("X-Token"))
    subject = handshake({"X-Token": "tok\xe9n"})
    assert told(decide(subject, [kind])) == (401, "token.malformed")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X Token",
        "X-Token:",
        "Ärger",
        "Cookie",
        "cookie",
        "Host",
        "Origin",
        "Sec-WebSocket-Protocol",
        "Upgrade",
        "Proxy-Authorization",
        "X-Forwarded-For",
        "Forwarded",
        "User-Agent",
        "X-WSGuard-Session",
    ],
)
def test_a_field_that_cannot_hold_a_token_stops_the_start(header: str) -> None:
    """A cookie is sent by the browser on its own: read as a bearer token it would count as explicit."""
    with pytest.raises(ConfigurationError, match=r"bearer\.header"):
        Bearer(header)


def test_a_header_lets_a_client_without_origin_in() -> None:
    """Machines send no Origin: the header, which no browser's WebSocket can set, stands for it; a subprotocol cannot."""
    machine = {"Origin": None, "Authorization": f"Bearer {GOOD}"}
    assert told(decide(handshake(machine), origin_required="unless-header-credential")) == "alice"
    page_of_mallory = {"Origin": "https://evil.test", **offering("chat", f"wsguard.bearer.{encoded(GOOD.encode())}")}
    decision = decide(handshake(page_of_mallory), both(), origin_required="unless-header-credential")
    assert told(decision) == (403, "origin.not_allowed")


# --- Subprotocols ---


@pytest.mark.parametrize("prefix", ["wsguard.bearer.", K8S])
def test_a_token_among_the_subprotocols(prefix: str) -> None:
    """A browser's script has nothing else; the token is taken out before anybody sees the offer."""
    subject = handshake(offering("chat", prefix + encoded(GOOD.encode()), "wsguard.v1"))
    decision = decide(subject, [BearerSubprotocolAuthenticator(Verifier())])
    assert told(decision) == "alice"
    assert isinstance(decision, Accept)
    assert decision.subprotocols.forwarded == ("chat",)
    assert decision.subprotocols.companion_offered


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("wsguard.bearer.", "token.malformed"),
        ("wsguard.bearer.!", "token.malformed"),
        ("wsguard.bearer.A", "token.malformed"),
        ("wsguard.bearer.AB", "token.malformed"),
        ("wsguard.bearer." + encoded(b"\xff\xfe"), "token.malformed"),
        ("wsguard.bearer." + encoded(b"two words"), "token.malformed"),
        ("wsguard.bearer." + encoded(f"Bearer {GOOD}".encode()), "token.malformed"),
        ("wsguard.bearer." + encoded(b"other"), "token.signature"),
        (K8S + "x", "token.malformed"),
        ("wsguard.bearer" + encoded(GOOD.encode()), "credential.missing"),
        ("WSGuard.Bearer." + encoded(GOOD.encode()), "credential.missing"),
    ],
)
def test_what_is_offered_wrongly_is_refused(entry: str, expected: str) -> None:
    """Unpadded base64url of a token, in its one spelling; a bad one is no missing one."""
    subject = handshake(offering("chat", entry))
    assert told(decide(subject, [BearerSubprotocolAuthenticator(Verifier())])) == (401, expected)


@pytest.mark.parametrize("first", [0, 1])
def test_header_and_subprotocol_together_are_refused(first: int) -> None:
    """Two credentials that could name two people: 400, whichever is asked first, and the verifier is not asked."""
    kinds = both()
    kinds = kinds[first:] + kinds[:first]
    subject = handshake({"Authorization": f"Bearer {GOOD}", **offering("chat", K8S + encoded(GOOD.encode()))})
    assert told(decide(subject, kinds)) == (400, "credential.repeated")


@pytest.mark.parametrize("second", ["wsguard.bearer." + encoded(b"x"), K8S + encoded(GOOD.encode())])
def test_two_tokens_offered_are_refused(second: str) -> None:
    """Two of one form, or one of each."""
    subject = handshake(offering("chat", "wsguard.bearer." + encoded(GOOD.encode()), second))
    assert told(decide(subject, both())) == (400, "credential.repeated")


def test_a_kind_that_the_route_does_not_name_is_not_read() -> None:
    """As if it were absent (RULES §7): a token in the other place neither opens nor hinders."""
    subject = handshake({"Authorization": f"Bearer {GOOD}", **offering("chat", "wsguard.bearer.bad")})
    assert told(decide(subject, both(), auth=["bearer"])) == "alice"
    assert told(decide(subject, both(), auth=["bearer_subprotocol"])) == (401, "token.malformed")
    alone = handshake(offering("chat", "wsguard.bearer." + encoded(GOOD.encode())))
    assert told(decide(alone, both(), auth=["bearer"])) == (401, "credential.missing")


@pytest.mark.parametrize(
    ("policy", "forwarded"),
    [
        ({"auth": ["bearer_subprotocol"]}, ("v4.channel.k8s.io",)),
        ({"auth": ["bearer"]}, ("v4.channel.k8s.io", K8S + encoded(GOOD.encode()))),
        ({"auth": ["bearer_subprotocol"], "anonymous": True}, ("v4.channel.k8s.io", K8S + encoded(GOOD.encode()))),
    ],
)
def test_the_kubernetes_form_is_a_secret_only_where_it_is_read(
    policy: dict[str, Any], forwarded: tuple[str, ...]
) -> None:
    """Behind a guard that does not read it stands an app that does: a Kubernetes API must get what is its own."""
    fields = {"Authorization": f"Bearer {GOOD}"} if policy["auth"] == ["bearer"] else {}
    subject = handshake({**fields, **offering("v4.channel.k8s.io", K8S + encoded(GOOD.encode()))})
    decision = decide(subject, both(), **policy)
    assert isinstance(decision, Accept)
    assert decision.subprotocols.forwarded == forwarded


def test_our_own_form_is_a_secret_everywhere() -> None:
    """Nothing that begins with our name for a secret reaches an app, whether or not the route reads it."""
    subject = handshake({"Authorization": f"Bearer {GOOD}", **offering("chat", "wsguard.bearer.abc")})
    decision = decide(subject)
    assert isinstance(decision, Accept)
    assert decision.subprotocols.forwarded == ("chat",)


def test_the_kubernetes_form_alone_needs_a_companion() -> None:
    """Chromium fails a socket that offered only what is never answered (BROWSERS §0.10)."""
    subject = handshake(offering(K8S + encoded(GOOD.encode())))
    assert told(decide(subject, both())) == (400, "subprotocol.only_credentials")


def test_a_page_is_judged_by_its_header() -> None:
    """The fallback transports of the same route: HTTP carries the header, and no subprotocol."""
    fields = {"Authorization": f"Bearer {GOOD}", **offering("wsguard.bearer.bad")}
    assert told(decide(page(fields), both())) == "alice"
    assert told(decide(page(offering("wsguard.bearer." + encoded(GOOD.encode()))), both())) == (
        401,
        "credential.missing",
    )


def test_the_verifier_is_told_the_time_of_the_decision() -> None:
    """One clock for the whole decision, injected."""
    verifier = Verifier()
    decide(handshake({"Authorization": f"Bearer {GOOD}"}), [BearerAuthenticator(verifier)])
    assert verifier.asked == [(GOOD, NOW)]
