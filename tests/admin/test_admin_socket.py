"""The socket without a mount: where it may be, who may speak, and what requests that are none do."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.guard.world import APP, Key, World, code_of
from wsguard import ConfigurationError, Guard, Policy, Ticket
from wsguard.admin import neighbours
from wsguard.admin import server as admin_server
from wsguard.admin.client import AdminError, ask_admin
from wsguard.admin.socket import bound_admin_socket, may_administer, read_admin_path

NOBODY = 65534


def administered(folder: Path) -> World:
    """A world whose guard has an admin socket."""
    world = World()
    world.guard = Guard(
        routes={
            "/ws/*": Policy(origins=[APP], hosts=["app.test"], auth=["ticket", "key"]),
            "/*": Policy(origins=[APP], hosts=["app.test"], anonymous=True),
        },
        authenticators=[Key(world)],
        ticket=Ticket(),
        public_url=APP,
        admin=f"unix:{folder / 'run' / 'admin.sock'}",
        wall_clock=lambda: world.now,
    )
    return world


def run(folder: Path, scenario: Callable[[World, Callable[..., Awaitable[Any]]], Awaitable[None]]) -> None:
    """Run *scenario* with a world and what asks at its socket."""

    async def scene() -> None:
        world = administered(folder)
        world.guard.start()

        async def ask(method: str, target: str, members: Any = None) -> Any:
            return await asyncio.to_thread(ask_admin, folder / "run" / "admin.sock", method, target, members)

        try:
            await scenario(world, ask)
        finally:
            await world.guard.aclose()

    asyncio.run(scene())


async def raw(path: Path, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(sent)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_it_is_for_its_own_user_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """0600 in a folder of 0700 that was made for it; gone when the guard has stopped."""
    path = tmp_path / "run" / "admin.sock"

    async def scenario(world: World, ask: Any) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert await ask("GET", "/sessions") == {"sessions": []}

    run(tmp_path, scenario)
    assert not path.exists()


def test_another_user_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says who is at the other end, whatever the modes of files say."""
    assert may_administer(0)
    assert may_administer(os.geteuid())
    assert not may_administer(NOBODY)
    assert not may_administer(None)
    uid: list[int | None] = [NOBODY]
    monkeypatch.setattr(admin_server, "peer_uid", lambda connection: uid[0])

    async def scenario(world: World, ask: Any) -> None:
        session = await world.open([], {"X-Key": "alice"})
        for other in (NOBODY, None):
            uid[0] = other
            with pytest.raises(AdminError, match="Forbidden"):
                await ask("POST", "/revocations", {"subject": "alice"})
        assert session.closing is None

    run(tmp_path, scenario)


def test_a_revocation_closes_and_is_told(tmp_path: Path) -> None:
    async def scenario(world: World, ask: Any) -> None:
        await world.open([], {"X-Key": "alice"})
        await world.open([], {"X-Key": "bob"})
        assert await ask("POST", "/revocations", {"subject": "alice"}) == {"closed": 1, "processes": 1}
        assert [(code, reason) for _, code, reason in world.closed] == [(3000, "revoked")]
        assert [one["subject"] for one in (await ask("GET", "/sessions"))["sessions"]] == ["bob"]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "members",
    [{}, {"subject": ""}, {"subject": 7}, {"subjekt": "alice"}, {"subject": "alice", "issued_before": "now"}, []],
)
def test_what_is_no_revocation_closes_nothing(tmp_path: Path, members: Any) -> None:
    """Unknown names, empty values, other types: 400 (RULES §13)."""

    async def scenario(world: World, ask: Any) -> None:
        session = await world.open([], {"X-Key": "alice"})
        with pytest.raises(AdminError):
            await ask("POST", "/revocations", members)
        assert session.closing is None

    run(tmp_path, scenario)


def test_three_hundred_who_ask_at_once_are_all_answered(tmp_path: Path) -> None:
    """Among workers an answer that does not come could be that of the one who holds a session: they wait their turn."""

    async def scenario(world: World, ask: Callable[..., Awaitable[Any]]) -> None:
        others = neighbours.Neighbours(tmp_path / "run")
        asked = await asyncio.gather(*(others.ask_all("GET", "/sessions") for _ in range(300)))
        assert [(len(one.answers), one.silent) for one in asked] == [(1, 0)] * 300
        del world, ask

    run(tmp_path, scenario)


class Held:
    """Answers nobody until it is let go; *most* is how many waited at one time."""

    def __init__(self, enough: int) -> None:
        self.most = self._now = 0
        self._enough = enough
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        if self._now >= self._enough:
            self.reached.set()
        await self.let_go.wait()
        self._now -= 1

    async def settled(self) -> None:
        """Wait until as many wait as may, and for anybody who should not."""
        async with asyncio.timeout(20):
            await self.reached.wait()
        await asyncio.sleep(0.1)  # that nobody more comes is no event


