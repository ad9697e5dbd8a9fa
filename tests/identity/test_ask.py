"""The app is asked whose cookie it is: a real app on loopback, and a guard that decides by what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import trustme
from msgspec.structs import replace

from tests.engine.make import handshake, page
from tests.identity.tls_server import Answer, Asked, Server, serving, serving_in_the_clear
from wsguard import Ask, ConfigurationError, Guard, Limits, Policy
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.errors import ConfigurationErrors
from wsguard.vocabulary.handshake import Peer
from wsguard.vocabulary.identity import Identity

T = TypeVar("T")
APP = "https://app.test"
NOW = 1_800_000_000.0
ALICE = {"identity": {"username": "alice"}, "until": NOW + 60, "may": ["chat", "read"], "login": "s1"}
MEMBERS: dict[str, Any] = {"subject": "identity.username", "expires_at": "until", "scopes": "may", "sid": "login"}


UNNAMED: dict[str, Any] = dict.fromkeys(MEMBERS)


@pytest.fixture
def app() -> Generator[Server]:
    with serving_in_the_clear(told(ALICE)) as server:
        yield server


def told(members: Any, status: int = 200, **more: Any) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, (json.dumps(members).encode(),), **more)


class World:
    """A guard that asks at *url*, with clocks that the test moves."""

    made: ClassVar[list[World]] = []

    def __init__(
        self,
        url: str,
        *,
        auth: tuple[str, ...] = ("ask",),
        limits: Limits | None = None,
        policy: Any = None,
        outbound_ca: Path | None = None,
        **ask: Any,
    ) -> None:
        self.now = 0.0
        options: dict[str, Any] = {"cookies": ["login"], **MEMBERS, **ask}
        self.guard = Guard(
            Policy(origins=[APP], hosts=["app.test"], auth=auth, **(policy or {})),
            authenticators=[Ask(url, **options)],
            limits=limits or Limits(),
            outbound_ca=outbound_ca,
            clock=lambda: self.now,
            wall_clock=lambda: NOW + self.now,
        )
        self.made.append(self)

    async def decide(self, fields: dict[str, str | None] | None = None, *, peer: str = "192.0.2.7") -> Decision:
        """Come with a handshake of a listed page and, unless told otherwise, a cookie."""
        subject = replace(handshake({"Cookie": "login=c1", **(fields or {})}), peer=Peer(peer, 5))
        return await self.guard.decide(subject, self.guard.client_of(subject))

    async def identity(self, fields: dict[str, str | None] | None = None, **more: Any) -> Identity:
        decision = await self.decide(fields, **more)
        assert isinstance(decision, Accept), decision
        assert decision.identity is not None
        return decision.identity

    async def refusal(self, fields: dict[str, str | None] | None = None, **more: Any) -> tuple[int, str]:
        decision = await self.decide(fields, **more)
        assert isinstance(decision, Refuse), decision
        return decision.status, decision.reason.code


def url_of(app: Server) -> str:
    return f"http://127.0.0.1:{app.port}/api/me?from=guard"


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run *scenario*, and close what the guards of this test have opened."""

    async def scene() -> T:
        try:
            return await scenario
        finally:
            while World.made:
                await World.made.pop().guard.aclose()

    return asyncio.run(scene())


# --- what the app is told ---------------------------------------------------------------------------------------------


def test_the_app_is_asked_as_a_page_of_the_client_would_ask(app: Server) -> None:
    """The client's Host and address, the named cookies and headers, and nothing else of what it sent."""
    sent: dict[str, str | None] = {
        "Cookie": "other=1; login=c1; _xsrf=2",
        "Sec-Fetch-Site": "same-origin",
        "X-Forwarded-For": "203.0.113.9",
        "X-Tenant": "blue",
        "X-Other": "green",
        "Authorization": "Basic eDp5",
    }
    run(World(url_of(app), headers=["X-Tenant"]).identity(sent))
    (asked,) = app.asked
    assert (asked.method, asked.target, asked.body) == ("GET", "/api/me?from=guard", b"")
    assert asked.headers == {
        "host": "app.test",
        "accept": "*/*",
        "cookie": "login=c1",
        "x-tenant": "blue",
        "x-forwarded-proto": "https",
        "x-forwarded-for": "192.0.2.7",
        "x-real-ip": "192.0.2.7",
        "x-forwarded-host": "app.test",
        "forwarded": 'for=192.0.2.7;host="app.test";proto=https',
        "accept-encoding": "identity",
        "user-agent": "wsguard",
    }


