"""Tickets from sale to redemption, renewal and revocation, through a Guard and without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import structs

from tests.engine.make import handshake
from tests.guard.world import APP, NOW, Key, World, code_of, fields_of, refusal_of, run
from wsguard import Guard, Identity, Limits, Policy, Ticket
from wsguard.endpoints.messages import EndpointResponse
from wsguard.engine.policy import Context
from wsguard.engine.ports import Taken
from wsguard.engine.revocations import RevocationSyntaxError
from wsguard.engine.sessions import Session
from wsguard.engine.tickets import ticket_key
from wsguard.guard import Admission
from wsguard.store.memory import MemoryStore
from wsguard.vocabulary.decision import Accept, Refusal, Refuse
from wsguard.vocabulary.errors import ConfigurationError, StoreError, StoreFull
from wsguard.vocabulary.handshake import Handshake, Peer

# --- the sale ---------------------------------------------------------------------------------------------------------


def test_a_ticket_is_sold_and_opens_one_socket() -> None:
    """The answer's members are those that §13 says; the ticket opens one socket, as whom it was sold to."""

    async def scenario() -> None:
        world = World()
        answer = await world.buy()
        sold = json.loads(answer.body)
        assert set(sold) == {
            "ticket",
            "expires_in",
            "url",
            "protocols",
            "session",
            "session_expires_at",
            "renew_after",
            "reconnect_window",
        }
        assert (sold["expires_in"], sold["url"]) == (30, "wss://app.test/ws/chat")
        assert sold["protocols"] == ["wsguard.v1", sold["ticket"]]
        assert (sold["session_expires_at"], sold["renew_after"]) == (int(NOW) + 100, 66)
        assert len(sold["ticket"]) < 200
        fields = fields_of(answer)
        assert fields["cache-control"] == "no-store"
        assert (fields["access-control-allow-origin"], fields["vary"]) == (APP, "Origin")
        session = await world.open(["chat.v1", *sold["protocols"]])
        assert session.identity is not None
        assert (session.identity.subject, session.identity.issuer) == ("alice", "app")
        assert code_of(await world.shake(sold["protocols"])) == "ticket.used"

    run(scenario)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "ticket.body")),
        (b"[]", (400, "ticket.body")),
        (b"{}", (400, "ticket.body")),
        (b'{"path": 1}', (400, "ticket.body")),
        (b'{"path": "/ws/chat", "more": 1}', (400, "ticket.body")),
        (b'{"path": "/ws/chat?a=b"}', (400, "ticket.body")),
        (b'{"path": "/nowhere"}', (403, "ticket.route")),
        (b'{"path": "/no-tickets"}', (403, "ticket.route")),
        (b'{"path": "/ws/%2e%2e/x"}', (403, "ticket.route")),
        (b'{"path": "ws/chat"}', (403, "ticket.route")),
        (b'{"path": "' + b"a" * 9000 + b'"}', (413, "endpoint.body_too_large")),
    ],
)
def test_a_body_that_asks_for_nothing_is_told_so(body: bytes, expected: tuple[int, str]) -> None:
    """The path is matched as a target is; what has no route that takes tickets is 403."""

    async def scenario() -> None:
        assert refusal_of(await World().ask("/.wsguard/ticket", {"X-Key": "alice"}, body)) == expected

    run(scenario)


def test_method_and_content_type() -> None:
    """405 with Allow, 415; and neither is told to a page of a foreign origin in a way that it could read."""

    async def scenario() -> None:
        world = World()
        wrong = await world.ask("/.wsguard/ticket", {"X-Key": "alice"}, method="GET")
        assert refusal_of(wrong) == (405, "endpoint.method")
        assert fields_of(wrong)["allow"] == "POST, OPTIONS"
        assert refusal_of(await world.buy(json_type=False)) == (415, "endpoint.content_type")
        foreign = await world.buy({"X-Key": "alice", "Origin": "https://evil.test"})
        assert refusal_of(foreign) == (403, "origin.not_allowed")
        assert "access-control-allow-origin" not in fields_of(foreign)

    run(scenario)