def test_so_many_are_served_at_one_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More wait in the kernel, and are answered in their turn."""
    monkeypatch.setattr(admin_server, "_AT_ONCE", 2)

    async def scenario(world: World, ask: Callable[..., Awaitable[Any]]) -> None:
        held = Held(2)
        answered = admin_server.answer_admin

        async def answer(*arguments: Any) -> Any:
            await held.wait()
            return await answered(*arguments)

        monkeypatch.setattr(admin_server, "answer_admin", answer)
        asking = [asyncio.ensure_future(ask("GET", "/sessions")) for _ in range(5)]
        await held.settled()
        assert held.most == 2
        held.let_go.set()
        assert await asyncio.gather(*asking) == [{"sessions": []}] * 5
        assert held.most == 2
        del world

    run(tmp_path, scenario)


def test_so_many_questions_are_under_way_at_one_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that others ask is not flooded by one of them; who waits is answered in its turn."""
    monkeypatch.setattr(neighbours, "_AT_ONCE", 2)

    async def scene() -> None:
        held = Held(2)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await held.wait()
            writer.write(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            writer.close()

        async with await asyncio.start_unix_server(serve, tmp_path / "other.sock"):
            others = neighbours.Neighbours(tmp_path)
            asking = [asyncio.create_task(others.ask_first("GET", "/sessions", within=20)) for _ in range(5)]
            await held.settled()
            assert held.most == 2
            held.let_go.set()
            assert await asyncio.gather(*asking) == [neighbours.NeighbourAnswer(200, {})] * 5
            assert held.most == 2

    asyncio.run(scene())


def test_one_socket_is_closed_by_its_id(tmp_path: Path) -> None:
    """And no other; what opened it may open another."""

    async def scenario(world: World, ask: Any) -> None:
        first = await world.open([], {"X-Key": "alice"})
        await world.open([], {"X-Key": "alice"})
        listed = (await ask("GET", "/sessions"))["sessions"]
        assert {one["session"] for one in listed} == {session.public_id for session in world.guard.sessions}
        assert listed[0]["subject"] == "alice"
        assert listed[0]["path"] == "/ws/chat"
        assert await ask("POST", "/sessions/close", {"session": first.public_id}) == {"closed": 1}
        assert world.closed == [(first.public_id, 3000, "closed")]
        assert first.cause == "session.closed"
        with pytest.raises(AdminError, match="no live session"):
            await ask("POST", "/sessions/close", {"session": first.public_id})
        await world.open([], {"X-Key": "alice"})

    run(tmp_path, scenario)


def test_an_app_in_any_language_sells_tickets(tmp_path: Path) -> None:
    """Judged as if the page had asked: Host, Origin, route; the ticket opens for that page alone."""
    order = {"subject": "alice", "path": "/ws/chat", "host": "app.test", "origin": APP, "scopes": ["chat"]}

    async def scenario(world: World, ask: Any) -> None:
        sold = await ask("POST", "/tickets", order)
        assert sold["url"] == "wss://app.test/ws/chat"
        session = await world.open(sold["protocols"])
        assert session.identity is not None
        assert (session.identity.subject, session.identity.issuer, session.identity.method) == ("alice", "app", "app")
        for wrong in (
            {"origin": "https://evil.test"},
            {"host": "evil.test"},
            {"path": "/nowhere"},
            {"subject": ""},
            {"subject": 7},
            {"expires_at": world.now - 1},
            {"sold_by": "me"},
            {"origin": None},  # not a ticket without an Origin: a member that somebody forgot to fill
            {"sid": None},
            {"sid": ""},
            {"scopes": [""]},
            {"expires_at": 1_900_000_000_000},
        ):
            with pytest.raises(AdminError):
                await ask("POST", "/tickets", {**order, **wrong})
        bare = {key: value for key, value in order.items() if key != "origin"}
        program = await ask("POST", "/tickets", bare)
        assert code_of(await world.shake(program["protocols"])) == "ticket.origin"

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST /sessions HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET /revocations HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST /revocations HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nnot json", b"400"),
        (b"POST /revocations HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", b"413"),
        (b"POST /revocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"413"),
        (b'POST /tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"origin":null}', b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /sessions HTTP/1.1\r\n", b""),
        (b"POST /revocations HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}", b""),
        (b"", b""),
    ],
)
def test_what_is_no_request(tmp_path: Path, sent: bytes, status: bytes) -> None:
    """Answered or dropped; the next one is served."""

    async def scenario(world: World, ask: Any) -> None:
        answer = await raw(tmp_path / "run" / "admin.sock", sent)
        assert answer[9:12] == status, answer
        assert (b"\r\nAllow: " in answer) is (status == b"405")
        assert await ask("GET", "/sessions") == {"sessions": []}

    run(tmp_path, scenario)


def test_where_it_cannot_be(tmp_path: Path) -> None:
    """A file in its place, a folder that others write, another process that serves: told with the path."""
    for written in ("admin.sock", "unix:", "tcp:1"):
        with pytest.raises(ConfigurationError, match="unix:PATH"):
            read_admin_path(written)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="no socket"):
        bound_admin_socket(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigurationError, match="others may write"):
        bound_admin_socket(shared / "admin.sock")
    with pytest.raises(ConfigurationError, match="admin"):
        bound_admin_socket(tmp_path / ("x" * 200))
    serving = bound_admin_socket(tmp_path / "run" / "admin.sock")
    with pytest.raises(ConfigurationError, match="another process serves"):
        bound_admin_socket(tmp_path / "run" / "admin.sock")
    serving.close()
    # What a process that was killed has left behind is replaced.
    with bound_admin_socket(tmp_path / "run" / "admin.sock") as again:
        assert again.family is socket.AF_UNIX


def test_a_guard_whose_socket_cannot_be_says_so_and_goes_on(tmp_path: Path) -> None:
    """Under another server nobody can be told at start: its handshakes are judged, and the log says what is amiss."""

    async def scenario(world: World, ask: Any) -> None:
        second = administered(tmp_path)
        second.guard.start()
        await second.open([], {"X-Key": "alice"})
        second.guard.stop()
        assert await ask("GET", "/sessions") == {"sessions": []}

    run(tmp_path, scenario)


def test_nobody_serves_there(tmp_path: Path) -> None:
    with pytest.raises(AdminError, match="nobody serves there"):
        ask_admin(tmp_path / "none.sock", "GET", "/sessions")
