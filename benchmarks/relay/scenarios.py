"""What is measured: message size, connections, and how many messages of a connection are under way at once."""

from dataclasses import dataclass

from benchmarks.relay.proxies import NGINX_UNTUNED


@dataclass(frozen=True)
class Target:
    """What the project wants to reach: our CPU as a multiple of another's."""

    ratio: float
    against: str | None
    """A rival's name; None means the one that was best."""


@dataclass(frozen=True)
class Scenario:
    name: str
    payload_size: int
    connections: int
    in_flight: int
    messages: int
    """Counted messages a round."""
    warm_up: int
    """Messages sent once, before the first round, and not counted."""
    distinct_payloads: int
    """Each connection sends these in turn, beginning at another one: a swapped or repeated message shows."""
    target: Target


SCENARIOS = (
    Scenario(
        name="256 B, 1 in flight, 50 connections",
        payload_size=256,
        connections=50,
        in_flight=1,
        messages=4_000,
        warm_up=10_000,
        distinct_payloads=64,
        target=Target(1.20, against=None),
    ),
    Scenario(
        name="256 B, 16 in flight, 50 connections",
        payload_size=256,
        connections=50,
        in_flight=16,
        messages=8_000,
        warm_up=16_000,
        distinct_payloads=64,
        target=Target(1.10, against=None),
    ),
    Scenario(
        name="64 KiB, 1 in flight, 50 connections",
        payload_size=65_536,
        connections=50,
        in_flight=1,
        messages=600,
        warm_up=1_500,
        distinct_payloads=8,
        target=Target(0.50, against=NGINX_UNTUNED),
    ),
)