def test_a_preflight_is_answered_to_listed_origins_alone() -> None:
    """CORS names the origin exactly; cookies may ride because a cookie may buy here."""

    async def scenario() -> None:
        ask = {"Access-Control-Request-Method": "POST"}
        allowed = fields_of(await World().ask("/.wsguard/ticket", ask, method="OPTIONS"))
        assert allowed["access-control-allow-origin"] == APP
        assert allowed["access-control-allow-credentials"] == "true"
        assert "x-key" in allowed["access-control-allow-headers"]
        refused = await World().ask("/.wsguard/ticket", {**ask, "Origin": "https://evil.test"}, method="OPTIONS")
        assert refused.status == 403
        assert "access-control-allow-origin" not in fields_of(refused)
        explicit = await World(ticket={"sold_for": ["key"]}).ask("/.wsguard/ticket", ask, method="OPTIONS")
        assert "access-control-allow-credentials" not in fields_of(explicit)

    run(scenario)


def test_ticket_needs_login_and_origin() -> None:
    """B-TICKET-04: nobody without a credential; a cookie only with the marker and a listed Origin."""

    async def scenario() -> None:
        world = World(auth=["ticket", "key", "cookie"])
        assert refusal_of(await world.buy({})) == (401, "credential.missing")
        assert refusal_of(await world.buy({"X-Key": "bad", "Cookie": "login=alice", "X-WSGuard": "1"})) == (
            401,
            "credential.invalid",
        )
        cookie = {"Cookie": "login=alice"}
        assert refusal_of(await world.buy(cookie)) == (403, "ticket.header")
        assert refusal_of(await world.buy({**cookie, "X-WSGuard": "yes"})) == (403, "ticket.header")
        assert refusal_of(await world.buy({**cookie, "X-WSGuard": "1", "Origin": ""})) == (403, "ticket.header")
        assert (await world.buy({**cookie, "X-WSGuard": "1"})).status == 200
        assert (await world.buy({"X-Key": "alice", "Origin": ""})).status == 200

    run(scenario)


def test_tickets_are_sold_at_a_rate() -> None:
    """By identity, and by address whoever asks: 429 and when to come again."""

    async def scenario() -> None:
        world = World(ticket={"rate": 2, "rate_address": 3})
        assert [(await world.buy({"X-Key": "alice"}, peer=f"192.0.2.{n}")).status for n in range(3)] == [200, 200, 429]
        answers = [await world.buy({"X-Key": f"user{n}"}, peer="192.0.2.99") for n in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert refusal_of(answers[-1]) == (429, "limits.tickets")
        assert int(fields_of(answers[-1])["retry-after"]) >= 1

    run(scenario)


def test_a_ticket_does_not_outlive_its_credential() -> None:
    """Neither in the store nor at the door."""

    async def scenario() -> None:
        world = World()
        world.life = 10
        sold = await world.ticket()
        assert sold["expires_in"] == 10
        world.now += 10
        assert code_of(await world.shake(sold["protocols"])) == "ticket.unknown"
        world.life = None
        endless = await world.ticket()
        assert (endless["session_expires_at"], endless["renew_after"]) == (None, None)

    run(scenario)


# --- what it is bound to ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "target", "expected"),
    [
        ({"Origin": "https://other.test"}, b"/ws/chat", "ticket.origin"),
        ({}, b"/second/chat", "ticket.route"),
        ({"Origin": "https://evil.test"}, b"/ws/chat", "origin.not_allowed"),
        ({}, b"/ws/chat?ticket=x", "ticket.query"),
        ({}, b"/ws/chat?a=b&%74icket=x", "ticket.query"),
        ({}, b"/ws/other", None),
    ],
)
def test_wrong_place_or_twice(fields: dict[str, str | None], target: bytes, expected: str | None) -> None:
    """B-TICKET-06: another route, another origin, the query: refused, and the ticket is not spent by it."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()
        assert code_of(await world.shake(sold["protocols"], fields, target=target)) == expected
        if expected is not None:
            assert code_of(await world.shake(sold["protocols"])) is None
            other = await world.ticket()
            both = [*sold["protocols"], other["ticket"]]
            assert code_of(await world.shake(both)) == "credential.repeated"

    run(scenario)


def test_only_its_owner_redeems() -> None:
    """B-TICKET-03: one that a cookie bought needs that cookie again; planted in another's page it opens nothing."""

    async def scenario() -> None:
        world = World(auth=["ticket", "cookie"])
        mine = {"Cookie": "login=mallory/s1", "X-WSGuard": "1"}
        sold = await world.ticket(mine)
        for cookie in ("login=victim", "login=mallory/s2", None):
            outcome = await world.shake(sold["protocols"], {"Cookie": cookie})
            assert code_of(outcome) == "ticket.identity", cookie
        assert code_of(await world.shake(sold["protocols"], {"Cookie": "login=mallory/s1"})) is None

    run(scenario)


