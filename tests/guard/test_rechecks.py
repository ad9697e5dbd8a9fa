"""A cookie that opened a socket is judged again while it lives: the hook of an app, and a guard that asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests.engine.make import handshake, page
from wsguard import ConfigurationError, Guard, Identity, Limits, Policy, SessionLookup, Ticket
from wsguard.endpoints.messages import EndpointRequest
from wsguard.engine.sessions import Session
from wsguard.guard import Admission
from wsguard.vocabulary.decision import Refuse
from wsguard.vocabulary.errors import ConfigurationErrors

APP = "https://app.test"
NOW = 1_800_000_000.0
INTERVAL = 0.02
DEADLINE = 5


class App:
    """An app with logins, and a guard before it; sockets are looked at again every 20 ms."""

    made: ClassVar[list[App]] = []

    def __init__(self, *, limits: Limits | None = None, **policy: Any) -> None:
        self.now = NOW
        self.logins: dict[str, Any] = {"c1": Identity("alice", "app", "session_lookup", frozenset({"chat"}))}
        self.asked: list[Mapping[str, str]] = []
        self.answered, self.begun = asyncio.Event(), asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.at_once = self.most_at_once = 0
        self.closed: list[tuple[int, str, str]] = []
        self.ended = asyncio.Event()
        lookup = SessionLookup(self.look_up, cookies=["login", "theme"], recheck=60)
        self.guard = Guard(
            Policy(origins=[APP], hosts=["app.test"], auth=["session_lookup"], **policy),
            authenticators=[lookup],
            limits=limits or Limits(),
            wall_clock=lambda: self.now,
        )
        self.made.append(self)

    async def look_up(self, cookies: Mapping[str, str]) -> Identity | None:
        self.asked.append(cookies)
        self.begun.set()
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
            answer = self.logins.get(cookies.get("login", ""))
        finally:
            self.at_once -= 1
            self.answered.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def come(self, cookie: str | None = "login=c1") -> Admission | Refuse:
        subject = handshake({"Cookie": cookie})
        decision = await self.guard.decide(subject, self.guard.client_of(subject))
        return decision if isinstance(decision, Refuse) else await self.guard.admit(subject, decision, None)

    async def open(self, cookie: str = "login=c1", interval: float = INTERVAL) -> Session:
        admission = await self.come(cookie)
        assert isinstance(admission, Admission), admission
        session = Session(**admission.facts)
        assert session.recheck is not None
        object.__setattr__(session.recheck, "interval", interval)
        assert self.guard.live.register(session)

        def closer(code: int, reason: str) -> None:
            self.closed.append((code, reason, session.cause))
            self.guard.sessions.remove(session)
            self.ended.set()

        session.bind(closer)
        return session

    async def rechecked(self, times: int = 1) -> None:
        """Wait until the hook was asked *times* more."""
        wanted = len(self.asked) + times
        async with asyncio.timeout(DEADLINE):
            while len(self.asked) < wanted:
                self.answered.clear()
                await self.answered.wait()

    async def end(self) -> list[tuple[int, str, str]]:
        """Wait for the end of a socket."""
        async with asyncio.timeout(DEADLINE):
            await self.ended.wait()
        return self.closed


def run(scenario: Any) -> None:
    """Run *scenario*, and stop the guards of this test: a timer that fires while the loop ends would begin a look."""

    async def scene() -> None:
        try:
            await scenario()
        finally:
            while App.made:
                App.made.pop().guard.stop()

    asyncio.run(scene())


def reason_of(outcome: Admission | Refuse) -> tuple[int, str] | None:
    return (outcome.status, outcome.reason.code) if isinstance(outcome, Refuse) else None


def test_the_hook_says_who_it_is() -> None:
    """It gets the named cookies as they were sent; None is no, an exception is no answer."""

    async def scenario() -> None:
        app = App()
        app.logins["not-to-be-shown"] = app.logins["c1"]
        admission = await app.come("other=1; login=not-to-be-shown; theme=dark=1")
        assert isinstance(admission, Admission)
        identity = admission.accept.identity
        assert identity is not None
        assert (identity.subject, identity.issued_at) == ("alice", NOW)
        assert identity.credential_id is not None
        assert "not-to-be-shown" not in repr(admission)
        assert app.asked == [{"login": "not-to-be-shown", "theme": "dark=1"}]
        assert reason_of(await app.come(None)) == (401, "credential.missing")
        assert reason_of(await app.come("login=none")) == (401, "credential.refused")
        assert reason_of(await app.come("login=c1; login=c2")) == (400, "credential.repeated")
        app.logins["c1"] = ConnectionError("secret")
        assert reason_of(await app.come()) == (503, "credential.unavailable")
        app.logins["c1"] = "alice"
        assert reason_of(await app.come()) == (503, "policy.bad_verdict")

    run(scenario)


def test_a_hook_need_not_be_async() -> None:
    alice = Identity("alice", "app", "session")
    lookup = SessionLookup(lambda cookies: alice if cookies["login"] == "c1" else None, cookies=["login"])
    guard = Guard(Policy(origins=[APP], hosts=["app.test"], auth=["session_lookup"]), authenticators=[lookup])
    for cookie, accepted in (("login=c1", True), ("login=c2", False)):
        subject = handshake({"Cookie": cookie})
        decision = asyncio.run(guard.decide(subject, guard.client_of(subject)))
        assert isinstance(decision, Refuse) is not accepted


def test_a_logout_closes_the_socket() -> None:
    """Yes and yes, then no: 3000, and the log says why."""

    async def scenario() -> None:
        app = App()
        session = await app.open()
        await app.rechecked(2)
        assert session.closing is None
        del app.logins["c1"]
        assert await app.end() == [(3000, "session ended", "credential.refused")]
        asked = len(app.asked)
        await asyncio.sleep(3 * INTERVAL)  # long enough for three more looks, if anybody still looked
        assert len(app.asked) == asked

    run(scenario)


@pytest.mark.parametrize(
    "other",
    [
        Identity("mallory", "app", "session_lookup", frozenset({"chat"})),
        Identity("alice", "elsewhere", "session_lookup", frozenset({"chat"})),
    ],
)
def test_another_subject_is_a_no(other: Identity) -> None:
    """The cookie's session was taken over by another login: the socket is not his."""

    async def scenario() -> None:
        app = App()
        await app.open()
        app.logins["c1"] = other
        assert await app.end() == [(3000, "session ended", "credential.refused")]

    run(scenario)


