"""The thread and the loops that wait for it: everybody gets his own answer, in time, and nothing is left open."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.store.opening import ROOT, SECONDS
from wsguard.store.one_thread import Job, OneThread
from wsguard.vocabulary.errors import StoreError

Runner = Callable[[Coroutine[Any, Any, Any]], Any]
LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


def answering(jobs: Sequence[Job[int]]) -> None:
    for job in jobs:
        job.succeed(job.command * 2)


def thread(
    perform: Callable[[Sequence[Job[int]]], None] = answering, *, seconds: float = SECONDS, most_waiting: int = 100
) -> OneThread[int]:
    return OneThread("test", perform, lambda: None, most_waiting=most_waiting, seconds=seconds)


def eventfds() -> int:
    """How many of them this process has; uvloop's own count as well."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += str(entry.readlink()) == "anon_inode:[eventfd]"
        except FileNotFoundError:
            continue  # the listing's own
    return found


@LOOPS
def test_answers_are_their_askers(runner: Runner) -> None:
    """Of many who ask at once on one loop each gets what he asked for."""

    async def scenario() -> None:
        doubling = thread()
        assert await asyncio.gather(*(doubling.run(number) for number in range(100))) == list(range(0, 200, 2))
        await doubling.close()

    runner(scenario())


@LOOPS
def test_loops_that_have_ended_leave_nothing_open(runner: Runner) -> None:
    """A test suite or a reloading server uses one store from loop after loop; each would leave a descriptor."""
    doubling = thread()
    before = eventfds()
    for number in range(20):
        assert runner(doubling.run(number)) == number * 2
        assert eventfds() <= before + 1
    runner(doubling.close())
    assert eventfds() == before


@LOOPS
def test_a_loop_that_still_runs_is_left_too(runner: Runner) -> None:
    """Whoever closes it does so for all loops; those of other threads let go by themselves, also of what they await."""
    performing, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def perform(jobs: Sequence[Job[int]]) -> None:
        if jobs[0].command == 7:
            performing.set()
            go_on.wait(SECONDS)
        answering(jobs)

    doubling = thread(perform)
    before = eventfds()
    answers: list[Any] = []

    async def other() -> None:
        answers.append(await doubling.run(7))
        await asyncio.to_thread(closed.wait, SECONDS)
        with pytest.raises(StoreError, match="is closed"):
            await doubling.run(8)

    def in_thread() -> None:
        runner(other())

    async def close() -> None:
        closing = asyncio.ensure_future(doubling.close())
        await asyncio.sleep(0)
        go_on.set()
        await closing

    beside = threading.Thread(target=in_thread)
    beside.start()
    assert performing.wait(SECONDS)
    runner(close())
    closed.set()
    beside.join(SECONDS)
    assert answers == [14]
    assert eventfds() == before


