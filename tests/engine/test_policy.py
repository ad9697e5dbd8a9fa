"""decide() fails closed: whatever is no verdict, raises, or cannot be had refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from tests.engine.make import POLICY, handshake, reason
from wsguard.engine.checks import ORDER
from wsguard.engine.policy import Context, Policy, decide
from wsguard.engine.routes import single_route
from wsguard.vocabulary.decision import Accept, Passed, Refuse
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


class Source:
    """An origin list that is looked up."""

    name = "test list"

    def __init__(self, answer: Sequence[str] | Exception) -> None:
        self.answer = answer

    async def entries(self) -> Sequence[str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_source_is_awaited_before_the_checks() -> None:
    """Facts that need waiting are had first; the list counts as if it were written."""
    policy = Policy(origins=Source(["https://app.test"]), hosts=["app.test"])
    assert reason(handshake(), policy) is None
    assert reason(handshake({"Origin": "https://evil.test"}), policy) == "origin.not_allowed"


@pytest.mark.parametrize("answer", [OSError("down"), ["*"], ["null"]])
def test_a_source_that_fails_refuses(answer: Any) -> None:
    """An unreachable or unreadable list allows nobody: 503."""
    assert reason(handshake(), Policy(origins=Source(answer), hosts=["app.test"])) == "policy.source_unavailable"


def test_an_empty_source_allows_nobody() -> None:
    """An empty list is a list."""
    assert reason(handshake(), Policy(origins=Source([]), hosts=["app.test"])) == "origin.not_allowed"


@pytest.mark.parametrize("name", [check.name for check in ORDER])
def test_every_check_is_asked(name: str) -> None:
    """Each check of ORDER can refuse on its own: none is shadowed by another."""
    checks = tuple(Check(None) if check.name == name else check for check in ORDER)
    assert isinstance(asyncio.run(decide(handshake(), single_route(POLICY), checks=checks)), Refuse)


def test_a_good_handshake_is_accepted() -> None:
    """The table would prove nothing if nothing passed."""
    assert isinstance(asyncio.run(decide(handshake(), single_route(POLICY))), Accept)