def test_what_the_route_requires_must_still_hold() -> None:
    """The app took a scope away: 3003."""

    async def scenario() -> None:
        app = App(require={"scopes": ["chat"]})
        await app.open()
        app.logins["c1"] = Identity("alice", "app", "session_lookup")
        assert await app.end() == [(3003, "not allowed", "authorization.scope")]

    run(scenario)


def test_a_later_end_lengthens_and_an_earlier_one_shortens_its_life() -> None:
    """The app slides its session's end; a recheck that names an earlier one counts at once."""

    async def scenario() -> None:
        app = App()
        app.logins["c1"] = Identity("alice", "app", "session_lookup", expires_at=NOW + 3600)
        session = await app.open()
        app.logins["c1"] = Identity("alice", "app", "session_lookup", expires_at=NOW + 7200)
        await app.rechecked(2)
        assert session.expires_at == NOW + 7200
        app.logins["c1"] = Identity("alice", "app", "session_lookup", expires_at=NOW - 1)
        assert (await app.end())[0][::2] == (3000, "credential.expired")

    run(scenario)


@pytest.mark.parametrize("meanwhile", [False, True], ids=["between two looks", "during one"])
def test_the_cookie_that_renews_a_socket_is_the_one_that_is_asked_about(meanwhile: bool) -> None:
    """The former one ends, or is rotated away: its word no longer counts, not even one that was on its way."""

    async def scenario() -> None:
        app = App()
        app.logins["c1"] = Identity("alice", "app", "session_lookup", sid="1", expires_at=NOW + 6)
        app.logins["c2"] = Identity("alice", "app", "session_lookup", sid="2", expires_at=NOW + 3600)
        guard = app.guard = Guard(
            Policy(origins=[APP], hosts=["app.test"], auth=["ticket"]),
            authenticators=[SessionLookup(app.look_up, cookies=["login"], recheck=60)],
            ticket=Ticket(sold_for=["session_lookup"]),
            wall_clock=lambda: app.now,
        )

        async def ask(path: str, cookie: str, body: dict[str, str]) -> dict[str, Any]:
            fields = {"Origin": APP, "X-WSGuard": "1", "Cookie": cookie, "Content-Type": "application/json"}
            subject = page(fields, method="POST", target=path.encode())
            endpoint = guard.endpoint_of(subject)
            assert endpoint is not None
            request = EndpointRequest(subject, guard.client_of(subject), json.dumps(body).encode())
            answer = await guard.answer(endpoint, request)
            assert answer.status == 200, answer.refusal
            return answer.json()

        sold = await ask("/.wsguard/ticket", "login=c1", {"path": "/ws"})
        subject = handshake({"Cookie": "login=c1", "Sec-WebSocket-Protocol": ", ".join(sold["protocols"])})
        decision = await guard.decide(subject, guard.client_of(subject))
        assert not isinstance(decision, Refuse), decision
        admission = await guard.admit(subject, decision, None)
        assert isinstance(admission, Admission)
        session = Session(**admission.facts)
        object.__setattr__(session.recheck, "interval", INTERVAL)
        assert guard.live.register(session)
        session.bind(lambda code, reason: app.closed.append((code, reason, session.cause)))
        gate = asyncio.Event()
        if meanwhile:
            app.gate = gate
            app.begun.clear()
            async with asyncio.timeout(DEADLINE):
                await app.begun.wait()
            app.gate = None
        renewed = await ask("/.wsguard/renew", "login=c2", {"session": sold["session"]})
        assert renewed["session_expires_at"] == NOW + 3600
        assert session.recheck is not None
        object.__setattr__(session.recheck, "interval", INTERVAL)
        app.logins["c1"] = None
        gate.set()
        await app.rechecked(2)
        assert app.asked[-1] == {"login": "c2"}
        assert app.closed == []
        assert session.expires_at == NOW + 3600

    run(scenario)