def no_descriptor_left(*_: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("eventfd", [None, no_descriptor_left], ids=["macOS has none", "no descriptor is left"])
def test_without_eventfd(eventfd: Callable[..., int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's own means do."""
    if eventfd is None:
        monkeypatch.delattr(os, "eventfd")
    else:
        monkeypatch.setattr(os, "eventfd", eventfd)

    async def scenario() -> None:
        doubling = thread()
        assert await asyncio.gather(*(doubling.run(number) for number in range(10))) == list(range(0, 20, 2))
        await doubling.close()

    asyncio.run(scenario())


def test_a_loop_that_cannot_watch_descriptors_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the descriptor that was opened for it is closed."""

    async def scenario() -> None:
        def watches_nothing(*_: object) -> None:
            raise NotImplementedError  # what asyncio.AbstractEventLoop does, and Windows' ProactorEventLoop

        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", watches_nothing)
        before = eventfds()
        doubling = thread()
        assert await doubling.run(2) == 4
        assert eventfds() == before
        await doubling.close()

    asyncio.run(scenario())


@LOOPS
def test_what_is_answered_while_the_descriptor_is_let_go_is_heard(runner: Runner) -> None:
    """Nobody else wakes the loop for it."""
    performed = threading.Event()

    def perform(jobs: Sequence[Job[int]]) -> None:
        answering(jobs)
        if jobs[0].command == 7:
            performed.set()

    async def scenario() -> None:
        doubling = thread(perform)
        await doubling.run(1)
        asking = asyncio.ensure_future(doubling.run(7))
        await asyncio.sleep(0)
        assert performed.wait(SECONDS)
        (callers,) = doubling._callers.values()
        deadline = time.monotonic() + SECONDS
        while not callers._answered:  # the thread is about to say so; this loop stands still meanwhile
            assert time.monotonic() < deadline
        callers.close()
        assert await asyncio.wait_for(asking, 1) == 14
        await doubling.close()

    runner(scenario())


@LOOPS
def test_two_loops_close_at_once(runner: Runner) -> None:
    """Each lets go of its own, whoever is first."""
    before = eventfds()
    for _ in range(20):
        doubling, together = thread(), threading.Barrier(2)

        async def close(doubling: OneThread[int] = doubling, together: threading.Barrier = together) -> None:
            await doubling.run(1)
            together.wait(SECONDS)
            await doubling.close()

        beside = [threading.Thread(target=lambda close=close: runner(close())) for _ in range(2)]
        for one in beside:
            one.start()
        for one in beside:
            one.join(SECONDS)
    gc.collect()
    assert eventfds() == before


def test_a_policy_that_the_operator_has_set_stands() -> None:
    """`chrt --idle 0 wsguard …` stays idle."""
    script = (
        "import asyncio, os\n"
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
        "from tests.store.test_one_thread import thread\n"
        "def perform(jobs):\n"
        "    for job in jobs: job.succeed(os.sched_getscheduler(0))\n"
        "async def main():\n"
        "    one = thread(perform)\n"
        "    print(await one.run(1) == os.SCHED_IDLE)\n"
        "    await one.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "True\n"


@LOOPS
def test_each_waits_as_long_as_the_bound_says(runner: Runner) -> None:
    """One timer stands for all who wait on a loop: it ends nobody's time early, and forgets nobody."""
    go_on = threading.Event()

    def perform(jobs: Sequence[Job[int]]) -> None:
        go_on.wait(SECONDS)
        answering(jobs)

    async def scenario() -> None:
        hanging = thread(perform, seconds=0.3)

        async def waited(number: int) -> float:
            began = time.monotonic()
            with pytest.raises(StoreError, match=r"no answer in 0\.3 s"):
                await hanging.run(number)
            return time.monotonic() - began

        first = asyncio.ensure_future(waited(0))
        await asyncio.sleep(0.15)
        rest = [asyncio.ensure_future(waited(number)) for number in range(1, 4)]
        for seconds in await asyncio.gather(first, *rest):
            assert 0.29 <= seconds < 5
        go_on.set()
        assert await hanging.run(5) == 10  # and it goes on as if nothing had been
        await hanging.close()

    runner(scenario())


def test_what_was_answered_is_not_timed_out() -> None:
    """The timer of one that was answered long ago ends nobody else's time."""

    async def scenario() -> None:
        doubling = thread(seconds=0.2)
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < 0.7:
            number += 1
            assert await doubling.run(number) == number * 2
        await doubling.close()

    asyncio.run(scenario())


def test_what_is_not_done_is_an_error() -> None:
    """A command without an answer has none: it is not taken for one that answered nothing."""

    async def scenario() -> None:
        idle = thread(lambda jobs: None)
        with pytest.raises(StoreError, match="did not do it"):
            await idle.run(1)
        await idle.close()

    asyncio.run(scenario())


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has scheduling policies for threads")
def test_the_thread_does_not_take_the_core_from_the_loop_that_wakes_it() -> None:
    """Its policy is its own: the loop's stays what the operator has set."""
    policies: list[int] = []

    def perform(jobs: Sequence[Job[int]]) -> None:
        policies.append(os.sched_getscheduler(0))
        answering(jobs)

    async def scenario() -> None:
        doubling = thread(perform)
        await doubling.run(1)
        await doubling.close()

    ours = os.sched_getscheduler(0)
    asyncio.run(scenario())
    assert policies == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == ours
