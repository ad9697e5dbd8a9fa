"""One run with sockets: all variants up at once on one core, measured in turn, round by round."""

import contextlib
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.asgi.handshakes import HandshakeRound, check_foreign_origin, count_handshakes, open_and_close
from benchmarks.asgi.server import READY
from benchmarks.asgi.variants import GUARDED, VARIANTS
from benchmarks.relay.certificates import Certificate, make_certificate
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import Reel
from benchmarks.relay.load import Load, Round, open_load
from benchmarks.relay.processes import Server, serve
from benchmarks.relay.scenarios import Scenario, Target

_WARM_UP_HANDSHAKES = 100
_CONNECTIONS = 20


@dataclass(frozen=True)
class Sizes:
    """How much one variant is given in one round."""

    handshakes: int
    messages: int


@dataclass(frozen=True)
class SocketRun:
    """By variant: its rounds, in the same order for all, and what was checked in this very run."""

    handshakes: dict[str, list[HandshakeRound]]
    messages: dict[str, list[Round]]
    bytes_compared: dict[str, int]
    foreign_status: dict[str, int]
    lines_logged: dict[str, int]
    """By guarded variant: lines of sessions that were opened."""
    cipher: str


@dataclass(frozen=True)
class _Running:
    name: str
    port: int
    log: Path
    server: Server


async def run(rounds: int, sizes: Sizes, core: int, progress: Callable[[str], None]) -> SocketRun:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsguard-asgi-")))
        certificate = make_certificate(folder)
        running: list[_Running] = []
        for name in VARIANTS:
            port, log = _free_port(), folder / f"{name}.log"
            server = await stack.enter_async_context(serve(_command(name, port, certificate, log), READY, core))
            running.append(_Running(name, port, log, server))
        context = certificate.context
        foreign = {each.name: await check_foreign_origin(each.name, each.port, context) for each in running}
        loads, ciphers = await _open_loads(stack, running, context, sizes)
        if len(ciphers) != 1:
            raise BenchmarkError(f"the servers negotiated several ciphers: {ciphers}")
        handshakes: dict[str, list[HandshakeRound]] = {each.name: [] for each in running}
        messages: dict[str, list[Round]] = {each.name: [] for each in running}
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            # To and fro: what drifts during a round does not always hit the same variant.
            for each in running if number % 2 == 0 else reversed(running):
                cpu = each.server.cpu_seconds
                messages[each.name].append(await loads[each.name].count(cpu))
                handshakes[each.name].append(await count_handshakes(each.port, context, sizes.handshakes, cpu))
        compared = {name: load.bytes_compared for name, load in loads.items()}
        opened = _WARM_UP_HANDSHAKES + rounds * sizes.handshakes + _CONNECTIONS
        logged = {each.name: _check_log(each, opened) for each in running if each.name in GUARDED}
        return SocketRun(handshakes, messages, compared, foreign, logged, ciphers.pop())


def _check_log(each: _Running, opened: int) -> int:
    """The decision log was on: a line for each socket."""
    lines = each.log.read_text("ascii").count(" session.opened ")
    if lines != opened:
        raise BenchmarkError(f"{each.name} logged {lines} sockets, and {opened} were opened")
    return lines


async def _open_loads(
    stack: contextlib.AsyncExitStack, running: list[_Running], context: ssl.SSLContext, sizes: Sizes
) -> tuple[dict[str, Load], set[str]]:
    scenario = _scenario(sizes)
    reel = Reel.of(scenario.payload_size, scenario.distinct_payloads)
    loads: dict[str, Load] = {}
    ciphers: set[str] = set()
    for each in running:
        await open_and_close(each.port, context, _WARM_UP_HANDSHAKES)
        load = await stack.enter_async_context(open_load(scenario, each.port, context, reel))
        ciphers.add(f"{load.negotiated.version} {load.negotiated.cipher}")
        loads[each.name] = load
    return loads, ciphers


def _scenario(sizes: Sizes) -> Scenario:
    return Scenario(
        name=f"256 B, 1 in flight, {_CONNECTIONS} connections",
        payload_size=256,
        connections=_CONNECTIONS,
        in_flight=1,
        messages=sizes.messages,
        warm_up=sizes.messages,
        distinct_payloads=64,
        target=Target(0.0, against=None),
    )


def _command(name: str, port: int, certificate: Certificate, log: Path) -> list[str]:
    files = [str(certificate.certificate), str(certificate.key), str(log)]
    return [sys.executable, "-m", "benchmarks.asgi.server", name, str(port), *files]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
