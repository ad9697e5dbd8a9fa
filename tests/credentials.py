"""Credentials end to end, for either mount: the issuer's keys and the key file in a folder, and who comes with them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.tokens import key_of, public, token
from tests.gateway.raw_client import Frame, RawClient, frame, handshake
from tests.leaks import Kind, Sink, saw, secret
from wsguard.identity.key_writer import add_key, revoke_key
from wsguard.vocabulary.bounds import DEFAULTS

CLOSE, TEXT = 8, 1
APP = "https://app.test"


@dataclass(frozen=True)
class Place:
    """A folder with an issuer's key set and a file of API keys."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "jwks.json").write_bytes(public(key_of("ES256")))

    def add_key(self, name: str, *scopes: str) -> str:
        """Make an API key, as `wsguard keys add` does."""
        made, _ = add_key(
            self.folder / "keys.toml",
            name,
            scopes=scopes,
            now=time.time(),
            randomness=secrets.token_bytes,
            limits=DEFAULTS,
        )
        return secret(Kind.API_KEY, made)

    def revoke_key(self, name: str) -> None:
        """Take it out of the file again."""
        revoke_key(self.folder / "keys.toml", name, limits=DEFAULTS)


def minted(lifetime: float = 60, **claims: Any) -> str:
    """An access token of the issuer, good from now for *lifetime* seconds, with the scope ``chat``."""
    now = time.time()
    return token({"exp": now + lifetime, "iat": now, "scope": "chat", **claims})


def bearer(lifetime: float = 60, **claims: Any) -> dict[str, str]:
    """It in its header."""
    return {"Authorization": f"Bearer {minted(lifetime, **claims)}"}


def as_subprotocol(text: str, prefix: str = "wsguard.bearer.") -> str:
    """A token as a subprotocol."""
    return prefix + base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Visitor:
    """Comes to one server, as a page of app.test does or, without *origin*, as a program."""

    address: tuple[str, int]
    context: ssl.SSLContext
    stack: ExitStack
    origin: str | None = APP

    def ask(self, path: str, fields: dict[str, str], body: bytes | None = b"", *, method: str = "POST") -> Answer:
        """Ask an endpoint or a page."""
        origin = {} if self.origin is None else {"Origin": self.origin}
        content = {"Content-Type": "application/json"} if method == "POST" else {}
        connection = http.client.HTTPSConnection(*self.address, timeout=20, context=self.context)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Host": "app.test", **origin, **content, **fields})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, fields, response.read())
        if answer.status >= 400:
            saw(Sink.REFUSALS, f"{answer.fields}".encode() + answer.body, path)
        return answer

    def buy(self, fields: dict[str, str], path: str = "/ws/chat") -> dict[str, Any]:
        """Buy a ticket."""
        answer = self.ask("/.wsguard/ticket", fields, json.dumps({"path": path}).encode())
        assert answer.status == 200, answer
        secret(Kind.TICKET, answer.json["ticket"])
        secret(Kind.HANDLE, answer.json["session"])
        return answer.json

    def renew(self, handle: str, fields: dict[str, str]) -> Answer:
        """Renew a socket."""
        return self.ask("/.wsguard/renew", fields, json.dumps({"session": handle}).encode())

    def request(
        self, protocols: list[str] | None = None, fields: dict[str, str] | None = None, path: str = "/ws/chat"
    ) -> bytes:
        """A handshake's bytes."""
        lines = [f"{name}: {value}\r\n" for name, value in (fields or {}).items()]
        if protocols:
            lines.append(f"Sec-WebSocket-Protocol: {', '.join(protocols)}\r\n")
        return handshake(origin=self.origin, path=path, extra="".join(lines))

    def connect(self) -> RawClient:
        """A TLS connection, closed in the end."""
        return self.stack.enter_context(contextlib.closing(RawClient(self.address, self.context)))

    def open(self, *arguments: Any, **keys: Any) -> tuple[RawClient, dict[str, str]]:
        """Open a socket; return it and the fields of its 101."""
        raw = self.connect()
        fields = fields_of(raw.open(self.request(*arguments, **keys)).decode("latin-1"))
        if "x-wsguard-session" in fields:
            secret(Kind.HANDLE, fields["x-wsguard-session"])
        return raw, fields

    def refused(self, *arguments: Any, **keys: Any) -> tuple[int, str]:
        """Come in vain; return status and request id."""
        raw = self.connect()
        raw.send(self.request(*arguments, **keys))
        head = raw.reader.head().decode("latin-1")
        saw(Sink.REFUSALS, head, "a handshake")
        return int(head.split(" ")[1]), fields_of(head)["x-request-id"]


def fields_of(head: str) -> dict[str, str]:
    """The fields of a head, by their lower names."""
    lines = (line.partition(":") for line in head.split("\r\n")[1:] if line)
    return {name.lower(): value.strip() for name, _, value in lines}


def echoes(raw: RawClient, text: str) -> bool:
    """Tell whether the socket lives: what is sent comes back."""
    raw.send(frame(TEXT, text.encode()))
    found = raw.frame()
    return found is not None and found.payload == text.encode()


def echoes_until(raw: RawClient, end: float) -> None:
    """The socket lives until *end* by the wall clock, asked all the time."""
    while time.time() < end:
        assert echoes(raw, "still there"), "it has ended too early"


def closed(raw: RawClient) -> tuple[int, str]:
    """Code and reason of the Close frame that comes next."""
    found: Frame | None = raw.frame()
    assert found is not None, "the stream ended without a Close frame"
    assert found.opcode == CLOSE, found
    return found.close_code, found.payload[2:].decode()