@pytest.mark.parametrize(("rule", "host"), [("upstream", "127.0.0.1:{port}"), ("lab.internal", "lab.internal")])
def test_the_host_is_what_the_upstream_sees(app: Server, rule: str, host: str) -> None:
    """Jupyter knows a login only under the Host that it was made under."""
    run(World(url_of(app), policy={"upstream_host": rule}).identity())
    assert app.asked[0].headers["host"] == host.format(port=app.port)


def test_a_foreign_page_never_gets_as_far_as_the_app(app: Server) -> None:
    """The cookie is ambient: a handshake of a page that is not listed is refused before anybody is asked."""
    world = World(url_of(app))
    assert run(world.refusal({"Origin": "https://evil.test"})) == (403, "origin.not_allowed")
    assert run(world.refusal({"Origin": None})) == (403, "origin.missing")
    assert app.asked == []


def test_without_its_credential_nobody_is_asked(app: Server) -> None:
    world = World(url_of(app), headers=["X-Tenant"])
    for cookie in (None, "other=1", "=login=c1", "login"):
        assert run(world.refusal({"Cookie": cookie})) == (401, "credential.missing")
    assert app.asked == []


def test_the_same_cookie_twice_is_no_cookie(app: Server) -> None:
    """Nobody can say which one the app has set, so the app is not asked (RULES §7)."""
    world = World(url_of(app), headers=["X-Tenant"])
    assert run(world.refusal({"Cookie": "login=mine; login=yours"})) == (400, "credential.repeated")
    subject = handshake({"Cookie": None}, extra=((b"X-Tenant", b"a"), (b"X-Tenant", b"b")))
    decision = run(world.guard.decide(subject, world.guard.client_of(subject)))
    assert isinstance(decision, Refuse)
    assert decision.reason.code == "credential.repeated"
    assert app.asked == []


# --- what it answers --------------------------------------------------------------------------------------------------


def test_yes_is_who_it_is(app: Server) -> None:
    world = World(url_of(app))
    found = run(world.identity({"Cookie": "login=not-to-be-shown"}))
    assert (found.subject, found.issuer, found.method, found.sid) == ("alice", "app", "ask", "s1")
    assert (found.scopes, found.expires_at, found.issued_at) == ({"chat", "read"}, NOW + 60, NOW)
    assert "not-to-be-shown" not in repr(found)


@pytest.mark.parametrize("members", ["", "not json", "[]", "{}", '{"identity": "alice"}', '{"identity": {}}', "null"])
def test_an_answer_without_a_subject_is_the_keyed_hash_of_the_credential(app: Server, members: str) -> None:
    """Stable for one cookie and one guard, another for each, and never the cookie."""
    app.says(Answer(parts=(members.encode(),)))
    asks: dict[str, Any] = {} if members in ("", "not json") else {"subject": "identity.username"}
    world = World(url_of(app), **{**UNNAMED, **asks})

    async def scenario() -> None:
        first, again = await world.identity(), await world.identity(peer="192.0.2.8")
        other = await world.identity({"Cookie": "login=c2"})
        assert first.subject == again.subject == first.credential_id
        assert len(first.subject) == 32
        assert other.subject != first.subject
        stranger = await World(url_of(app), **{**UNNAMED, **asks}).identity()
        assert stranger.subject != first.subject

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(204), None),
        (Answer(401), (401, "credential.refused")),
        (Answer(403), (401, "credential.refused")),
        (Answer(301, {"Location": "/login"}), (401, "credential.refused")),
        (Answer(302, {"Location": "https://evil.test/"}), (401, "credential.refused")),
        (Answer(304), (401, "credential.refused")),
        (Answer(307, {"Location": "/login"}), (401, "credential.refused")),
        (Answer(400), (503, "credential.unavailable")),
        (Answer(404), (503, "credential.unavailable")),
        (Answer(429), (503, "credential.unavailable")),
        (Answer(500), (503, "credential.unavailable")),
        (Answer(503), (503, "credential.unavailable")),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
def test_statuses(app: Server, answer: Answer, expected: tuple[int, str] | None) -> None:
    """2xx is yes; 401, 403 and any redirect are no, and no redirect is followed; anything else is no answer."""
    app.says(answer)
    world = World(url_of(app), **UNNAMED)
    if expected is None:
        run(world.identity())
    else:
        assert run(world.refusal()) == expected
    assert len(app.asked) == 1