def test_without_an_origin_and_by_address() -> None:
    """Sold without an Origin it opens only without one; with bind_address only for the address that bought it."""

    async def scenario() -> None:
        world = World(ticket={"bind_address": True}, allow_missing_origin=True)
        sold = await world.ticket({"X-Key": "alice", "Origin": ""})
        assert code_of(await world.shake(sold["protocols"])) == "ticket.origin"
        assert code_of(await world.shake(sold["protocols"], {"Origin": None}, peer="192.0.2.8")) == "ticket.address"
        assert code_of(await world.shake(sold["protocols"], {"Origin": None})) is None

    run(scenario)


def test_another_host_of_ours_is_another_place() -> None:
    """Bound to the host that it was bought for."""

    async def scenario() -> None:
        world = World()
        policy = Policy(origins=[APP], hosts=["app.test", "www.app.test"], auth=["ticket"])
        guard = Guard(
            policy, authenticators=[Key(world)], ticket=Ticket(["key"]), public_url=APP, wall_clock=lambda: NOW
        )
        world.guard = guard
        sold = await world.ticket()
        assert code_of(await world.shake(sold["protocols"], {"Host": "www.app.test"})) == "ticket.host"

    run(scenario)


@pytest.mark.parametrize("text", ["wsguard.ticket.x", "wsguard.ticket." + "0" * 8 + ".short"])
def test_what_is_no_ticket(text: str) -> None:
    """Garbage is told from a ticket of another store, and from one that never was."""

    async def scenario() -> None:
        world = World()
        assert code_of(await world.shake(["wsguard.v1", text])) == "ticket.malformed"
        never = f"wsguard.ticket.{world.guard.store.name}." + "A" * 43
        assert code_of(await world.shake(["wsguard.v1", never])) == "ticket.unknown"
        elsewhere = await World().ticket()
        assert code_of(await world.shake(elsewhere["protocols"])) == "store.not_shared"

    run(scenario)


# --- replay, and many at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("replay_closes", [True, False])
def test_a_replay_closes_the_first_socket(replay_closes: bool) -> None:
    """Of two who have a ticket nobody knows who is right: 401 for the second, 3000 for the first, unless switched off."""

    async def scenario() -> None:
        world = World(ticket={"replay_closes": replay_closes})
        sold = await world.ticket()
        session = await world.open(sold["protocols"])
        assert code_of(await world.shake(sold["protocols"])) == "ticket.used"
        assert world.closed == ([(session.public_id, 3000, "ticket.replayed")] if replay_closes else [])

    run(scenario)


