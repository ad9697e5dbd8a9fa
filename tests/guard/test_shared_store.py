"""Guards that share one SQLite file, as workers do and as a restart does: what one has revoked the other refuses."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engine.make import handshake
from tests.guard.world import NOW, Key, World, code_of, refusal_of
from wsguard import ConfigurationError, Guard, Identity, Policy, SessionLookup
from wsguard.engine.sessions import Session
from wsguard.guard.shared_news import SharedNews
from wsguard.store.local import SQLiteStore
from wsguard.store.opened import open_store
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.decision import Accept
from wsguard.vocabulary.errors import StoreError

LIMITS: dict[str, Any] = {"store_poll": 0.02, "store_patience": 0.3, "store_command": 0.2}
DEADLINE = 5.0
ALICE: dict[str, str | None] = {"X-Key": "alice"}


class Shared:
    """A store file, and worlds that use it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "wsguard.db"
        self.worlds: list[World] = []

    def world(self, **keys: Any) -> World:
        """One more process, as far as the store knows."""
        limits = {**LIMITS, **keys.pop("limits", {})}
        store = open_store(
            "sqlite:wsguard.db", limits=Limits(**limits), randomness=secrets.token_bytes, folder=self.file.parent
        )
        world = World(store=store, limits=limits, **keys)
        self.worlds.append(world)
        return world

    async def close(self) -> None:
        for world in self.worlds:
            await world.guard.aclose()
            await world.guard.store.aclose()


def run(folder: Path, scenario: Callable[[Shared], Any]) -> None:
    async def scene() -> None:
        shared = Shared(folder)
        try:
            await scenario(shared)
        finally:
            await shared.close()

    asyncio.run(scene())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process's poll brings, with a deadline."""
    async with asyncio.timeout(DEADLINE):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


def test_a_ticket_sold_in_one_is_redeemed_in_the_other_once(tmp_path: Path) -> None:
    async def scenario(shared: Shared) -> None:
        first, second = shared.world(), shared.world()
        sold = await first.ticket()
        await second.open(sold["protocols"])
        assert code_of(await first.shake(sold["protocols"])) == "ticket.used"

    run(tmp_path, scenario)


def test_a_replay_in_one_closes_the_socket_in_the_other(tmp_path: Path) -> None:
    """Of two who have the ticket nobody knows who is right: wherever the first one's socket is, it ends."""

    async def scenario(shared: Shared) -> None:
        first, second = shared.world(), shared.world()
        sold = await first.ticket()
        await second.open(sold["protocols"])
        assert code_of(await first.shake(sold["protocols"])) == "ticket.used"
        await until(lambda: bool(second.closed))
        assert second.closed[0][1:] == (3000, "ticket.replayed")

    run(tmp_path, scenario)


def test_a_revocation_in_one_closes_and_refuses_in_the_other(tmp_path: Path) -> None:
    """Live sockets within a poll; new ones at once after it; a later credential is let in."""

    async def scenario(shared: Shared) -> None:
        first, second = shared.world(), shared.world()
        await second.open([], ALICE)
        assert await first.guard.revoke(subject="alice") == 0
        await until(lambda: bool(second.closed))
        assert second.closed[0][1:] == (3000, "revoked")
        assert code_of(await second.shake([], ALICE)) == "session.revoked"
        second.now += 10
        await second.open([], ALICE)

    run(tmp_path, scenario)


def test_a_revocation_outlives_a_restart(tmp_path: Path) -> None:
    """The first decision of the new process already knows it; so does the endpoint that sells tickets."""

    async def scenario(shared: Shared) -> None:
        before = shared.world()
        await before.guard.revoke(subject="alice")
        await shared.close()
        after = shared.world()
        assert code_of(await after.shake([], ALICE)) == "session.revoked"
        assert refusal_of(await shared.world().buy()) == (401, "session.revoked")
        await after.open([], {"X-Key": "bob"})

    run(tmp_path, scenario)


def test_a_revocation_takes_the_place_of_one_that_means_less(tmp_path: Path) -> None:
    """A logout a day of everybody must not fill the store; one that reaches further back is no reason to forget."""

    async def scenario(shared: Shared) -> None:
        before = shared.world()
        for number in range(5):
            before.now += 10
            await before.guard.revoke(subject="alice")
            await before.guard.revoke(subject="alice", sid=f"s{number}")
        await before.guard.revoke(subject="alice", issued_before=NOW)
        records = await before.guard.store.read("revocations", after=0, now=before.now)
        named = [json.loads(record) for _, record in records]
        assert [one for one in named if "sid" not in one] == [{"subject": "alice", "issued_before": NOW + 50}]
        assert len(named) == 6
        await shared.close()
        after = shared.world()
        after.now = NOW + 50
        assert code_of(await after.shake([], ALICE)) == "session.revoked"

    run(tmp_path, scenario)


def test_while_nobody_can_say_what_was_revoked_nobody_is_let_in(tmp_path: Path) -> None:
    """B-STORE-03 for revocations: a store that is gone is 503 once its patience is over, and back by itself."""

    async def scenario(shared: Shared) -> None:
        world = shared.world()
        await world.open([], ALICE)
        hidden = shared.file.with_name("elsewhere.db")
        shared.file.rename(hidden)
        await until(lambda: world.guard.live._news is not None and not _is_current(world.guard.live._news))
        assert code_of(await world.shake([], ALICE)) == "store.unavailable"
        assert refusal_of(await world.buy()) == (503, "store.unavailable")
        assert code_of(await world.shake([], {"X-Key": None})) == "credential.missing"  # whoever is nobody
        hidden.rename(shared.file)
        await until(lambda: world.guard.live._news is not None and _is_current(world.guard.live._news))
        await world.open([], ALICE)

    run(tmp_path, scenario)