def test_no_has_the_challenge_of_a_401(app: Server) -> None:
    app.says(Answer(401))
    decision = run(World(url_of(app)).decide())
    assert isinstance(decision, Refuse)
    assert decision.headers == (("WWW-Authenticate", 'Bearer error="invalid_token"'),)


@pytest.mark.parametrize(
    "members",
    [
        {"identity": {"username": ["alice"]}},
        {"identity": {"username": True}},
        {**ALICE, "until": "tomorrow"},
        {**ALICE, "until": "2030-01-01T00:00:00"},
        {**ALICE, "until": True},
        {**ALICE, "until": 1_795_974_686_192},  # milliseconds
        {**ALICE, "until": 1e300},
        {**ALICE, "until": -1},
        {**ALICE, "may": 7},
        {**ALICE, "may": ["chat", 7]},
        {**ALICE, "login": {}},
    ],
)
def test_a_member_of_another_kind_is_no_answer(app: Server, members: dict[str, Any]) -> None:
    """Nobody can say what was meant: refused (503), never read as absent."""
    app.says(told(members))
    assert run(World(url_of(app)).refusal()) == (503, "credential.unavailable")


def test_no_json_where_members_are_named_is_no_answer(app: Server) -> None:
    for body in (b"<html>", b"[" * 100_000, b"\xff"):
        app.says(Answer(parts=(body,)))
        assert run(World(url_of(app)).refusal()) == (503, "credential.unavailable")


def test_numbers_texts_and_times_are_read(app: Server) -> None:
    """A numeric id, scopes in one text, an RFC 3339 time."""
    app.says(told({"identity": {"username": 42}, "until": "2027-01-15T08:00:30Z", "may": "chat  read"}))
    found = run(World(url_of(app)).identity())
    assert (found.subject, found.expires_at, found.scopes) == ("42", NOW + 30, {"chat", "read"})


def test_a_login_that_has_ended_is_refused(app: Server) -> None:
    app.says(told({**ALICE, "until": NOW}))
    assert run(World(url_of(app)).refusal()) == (401, "credential.expired")


def test_an_app_that_is_down_refuses_and_is_back_at_once(app: Server) -> None:
    """503, nothing is remembered, and the next one is asked anew."""

    async def scenario() -> None:
        world = World(url_of(app))
        app.says(Answer(500))
        assert await world.refusal() == (503, "credential.unavailable")
        app.says(told(ALICE))
        assert (await world.identity()).subject == "alice"

    run(scenario())
    closed = World("http://127.0.0.1:1/api/me")
    assert run(closed.refusal()) == (503, "credential.unavailable")


def test_a_slow_app_and_a_large_answer_are_bounded(app: Server) -> None:
    """And the log says which it was: slow, large, compressed or down."""

    def why(world: World) -> str:
        decision = run(world.decide())
        assert isinstance(decision, Refuse)
        assert (decision.status, decision.reason.code) == (503, "credential.unavailable")
        assert decision.detail.startswith("ask: 127.0.0.1: ")
        return decision.detail

    app.says(told(ALICE, wait=30))
    assert "0.2 s" in why(World(url_of(app), timeout=0.2))
    app.says(Answer(parts=(b" " * 5000,)))
    assert "1024" in why(World(url_of(app), limits=Limits(app_answer=1024)))
    app.says(Answer(parts=(b"\x1f\x8b",), headers={"Content-Encoding": "gzip"}))
    assert "compressed" in why(World(url_of(app)))
    why(World("http://127.0.0.1:1/api/me"))


# --- how often it is asked --------------------------------------------------------------------------------------------


def test_an_answer_is_remembered_for_a_while(app: Server) -> None:
    """Yes and no, by all that the app was told; then it is asked again."""

    async def scenario() -> None:
        world = World(url_of(app), cache=5)
        await world.identity()
        await world.identity()
        assert len(app.asked) == 1
        await world.identity(peer="192.0.2.8")  # the app may bind a login to an address
        assert len(app.asked) == 2
        app.says(Answer(401))
        await world.identity()
        world.now = 5
        assert await world.refusal() == (401, "credential.refused")
        app.says(told(ALICE))
        assert await world.refusal() == (401, "credential.refused")
        assert len(app.asked) == 3

    run(scenario())


def test_nothing_is_remembered_where_the_cache_is_off(app: Server) -> None:
    async def scenario() -> None:
        world = World(url_of(app), cache=0)
        await world.identity()
        app.says(Answer(403))
        assert await world.refusal() == (401, "credential.refused")

    run(scenario())


