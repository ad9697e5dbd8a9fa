"""How the demo judges what it saw, without a browser: what counts as stolen, as refused, and as proof of neither."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, cast

import pytest

from wsguard.demo.check import victim as victim_module
from wsguard.demo.check.findings import (
    BROKEN,
    HIJACKED,
    NOT_LOGGED,
    NOT_STOLEN,
    OUTLIVED,
    REFUSED,
    REVOKED,
    WORKS,
    Finding,
    expected,
)
from wsguard.demo.check.victim import Victim
from wsguard.demo.observations import MESSAGES_KEPT, Message, Observations
from wsguard.demo.places import App, Caller, Case, Places
from wsguard.demo.sites.attackers import Attacker

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext

    from wsguard.demo.running import Demo

PLACES = Places(8440, 8441)
SIBLING = Case(Caller.SIBLING, App.GUARDED)
GUARDED_HOST, TICKETS_HOST = "guarded.localhost:8441", "tickets.localhost:8441"
REFUSED_LINE = {
    "event": "handshake.refused",
    "kind": "handshake",
    "status": 403,
    "reason": "origin.not_allowed",
    "host": GUARDED_HOST,
    "hint": "origins += …",
}


class OnlyObservations:
    """A demo in which only the observations matter."""

    def __init__(self) -> None:
        self.observations = Observations(PLACES)


@pytest.fixture
def seen() -> OnlyObservations:
    return OnlyObservations()


@pytest.mark.parametrize(
    ("case", "must_be"),
    [
        (Case(Caller.OWN, App.OPEN), WORKS),
        (Case(Caller.OWN, App.GUARDED), WORKS),
        (Case(Caller.SIBLING, App.OPEN), HIJACKED),
        (Case(Caller.CROSS_SITE, App.OPEN), HIJACKED),
        (Case(Caller.SIBLING, App.GUARDED), REFUSED),
        (Case(Caller.CROSS_SITE, App.GUARDED), REFUSED),
        (Case(Caller.OWN, App.TICKETS), WORKS),
        (Case(Caller.SIBLING, App.TICKETS), REFUSED),
        (Case(Caller.CROSS_SITE, App.TICKETS), REFUSED),
    ],
)
def test_what_must_be_found(case: Case, must_be: str) -> None:
    assert expected(case) == must_be
    for found in (WORKS, HIJACKED, REFUSED, NOT_STOLEN, NOT_LOGGED):
        assert Finding("any", case, found).as_expected == (found == must_be)


def test_only_the_planted_message_of_this_attempt_counts_as_hijacked(seen: OnlyObservations) -> None:
    victim = victim_of(seen)
    victim._secrets[App.GUARDED] = "planted"
    seen.observations.begin(SIBLING)
    seen.observations.stolen(SIBLING, Message("Ben", "something everybody knows"))
    assert victim._outcome(SIBLING, attempts_before=0) is None
    seen.observations.stolen(SIBLING, Message("Ben", "planted"))
    assert victim._outcome(SIBLING, attempts_before=0) == HIJACKED
    assert victim._outcome(SIBLING, attempts_before=1) is None


def test_nothing_stolen_is_a_refusal_only_if_the_log_holds_that_origin(
    seen: OnlyObservations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(victim_module, "LOG_DEADLINE", 0.05)
    victim = victim_of(seen)
    seen.observations.begin(SIBLING)
    seen.observations.ended(SIBLING)
    assert asyncio.run(victim._confirmed(SIBLING)) == NOT_LOGGED
    seen.observations.log_line({**REFUSED_LINE, "origin": "https://evil.localhost:8440"})
    assert asyncio.run(victim._confirmed(SIBLING)) == NOT_LOGGED
    seen.observations.log_line({**REFUSED_LINE, "origin": "https://evil.guarded.localhost:8440"})
    assert asyncio.run(victim._confirmed(SIBLING)) == REFUSED
    seen.observations.begin(SIBLING)
    assert asyncio.run(victim._confirmed(SIBLING)) == NOT_LOGGED


def test_a_refusal_counts_for_the_app_whose_handshake_it_was(seen: OnlyObservations) -> None:
    sibling = "https://evil.tickets.localhost:8440"
    case = Case(Caller.SIBLING, App.TICKETS)
    for other in ({"host": GUARDED_HOST}, {"kind": "page"}, {"host": "rebound.example:8441"}):
        seen.observations.log_line({**REFUSED_LINE, "host": TICKETS_HOST, "origin": sibling, **other})
        assert seen.observations.cases[case].refusal is None
    seen.observations.log_line({**REFUSED_LINE, "host": TICKETS_HOST, "origin": sibling})
    assert seen.observations.cases[case].outcome(case.caller) == "refused"


def test_only_a_socket_that_a_revocation_has_closed_is_revoked(seen: OnlyObservations) -> None:
    case = Case(Caller.OWN, App.TICKETS)
    seen.observations.begin(case)
    seen.observations.admitted(case)
    seen.observations.log_line({"event": "session.closed", "host": TICKETS_HOST, "code": 1001})
    assert seen.observations.cases[case].outcome(case.caller) == "connected"
    seen.observations.log_line(
        {"event": "session.closed", "host": TICKETS_HOST, "code": 3000, "reason": "session.revoked"}
    )
    assert seen.observations.cases[case].outcome(case.caller) == "revoked"


def test_a_finding_may_have_to_be_another_thing_than_its_case() -> None:
    own = Case(Caller.OWN, App.TICKETS)
    assert Finding("any", own, REVOKED, must_be=REVOKED).as_expected
    for found in (WORKS, OUTLIVED, BROKEN):
        finding = Finding("any", own, found, must_be=REVOKED)
        assert not finding.as_expected


def test_reports_are_bounded_and_junk_is_ignored() -> None:
    observations = Observations(PLACES)
    attacker = Attacker((SIBLING,), PLACES, observations)
    for junk in ("", "[" * 4000, "[]", '{"event": "received"}', '{"event": "received", "frame": "[]"}', b"\xff"):
        attacker._note(SIBLING, junk)
    assert observations.cases[SIBLING].outcome(Caller.SIBLING) == "idle"
    frame = json.dumps({"kind": "message", "sender": "Ben", "text": "x" * 3000})
    for _ in range(100):
        attacker._note(SIBLING, json.dumps({"event": "received", "frame": frame}))
    received = observations.cases[SIBLING].received
    assert len(received) == MESSAGES_KEPT
    assert {len(message.text) for message in received} == {300}


def victim_of(seen: OnlyObservations) -> Victim:
    return Victim(cast("Demo", seen), cast("BrowserContext", None))
