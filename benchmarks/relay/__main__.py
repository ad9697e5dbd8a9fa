"""`python -m benchmarks.relay`: see the package."""

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

from benchmarks.relay import report
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.measure import Run, run

_ROUNDS = 41
_QUICK_ROUNDS = 7


def main() -> None:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        _fail("two cores are needed: one for the proxies, one for the load and the upstream")
    proxy_core, load_core = cores[:2]
    os.sched_setaffinity(0, {load_core})
    console = Console(width=120)
    console.print(f"proxies on core {proxy_core}, load and upstream on core {load_core}; {options.rounds} rounds")
    try:
        result = uvloop.run(_run(options, proxy_core, console))
    except BenchmarkError as error:
        _fail(str(error))
    except asyncio.CancelledError:
        _fail("terminated")
    console.print(report.as_table(result))
    for name, fact in report.facts(result, options.engine).items():
        console.print(f"{name}: {fact}", highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(result, options.engine), indent=2) + "\n")


async def _run(options: "_Options", proxy_core: int, console: Console) -> Run:
    """Ended from outside, the run still takes its proxies with it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(options.rounds, options.engine, proxy_core, console.print)


class _Options(argparse.Namespace):
    rounds: int
    engine: str
    json: Path | None


def _options() -> _Options:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.relay", description="Server CPU µs a relayed message: wsguard, nginx, HAProxy."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, rounds and checks there")
    parser.add_argument(
        "--rounds", type=int, default=_ROUNDS, help=f"how often each proxy is measured in turn (default: {_ROUNDS})"
    )
    parser.add_argument(
        "--quick",
        dest="rounds",
        action="store_const",
        const=_QUICK_ROUNDS,
        help=f"{_QUICK_ROUNDS} rounds: shows that it runs, not what it costs",
    )
    parser.add_argument(
        "--engine", choices=("aiofastnet", "stdlib"), default="aiofastnet", help="wsguard's --tls-engine"
    )
    return parser.parse_args(namespace=_Options())


def _fail(reason: str) -> NoReturn:
    print(f"relay benchmark: {reason}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