def test_an_app_that_cannot_be_asked_is_borne_for_a_while() -> None:
    """Three intervals after the last yes the socket ends: its user may have logged out long ago."""

    async def scenario() -> None:
        app = App()
        session = await app.open()
        app.logins["c1"] = ConnectionError("secret")
        await app.rechecked(1)
        assert session.closing is None
        assert await app.end() == [(3000, "session ended", "credential.unavailable")]
        assert 2 <= len(app.asked) - 1 <= 4

    run(scenario)


def test_a_yes_in_time_forgives_the_failures_before() -> None:
    async def scenario() -> None:
        app = App()
        session = await app.open()
        for _ in range(3):
            app.logins["c1"] = ConnectionError()
            await app.rechecked(1)
            app.logins["c1"] = Identity("alice", "app", "session_lookup")
            await app.rechecked(2)
        assert session.closing is None

    run(scenario)


def test_looks_at_one_time_are_bounded() -> None:
    """A hundred sockets of one second are not a hundred questions at once; each gets its turn."""

    async def scenario() -> None:
        app = App(limits=Limits(rechecks=4))
        for _ in range(100):
            await app.open(interval=0.05)
        app.most_at_once, app.asked = 0, []
        app.gate = asyncio.Event()
        await asyncio.sleep(0.1)  # all of them are due
        assert app.at_once == 4
        app.gate.set()
        await app.rechecked(96)
        assert app.most_at_once <= 4

    run(scenario)


def test_who_has_ended_and_who_stops_are_not_looked_at() -> None:
    async def scenario() -> None:
        app = App()
        session = await app.open()
        app.guard.sessions.remove(session)
        await asyncio.sleep(3 * INTERVAL)
        assert len(app.asked) == 1
        await app.open()
        app.guard.stop()
        await asyncio.sleep(3 * INTERVAL)
        assert len(app.asked) == 2

    run(scenario)


def test_a_revocation_reaches_a_cookie_by_its_age() -> None:
    """A cookie's time is when the guard first saw it: the revoked login is out, a new one of the same user is in."""

    async def scenario() -> None:
        app = App()
        await app.open()
        app.logins["c2"] = app.logins["c1"]
        app.now += 10
        assert await app.guard.revoke(subject="alice") == 1
        app.now += 10
        assert reason_of(await app.come("login=c1")) == (401, "session.revoked")
        assert reason_of(await app.come("login=c2")) is None

    run(scenario)


def test_a_lookup_that_cannot_work_stops_the_start() -> None:
    async def look_up(cookies: Mapping[str, str]) -> Identity | None:
        return None

    for wrong in (
        {"lookup": None, "cookies": ["a"]},
        {"lookup": look_up, "cookies": []},
        {"lookup": look_up, "cookies": ["a"], "recheck": 0.1},
    ):
        made: Any = SessionLookup
        with pytest.raises(ConfigurationError, match="session_lookup"):
            made(**wrong)
    with pytest.raises(ConfigurationErrors, match="session_lookup"):
        Guard(Policy(origins=[APP], auth=["session_lookup"]), authenticators=[])


def test_what_lives_on_is_looked_at_again_after_a_stop() -> None:
    """Another app around the same guard has ended: a logout still closes the socket."""

    async def scenario() -> None:
        app = App()
        await app.open()
        app.guard.stop()
        app.logins.clear()
        app.guard.live.start()
        assert (await app.end())[0][0] == 3000

    run(scenario)


def test_looks_of_a_loop_that_is_gone_do_not_count() -> None:
    """A loop that is closed in the middle of a look never ends it: the bound must not fill up with such."""
    app = App(limits=Limits(rechecks=1))

    async def begin() -> None:
        await app.open()
        app.gate, app.begun = asyncio.Event(), asyncio.Event()
        await asyncio.wait_for(app.begun.wait(), DEADLINE)

    gone = asyncio.new_event_loop()
    gone.run_until_complete(begin())
    gone.close()
    app.gate, app.answered = None, asyncio.Event()

    async def scenario() -> None:
        await app.open()
        await app.rechecked(2)

    run(scenario)
