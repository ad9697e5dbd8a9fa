"""decide() fails closed: whatever is no verdict, raises, or cannot be had refuses."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from tests.engine.make import POLICY, handshake, page, reason, verdict
from wsguard.engine.checks import ORDER
from wsguard.engine.policy import Context, Policy, decide
from wsguard.engine.routes import Route, RouteTable, single_route
from wsguard.vocabulary.decision import Accept, OriginProof, Passed, Refuse
from wsguard.vocabulary.handshake import Handshake


class Check:
    """A check that answers, or raises, what the test says."""

    name: ClassVar[str] = "test"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def check(self, handshake: Handshake, context: Context) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [None, True, 1, "passed", Passed, ValueError("x"), KeyError("y"), AssertionError()])
def test_what_is_no_verdict_refuses(answer: Any) -> None:
    """503 `policy.bad_verdict`, never an acceptance; the error's text reaches nobody."""
    decision = asyncio.run(decide(handshake(), single_route(POLICY), checks=(*ORDER, Check(answer))))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.reason.code) == (503, "policy.bad_verdict")


async def never_asked(value: str) -> bool:
    """Stands in a policy whose route has the list opened."""
    raise AssertionError(value)


class OpenedList:
    """A list as a guard opens it: its entries are what it allows, or what it raises or answers instead."""

    name = "test list"

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def allows(self, candidate: object) -> Any:
        self.asked.append(str(candidate))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(candidate) in self.answer


def kept(*, origins: OpenedList | None = None, hosts: OpenedList | None = None, **more: Any) -> RouteTable:
    """One route whose policy keeps elsewhere what is given here, opened."""
    policy = Policy(
        origins=never_asked if origins is not None else ["https://app.test"],
        hosts=never_asked if hosts is not None else ["app.test"],
        **more,
    )
    return RouteTable((Route("/*", policy, origin_list=origins, host_list=hosts),))


def test_a_kept_list_is_asked_before_the_checks() -> None:
    """Facts that need waiting are had first; the list counts as if it were written, and is told as the source."""
    origins = OpenedList(["https://app.test"])
    accepted = verdict(handshake(), kept(origins=origins))
    assert isinstance(accepted, Accept)
    assert (accepted.source, accepted.origin) == ("test list", OriginProof.LISTED)
    assert reason(handshake({"Origin": "https://evil.test"}), kept(origins=origins)) == "origin.not_allowed"
    assert origins.asked == ["https://app.test", "https://evil.test"]


def test_a_kept_list_of_hosts_is_asked_for_every_request() -> None:
    """Pages and handshakes are served for its names only (DNS rebinding)."""
    table = kept(hosts=OpenedList(["app.test"]))
    assert (reason(handshake(), table), reason(page(), table)) == (None, None)
    evil = {"Host": "evil.test"}
    assert (reason(handshake(evil), table), reason(page(evil), table)) == ("host.not_allowed", "host.not_allowed")


def test_what_is_no_origin_is_not_asked_about() -> None:
    """Two Origins, none, null and nonsense are the check's to refuse; no list hears of them."""
    origins = OpenedList([])
    for value, expected in (
        (None, "origin.missing"),
        ("null", "origin.null"),
        ("https://app.test/", "origin.malformed"),
    ):
        assert reason(handshake({"Origin": value}), kept(origins=origins)) == expected
    twice = handshake(extra=((b"Origin", b"https://app.test"),))
    assert isinstance(verdict(twice, kept(origins=origins)), Refuse)
    assert reason(page({"Origin": "https://evil.test"}), kept(origins=origins)) is None
    assert origins.asked == []


@pytest.mark.parametrize("listed", ["origins", "hosts"])
@pytest.mark.parametrize("answer", [OSError("down"), TypeError(), None], ids=["fault", "bug", "no container"])
def test_a_kept_list_that_fails_refuses(listed: str, answer: Any) -> None:
    """A list that cannot be had allows nobody: 503."""
    assert reason(handshake(), kept(**{listed: OpenedList(answer)})) == "policy.source_unavailable"


@pytest.mark.parametrize(("origins", "hosts"), [(never_asked, ["app.test"]), (["https://app.test"], never_asked)])
def test_a_kept_list_that_is_not_open_refuses(origins: Any, hosts: Any) -> None:
    """Only a guard opens lists: a policy that is judged without one allows nobody, and its function is not asked."""
    assert reason(handshake(), Policy(origins=origins, hosts=hosts)) == "policy.source_unavailable"


def test_an_empty_kept_list_allows_nobody() -> None:
    """An empty list is a list."""
    assert reason(handshake(), kept(origins=OpenedList([]))) == "origin.not_allowed"


def test_an_http_origin_on_a_kept_list_is_refused() -> None:
    """A list that is kept elsewhere cannot say more than one that is written out."""
    origin = "http://app.test"
    assert reason(handshake({"Origin": origin}), kept(origins=OpenedList([origin]))) == "origin.scheme"


@pytest.mark.parametrize("name", [check.name for check in ORDER])
def test_every_check_is_asked(name: str) -> None:
    """Each check of ORDER can refuse on its own: none is shadowed by another."""
    checks = tuple(Check(None) if check.name == name else check for check in ORDER)
    assert isinstance(asyncio.run(decide(handshake(), single_route(POLICY), checks=checks)), Refuse)


def test_a_good_handshake_is_accepted() -> None:
    """The table would prove nothing if nothing passed."""
    assert isinstance(asyncio.run(decide(handshake(), single_route(POLICY))), Accept)
