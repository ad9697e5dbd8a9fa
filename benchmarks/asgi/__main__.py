"""`python -m benchmarks.asgi`: see the package."""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import uvloop
from rich.console import Console

from benchmarks.asgi import in_process, measure, report
from benchmarks.asgi.handshakes import load_average
from benchmarks.asgi.in_process import InProcessRun
from benchmarks.asgi.measure import Sizes, SocketRun
from benchmarks.relay.errors import BenchmarkError

_ROUNDS = 61
_QUICK_ROUNDS = 3
_SIZES = Sizes(handshakes=100, messages=2000)
_IN_PROCESS = Sizes(handshakes=300, messages=10_000)
PARTS = ("in-process", "sockets")


def main() -> None:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        _fail("two cores are needed: one for the servers, one for the load")
    console = Console(width=150)
    before = load_average()
    sockets: SocketRun | None = None
    within: InProcessRun | None = None
    try:
        if "in-process" in options.parts:
            os.sched_setaffinity(0, {cores[0]})
            within = uvloop.run(in_process.run(options.rounds, _IN_PROCESS.handshakes, _IN_PROCESS.messages))
            console.print(report.in_process_table(within))
        if "sockets" in options.parts:
            os.sched_setaffinity(0, {cores[1]})
            sockets = uvloop.run(_with_sockets(options.rounds, cores[0], console))
            console.print(report.socket_table(sockets))
    except BenchmarkError as error:
        _fail(str(error))
    except asyncio.CancelledError:
        _fail("terminated")
    told = report.facts(before, load_average()) | {"rounds": str(options.rounds)}
    if sockets is not None:
        told |= report.checks(sockets)
    for name, fact in told.items():
        console.print(f"{name}: {fact}", highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(sockets, within, told), indent=2) + "\n")


async def _with_sockets(rounds: int, core: int, console: Console) -> SocketRun:
    """Ended from outside, the run still takes its servers with it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with console.status("starting") as status:
        return await measure.run(rounds, _SIZES, core, status.update)


class _Options(argparse.Namespace):
    rounds: int
    parts: tuple[str, ...]
    json: Path | None


def _options() -> _Options:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.asgi", description="What the guard costs an ASGI app, beside the bare app."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, rounds and checks there")
    parser.add_argument(
        "--rounds", type=int, default=_ROUNDS, help=f"how often each app is measured in turn (default: {_ROUNDS})"
    )
    parser.add_argument(
        "--quick",
        dest="rounds",
        action="store_const",
        const=_QUICK_ROUNDS,
        help=f"{_QUICK_ROUNDS} rounds: shows that it runs, not what it costs",
    )
    parser.add_argument(
        "--only",
        dest="parts",
        type=lambda part: (part,),
        choices=[(part,) for part in PARTS],
        default=PARTS,
        metavar=f"{{{','.join(PARTS)}}}",
        help="one of the two parts",
    )
    return parser.parse_args(namespace=_Options())


def _fail(reason: str) -> NoReturn:
    print(f"ASGI benchmark: {reason}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
