"""The ticket itself, and what cannot be told from the outside: what is kept of it, and what a race leaves behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.guard.world import NOW, Cookie, World, code_of, run
from wsguard import Guard, Limits, Ticket
from wsguard.engine.sessions import Session
from wsguard.engine.tickets import (
    SPACE,
    TicketRecord,
    handle_digest,
    new_secret,
    new_ticket,
    read_ticket,
    ticket_key,
)
from wsguard.guard import Admission
from wsguard.store.memory import MemoryStore

STORE = "0123abcd"


def test_what_travels_and_what_is_kept() -> None:
    """256 random bits, under 200 bytes, one token of RFC 9110; only a hash of it is a key of the store."""
    drawn: list[int] = []

    def randomness(count: int) -> bytes:
        drawn.append(count)
        return bytes(range(count))

    text, key = new_ticket(STORE, randomness)
    assert drawn == [32]
    assert text == "wsguard.ticket.0123abcd.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert len(text) < 200
    read = read_ticket(text)
    assert read is not None
    assert (read.store, read.key) == (STORE, key)
    secret = text.rpartition(".")[2]
    assert ticket_key(secret) == key
    assert secret not in repr(read)
    assert len(key) == 32
    # The same text as a renewal handle is something else: neither stands for the other.
    assert handle_digest(secret) != key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wsguard.ticket.",
        f"wsguard.ticket.{STORE}.",
        f"wsguard.ticket.{STORE}." + "A" * 42,
        f"wsguard.ticket.{STORE}." + "A" * 44,
        f"wsguard.ticket.{STORE}." + "A" * 42 + "=",
        f"wsguard.ticket.{STORE}." + "A" * 42 + "\n",
        "wsguard.ticket.0123ABCD." + "A" * 43,
        f"wsguard.bearer.{STORE}." + "A" * 43,
        f" wsguard.ticket.{STORE}." + "A" * 43,
        f"wsguard.ticket.{STORE}." + "٣" * 43,
    ],
)
def test_what_is_no_ticket_is_not_looked_up(text: str) -> None:
    """One spelling: anything else never reaches the store."""
    assert read_ticket(text) is None


def test_a_record_comes_back_whole() -> None:
    """What the store keeps is what was put; it names no ticket."""
    record = TicketRecord(
        "alice",
        "https://id.test",
        "bearer",
        "/ws/*",
        "app.test",
        b"digest",
        NOW + 30,
        origin="https://app.test",
        address="192.0.2.7",
        sold_by="cookie",
        scopes=("a", "b"),
        groups=("c",),
        credential_id="j",
        sid="s",
        identity_expires_at=NOW + 60,
        issued_at=NOW,
    )
    again = TicketRecord.decode(record.encode())
    assert again == record
    identity = again.identity()
    assert (identity.subject, identity.issuer, identity.method, identity.sid) == (
        "alice",
        "https://id.test",
        "bearer",
        "s",
    )
    assert (identity.scopes, identity.groups) == (frozenset("ab"), frozenset("c"))
    assert (identity.expires_at, identity.issued_at, identity.credential_id) == (NOW + 60, NOW, "j")


def test_nothing_that_is_kept_opens_a_socket() -> None:
    """Who reads the store has neither ticket nor handle."""

    async def scenario() -> None:
        kept: list[bytes] = []

        class Watching(MemoryStore):
            async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
                assert space == SPACE
                kept.extend((key, value))
                await super().put(space, key, value, expires_at=expires_at, now=now)

        world = World(store=Watching(Limits(), bytes))
        sold = await world.ticket()
        assert len(kept) == 2
        for secret in (sold["ticket"].rpartition(".")[2], sold["session"]):
            assert not any(secret.encode() in data for data in kept)

    run(scenario)


def test_a_replay_while_the_first_one_still_waits_for_its_101() -> None:
    """The upstream may take its time: the first socket is closed as soon as it stands, not left alone (B-TICKET-01)."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()
        first = await world.shake(sold["protocols"])
        assert isinstance(first, Admission)
        assert code_of(await world.shake(sold["protocols"])) == "ticket.used"
        session = Session(**first.facts)
        assert world.guard.live.register(session)
        session.bind(lambda code, reason: world.closed.append((session.public_id, code, reason)))
        assert world.closed == [(session.public_id, 3000, "ticket.replayed")]

    run(scenario)


def test_replays_of_ended_sockets_are_not_kept_for_ever() -> None:
    """Each costs one line of a bounded table."""

    async def scenario() -> None:
        guard = World().guard
        for number in range(5000):
            guard.live.replayed(f"{number}".encode())
        assert len(guard.live._replays) == 4096

    run(scenario)