def test_what_is_remembered_is_bounded(app: Server) -> None:
    """The answer unused for longest is forgotten; a flood of invented cookies costs memory of a fixed size."""

    async def scenario() -> None:
        world = World(url_of(app), limits=Limits(app_answers=16), cache=300)
        for number in range(17):
            await world.identity({"Cookie": f"login={number}"})
        await world.identity({"Cookie": "login=16"})
        assert len(app.asked) == 17
        await world.identity({"Cookie": "login=0"})
        assert len(app.asked) == 18

    run(scenario())


def test_who_ask_the_same_at_one_time_share_one_call(app: Server) -> None:
    """A hundred sockets of a page that reloads are one question; one who leaves ends it for nobody."""
    app.says(told(ALICE, wait=0.2))

    async def scenario() -> None:
        world = World(url_of(app))
        leaving = asyncio.ensure_future(world.decide())
        rest = [asyncio.ensure_future(world.identity()) for _ in range(99)]
        await asyncio.to_thread(app.arrived.acquire)
        leaving.cancel()
        assert {found.subject for found in await asyncio.gather(*rest)} == {"alice"}
        assert len(app.asked) == 1

    run(scenario())


def test_different_questions_at_one_time_are_bounded(app: Server) -> None:
    """Invented cookies cannot make the gateway flood the app: beyond the bound they are refused (503)."""
    app.says(told(ALICE, wait=0.3))

    async def scenario() -> None:
        world = World(url_of(app), limits=Limits(app_pending=2))
        decisions = await asyncio.gather(*(world.decide({"Cookie": f"login={number}"}) for number in range(5)))
        refused = [decision.reason.code for decision in decisions if isinstance(decision, Refuse)]
        assert refused == ["credential.unavailable"] * 3
        assert len(app.asked) == 2

    run(scenario())


def test_a_connection_that_the_app_has_closed_is_tried_again(app: Server) -> None:
    """The app may end an idle connection that very moment: the question is put once more."""
    answers: list[Callable[[Asked], Answer]] = [lambda asked: told(ALICE)]

    def once_broken(asked: Asked) -> Answer:
        if len(app.asked) == 2:
            raise ConnectionResetError
        return answers[0](asked)

    app.answer = once_broken

    async def scenario() -> None:
        world = World(url_of(app), cache=0)
        await world.identity()
        await world.identity()
        assert len(app.asked) == 3

    run(scenario())


# --- where it is asked ------------------------------------------------------------------------------------------------


def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with serving_in_the_clear(told(ALICE), place=path) as app:
        assert run(World(f"unix:{path}:/api/me").identity()).subject == "alice"
        assert app.asked[0].target == "/api/me"
        assert app.asked[0].headers["host"] == "app.test"


def test_over_https_its_certificate_counts(authority: trustme.CA, ca_file: Path) -> None:
    """A certificate of a CA that is not trusted is no answer."""
    with serving(authority, "localhost", answer=told(ALICE)) as app:
        world = World(app.url("/api/me"))
        assert run(world.refusal()) == (503, "credential.unavailable")
        assert app.asked == []
        assert run(World(app.url("/api/me"), outbound_ca=ca_file).identity()).subject == "alice"


@pytest.mark.parametrize(
    ("url", "told_"),
    [
        ("http://93.184.216.34/me", "public"),
        ("http://[2606:2800:220:1::1]/me", "public"),
        ("ftp://127.0.0.1/me", "https:// or http://"),
        ("127.0.0.1:8888/api/me", "https:// or http://"),
        ("http://user:hunter2@127.0.0.1/me", "user or password"),
        ("http://127.0.0.1/me#x", "fragment"),
        ("unix:/run/app.sock", "unix:PATH:/api/me"),
        ("unix::/me", "unix:PATH:/api/me"),
        ("http://127.0.0.1/a b", "visible ASCII"),
    ],
)
def test_a_url_that_cannot_be_asked_stops_the_start(url: str, told_: str) -> None:
    with pytest.raises(ConfigurationErrors, match=r"ask\.url") as caught:
        World(url)
    assert told_ in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_name_with_a_public_address_is_not_asked_in_the_clear() -> None:
    """Its cookies would cross the Internet: judged at each call, since only then its address is known."""

    async def scenario() -> tuple[int, str]:
        world = World("http://app.example/me")

        async def resolve(host: str, port: int) -> list[str]:
            return ["93.184.216.34"]

        door = world.guard._assembly._door()
        door._resolve = resolve
        return await world.refusal()

    assert run(scenario()) == (503, "credential.unavailable")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"cookies": []}, "ask.cookies"),
        ({"cookies": "login"}, "ask.cookies"),
        ({"headers": ["Cookie"]}, "ask.headers"),
        ({"headers": ["Origin"]}, "ask.headers"),
        ({"headers": ["X-Forwarded-For"]}, "ask.headers"),
        ({"headers": ["a b"]}, "ask.headers"),
        ({"timeout": 0}, "ask.timeout"),
        ({"cache": 301}, "ask.cache"),
        ({"cache": -1}, "ask.cache"),
        ({"recheck": 0.5}, "ask.recheck"),
        ({"subject": ""}, "ask.subject"),
    ],
)
def test_options_out_of_range_stop_the_start(changes: dict[str, Any], key: str) -> None:
    ask: Any = Ask
    with pytest.raises(ConfigurationError, match=key):
        ask("http://127.0.0.1:1/me", **{"cookies": ["login"], **changes})


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigurationErrors) as failed:
        Ask("http://127.0.0.1:1/me", cookies=["a b"], headers=["Host"], timeout=0, subject="")
    assert [error.key for error in failed.value.errors] == ["ask.headers", "ask.timeout", "ask.subject", "ask.cookies"]


