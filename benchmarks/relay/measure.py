"""One run: all proxies up at once, measured in turn, round by round."""

import contextlib
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.relay import proxies
from benchmarks.relay.certificates import make_certificate
from benchmarks.relay.client import Negotiated
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import Reel
from benchmarks.relay.load import Load, Round, open_load
from benchmarks.relay.processes import Server, serve
from benchmarks.relay.proxies import Proxy, Setting
from benchmarks.relay.scenarios import SCENARIOS, Scenario
from benchmarks.relay.upstream import upstream
from benchmarks.relay.violation import check_bad_frame


@dataclass(frozen=True)
class Measured:
    """One scenario: by proxy name, its rounds and how many echoed bytes were compared."""

    scenario: Scenario
    rounds: dict[str, list[Round]]
    bytes_compared: dict[str, int]


@dataclass(frozen=True)
class Run:
    versions: dict[str, str]
    negotiated: Negotiated
    bad_frame_close_code: int
    measured: list[Measured]


@dataclass(frozen=True)
class _Running:
    proxy: Proxy
    server: Server


async def run(rounds: int, engine: str, proxy_core: int, progress: Callable[[str], None]) -> Run:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsguard-relay-")))
        certificate = make_certificate(folder)
        setting = Setting(folder, certificate, await stack.enter_async_context(upstream()))
        running: list[_Running] = []
        for proxy in proxies.all_proxies(setting, engine):
            server = await stack.enter_async_context(serve(proxy.command, proxy.ready, proxy_core))
            running.append(_Running(proxy, server))
        (ours,) = (each.proxy for each in running if each.proxy.name == proxies.OURS)
        close_code = await check_bad_frame(ours.port, certificate.context)
        agreed: set[Negotiated] = set()
        measured: list[Measured] = []
        for scenario in SCENARIOS:
            progress(scenario.name)
            measured.append(await _measure(scenario, running, certificate.context, rounds, agreed))
        expected = Negotiated(proxies.TLS_VERSION, proxies.CIPHER)
        if agreed != {expected}:
            raise BenchmarkError(f"the proxies did not all negotiate {expected}: {agreed}")
        return Run({each.proxy.name: each.proxy.version for each in running}, expected, close_code, measured)


async def _measure(
    scenario: Scenario, running: list[_Running], context: ssl.SSLContext, rounds: int, agreed: set[Negotiated]
) -> Measured:
    reel = Reel.of(scenario.payload_size, scenario.distinct_payloads)
    async with contextlib.AsyncExitStack() as stack:
        loads: dict[str, Load] = {}
        for each in running:
            load = await stack.enter_async_context(open_load(scenario, each.proxy.port, context, reel))
            agreed.add(load.negotiated)
            loads[each.proxy.name] = load
        results: dict[str, list[Round]] = {name: [] for name in loads}
        for _ in range(rounds):
            for each in running:
                name = each.proxy.name
                results[name].append(await loads[name].count(each.server.cpu_seconds))
        return Measured(scenario, results, {name: load.bytes_compared for name, load in loads.items()})