def _is_current(news: SharedNews) -> bool:
    return news._read_at is not None and news._clock() - news._read_at <= LIMITS["store_patience"]


def test_a_revocation_that_cannot_be_kept_closes_all_the_same(tmp_path: Path) -> None:
    """Locked by another program: the sockets here end, the caller learns that others may not have heard."""

    async def scenario(shared: Shared) -> None:
        world = shared.world(limits={"store_patience": 60})
        await world.open([], ALICE)
        with closing(sqlite3.connect(shared.file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError):
                await world.guard.revoke(subject="alice")
            other.execute("ROLLBACK")
        assert world.closed[0][1:] == (3000, "revoked")
        assert code_of(await world.shake([], ALICE)) == "session.revoked"

    run(tmp_path, scenario)


def test_a_record_that_nobody_understands_lets_nobody_in(tmp_path: Path) -> None:
    """A newer version's, perhaps: it revokes something, and this process cannot say what."""

    async def scenario(shared: Shared) -> None:
        world = shared.world()
        await world.guard.store.append("revocations", b"{}", expires_at=world.now + 60, now=world.now)
        assert code_of(await world.shake([], ALICE)) == "store.unavailable"

    run(tmp_path, scenario)


def test_two_hundred_at_once_open_one_socket(tmp_path: Path) -> None:
    """In either process; with the replay switch on that one is closed, with it off it lives."""

    async def scenario(shared: Shared) -> None:
        for closes in (True, False):
            # Two hundred wait in one queue: each has the time that it has by default.
            patient = {"store_command": 2.0, "store_patience": 10.0}
            pair = [shared.world(ticket={"replay_closes": closes}, limits=patient) for _ in range(2)]
            sold = await pair[0].ticket()
            outcomes = await asyncio.gather(*(pair[number % 2].shake(sold["protocols"]) for number in range(200)))
            winners = [(pair[number % 2], one) for number, one in enumerate(outcomes) if code_of(one) is None]
            assert len(winners) == 1
            assert {code_of(one) for one in outcomes} == {None, "ticket.used"}
            world, admission = winners[0]
            session = Session(**getattr(admission, "facts"))  # noqa: B009 - a Refuse has none
            session.bind(lambda code, reason: None)
            assert world.guard.live.register(session)
            if closes:
                await until(lambda session=session: session.closing == (3000, "ticket.replayed"))
            else:
                await asyncio.sleep(0.1)  # five polls: had anybody told of a replay, it would be heard
                assert session.closing is None

    run(tmp_path, scenario)


def test_a_cookie_has_one_name_in_all_processes(tmp_path: Path) -> None:
    """A ticket that one has sold must name the subject that another one finds; after a restart too, and no other does."""

    def guard(folder: Path) -> Guard:
        store = open_store("sqlite:wsguard.db", limits=Limits(), randomness=secrets.token_bytes, folder=folder)
        alice = Identity("alice", "app", "session_lookup")
        lookup = SessionLookup(lambda cookies: alice, cookies=["login"])
        policy = Policy(origins=["https://app.test"], hosts=["app.test"], auth=["session_lookup"])
        return Guard(policy, authenticators=[lookup], store=store)

    async def name(guard: Guard) -> str | None:
        subject = handshake({"Cookie": "login=c1"})
        decision = await guard.decide(subject, guard.client_of(subject))
        assert isinstance(decision, Accept), decision
        assert decision.identity is not None
        return decision.identity.credential_id

    async def scene() -> None:
        pair = [guard(tmp_path), guard(tmp_path)]
        names = await asyncio.gather(*map(name, pair))
        again = guard(tmp_path)
        other = tmp_path / "other"
        other.mkdir()
        stranger = guard(other)
        assert {*names, await name(again)} == {names[0]}
        assert await name(stranger) != names[0]
        for one in (*pair, again, stranger):
            await one.aclose()
            await one.store.aclose()

    asyncio.run(scene())


def test_a_store_is_named_by_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``memory`` and ``sqlite:FILE``; anything else stops the start with what to write; memory says what it forgets."""
    monkeypatch.chdir(tmp_path)
    policy = Policy(origins=["https://app.test"], auth=["key"])
    authenticators = [Key(World())]
    guard = Guard(policy, authenticators=authenticators, store="sqlite:wsguard.db")
    assert isinstance(guard.store, SQLiteStore)
    assert (tmp_path / "wsguard.db").exists()
    assert not any("store" in notice for notice in guard.notices)
    memory = Guard(policy, authenticators=authenticators, store="memory")
    assert any('store = "sqlite:FILE"' in notice for notice in memory.notices)
    for written in ("redis://x", "sqlite", "sqlit:x.db", ""):
        with pytest.raises(ConfigurationError, match="store"):
            Guard(policy, authenticators=authenticators, store=written)


def test_nothing_secret_is_in_the_file(tmp_path: Path) -> None:
    """Neither ticket nor handle: hashes, and who bought it."""

    async def scenario(shared: Shared) -> None:
        world = shared.world()
        sold = await world.ticket()
        await shared.close()
        told.update(sold)

    told: dict[str, Any] = {}
    run(tmp_path, scenario)
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"alice" in held
    assert told["ticket"].rpartition(".")[2].encode() not in held
    assert told["session"].encode() not in held
