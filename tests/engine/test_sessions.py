"""One door: every end of a live socket goes through Session.close, once."""

from __future__ import annotations

import pytest

from wsguard import Identity, Refusal
from wsguard.engine.sessions import Session, SessionRegistry
from wsguard.vocabulary.close_codes import PRESETS


def session(name: str) -> Session:
    return Session(name, "https://app.test", "app.test", "/*", "/ws", "peer", 0.0)


def test_close_is_carried_out_once() -> None:
    """The first code and reason count."""
    closed: list[tuple[int, str]] = []
    subject = session("a")
    subject.bind(lambda code, reason: closed.append((code, reason)))
    subject.close(1001, "shutdown")
    subject.close(3000, "late")
    assert closed == [(1001, "shutdown")]
    assert subject.closing == (1001, "shutdown")


def test_a_close_before_the_relay_is_not_lost() -> None:
    """A shutdown while the 101 is under way closes the socket as soon as it is there."""
    closed: list[int] = []
    subject = session("a")
    subject.close(1001, "shutdown")
    subject.bind(lambda code, _: closed.append(code))
    assert closed == [1001]


def test_the_registry_closes_all_and_forgets() -> None:
    """Closing may remove while one looks."""
    registry = SessionRegistry()
    subjects = [session(name) for name in "abc"]
    for subject in subjects:
        registry.add(subject)
        subject.bind(lambda *_, subject=subject: registry.remove(subject))
    assert len(registry) == 3
    assert list(registry) == subjects
    assert registry.close_all(1001, "shutdown") == 3
    assert len(registry) == 0
    registry.remove(subjects[0])


def test_a_code_that_may_not_be_sent_is_refused() -> None:
    """1005, 1006 and unknown ones never stand on the wire: the caller hears of it, not the server that would choke."""
    for code in (0, 999, 1005, 1006, 1015, 2999, 5000):
        with pytest.raises(ValueError, match="close code"):
            session("a").close(code, "x")


def test_a_route_may_have_codes_of_its_own() -> None:
    """graphql-transport-ws knows 4401 and 4403; every other code is sent as it is."""
    for code, sent in ((3000, 4401), (3003, 4403), (1001, 1001), (1011, 1011)):
        closed: list[tuple[int, str]] = []
        subject = session("a")
        subject.close_codes = PRESETS["graphql-transport-ws"]
        subject.bind(lambda code, reason, closed=closed: closed.append((code, reason)))
        subject.close(code, "why")
        assert closed == [(sent, "why")]


def test_what_is_forgotten_holds_no_cookie() -> None:
    """Whoever still has the session, a heap of times to look again among them, has nothing to look again with."""
    registry, ended = SessionRegistry(), session("a")
    ended.recheck = Once()
    registry.add(ended)
    registry.remove(ended)
    assert ended.recheck is None


class Once:
    """How a credential could be judged again."""

    interval = 60.0

    async def again(self, now: float) -> Identity | Refusal:
        raise AssertionError(f"nobody looks at {now}")


def test_an_end_that_is_under_way_is_not_begun_once_more() -> None:
    """An app may have said all and closed before its 101 has gone out: nothing of ours comes before its last words."""
    session = Session("s", None, "app.test", "/*", "/ws", "peer", 0.0)
    session.note_end(1000, "bye")
    closed: list[tuple[int, str]] = []
    session.bind(lambda code, reason: closed.append((code, reason)))
    session.close(3000, "revoked")
    assert closed == []
    assert session.closing == (1000, "bye")