def test_the_query_counts_whatever_else_was_sent() -> None:
    """B-TICKET-06: ``?ticket=`` is 400 where auth names ticket, also behind a credential that decides before it."""

    async def scenario() -> None:
        world = World(auth=["key", "ticket"])
        for query in (b"?ticket=a", b"?a=1&%74%69cket", b"?ticket=a&ticket=b", b"?x&tic%6Bet=&y"):
            outcome = await world.shake([], {"X-Key": "alice"}, target=b"/ws/chat" + query)
            assert code_of(outcome) == "ticket.query", query
        for query in (b"?tickets=a", b"?a=ticket", b"?Ticket=a", b"?"):
            assert code_of(await world.shake([], {"X-Key": "alice"}, target=b"/ws/chat" + query)) is None, query
        # Elsewhere it is the app's own.
        untouched = await world.shake([], {"X-Key": "alice"}, target=b"/no-tickets?ticket=a")
        assert isinstance(untouched, Admission)

    run(scenario)


def test_a_credential_that_ended_since_the_sale() -> None:
    """401 at the door, for one that expired and for one that was revoked; neither spends the ticket."""

    async def scenario() -> None:
        world = World()
        world.life = 20
        expired = TicketRecord.decode(await stored(world))
        assert (expired.identity_expires_at, expired.expires_at) == (NOW + 20, NOW + 20)
        world.life = 100
        sold = await world.ticket()
        await world.guard.revoke(subject="alice")
        assert code_of(await world.shake(sold["protocols"])) == "session.revoked"
        found = await world.guard.store.peek(SPACE, key_of(sold["ticket"]), now=NOW)
        assert found.value is not None

    run(scenario)


def test_a_record_that_outlives_its_credential_opens_nothing() -> None:
    """Whatever a store answers, an expired identity is 401 `credential.expired`."""

    async def scenario() -> None:
        world = World()
        text, key = new_ticket(world.guard.store.name, bytes)
        record = TicketRecord(
            "alice",
            "app",
            "key",
            "/ws/*",
            "app.test",
            b"h",
            NOW + 30,
            origin="https://app.test",
            identity_expires_at=NOW,
            issued_at=NOW - 5,
        )
        await world.guard.store.put(SPACE, key, record.encode(), expires_at=NOW + 30, now=NOW)
        assert code_of(await world.shake(["wsguard.v1", text])) == "credential.expired"

    run(scenario)


def test_a_seller_that_sells_no_more() -> None:
    """A ticket that a cookie bought before the configuration changed is 403, not a fault."""

    async def scenario() -> None:
        store = MemoryStore(Limits(), bytes)
        before = World(store=store, auth=["ticket", "cookie"])
        sold = await before.ticket({"Cookie": "login=alice", "X-WSGuard": "1"})
        after = World(store=store, ticket={"sold_for": ["key"]})
        assert code_of(await after.shake(sold["protocols"], {"Cookie": "login=alice"})) == "ticket.identity"

    run(scenario)


def test_require_is_judged_again_at_redemption() -> None:
    """The same ticket before a guard whose route asks for more, as after a reload: 403, and it is not spent."""

    async def scenario() -> None:
        store = MemoryStore(Limits(), bytes)
        sold = await World(store=store).ticket()
        strict = World(store=store, require={"scopes": ["admin"]})
        assert code_of(await strict.shake(sold["protocols"])) == "authorization.scope"
        assert code_of(await World(store=store).shake(sold["protocols"])) is None

    run(scenario)


def test_two_hundred_at_once_close_the_one_that_got_in() -> None:
    """B-TICKET-01: with the replay switch on the one socket ends, whether it stood already or not."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()

        async def visit() -> str | None:
            outcome = await world.shake(sold["protocols"])
            if not isinstance(outcome, Admission):
                return code_of(outcome)
            for _ in range(5):  # an upstream that takes its time
                await asyncio.sleep(0)
            session = Session(**outcome.facts)
            assert world.guard.live.register(session)
            session.bind(lambda code, reason: world.closed.append((session.public_id, code, reason)))
            return None

        codes = await asyncio.gather(*(visit() for _ in range(200)))
        assert (codes.count(None), codes.count("ticket.used")) == (1, 199)
        assert [(code, reason) for _, code, reason in world.closed] == [(3000, "ticket.replayed")]

    run(scenario)


def test_cookies_and_headers_sell_in_the_order_of_auth() -> None:
    """A guard that sells for a cookie alone takes no header."""

    async def scenario() -> None:
        world = World()
        guard = Guard(
            world.guard.routes.routes[0].policy,
            authenticators=[Cookie(world), world.guard.routes.routes[0].authenticators[1]],
            ticket=Ticket(["cookie"]),
            public_url="https://app.test",
            wall_clock=lambda: NOW,
        )
        world.guard = guard
        assert (await world.buy()).status == 401
        assert (await world.buy({"Cookie": "login=alice", "X-WSGuard": "1"})).status == 200

    run(scenario)


async def stored(world: World) -> bytes:
    """What the store keeps of a new ticket."""
    sold = await world.ticket()
    found = await world.guard.store.peek(SPACE, key_of(sold["ticket"]), now=NOW)
    assert found.value is not None
    return found.value


def key_of(text: str) -> bytes:
    read = read_ticket(text)
    assert read is not None
    return read.key


def test_secrets_are_drawn_anew() -> None:
    """Each has bits of its own."""
    drawn = iter([bytes(32), bytes([1]) * 32])
    assert new_secret(lambda _: next(drawn)) != new_secret(lambda _: next(drawn))
