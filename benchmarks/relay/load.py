"""The load on one proxy: open the connections, warm up, then count messages round by round."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass

from benchmarks.relay.client import Budget, Client, Negotiated, connect
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import Reel
from benchmarks.relay.scenarios import Scenario

_DEADLINE = 60.0


@dataclass(frozen=True)
class Round:
    cpu_us_per_message: float
    messages_per_second: float


class Load:
    """All connections of one scenario to one proxy, open and warm."""

    def __init__(self, scenario: Scenario, clients: list[Client], negotiated: Negotiated) -> None:
        self._scenario = scenario
        self._clients = clients
        self.negotiated = negotiated

    @property
    def bytes_compared(self) -> int:
        return sum(client.bytes_compared for client in self._clients)

    async def count(self, cpu_seconds: Callable[[], float]) -> Round:
        """Nothing is under way when the CPU clock is read: a counted message is in the figure whole, and no other."""
        messages = self._scenario.messages
        clock = asyncio.get_running_loop().time
        started, cpu_before = clock(), cpu_seconds()
        await self.send(messages)
        cpu, elapsed = cpu_seconds() - cpu_before, clock() - started
        return Round(cpu / messages * 1e6, messages / elapsed)

    async def send(self, messages: int) -> None:
        budget = Budget(messages)
        async with _deadline("the messages of a round"):
            with _awake():
                for client in self._clients:
                    client.start(budget, self._scenario.in_flight)
                await budget.done


@contextlib.asynccontextmanager
async def open_load(scenario: Scenario, port: int, context: ssl.SSLContext, reel: Reel) -> AsyncGenerator[Load]:
    clients: list[Client] = []
    agreed: set[Negotiated] = set()
    try:
        async with _deadline("opening the connections"):
            for number in range(scenario.connections):
                client, negotiated = await connect(port, context, reel, number)
                clients.append(client)
                agreed.add(negotiated)
        if len(agreed) != 1:
            raise BenchmarkError(f"TLS agreed on several things: {agreed}")
        load = Load(scenario, clients, agreed.pop())
        await load.send(scenario.warm_up)
        yield load
    finally:
        for client in clients:
            client.close()


@contextlib.asynccontextmanager
async def _deadline(what: str) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(_DEADLINE):
            yield
    except TimeoutError:
        raise BenchmarkError(f"{what} took more than {_DEADLINE:.0f} s") from None


@contextlib.contextmanager
def _awake() -> Generator[None]:
    """
    Keep this loop from sleeping.

    Waking a process that sleeps on another core is paid by who sends to it; across a network no proxy pays that, and
    here it would hit whichever proxy left the load idle more often.
    """
    loop = asyncio.get_running_loop()
    on = True

    def again() -> None:
        if on:
            loop.call_soon(again)

    again()
    try:
        yield
    finally:
        on = False
