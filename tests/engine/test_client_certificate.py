"""What a verified client certificate says, and when it counts: by the name that the rule asks for, until it ends."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from msgspec import structs

from tests.engine.make import handshake, page
from wsguard import ClientCertificate, ConfigurationError, Guard, Identity, Limits, Policy, Ticket
from wsguard.engine.authenticators.client_certificate import ClientCertificateAuthenticator
from wsguard.engine.policy import Context, decide
from wsguard.engine.routes import RouteTable, single_route
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.handshake import Client, Handshake, Peer, PeerCertificate, TLSFacts

NOW = 1000.0
GOOD = PeerCertificate("ab" * 32, 500.0, 2000.0, dns=("robot.test",), email=("robot@test", "r@test"))
ORIGINS: dict[str, Any] = {"origins": ["https://app.test"]}
REFUSING: dict[str, Any] = {"hosts": ["app.test"], "browsers": "refuse"}


def shown(certificate: PeerCertificate | None = GOOD, subject: Handshake | None = None) -> Handshake:
    """A handshake of a listed page over a connection with that certificate."""
    return structs.replace(handshake() if subject is None else subject, tls=TLSFacts(certificate=certificate))


def table(kind: Any = "dns", **policy: Any) -> RouteTable:
    options = ClientCertificate(ca="ca.pem", subject=kind)
    made = Policy(**(policy or ORIGINS), auth=["client_certificate"])
    return Guard(made, authenticators=[options]).routes


def judged(subject: Handshake, kind: Any = "dns", now: float = NOW, **policy: Any) -> Decision:
    return asyncio.run(decide(subject, table(kind, **policy), now=now))


def code(decision: Decision) -> str | None:
    return decision.reason.code if isinstance(decision, Refuse) else None


def test_a_certificate_is_an_identity() -> None:
    """It ends with the certificate, is named by its fingerprint, and was issued when that begins."""
    decision = judged(shown())
    assert isinstance(decision, Accept)
    assert decision.identity == Identity(
        subject="robot.test",
        issuer="client_certificate",
        method="client_certificate",
        credential_id="ab" * 32,
        expires_at=2000.0,
        issued_at=500.0,
    )
    assert not decision.in_header
    assert "robot" not in repr(shown().tls)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dns": ()}, (401, "client_certificate.subject")),
        ({"dns": ("a.test", "b.test")}, (401, "client_certificate.subject")),
        ({"dns": ("*.test",)}, (401, "client_certificate.subject")),
        ({"fault": "it cannot be read"}, (401, "client_certificate.malformed")),
        ({"not_after": NOW}, (401, "credential.expired")),
        ({"not_before": NOW + 1}, (401, "credential.invalid")),
    ],
)
def test_what_names_nobody_now_is_refused(changes: dict[str, Any], expected: tuple[int, str]) -> None:
    """Never anonymous, and never the next kind: there is a certificate, and it does not count."""
    decision = judged(shown(dataclasses.replace(GOOD, **changes)))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.reason.code) == expected
    assert "test" not in decision.detail
    if decision.reason.code.startswith("credential."):
        assert GOOD.fingerprint in decision.detail  # which one of a client's it was


def test_the_kind_is_the_operators() -> None:
    """Names of other kinds are not looked at, however many there are."""
    one = dataclasses.replace(GOOD, dns=("a.test", "b.test"), email=("Robot@test",), uri=("spiffe://test/r",))
    for kind, subject in (("email", "Robot@test"), ("uri", "spiffe://test/r")):
        decision = judged(shown(one), kind)
        assert isinstance(decision, Accept)
        assert decision.identity is not None
        assert decision.identity.subject == subject


def test_none_is_a_missing_credential() -> None:
    """So is what a mount knows nothing of, and what a proxy in between shows: its own."""
    assert code(judged(shown(None))) == "credential.missing"
    assert code(judged(structs.replace(handshake(), tls=None))) == "credential.missing"
    rules = table()
    client = Client(Peer("192.0.2.1"), secure=True, through_proxy=True)
    assert code(asyncio.run(decide(shown(), rules, client=client, now=NOW))) == "credential.missing"


def test_it_never_decides_alone() -> None:
    """A browser shows it to foreign pages' handshakes too: 403 but for a listed origin, or where browsers are refused."""
    foreign, none = {"Origin": "https://evil.test"}, {"Origin": None}
    assert code(judged(shown(subject=handshake(foreign)))) == "origin.not_allowed"
    assert code(judged(shown(subject=handshake(none)))) == "origin.missing"
    assert code(judged(shown(subject=handshake(none)), allow_missing_origin=True, **ORIGINS)) == "credential.ambient"
    excused: dict[str, Any] = {**ORIGINS, "origin_required": "unless-header-credential"}
    assert code(judged(shown(subject=handshake(foreign)), **excused)) == "origin.not_allowed"
    assert code(judged(shown(subject=handshake(none)), **REFUSING)) is None
    assert code(judged(shown(), **REFUSING)) == "origin.browser"
    assert code(judged(shown(None, handshake(none)), **REFUSING)) == "credential.missing"


def test_pages_need_it_too() -> None:
    assert code(judged(shown(subject=page()))) is None
    assert code(judged(shown(None, page()))) == "credential.missing"
    assert code(judged(shown(subject=page({"Origin": "https://evil.test"})))) == "origin.not_allowed"


@pytest.mark.parametrize("policy", [{"hosts": ["app.test"]}, {"origins": ["https://*.app.test"]}])
def test_beside_it_origins_are_written_out(policy: dict[str, Any]) -> None:
    """As beside every ambient one, unless browsers are refused."""
    with pytest.raises(ConfigurationError, match="origins"):
        table(**policy)


def test_it_buys_no_ticket() -> None:
    with pytest.raises(ConfigurationError, match=r"ticket\.sold_for"):
        Ticket(sold_for=["client_certificate"])


def test_a_revoked_one_opens_nothing_more() -> None:
    """By its fingerprint; another one of the same subject still does."""

    async def revoked() -> tuple[str | None, str | None]:
        policy = Policy(origins=["https://app.test"], auth=["client_certificate"])
        options = ClientCertificate(ca="ca.pem", subject="dns")
        guard = Guard(policy, authenticators=[options], wall_clock=lambda: NOW)
        await guard.revoke(credential_id=GOOD.fingerprint)
        other = dataclasses.replace(GOOD, fingerprint="cd" * 32)
        decisions = [await guard.decide(one, guard.client_of(one)) for one in (shown(), shown(other))]
        await guard.aclose()
        return code(decisions[0]), code(decisions[1])

    assert asyncio.run(revoked()) == ("session.revoked", None)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"subject": "cn"}, "client_certificate.subject: found 'cn', expected one of dns, email, uri"),
        ({"subject": "dns", "issuer": ""}, "client_certificate.issuer: found ''"),
    ],
)
def test_options_that_name_nobody_are_errors(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ClientCertificate(ca="ca.pem", **options)
    assert part in str(raised.value)


def test_the_issuer_is_the_operators_word() -> None:
    authenticator = ClientCertificateAuthenticator(ClientCertificate(ca="ca.pem", subject="dns", issuer="sensors"))
    policy = Policy(origins=["https://app.test"])
    rules = single_route(policy)
    context = Context(rules, Limits(), policy, None, Client(Peer("192.0.2.1"), secure=True), now=NOW)
    found = asyncio.run(authenticator.authenticate(shown(), context))
    assert isinstance(found, Identity)
    assert found.issuer == "sensors"