def test_two_redeem_at_once() -> None:
    """B-TICKET-01: of 200 at once one is let in; all the others are told that it is used."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()
        outcomes = await asyncio.gather(*(world.shake(sold["protocols"]) for _ in range(200)))
        codes = [code_of(outcome) for outcome in outcomes]
        assert codes.count(None) == 1
        assert codes.count("ticket.used") == 199

    run(scenario)


class Broken(MemoryStore):
    """A store whose named command fails; it counts what it is asked."""

    fails: str = ""

    def __init__(self) -> None:
        super().__init__(Limits(), bytes)
        self.asked: list[str] = []

    async def put(self, *arguments: Any, **options: Any) -> None:
        self._fail("put")
        await super().put(*arguments, **options)

    async def peek(self, *arguments: Any, **options: Any) -> Taken:
        self._fail("peek")
        return await super().peek(*arguments, **options)

    async def take(self, *arguments: Any, **options: Any) -> Taken:
        self._fail("take")
        return await super().take(*arguments, **options)

    def _fail(self, command: str) -> None:
        self.asked.append(command)
        if command == self.fails:
            raise StoreError("down")


def test_store_down_refuses() -> None:
    """B-STORE-03: whatever the store cannot do, nobody is let in by it; and it recovers by itself."""

    async def scenario() -> None:
        store = Broken()
        world = World(store=store, limits={"tickets_at_hand": 0})
        store.fails = "put"
        assert refusal_of(await world.buy()) == (503, "store.unavailable")
        store.fails = ""
        sold = await world.ticket()
        for command in ("peek", "take"):
            store.fails = command
            assert code_of(await world.shake(sold["protocols"])) == "store.unavailable"
        store.fails = ""
        assert code_of(await world.shake(sold["protocols"])) is None

    run(scenario)


def test_a_ticket_that_was_sold_here_is_redeemed_by_one_command() -> None:
    """A store is often a file or a network away: only what decides is asked of it, and that always."""

    async def scenario() -> None:
        store = Broken()
        world = World(store=store)
        sold = await world.ticket()
        store.fails = "take"
        assert code_of(await world.shake(sold["protocols"])) == "store.unavailable"
        store.fails = ""
        again = await world.ticket()
        assert code_of(await world.shake(again["protocols"])) is None
        assert store.asked == ["put", "take", "put", "take"]
        assert code_of(await world.shake(sold["protocols"])) is None  # that was not spent, and no longer at hand
        assert store.asked[4:] == ["peek", "take"]

    run(scenario)


@pytest.mark.parametrize(
    ("shaken", "revoked", "most"),
    [
        ({}, False, 100),
        ({"fields": {"Origin": "https://other.test"}}, False, 100),
        ({"target": b"/second/chat"}, False, 100),
        ({}, True, 100),
        ({}, False, 1),
    ],
    ids=["well placed", "another origin", "another route", "revoked", "too many attempts"],
)
def test_a_ticket_at_hand_that_was_redeemed_elsewhere(shaken: dict[str, Any], revoked: bool, most: int) -> None:
    """B-TICKET-01: who sold it says that it is used, whatever else is wrong, as every other process does."""

    async def scenario() -> None:
        store = Broken()
        seller, other = World(store=store, limits={"attempts_address": most}), World(store=store)
        sold = await seller.ticket()
        redeemed = await other.open(sold["protocols"])
        replays: list[bytes] = []
        seller.guard.live.replayed = replays.append  # type: ignore[method-assign]
        tickets = seller.guard._assembly.tickets
        assert tickets is not None
        tickets._on_replay = replays.append
        if revoked:
            await seller.guard.revoke(subject="alice")
        if most == 1:
            assert code_of(await seller.shake([], {"X-Key": "bad"})) == "credential.invalid"
        assert code_of(await seller.shake(sold["protocols"], **shaken)) == "ticket.used"
        assert replays == [redeemed.public_id.encode()]

    run(scenario)


def test_a_ticket_at_hand_that_the_store_has_lost() -> None:
    """The store alone lets somebody in: what it does not know is unknown, whoever remembers selling it."""

    async def scenario() -> None:
        store = Broken()
        world = World(store=store)
        sold = await world.ticket()
        await store.take("tickets", ticket_key(sold["ticket"].rpartition(".")[2]), mark=b"m", now=NOW)
        assert code_of(await world.shake(sold["protocols"])) == "ticket.used"
        lost = World(store=Losing(Limits(), bytes))
        assert code_of(await lost.shake((await lost.ticket())["protocols"])) == "ticket.unknown"

    run(scenario)


class Losing(MemoryStore):
    """A store that keeps nothing, as one whose file was exchanged."""

    async def put(self, *arguments: Any, **options: Any) -> None:
        pass


def test_tickets_at_hand_expire_and_are_bounded() -> None:
    """`limits.tickets_at_hand` of them, for as long as they can be redeemed; the others are looked up."""

    async def scenario() -> None:
        store = Broken()
        world = World(store=store, limits={"tickets_at_hand": 2})
        sold = [await world.ticket() for _ in range(3)]
        store.asked.clear()
        for one in (sold[2], sold[1], sold[0]):
            assert code_of(await world.shake(one["protocols"])) is None
        assert store.asked == ["take", "take", "peek", "take"]
        late = await world.ticket()
        world.now += 30
        assert code_of(await world.shake(late["protocols"])) == "ticket.unknown"
        store.asked.clear()
        await world.ticket()
        await world.ticket()
        assert store.asked == ["put", "put"]
        assert len(sold_tickets(world)) == 2  # the late one is forgotten, though there was room

    run(scenario)


def sold_tickets(world: World) -> dict[bytes, Any]:
    return world.guard._tickets._at_hand


def test_ticket_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """B-TICKET-02: neither ticket nor handle stands in the log, a repr or an error."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()
        admission = await world.shake(sold["protocols"])
        again = await world.shake(sold["protocols"])
        machine = await world.shake([], {"X-Key": "alice"})
        assert isinstance(machine, Admission)
        assert machine.handle
        texts = [repr(admission), repr(again), repr(machine), *capsys.readouterr()]
        secret = sold["ticket"].rpartition(".")[2]
        for text in texts:
            assert secret not in text
            assert sold["session"] not in text
            assert machine.handle not in text

    run(scenario)


