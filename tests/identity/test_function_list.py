"""A list that is the app's own function: what it is asked, how often, and what counts as an answer."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.identity.open import A, B, World, gathered, origin
from wsguard.identity.allow_lists import OpenList
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import ConfigurationError, ListUnavailable
from wsguard.vocabulary.host import Host
from wsguard.vocabulary.origin import Origin


class Function:
    """An async function that notes what it is asked, and waits where the test says so."""

    def __init__(self, answer: Any = True) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None
        self.awaited = (1, asyncio.Event())

    async def begun(self, count: int) -> None:
        """Wait until it was asked so often."""
        self.awaited = (count, asyncio.Event())
        async with asyncio.timeout(20):
            if len(self.asked) < count:
                await self.awaited[1].wait()

    async def __call__(self, value: str) -> Any:
        self.asked.append(value)
        if len(self.asked) >= self.awaited[0]:
            self.awaited[1].set()
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answer(value) if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


def number(of: int) -> Origin:
    return origin(f"https://n{of}.test")


def opened_with(function: Function, **limits: Any) -> tuple[OpenList[Origin], World]:
    world = World(Limits(**limits))
    return world.origins(function), world


def test_the_function_gets_the_serialised_origin_and_the_host_name() -> None:
    """What the app compares is one spelling: no port of a Host, no default port of an Origin."""
    function = Function(lambda value: value in {"https://a.test:8443", "app.test"})
    world = World()

    async def main() -> None:
        assert await world.origins(function).allows(origin("https://a.test:8443"))
        assert not await world.origins(function).allows(origin("https://a.test:443"))
        assert await world.hosts(function).allows(Host("app.test", 8443))

    asyncio.run(main())
    assert function.asked == ["https://a.test:8443", "https://a.test", "app.test"]


def test_answers_are_remembered_for_their_time() -> None:
    """A yes for `lookup_allowed` seconds, a no for `lookup_refused`: a database is not asked per handshake."""
    function = Function(lambda value: value == "https://a.test")
    opened, world = opened_with(function, lookup_allowed=60, lookup_refused=10)

    async def main() -> None:
        for now, calls in ((0, 2), (9.9, 2), (10, 3), (59.9, 4), (60, 5), (119, 6)):
            world.now = now
            assert (await opened.allows(A), await opened.allows(B)) == (True, False)
            assert len(function.asked) == calls, now

    asyncio.run(main())


def test_nothing_is_remembered_where_the_time_is_none() -> None:
    """0 seconds means that each handshake asks."""
    function = Function()
    opened, _ = opened_with(function, lookup_allowed=0, lookup_refused=0)

    async def main() -> None:
        for _ in range(3):
            assert await opened.allows(A)

    asyncio.run(main())
    assert len(function.asked) == 3


def test_what_is_remembered_is_bounded() -> None:
    """A stranger invents origins: the oldest unused answers go, those in use stay, and no text of his is kept."""
    function = Function()
    opened, _ = opened_with(function, lookups=16)

    async def main() -> None:
        for index in range(100):
            assert await opened.allows(number(index))
            assert await opened.allows(A)
        assert function.asked.count("https://a.test") == 1
        answers = opened._answers  # type: ignore[attr-defined]
        assert len(answers) == 16
        assert {len(key) for key in answers} == {32}
        asked = len(function.asked)
        assert await opened.allows(number(99))
        assert len(function.asked) == asked
        assert await opened.allows(number(0))
        assert len(function.asked) == asked + 1

    asyncio.run(main())


def test_two_hundred_askers_call_once() -> None:
    """A page with a thousand tabs reconnects at once: one call for all of them, one answer to all of them."""
    function = Function()

    async def main() -> None:
        function.gate = asyncio.Event()
        opened, _ = opened_with(function)
        asking = [asyncio.create_task(opened.allows(A)) for _ in range(200)]
        await function.begun(1)
        function.gate.set()
        assert await gathered(asking) == [True] * 200

    asyncio.run(main())
    assert function.asked == ["https://a.test"]


def test_an_asker_who_leaves_does_not_end_the_call_of_the_others() -> None:
    """The first one began it and goes away; the others still get the answer."""
    function = Function()

    async def main() -> None:
        function.gate = asyncio.Event()
        opened, _ = opened_with(function)
        first = asyncio.create_task(opened.allows(A))
        await function.begun(1)
        others = [asyncio.create_task(opened.allows(A)) for _ in range(3)]
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        function.gate.set()
        assert await gathered(others) == [True] * 3

    asyncio.run(main())
    assert len(function.asked) == 1


def test_a_call_that_all_have_left_ends_by_itself() -> None:
    """Nobody is left to hear how it failed: no warning, and the next one asks anew."""
    function = Function(ValueError("x"))

    async def main() -> None:
        function.gate = asyncio.Event()
        opened, _ = opened_with(function)
        asker = asyncio.create_task(opened.allows(A))
        await function.begun(1)
        asker.cancel()
        await asyncio.wait((asker,))
        function.gate.set()
        await asyncio.wait([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
        function.answer = True
        assert await opened.allows(A)

    asyncio.run(main())


@pytest.mark.parametrize("answer", [None, 1, 0, "yes", "", [], ["x"]], ids=repr)
def test_anything_but_true_and_false_refuses(answer: Any) -> None:
    """A forgotten return, a truthy row of a database: fail closed, and not remembered."""
    function = Function(answer)
    opened, _ = opened_with(function)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ListUnavailable, match=f"answered {type(answer).__name__}"):
                await opened.allows(A)

    asyncio.run(main())
    assert len(function.asked) == 2


def test_a_failure_is_not_remembered() -> None:
    """A database that was down for a moment: all who asked are refused, the next one is asked for anew."""
    function = Function(RuntimeError("password=s3cret"))

    async def main() -> None:
        opened, _ = opened_with(function)
        failed = await gathered([opened.allows(A) for _ in range(3)])
        assert [type(error) for error in failed] == [ListUnavailable] * 3
        assert len(function.asked) == 1
        function.answer = True
        assert await opened.allows(A)

    asyncio.run(main())


def test_the_text_of_an_apps_error_is_not_told() -> None:
    """It may hold a password of the app; its type and place are enough to find it."""
    opened, _ = opened_with(Function(RuntimeError("password=s3cret")))
    with pytest.raises(ListUnavailable, match=r"^function Function: raised RuntimeError at test_function_list.py:\d+$"):
        asyncio.run(opened.allows(A))


def test_a_slow_function_meets_its_deadline() -> None:
    """`list_timeout` bounds a call, whatever the function makes of being ended."""
    stubborn = Function()

    async def main() -> None:
        stubborn.gate = asyncio.Event()
        opened, _ = opened_with(stubborn, list_timeout=0.1)
        with pytest.raises(ListUnavailable, match=r"no answer within 0.1 s"):
            await opened.allows(A)

        async def translates(value: str) -> bool:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise LookupError from None
            return True

        with pytest.raises(ListUnavailable, match=r"no answer within 0.1 s"):
            await World(Limits(list_timeout=0.1)).origins(translates).allows(A)

    asyncio.run(main())


def test_a_timeout_of_the_apps_own_is_told_as_that() -> None:
    """It is not our deadline that has passed."""
    opened, _ = opened_with(Function(TimeoutError()))
    with pytest.raises(ListUnavailable, match="raised TimeoutError"):
        asyncio.run(opened.allows(A))


def test_the_values_asked_at_one_time_are_bounded() -> None:
    """A flood of invented origins while the database is slow: refused at once, without a call."""
    function = Function()

    async def main() -> None:
        function.gate = asyncio.Event()
        opened, _ = opened_with(function, lookups_pending=3)
        asking = [asyncio.create_task(opened.allows(number(index))) for index in range(3)]
        await function.begun(3)
        with pytest.raises(ListUnavailable, match="lookups_pending"):
            await opened.allows(A)
        joined = asyncio.create_task(opened.allows(number(0)))
        await asyncio.sleep(0)
        function.gate.set()
        assert await gathered([*asking, joined]) == [True] * 4
        assert await opened.allows(A)

    asyncio.run(main())
    assert len(function.asked) == 4


def test_a_call_that_is_ended_from_outside_refuses() -> None:
    """The loop is shut down, or the app cancels itself: its askers are refused, not cancelled."""

    async def cancels(value: str) -> bool:
        raise asyncio.CancelledError

    with pytest.raises(ListUnavailable, match="ended from outside"):
        asyncio.run(World().origins(cancels).allows(A))


def test_a_call_of_another_loop_is_not_waited_for() -> None:
    """Tests of an app run one loop a test, sometimes two at once: each gets its own answer."""
    function = Function()
    opened, _ = opened_with(function, lookup_allowed=0)

    async def begin() -> asyncio.Task[bool]:
        function.gate = asyncio.Event()
        asking = asyncio.create_task(opened.allows(A))
        await function.begun(1)
        return asking

    async def end(asking: asyncio.Task[bool], gate: asyncio.Event) -> bool:
        gate.set()
        return await asking

    with asyncio.Runner() as first:
        asking = first.run(begin())
        gate, function.gate = function.gate, None
        assert gate is not None
        assert asyncio.run(opened.allows(A))
        assert len(function.asked) == 2
        assert first.run(end(asking, gate))
    assert len(opened._calls) == 0  # type: ignore[attr-defined]


def test_a_call_of_a_loop_that_is_gone_does_not_count() -> None:
    """A loop that was closed under a running call must not fill `lookups_pending` for ever."""
    function = Function()
    opened, _ = opened_with(function, lookups_pending=1)
    loop = asyncio.new_event_loop()

    async def leave_one_behind() -> None:
        function.gate = asyncio.Event()
        left.append(asyncio.create_task(opened.allows(A)))
        await function.begun(1)

    left: list[asyncio.Task[bool]] = []
    loop.run_until_complete(leave_one_behind())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    function.gate = None
    assert asyncio.run(opened.allows(B))
    assert len(opened._calls) == 0  # type: ignore[attr-defined]
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # left behind on purpose


async def allowed(value: str) -> bool:
    return value == "https://a.test"


class App:
    async def allowed(self, value: str) -> bool:
        return await allowed(value)


async def allowed_for(tenant: str, value: str) -> bool:
    return await allowed(value)


@pytest.mark.parametrize(("function", "name"), [
    (allowed, "function allowed"), (App().allowed, "function allowed"), (Function(), "function Function"),
    (functools.partial(allowed_for, "x"), "function allowed_for"),
    (functools.partial(Function()), "function Function"),
], ids=["function", "method", "object", "partial", "partial of an object"])  # fmt: skip
def test_every_kind_of_async_function_is_taken(function: Callable[[str], Awaitable[bool]], name: str) -> None:
    """A function, a method, an object, a partial; the log calls it by its name."""
    opened = World().origins(function)
    assert asyncio.run(opened.allows(A))
    assert opened.name == name


def plain(value: str) -> bool:
    return True


class Plain:
    def __call__(self, value: str) -> bool:
        return True


@pytest.mark.parametrize(
    "function",
    [plain, Plain(), Plain, functools.partial(plain), len, lambda value: True],
    ids=["function", "object", "class", "partial", "builtin", "lambda"],
)
def test_a_function_that_is_not_async_is_an_error_at_start(function: Any) -> None:
    """It would block the loop; a forgotten `async` is found before the first handshake."""
    with pytest.raises(ConfigurationError, match=r"origins: found function .*, which is not async"):
        World().origins(function)


def test_an_answer_that_cannot_be_awaited_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks async and is not: the text says what it must be."""
    opened, _ = opened_with(Function())
    monkeypatch.setattr(Function, "__call__", lambda self, value: True)
    with pytest.raises(ListUnavailable, match="is not async: it must be async def"):
        asyncio.run(opened.allows(A))


@pytest.mark.parametrize("written", [None, 1, "https://a.test", ["https://a.test"]])
def test_what_is_no_kept_list_is_an_error_at_start(written: object) -> None:
    """Only a FileList, a URLList or an async function is opened."""
    with pytest.raises(ConfigurationError, match="hosts: found"):
        World().hosts(written)
