"""A run as tables for people and as JSON for machines."""

import os
import platform
import ssl
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.asgi.in_process import InProcessRun
from benchmarks.asgi.measure import SocketRun
from benchmarks.asgi.variants import BARE, FOREIGN_ORIGIN, GUARD, IDENTITY, LIMITS

HANDSHAKE_TO_REACH = {GUARD: 60.0}
"""Added µs a handshake."""
MESSAGE_TO_REACH = {IDENTITY: 1.0, LIMITS: 2.0}
"""Added µs a message; measured without sockets. Without identity and limits `receive` is the server's own."""


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)} to {_short(self.high)})"


Figures = dict[str, list[float]]


def added(figures: Figures, name: str) -> Spread:
    """What *name* takes more than the bare app, taken within each round."""
    return Spread.of([own - bare for own, bare in zip(figures[name], figures[BARE], strict=True)])


def handshakes_of(run: SocketRun) -> Figures:
    return {name: [each.cpu_us_per_handshake for each in rounds] for name, rounds in run.handshakes.items()}


def messages_of(run: SocketRun) -> Figures:
    return {name: [each.cpu_us_per_message for each in rounds] for name, rounds in run.messages.items()}


def socket_table(run: SocketRun) -> Table:
    table = Table(title="with sockets: server CPU µs, median (range) of the rounds; added: within each round")
    for column in ("app", "a handshake", "added", "a second and core", "a message", "added"):
        table.add_column(column, justify="left" if column == "app" else "right")
    handshakes, messages = handshakes_of(run), messages_of(run)
    for name in handshakes:
        handshake = Spread.of(handshakes[name])
        table.add_row(
            name,
            str(handshake),
            "" if name == BARE else str(added(handshakes, name)),
            f"{1e6 / handshake.median:.0f}",
            str(Spread.of(messages[name])),
            "" if name == BARE else str(added(messages, name)),
        )
    return table


def in_process_table(run: InProcessRun) -> Table:
    table = Table(title="without sockets: CPU µs added to the smallest app, median (range) of the rounds")
    for column in ("app", "a handshake", "to reach", "a message", "to reach"):
        table.add_column(column, justify="left" if column == "app" else "right")
    for name in run.handshakes:
        if name == BARE:
            continue
        handshake = added(run.handshakes, name)
        message = added(run.messages, name) if name in run.messages else None
        table.add_row(
            name,
            str(handshake),
            _verdict(handshake, HANDSHAKE_TO_REACH.get(name)),
            "" if message is None else str(message),
            "" if message is None else _verdict(message, MESSAGE_TO_REACH.get(name)),
        )
    return table


def facts(load_before: str, load_after: str) -> dict[str, str]:
    """What the figures depend on."""
    packages = ("wsguard", "fastapi", "starlette", "uvicorn", "websockets", "httptools", "uvloop")
    return {
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "load average": f"{load_before} before, {load_after} after",
    }


def checks(run: SocketRun) -> dict[str, str]:
    answers = ", ".join(f"{name} {status}" for name, status in run.foreign_status.items())
    return {
        "TLS": f"all negotiated {run.cipher}; ECDSA P-256; no session was resumed",
        "bytes": "every echoed byte compared with what was sent",
        "decision log": "on, to a file: a line for each socket was counted",
        "foreign origin": f"{FOREIGN_ORIGIN}: {answers}",
    }


def as_json(sockets: SocketRun | None, in_process: InProcessRun | None, told: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": "CPU microseconds", "facts": told}
    if sockets is not None:
        found["sockets"] = {
            "handshakes": _figures_json(handshakes_of(sockets)),
            "messages": _figures_json(messages_of(sockets)),
            "checks": {
                "bytes_compared": sockets.bytes_compared,
                "foreign_origin": sockets.foreign_status,
                "handshakes_opened": {
                    name: sum(each.count for each in rounds) for name, rounds in sockets.handshakes.items()
                },
                "sockets_logged": sockets.lines_logged,
                "cipher": sockets.cipher,
            },
        }
    if in_process is not None:
        handshake = added(in_process.handshakes, GUARD).median
        found["in_process"] = {
            "handshakes": _figures_json(in_process.handshakes),
            "messages": _figures_json(in_process.messages),
            "reached": {
                "handshake": handshake <= HANDSHAKE_TO_REACH[GUARD],
                **{
                    f"message, {name}": added(in_process.messages, name).median <= bound
                    for name, bound in MESSAGE_TO_REACH.items()
                },
            },
        }
    return found


def _figures_json(figures: Figures) -> dict[str, Any]:
    return {
        name: {
            **asdict(Spread.of(rounds)),
            "added": None if name == BARE else asdict(added(figures, name)),
            "rounds": rounds,
        }
        for name, rounds in figures.items()
    }


def _verdict(spread: Spread, bound: float | None) -> str:
    return "" if bound is None else f"≤ {_short(bound)}: {'yes' if spread.median <= bound else 'no'}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