# --- what it must hold ------------------------------------------------------------------------------------------------


def test_require_is_judged_at_sale_and_at_redemption() -> None:
    """A credential without the scope buys none."""

    async def scenario() -> None:
        world = World(require={"scopes": ["admin"]})
        assert refusal_of(await world.buy()) == (403, "authorization.scope")
        world.scopes = frozenset({"admin"})
        assert code_of(await world.shake((await world.ticket())["protocols"])) is None

    run(scenario)


def test_an_identity_that_no_field_can_hold_is_refused() -> None:
    """An upstream is told who it is in fields: over 1 KiB one is 403, before anybody cuts it."""

    async def scenario() -> None:
        world = World()
        assert code_of(await world.shake([], {"X-Key": "a" * 1025})) == "identity.too_long"
        assert code_of(await world.shake([], {"X-Key": "a" * 1024})) is None
        # at the sale, too: a page should not buy what will not open
        assert refusal_of(await world.buy({"X-Key": "a" * 1025})) == (403, "identity.too_long")

    run(scenario)


# --- renewal ----------------------------------------------------------------------------------------------------------


def test_a_socket_is_renewed_in_place() -> None:
    """Same subject, issuer, origin; it never shortens a life; unknown handles and floods are told so."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()
        session = await world.open(sold["protocols"])

        async def renew(handle: str, fields: dict[str, str]) -> EndpointResponse:
            return await world.ask("/.wsguard/renew", fields, json.dumps({"session": handle}).encode())

        world.life = 500
        renewed = await renew(sold["session"], {"X-Key": "alice"})
        assert json.loads(renewed.body) == {"session_expires_at": int(NOW) + 500, "renew_after": 333}
        assert session.expires_at == NOW + 500
        world.life = 5
        shorter = await renew(sold["session"], {"X-Key": "alice"})
        assert json.loads(shorter.body)["session_expires_at"] == int(NOW) + 500
        assert refusal_of(await renew("x", {"X-Key": "alice"})) == (404, "session.unknown")
        assert refusal_of(await renew(sold["session"], {"X-Key": "bob"})) == (403, "session.identity")
        other = {"X-Key": "alice", "Origin": "https://other.test"}
        assert refusal_of(await renew(sold["session"], other)) == (403, "session.identity")
        assert refusal_of(await renew(sold["session"], {"X-Key": "bad"})) == (401, "credential.invalid")
        assert refusal_of(await renew(sold["session"], {})) == (401, "credential.missing")
        assert [(await renew(sold["session"], {"X-Key": "alice"})).status for _ in range(4)] == [200] * 4
        assert refusal_of(await renew(sold["session"], {"X-Key": "alice"})) == (429, "limits.renewals")
        assert world.closed == []

    run(scenario)


def test_claims_that_no_longer_suffice_end_the_socket() -> None:
    """The route's require holds with the new claims, or 3003."""

    async def scenario() -> None:
        world = World(require={"scopes": ["chat"]})
        sold = await world.ticket()
        session = await world.open(sold["protocols"])
        world.scopes = frozenset()
        body = json.dumps({"session": sold["session"]}).encode()
        assert refusal_of(await world.ask("/.wsguard/renew", {"X-Key": "alice"}, body)) == (403, "authorization.scope")
        assert world.closed == [(session.public_id, 3003, "not allowed")]

    run(scenario)


