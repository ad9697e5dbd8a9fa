"""A guard that sells tickets, with a clock that the test moves, and what its pages and clients do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from msgspec import structs

from tests.engine.make import handshake, page
from tests.leaks import Kind, secret
from wsguard import Guard, Identity, Limits, Policy, Refusal, Ticket, reasons
from wsguard.endpoints.messages import EndpointRequest, EndpointResponse
from wsguard.engine.policy import Context
from wsguard.engine.ports import Carriage
from wsguard.engine.sessions import Session
from wsguard.guard import Admission
from wsguard.vocabulary.decision import Refuse
from wsguard.vocabulary.handshake import Handshake, Peer

NOW = 1_800_000_000.0
APP = "https://app.test"


class Key:
    """A header whose value is who it is; ``bad`` does not verify."""

    name = "key"
    carriage: Carriage = "explicit"
    in_header = True
    field_name = b"x-key"

    def __init__(self, world: World) -> None:
        self._world = world

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        value = handshake.fields.first(b"x-key")
        if value is None:
            return None
        return (
            Refusal(reasons.CREDENTIAL_INVALID) if value == b"bad" else self._world.identity(value.decode(), self.name)
        )


class Cookie:
    """A cookie ``login=NAME``, or ``login=NAME/SID``."""

    name = "cookie"
    carriage: Carriage = "ambient"

    def __init__(self, world: World) -> None:
        self._world = world

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        value = handshake.fields.first(b"cookie")
        if value is None:
            return None
        name, _, sid = value.decode().removeprefix("login=").partition("/")
        return replace(self._world.identity(name, self.name), sid=sid or None)


class World:
    """A guard with a clock that the test moves, and what its pages do."""

    def __init__(
        self,
        *,
        ticket: dict[str, Any] | None = None,
        limits: dict[str, int] | None = None,
        store: Any = None,
        **policy: Any,
    ) -> None:
        self.now = NOW
        self.life: float | None = 100.0
        self.scopes = frozenset({"chat"})
        self.closed: list[tuple[str, int, str]] = []
        sale: dict[str, Any] = {"sold_for": ["key", "cookie"], **(ticket or {})}
        asks: dict[str, Any] = {"auth": ["ticket", "key"], **policy}
        sockets = Policy(origins=[APP, "https://other.test"], hosts=["app.test"], **asks)
        rest = Policy(origins=[APP], auth=["key"])
        self.guard = Guard(
            routes={
                "/ws/*": sockets,
                "/second/*": sockets,
                "/no-tickets": rest,
                "/*": Policy(origins=[APP], anonymous=True),
            },
            authenticators=[Key(self), Cookie(self)],
            ticket=Ticket(**sale),
            public_url=APP,
            store=store,
            limits=replace(Limits(attempts_address=1_000_000), **(limits or {})),
            wall_clock=lambda: self.now,
        )

    def identity(self, name: str, method: str) -> Identity:
        expires_at = None if self.life is None else self.now + self.life
        return Identity(
            name, "app", method, scopes=self.scopes, credential_id="c1", expires_at=expires_at, issued_at=self.now - 1
        )

    async def ask(
        self,
        path: str,
        fields: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        method: str = "POST",
        peer: str = "192.0.2.7",
        json_type: bool = True,
    ) -> EndpointResponse:
        """Ask an endpoint as a page of the app does; a field of None is left out."""
        given = {"Origin": APP, **({"Content-Type": "application/json"} if json_type else {}), **(fields or {})}
        sent = {name: value for name, value in given.items() if value}
        subject = structs.replace(page(sent, method=method, target=path.encode()), peer=Peer(peer))
        endpoint = self.guard.endpoint_of(subject)
        assert endpoint is not None
        return await self.guard.answer(endpoint, EndpointRequest(subject, self.guard.client_of(subject), body))

    async def buy(self, fields: dict[str, str] | None = None, path: str = "/ws/chat", **more: Any) -> EndpointResponse:
        body = json.dumps({"path": path}).encode()
        return await self.ask("/.wsguard/ticket", {"X-Key": "alice"} if fields is None else fields, body, **more)

    async def ticket(self, fields: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
        answer = await self.buy(fields, **more)
        assert answer.status == 200, answer.refusal
        sold = json.loads(answer.body)
        secret(Kind.TICKET, sold["ticket"])
        secret(Kind.HANDLE, sold["session"])
        return sold

    async def shake(
        self,
        protocols: list[str],
        fields: dict[str, str | None] | None = None,
        *,
        target: bytes = b"/ws/chat",
        peer: str = "192.0.2.7",
    ) -> Admission | Refuse:
        """Come with a handshake; return what became of it."""
        changes = {
            "Origin": APP,
            **({"Sec-WebSocket-Protocol": ", ".join(protocols)} if protocols else {}),
            **(fields or {}),
        }
        subject = structs.replace(handshake(changes, target=target), peer=Peer(peer))
        client = self.guard.client_of(subject)
        decision = await self.guard.decide(subject, client)
        return decision if isinstance(decision, Refuse) else await self.guard.admit(subject, decision, None)

    async def open(self, protocols: list[str], fields: dict[str, str | None] | None = None, **more: Any) -> Session:
        """Open a socket, as a mount does once the app has accepted it."""
        admission = await self.shake(protocols, fields, **more)
        assert isinstance(admission, Admission), admission
        session = Session(**admission.facts)
        assert self.guard.live.register(session)

        def closer(code: int, reason: str) -> None:
            self.closed.append((session.public_id, code, reason))
            self.guard.sessions.remove(session)

        session.bind(closer)
        return session


def code_of(outcome: Admission | Refuse) -> str | None:
    return outcome.reason.code if isinstance(outcome, Refuse) else None


def refusal_of(answer: EndpointResponse) -> tuple[int, str | None]:
    return answer.status, None if answer.refusal is None else answer.refusal.reason.code


def fields_of(answer: EndpointResponse) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in answer.fields}


def run(scenario: Any) -> None:
    asyncio.run(scenario())
