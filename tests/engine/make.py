"""Handshakes and decisions for the tests of this folder, without any mount."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from wsguard.engine.policy import Policy, decide
from wsguard.engine.routes import RouteTable, single_route
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.fields import Fields
from wsguard.vocabulary.handshake import Handshake, HTTPVersion, Peer, TLSFacts

POLICY = Policy(origins=["https://app.test"])
GOOD = {
    "Host": "app.test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Origin": "https://app.test",
}


def handshake(
    changes: Mapping[str, str | None] | None = None,
    *,
    target: bytes = b"/ws",
    method: str = "GET",
    version: HTTPVersion = "1.1",
    secure: bool | None = True,
    server_name: str | None = None,
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> Handshake:
    """A good handshake with *changes*; None leaves a field out."""
    fields = {**GOOD, **(changes or {})}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in fields.items() if value is not None]
    return Handshake(
        "handshake",
        method,
        target,
        Fields([*raw, *extra]),
        version,
        Peer("127.0.0.1", 5),
        secure,
        TLSFacts(server_name),
    )


def page(
    fields: dict[str, str] | None = None, *, method: str = "GET", target: bytes = b"/", secure: bool | None = True
) -> Handshake:
    """A page request."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in {"Host": "app.test", **(fields or {})}.items()]
    return Handshake("page", method, target, Fields(raw), "1.1", Peer("127.0.0.1", 5), secure, TLSFacts(None))


def verdict(subject: Handshake, policy: Policy | RouteTable = POLICY) -> Decision:
    """Decide by one policy or a table."""
    table = policy if isinstance(policy, RouteTable) else single_route(policy)
    return asyncio.run(decide(subject, table))


def reason(subject: Handshake, policy: Policy | RouteTable = POLICY) -> str | None:
    """The reason code of the refusal, None where it is accepted."""
    decision = verdict(subject, policy)
    return decision.reason.code if isinstance(decision, Refuse) else None


def accepted(subject: Handshake, policy: Policy | RouteTable = POLICY) -> Accept:
    """The acceptance; fails where it is refused."""
    decision = verdict(subject, policy)
    assert isinstance(decision, Accept), decision
    return decision