# --- the session endpoint ---------------------------------------------------------------------------------------------


def test_a_page_may_ask_why_its_socket_failed() -> None:
    """200 with the credential's end, else the status that a ticket would get, and no reason."""

    async def scenario() -> None:
        world = World(auth=["ticket", "key", "cookie"])

        async def ask(fields: dict[str, str], path: str = "/ws/chat") -> EndpointResponse:
            return await world.ask(f"/.wsguard/session?path={path}", fields, method="GET")

        assert json.loads((await ask({"X-Key": "alice"})).body) == {"expires_at": int(NOW) + 100}
        assert refusal_of(await ask({}))[0] == 401
        assert refusal_of(await ask({"X-Key": "alice"}, "/nowhere"))[0] == 403
        assert refusal_of(await world.ask("/.wsguard/session", {"X-Key": "alice"}, method="GET")) == (
            400,
            "ticket.body",
        )
        own = {"Cookie": "login=alice", "Origin": "", "X-WSGuard": "1"}
        assert (await ask({**own, "Sec-Fetch-Site": "same-origin"})).status == 200
        assert refusal_of(await ask({**own, "Sec-Fetch-Site": "cross-site"})) == (403, "ticket.header")
        refused = await ask({"X-Key": "bad"})
        assert json.loads(refused.body) == {"status": 401, "error": "Unauthorized"}

    run(scenario)


# --- revocation and expiry --------------------------------------------------------------------------------------------


def test_revoked_sid_closes_the_socket() -> None:
    """B-STORE-01: live sockets close, and the still valid credential opens, buys and renews nothing more."""

    async def scenario() -> None:
        world = World(auth=["ticket", "cookie"])
        cookie = {"Cookie": "login=alice/s1", "X-WSGuard": "1"}
        sold = await world.ticket(cookie)
        unused = await world.ticket(cookie)
        session = await world.open(sold["protocols"], {"Cookie": "login=alice/s1"})
        other = await world.open(
            (await world.ticket({**cookie, "Cookie": "login=alice/s2"}))["protocols"], {"Cookie": "login=alice/s2"}
        )
        assert await world.guard.revoke(sid="s1") == 1
        assert world.closed == [(session.public_id, 3000, "revoked")]
        assert other.closing is None
        assert code_of(await world.shake(unused["protocols"], {"Cookie": "login=alice/s1"})) == "session.revoked"
        assert refusal_of(await world.buy(cookie)) == (401, "session.revoked")
        body = json.dumps({"session": sold["session"]}).encode()
        assert refusal_of(await world.ask("/.wsguard/renew", cookie, body)) == (404, "session.unknown")

    run(scenario)


