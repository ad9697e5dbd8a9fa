"""A run as a table for people and as JSON for machines."""

import os
import platform
import ssl
import statistics
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.relay.measure import Measured, Run
from benchmarks.relay.proxies import OURS, RIVALS
from benchmarks.relay.violation import BAD_FRAME

PROXIES = (OURS, *RIVALS)


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


def cpu(measured: Measured, name: str) -> list[float]:
    return [each.cpu_us_per_message for each in measured.rounds[name]]


def ratio(measured: Measured, rival: str) -> Spread:
    """Ours by the rival's, taken within each round: what disturbs the machine for a while disturbs both."""
    return Spread.of([ours / theirs for ours, theirs in zip(cpu(measured, OURS), cpu(measured, rival), strict=True)])


def rival_of(measured: Measured) -> str:
    return measured.scenario.target.against or min(RIVALS, key=lambda rival: statistics.median(cpu(measured, rival)))


def as_table(run: Run) -> Table:
    table = Table(title="server CPU µs a message (one round trip): median and range of the rounds")
    table.add_column("scenario", no_wrap=True)
    table.add_column("proxy", no_wrap=True)
    table.add_column("median", justify="right")
    table.add_column("range", justify="right", no_wrap=True)
    table.add_column("wsguard takes", justify="right")
    table.add_column("to reach", no_wrap=True)
    for measured in run.measured:
        for name in PROXIES:
            first = name == PROXIES[0]
            spread = Spread.of(cpu(measured, name))
            table.add_row(
                measured.scenario.name if first else "",
                f"{name} {run.versions[name]}",
                _short(spread.median),
                f"{_short(spread.low)}–{_short(spread.high)}",
                "" if first else f"× {ratio(measured, name).median:.2f}",
                _verdict(measured) if name == rival_of(measured) else "",
                end_section=name == PROXIES[-1],
            )
    return table


def facts(run: Run, engine: str) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "TLS": f"all negotiated {run.negotiated.version} {run.negotiated.cipher}; ECDSA P-256; {ssl.OPENSSL_VERSION}",
        "wsguard": f"--tls-engine {engine}; aiofastnet {version('aiofastnet')}, uvloop {version('uvloop')}",
        "Python": platform.python_version(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "TCP": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "bytes": "every echoed byte compared with what was sent",
        "bad frame": f"{BAD_FRAME}: wsguard closed with {run.bad_frame_close_code}",
    }


def as_json(run: Run, engine: str) -> dict[str, Any]:
    return {
        "unit": "server CPU microseconds a message; a message is one round trip",
        "facts": facts(run, engine),
        "engine": engine,
        "versions": run.versions,
        "tls": asdict(run.negotiated),
        "checks": {
            "bytes_compared": {
                name: sum(measured.bytes_compared[name] for measured in run.measured) for name in PROXIES
            },
            "bad_frame": {"sent": BAD_FRAME, "close_code": run.bad_frame_close_code},
        },
        "scenarios": [_scenario_json(measured) for measured in run.measured],
    }


def _scenario_json(measured: Measured) -> dict[str, Any]:
    target = measured.scenario.target
    return {
        **asdict(measured.scenario),
        "proxies": {
            name: {
                **asdict(Spread.of(cpu(measured, name))),
                "rounds": cpu(measured, name),
                "messages_per_second": statistics.median(each.messages_per_second for each in measured.rounds[name]),
            }
            for name in PROXIES
        },
        "ratios": {name: asdict(ratio(measured, name)) for name in RIVALS},
        "target": {**asdict(target), "rival": rival_of(measured), "reached": _reached(measured)},
    }


def _reached(measured: Measured) -> bool:
    return ratio(measured, rival_of(measured)).median <= measured.scenario.target.ratio


def _verdict(measured: Measured) -> str:
    return f"≤ {measured.scenario.target.ratio:.2f}: {'yes' if _reached(measured) else 'no'}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
