"""One timer for all credentials: how many of the loop's it takes, and what one bad socket costs the others."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.guard.world import APP, NOW, World, run
from wsguard import Guard, Identity
from wsguard.engine.sessions import Session


def session_until(expires_at: float | None, name: str) -> Session:
    identity = Identity("alice", "app", "key", expires_at=expires_at)
    return Session(name, APP, "app.test", "/*", "/ws", "peer", 0.0, identity=identity)


def timers_of(guard: Guard) -> int:
    """How many timers of the running loop are the guard's."""
    scheduled: Any = asyncio.get_running_loop()
    return sum(
        1
        for timer in scheduled._scheduled
        if not timer.cancelled() and getattr(timer._callback, "__self__", None) is guard.live.deadlines
    )


def test_a_thousand_credentials_have_one_timer() -> None:
    """In whatever order they come; one that has no end has none; and it is gone when the guard stops."""

    async def scenario() -> None:
        guard = World().guard
        for number in range(1000):
            guard.live.register(session_until(NOW + (number * 7919) % 1000 + 1, str(number)))
        guard.live.register(session_until(None, "endless"))
        assert timers_of(guard) == 1
        guard.stop()
        assert timers_of(guard) == 0

    run(scenario)


def test_a_socket_that_cannot_be_closed_keeps_no_other_alive() -> None:
    """What one end raises is told to the loop; the others end all the same."""

    async def scenario() -> None:
        told: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        world = World()
        ended = asyncio.Event()

        def broken(code: int, reason: str) -> None:
            raise RuntimeError("the loop of that socket is closed")

        first, second = session_until(NOW + 0.01, "first"), session_until(NOW + 0.02, "second")
        first.bind(broken)
        second.bind(lambda code, reason: ended.set())
        for session in (first, second):
            world.guard.live.register(session)
        world.now = NOW + 1
        async with asyncio.timeout(20):
            await ended.wait()
        assert [type(context["exception"]) for context in told] == [RuntimeError]
        world.guard.stop()

    run(scenario)


def test_ended_sockets_are_forgotten() -> None:
    """A heap of long credentials does not grow with every short visit."""

    async def scenario() -> None:
        guard = World().guard
        for number in range(5000):
            session = session_until(NOW + 3600, str(number))
            guard.live.register(session)
            guard.sessions.remove(session)
        assert len(guard.live.deadlines._heap) < 2000
        guard.stop()

    run(scenario)


def test_what_lives_on_is_looked_after_again() -> None:
    """Another app around the same guard has ended, or the loop of an earlier visitor: a socket still ends in time."""
    world = World()

    async def visit(name: str, expires_at: float) -> asyncio.Event:
        ended = asyncio.Event()
        session = session_until(expires_at, name)
        session.bind(lambda code, reason: ended.set())
        world.guard.live.register(session)
        return ended

    async def stopped() -> None:
        ended = await visit("first", NOW + 0.05)
        world.guard.stop()
        assert timers_of(world.guard) == 0
        world.guard.live.start()
        assert timers_of(world.guard) == 1
        world.now = NOW + 1
        async with asyncio.timeout(20):
            await ended.wait()
        await visit("that loop's", NOW + 1.01)  # the earliest, with a timer that dies with its loop

    async def later() -> None:
        ended = await visit("second", NOW + 1.05)
        world.now = NOW + 2
        async with asyncio.timeout(20):
            await ended.wait()
        world.guard.stop()

    asyncio.run(stopped())
    asyncio.run(later())


def test_a_guard_of_two_apps_runs_until_the_last_has_ended() -> None:
    """One of them is reloaded, or tested on its own, beside the other."""

    async def scenario() -> None:
        guard = World().guard
        async with guard.lifespan():
            guard.live.register(session_until(NOW + 1000, "live"))
            async with guard.lifespan():
                pass
            assert timers_of(guard) == 1
        assert timers_of(guard) == 0

    run(scenario)
