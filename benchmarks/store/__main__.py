"""`python -m benchmarks.store`: see the package."""

import argparse
import asyncio
import json
import os
import platform
import secrets
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.store.tickets import TicketOffice, silent_log
from wsguard.engine.ports import Store, Taken
from wsguard.engine.store_keys import hashed_key
from wsguard.store.one_thread import Job, OneThread
from wsguard.store.opened import open_store
from wsguard.vocabulary.bounds import DEFAULTS

_STORES = {"memory": "memory", "sqlite": "sqlite:benchmark.db"}
_ROUNDS = 41
_QUICK_ROUNDS = 5
_WARM_UP = 4
_TICKETS = 500
_APPENDS = 50
_VALUE = os.urandom(400)
_ROUND_SECONDS = 10.0
_LIFETIME = 30.0
_AT_ONCE = 16
_THREAD_ALONE = "thread alone"


@dataclass(frozen=True)
class Figure:
    store: str
    command: str
    at_once: int
    median: float
    low: float
    high: float
    rounds: list[float]


class Measuring:
    """CPU µs of each round, by store, command and how many callers wait at once."""

    def __init__(
        self,
        stores: dict[str, Store],
        offices: dict[str, TicketOffice],
        redeemers: dict[str, TicketOffice],
        thread: OneThread[None],
    ) -> None:
        self._stores = stores
        self._offices = offices
        self._redeemers = redeemers
        self._thread = thread
        self._rounds: dict[tuple[str, str, int], list[float]] = {}

    async def run(self, rounds: int) -> list[Figure]:
        """Measure each store in turn within each round: what disturbs the machine disturbs both."""
        for number in range(_WARM_UP + rounds):
            if number == _WARM_UP:
                self._rounds.clear()
            for name, store in self._stores.items():
                for at_once in (1, _AT_ONCE):
                    await self._round(name, store, at_once, 1_900_000_000.0 + number * _ROUND_SECONDS)
            for name, office in self._offices.items():
                for at_once in (1, _AT_ONCE):
                    await self._office_round(name, office, at_once)
            for at_once in (1, _AT_ONCE):
                took = await _cpu(lambda _: self._thread.run(None), _TICKETS, at_once)
                self._rounds.setdefault(("sqlite", _THREAD_ALONE, at_once), []).append(took)
        return [
            Figure(*place, statistics.median(values), min(values), max(values), values)
            for place, values in self._rounds.items()
        ]

    async def _round(self, name: str, store: Store, at_once: int, now: float) -> None:
        keys = [hashed_key(secrets.token_bytes(32)) for _ in range(_TICKETS)]
        end = now + _LIFETIME

        async def put(number: int) -> None:
            await store.put("tickets", keys[number], _VALUE, expires_at=end, now=now)

        async def peek(number: int) -> None:
            _check(await store.peek("tickets", keys[number], now=now))

        async def take(number: int) -> None:
            _check(await store.take("tickets", keys[number], mark=b"m" * 32, now=now))

        async def append(_: int) -> None:
            await store.append("benchmark", _VALUE, expires_at=end, now=now)

        took = {
            "put": await _cpu(put, _TICKETS, at_once),
            "peek": await _cpu(peek, _TICKETS, at_once),
            "take": await _cpu(take, _TICKETS, at_once),
            "append": await _cpu(append, _APPENDS, at_once),
        }
        took["put + take"] = took["put"] + took["take"]
        took["peek + take"] = took["peek"] + took["take"]
        for command, microseconds in took.items():
            self._rounds.setdefault((name, command, at_once), []).append(microseconds)

    async def _office_round(self, name: str, office: TicketOffice, at_once: int) -> None:
        office.open()
        took = {"sell, engine and store": await _cpu(office.sell, _TICKETS, at_once)}
        office.hand_over(office)
        took["redeem, engine and store"] = await _cpu(office.redeem, _TICKETS, at_once)
        office.open()
        await _cpu(office.sell, _TICKETS, at_once)
        redeemer = self._redeemers[name]
        office.hand_over(redeemer)
        took["redeem, sold by another process"] = await _cpu(redeemer.redeem, _TICKETS, at_once)
        with silent_log():
            took["sell by a token, ASGI"] = await _cpu(office.sell_by_token, _APPENDS, at_once)
        took["a token's signature"] = await _cpu(office.verify, _APPENDS, at_once)
        for command, microseconds in took.items():
            self._rounds.setdefault((name, command, at_once), []).append(microseconds)