def test_what_was_issued_later_is_not_meant() -> None:
    """`issued_before` in Unix seconds: who logs in again comes in again; a handshake under way does not slip through."""

    async def scenario() -> None:
        world = World()
        admission = await world.shake([], {"X-Key": "alice"})
        assert isinstance(admission, Admission)
        await world.guard.revoke(subject="alice", issuer="app")
        assert not world.guard.live.register(Session(**admission.facts))
        assert code_of(await world.shake([], {"X-Key": "alice"})) == "session.revoked"
        assert code_of(await world.shake([], {"X-Key": "bob"})) is None
        world.now += 10
        assert code_of(await world.shake([], {"X-Key": "alice"})) is None
        assert await world.guard.revoke(subject="alice", issuer="other") == 0
        with pytest.raises(RevocationSyntaxError):
            await world.guard.revoke()
        with pytest.raises(RevocationSyntaxError):
            await world.guard.revoke(subject="")

    run(scenario)


def test_one_timer_ends_every_credential() -> None:
    """A thousand sockets, each at its own time, in order; a renewed one lives on."""

    async def scenario() -> None:
        world = World()
        guard = world.guard
        ended: list[int] = []
        sessions: list[Session] = []
        for number in range(1000):
            identity = Identity("alice", "app", "key", expires_at=NOW + number % 100 + 1)
            session = Session(str(number), APP, "app.test", "/*", "/ws", "peer", 0.0, identity=identity)
            session.bind(lambda code, reason, number=number: ended.append(number))
            assert guard.live.register(session)
            sessions.append(session)
        sessions[0].renew(Identity("alice", "app", "key", expires_at=NOW + 500))
        world.now = NOW + 50
        guard.live.deadlines._look()
        assert len(ended) == 499
        assert all(number % 100 < 50 for number in ended)
        assert [sessions[number].expires_at for number in ended] == sorted(
            sessions[number].expires_at or 0 for number in ended
        )
        assert sessions[0].closing is None
        guard.stop()

    run(scenario)


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"sold_for": "key"},
        {"sold_for": ["ticket"]},
        {"sold_for": ["basic"]},
        {"sold_for": ["key"], "lifetime": 1},
        {"sold_for": ["key"], "lifetime": 301},
        {"sold_for": ["key"], "rate": 0},
    ],
)
def test_a_sale_that_cannot_be_stops_the_start(options: dict[str, Any]) -> None:
    """By its key, with what would be right."""
    with pytest.raises(ConfigurationError, match=r"ticket\."):
        Ticket(**options)


def test_a_guard_whose_tickets_cannot_work_does_not_start() -> None:
    """An unknown seller; a route that takes tickets and nobody sells; several hosts and no public_url."""
    policy = Policy(origins=[APP], auth=["ticket"])
    with pytest.raises(ConfigurationError, match="sold_for"):
        Guard(policy, ticket=Ticket(["bearer"]))
    with pytest.raises(ConfigurationError, match="ticket"):
        Guard(policy)
    several = Policy(origins=[APP, "https://other.test"], auth=["ticket"])
    with pytest.raises(ConfigurationError, match="public_url"):
        Guard(several, authenticators=[Key(World())], ticket=Ticket(["key"]))
    for written in ("http://app.test", "app.test", "https://app.test/path"):
        with pytest.raises(ConfigurationError, match="public_url"):
            Guard(policy, authenticators=[Key(World())], ticket=Ticket(["key"]), public_url=written)


def test_revocations_are_bounded_and_none_is_forgotten_for_another() -> None:
    """A full list closes the sockets all the same, and says that it cannot remember; the older ones still hold."""

    async def scenario() -> None:
        world = World(limits={"revocations": 16})
        for number in range(16):
            await world.guard.revoke(subject=f"user{number}")
        await world.guard.revoke(subject="user3")  # the same again takes no room
        await world.open([], {"X-Key": "alice"})
        with pytest.raises(StoreFull, match=r"limits\.revocations"):
            await world.guard.revoke(subject="alice")
        assert [(code, reason) for _, code, reason in world.closed] == [(3000, "revoked")]
        assert code_of(await world.shake([], {"X-Key": "user0"})) == "session.revoked"

    run(scenario)


