"""The same through the engine: a ticket sold and redeemed by a guard, and beside it what HTTP and a signature take."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from joserfc import jwt
from joserfc.jwk import ECKey

from benchmarks.relay.errors import BenchmarkError
from wsguard import JWT, Guard, Identity, Policy, Ticket
from wsguard.asgi import WebSocketGuard
from wsguard.endpoints.counter import issue
from wsguard.endpoints.desk import Desk
from wsguard.engine.ports import Store
from wsguard.guard import Admission
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.decision import Refuse
from wsguard.vocabulary.fields import Fields
from wsguard.vocabulary.handshake import Client, Handshake, Peer

_ORIGIN, _HOST, _ISSUER = "https://app.test", b"app.test", "https://id.test"
_BODY = b'{"path": "/ws"}'
_RAISED = dataclasses.replace(DEFAULTS, attempts_address=1_000_000)
_OPENING = (
    (b"Host", _HOST),
    (b"Origin", _ORIGIN.encode()),
    (b"Upgrade", b"websocket"),
    (b"Connection", b"Upgrade"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)


@dataclass(frozen=True)
class _Page:
    handshake: Handshake
    client: Client


class TicketOffice:
    """A guard over *store* that sells tickets for bearer tokens; its key is in *folder*."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._key = ECKey.generate_key("P-256", {"kid": "benchmark"})
        keys = folder / "jwks.json"
        keys.write_text(json.dumps({"keys": [self._key.as_dict(private=False)]}))
        self._guard = Guard(
            Policy(origins=[_ORIGIN], hosts=["app.test"], auth=["ticket", "bearer"]),
            authenticators=[JWT(_ISSUER, audience=[_ORIGIN], jwks=f"file:{keys}")],
            ticket=Ticket(sold_for=["bearer"], rate=100_000, rate_address=1_000_000),
            store=store,
            limits=_RAISED,
        )
        self._app = WebSocketGuard(_nobody, guard=self._guard)
        now = time.time()
        self._alice = Identity("alice", _ISSUER, "token", expires_at=now + 36_000, issued_at=now)
        claims = {"iss": _ISSUER, "aud": _ORIGIN, "sub": "alice", "client_id": "page", "jti": "1", "iat": now}
        header = {"alg": "ES256", "typ": "at+jwt", "kid": "benchmark"}
        self._token = jwt.encode(header, {**claims, "exp": now + 36_000}, self._key)
        self._client = Client(Peer(None), secure=True)
        fields = Fields([(b"Host", _HOST), (b"Origin", _ORIGIN.encode())])
        asking = Handshake("page", "POST", b"/.wsguard/ticket", fields, "1.1", Peer(None), secure=True)
        self._page = _Page(asking, self._client)
        self._answers: list[bytes] = []
        self._sold: list[bytes] = []

    def open(self) -> None:
        """Begin a round: no ticket is sold yet."""
        self._answers.clear()

    async def sell(self, number: int) -> None:
        """Sell one to whom the app vouches for: the engine and the store."""
        del number
        response = await issue(cast("Desk", self._guard.counter()), self._page, self._alice, "/ws")
        self._answers.append(response.body)

    def hand_over(self, redeemer: TicketOffice) -> None:
        """Be the page: read the answers, and go with the tickets to *redeemer*."""
        redeemer._sold = [", ".join(json.loads(answer)["protocols"]).encode() for answer in self._answers]

    async def redeem(self, number: int) -> None:
        """Let a handshake in that brings one: every check, the ticket, the store."""
        fields = Fields([*_OPENING, (b"Sec-WebSocket-Protocol", self._sold[number])])
        subject = Handshake("handshake", "GET", b"/ws", fields, "1.1", Peer(None), secure=True)
        decision = await self._guard.decide(subject, self._client)
        outcome = decision if isinstance(decision, Refuse) else await self._guard.admit(subject, decision, None)
        if not isinstance(outcome, Admission):
            raise BenchmarkError(f"the guard answered {outcome!r}")

    async def sell_by_token(self, number: int) -> None:
        """Sell one as the endpoint does inside an ASGI app: the request, its token, its log line."""
        del number
        headers = [(b"host", _HOST), (b"origin", _ORIGIN.encode()), (b"content-type", b"application/json")]
        headers += [(b"authorization", b"Bearer " + self._token.encode()), (b"content-length", b"%d" % len(_BODY))]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "https",
            "path": "/.wsguard/ticket",
            "raw_path": b"/.wsguard/ticket",
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 50000),
            "server": ("127.0.0.1", 443),
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": _BODY, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        if sent[0]["status"] != 200:
            raise BenchmarkError(f"the endpoint answered {sent}")

    async def verify(self, number: int) -> None:
        """The signature alone, as joserfc does it."""
        del number
        jwt.decode(self._token, self._key, algorithms=["ES256"])

    async def aclose(self) -> None:
        """End what the guard runs in the background; the store is its owner's."""
        await self._guard.aclose()


async def _nobody(scope: Any, receive: Any, send: Any) -> None:
    del receive, send
    raise AssertionError(f"the app was asked for {scope['path']}")


@contextlib.contextmanager
def silent_log() -> Any:
    """Keep the decision log off the benchmark's own output: its lines are made and written, nobody reads them."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