def _check(taken: Taken) -> None:
    if taken.value != _VALUE:
        raise AssertionError(f"the store answered {taken!r}")


async def _cpu(command: Callable[[int], Awaitable[None]], count: int, at_once: int) -> float:
    """Return the CPU µs of each of *count* commands, given by *at_once* callers that each wait for the answer."""

    async def caller(first: int) -> None:
        for number in range(first, count, at_once):
            await command(number)

    began = time.process_time_ns()
    if at_once == 1:
        await caller(0)
    else:
        await asyncio.gather(*(caller(first) for first in range(at_once)))
    return (time.process_time_ns() - began) / count / 1000


async def _measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="wsguard-benchmark-") as folder:
        async with AsyncExitStack() as stack:
            stores: dict[str, Store] = {}
            for name, text in _STORES.items():
                stores[name] = open_store(text, limits=DEFAULTS, randomness=secrets.token_bytes, folder=Path(folder))
                stack.push_async_callback(stores[name].aclose)
            thread = OneThread[None](
                "nothing", _do_nothing, lambda: None, most_waiting=_AT_ONCE, seconds=DEFAULTS.store_command
            )
            stack.push_async_callback(thread.close)
            offices: dict[str, TicketOffice] = {}
            redeemers: dict[str, TicketOffice] = {}  # guards of their own over the same stores, as another worker's
            with silent_log():
                for name, text in _STORES.items():
                    # A store of its own: tickets in the bare one would be swept up while that is measured.
                    own = Path(folder) / name
                    own.mkdir()
                    store = open_store(text, limits=DEFAULTS, randomness=secrets.token_bytes, folder=own)
                    stack.push_async_callback(store.aclose)
                    for those, keys in ((offices, own), (redeemers, own / "redeemer")):
                        keys.mkdir(exist_ok=True)
                        those[name] = TicketOffice(store, keys)
                        stack.push_async_callback(those[name].aclose)
            return await Measuring(stores, offices, redeemers, thread).run(rounds)


def _do_nothing(jobs: Sequence[Job[None]]) -> None:
    for job in jobs:
        job.succeed(None)


def _table(figures: list[Figure]) -> Table:
    table = Table(title="CPU µs a command: median and range of the rounds")
    for title in ("store", "command", "at once", "median", "range"):
        table.add_column(title, justify="right" if title in {"at once", "median", "range"} else "left", no_wrap=True)
    for figure in sorted(figures, key=lambda figure: (figure.store, figure.at_once)):
        spread = f"{figure.low:.1f} – {figure.high:.1f}"
        table.add_row(figure.store, figure.command, str(figure.at_once), f"{figure.median:.1f}", spread)
    return table


class _Options(argparse.Namespace):
    rounds: int
    json: Path | None
    all_cores: bool


def _options() -> _Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description="CPU µs a command of each store.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and rounds there")
    parser.add_argument("--all-cores", action="store_true", help="let the threads run on several cores, not on one")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"how many are measured (default: {_ROUNDS})")
    parser.add_argument(
        "--quick",
        dest="rounds",
        action="store_const",
        const=_QUICK_ROUNDS,
        help=f"{_QUICK_ROUNDS} rounds: shows that it runs, not what it costs",
    )
    return parser.parse_args(namespace=_Options())


def main() -> None:
    options = _options()
    if not options.all_cores:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures = uvloop.run(_measure(options.rounds))
    facts = {
        "rounds": options.rounds,
        "tickets a round": _TICKETS,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "uvloop": uvloop.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }
    console = Console(width=120)
    console.print(_table(figures))
    console.print(", ".join(f"{name}: {fact}" for name, fact in facts.items()), highlight=False)
    if options.json is not None:
        report = {"facts": facts, "figures": [asdict(figure) for figure in figures]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