def test_the_start_says_what_a_restart_forgets() -> None:
    """A lost revocation lets a credential in again: who has credentials is told, once, at start."""
    assert any(notice.startswith("memory store") for notice in World().guard.notices)
    assert Guard(Policy(origins=[APP])).notices == []


@pytest.mark.parametrize(
    ("origins", "host", "expected"),
    [
        (["https://app.test:9000"], "app.test", "https://app.test:9000"),
        (["https://app.test"], "app.test", "https://app.test"),
        (["https://app.test:9000"], "app.test:9001", "https://app.test:9001"),
        (["https://other.test:9000"], "app.test", "https://app.test"),
        (["https://app.test:9000", "https://app.test"], "app.test", None),
    ],
)
def test_a_tickets_address_has_the_port_of_the_pages(origins: list[str], host: str, expected: str | None) -> None:
    """Else a page at :9000 would be sent to another server, and see no more than 1006."""
    policy = Policy(origins=origins, hosts=[host], auth=["ticket"])

    def made() -> Guard:
        return Guard(policy, authenticators=[Key(World())], ticket=Ticket(["key"]))

    if expected is None:
        with pytest.raises(ConfigurationError, match=r"pages at https://app.test, https://app.test:9000"):
            made()
        return
    desk = made()._desk
    assert desk is not None
    assert desk.public_url == expected


def test_a_ticket_at_hand_that_was_redeemed_elsewhere_over_the_cap_on_sockets() -> None:
    """B-TICKET-01: the last refusal of all, behind the decision, tells of the replay as well."""

    async def scenario() -> None:
        store = Broken()
        seller, other = World(store=store, limits={"open_address": 1}), World(store=store)
        sold = await seller.ticket()
        assert code_of(await other.shake(sold["protocols"])) is None
        subject = structs.replace(
            handshake({"Origin": APP, "Sec-WebSocket-Protocol": ", ".join(sold["protocols"])}, target=b"/ws/chat"),
            peer=Peer("192.0.2.7"),
        )
        first, place = (seller.guard.addresses.enter("192.0.2.7") for _ in range(2))
        assert first is not None
        assert place is not None
        assert first.admit()
        decision = await seller.guard.decide(subject, seller.guard.client_of(subject))
        assert isinstance(decision, Accept)
        assert code_of(await seller.guard.admit(subject, decision, place)) == "ticket.used"

    run(scenario)


def test_a_seller_is_asked_once_about_a_ticket_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store says of a ticket at hand is mostly the same: no second question to the app for a bad cookie."""

    async def scenario() -> None:
        world = World(auth=["ticket", "cookie"])
        sold = await world.ticket({"Cookie": "login=alice", "X-WSGuard": "1"})
        asked: list[str] = []
        tickets = world.guard._assembly.tickets
        assert tickets is not None
        seller = tickets._sellers["cookie"]
        look = seller.authenticate

        async def counted(handshake: Handshake, context: Context) -> Identity | Refusal | None:
            asked.append("once")
            return await look(handshake, context)

        monkeypatch.setattr(seller, "authenticate", counted)
        assert code_of(await world.shake(sold["protocols"], {"Cookie": "login=mallory"})) == "ticket.identity"
        assert asked == ["once"]

    run(scenario)


def test_a_program_without_key_and_origin_is_told_of_the_key() -> None:
    """The log names the header that it has forgotten or misnamed, and does not advise to let everybody in."""

    async def scenario() -> None:
        world = World(auth=["ticket", "key"], origin_required="unless-header-credential")
        outcome = await world.shake([], {"Origin": None})
        assert isinstance(outcome, Refuse)
        assert (outcome.reason.code, outcome.setting) == ("origin.missing", "a program sends a credential: X-Key")

    run(scenario)