def test_origins_must_be_written_out_beside_it() -> None:
    """An ambient credential counts only for pages that somebody has listed."""
    ask = Ask("http://127.0.0.1:1/me", cookies=["login"])
    with pytest.raises(ConfigurationErrors, match="origins written out"):
        Guard(Policy(hosts=["app.test"], auth=["ask"]), authenticators=[ask])
    with pytest.raises(ConfigurationErrors, match="no pattern beside ask"):
        Guard(Policy(origins=["https://*.app.test"], hosts=["app.test"], auth=["ask"]), authenticators=[ask])


# --- HTTP Basic -------------------------------------------------------------------------------------------------------

BASIC: dict[str, str | None] = {"Cookie": None, "Authorization": "basic  eDp5"}


def test_basic_is_verified_by_the_app(app: Server) -> None:
    """The app gets the password in its own field, and says who it is; without a subject nobody learns the user name."""
    world = World(url_of(app), auth=("basic",))
    found = run(world.identity(BASIC))
    assert (found.subject, found.method) == ("alice", "basic")
    assert app.asked[0].headers["authorization"] == "Basic eDp5"
    assert "cookie" not in app.asked[0].headers


def test_basic_is_read_only_where_it_is_named(app: Server) -> None:
    """As if it were not there; and the challenge that makes browsers ask for a password stands only where it is."""
    decision = run(World(url_of(app), auth=("ask",)).decide(BASIC))
    assert isinstance(decision, Refuse)
    assert (decision.reason.code, decision.headers) == ("credential.missing", (("WWW-Authenticate", "Bearer"),))
    named = run(World(url_of(app), auth=("basic",)).decide({"Cookie": "login=c1"}))
    assert isinstance(named, Refuse)
    assert named.headers[-1] == ("WWW-Authenticate", 'Basic realm="wsguard", charset="UTF-8"')
    assert app.asked == []


def test_basic_is_ambient(app: Server) -> None:
    """Browsers attach it to a foreign page's handshake too; without an Origin it counts where browsers are refused."""
    foreign = {**BASIC, "Origin": "https://evil.test"}
    assert run(World(url_of(app), auth=("basic",)).refusal(foreign)) == (403, "origin.not_allowed")
    machines = World(url_of(app), auth=("basic",), policy={"browsers": "refuse"})
    assert run(machines.identity({**BASIC, "Origin": None})).subject == "alice"


@pytest.mark.parametrize("value", ["Basic", "Basic ", "Basic a b", "Basic =", "Basic ä"])
def test_a_malformed_basic_credential_is_refused_here(app: Server, value: str) -> None:
    world = World(url_of(app), auth=("basic",))
    status, _ = run(world.refusal({**BASIC, "Authorization": value}))
    assert status in (400, 401)
    assert app.asked == []


def test_a_page_is_asked_who_it_is_too(app: Server) -> None:
    """The fallback transports under a route are judged by its cookie as its sockets are (RULES §1)."""
    world = World(url_of(app))
    for cookie, expected in (("login=c1", Accept), ("other=1", Refuse)):
        subject = page({"Cookie": cookie, "Sec-Fetch-Site": "same-origin"})
        decision = run(world.guard.decide(subject, world.guard.client_of(subject)))
        assert isinstance(decision, expected), decision
