"""`handshake`: one handshake through a real server, as a browser sends it, and all that is known of its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from wsguard.testing.browser import upgrade_headers
from wsguard.testing.certificate import loopback_certificate
from wsguard.testing.decisions import REFUSED, DecisionLine, captured_decisions, hint_of
from wsguard.testing.exchange import SWITCHING_PROTOCOLS, Exchanged, exchange
from wsguard.testing.loopback_server import server_of
from wsguard.testing.served_policy import host_for
from wsguard.vocabulary import close_codes
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.host import Host, HostSyntaxError

if TYPE_CHECKING:
    import ssl

Headers = Mapping[str, str] | Sequence[tuple[str, str]]

_LINE_END = re.compile(r"[\r\n\0]")
# What a refusal told by opening and closing (``refusal="close"``) would have been as a status (RULES §2).
_STATUS_OF_CLOSE = {
    preset.get(code, code): status
    for preset in close_codes.PRESETS.values()
    for code, status in ((close_codes.CREDENTIAL, 401), (close_codes.POLICY, 403))
}


@dataclass(frozen=True)
class HandshakeResult:
    """
    What became of one handshake.

    *status* is 101 for a socket that was opened, 0 for a connection that was closed without an answer. *close_code*
    is set where the socket was opened and closed at once. *request_id* names the refusal in the log; *reason* and
    *hint* are what the log says of it. *sent* is the request in short, *log* the log's line, "" without one.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str
    request_id: str | None
    close_code: int | None
    reason: str | None
    hint: str | None
    sent: str
    log: str
    event: str | None = field(repr=False)

    @property
    def accepted(self) -> bool:
        """Tell whether the app has an open socket."""
        return self.status == SWITCHING_PROTOCOLS and self.refused_status is None

    @property
    def refused_status(self) -> int | None:
        """The status of the refusal, also where it was told by a close code; None for an open socket."""
        if self.status != SWITCHING_PROTOCOLS:
            return self.status
        refused = self.event == REFUSED and self.close_code is not None
        return _STATUS_OF_CLOSE.get(self.close_code or 0, self.close_code) if refused else None

    @property
    def refused_by_guard(self) -> bool:
        """Tell whether it was wsguard that refused; the app and its server refuse with the same statuses."""
        if self.accepted:
            return False
        # The text of a refusal ends with the id, so that it is known also where the project's log is elsewhere.
        return self.event == REFUSED or (
            self.event is None and self.request_id is not None and f"request id: {self.request_id}" in self.body
        )

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was answered."""
        return self.header("sec-websocket-protocol")

    def header(self, name: str) -> str | None:
        """Return the first value of a response field, in any letter case; None where there is none."""
        return next((value for found, value in self.headers if found.lower() == name.lower()), None)


def handshake(
    app: Any,
    *,
    path: str = "/ws",
    origin: str | None = None,
    host: str | None = None,
    cookies: Mapping[str, str] | None = None,
    headers: Headers | None = None,
    subprotocols: Sequence[str] = (),
) -> HandshakeResult:
    """
    Send one handshake to *app* through uvicorn with TLS on loopback, as a page from *origin* would; close it again.

    *host* is the Host field; without it, the name that the app's guard serves: the origin's own where that is served.
    *headers* are added, or stand in the place of the browser's field of the same name. No *origin* sends none.
    Raises ConfigurationError where the host cannot be known or an extra is missing, ServerStartError for an app that
    does not start.
    """
    named = host_for(app, path, origin) if host is None else host
    fields = _fields(named, origin, cookies or {}, headers or {}, subprotocols)
    head = _head(path, fields)
    server = server_of(app)
    with captured_decisions() as decisions:
        exchanged = exchange(server.port, _client_context(), _server_name(named), head)
        request_id = _request_id(exchanged)
        line = decisions.line(request_id, exchanged.sent_from)
    return _result(exchanged, request_id, line, _in_short(path, fields))


def _result(exchanged: Exchanged, request_id: str | None, line: DecisionLine | None, sent: str) -> HandshakeResult:
    return HandshakeResult(
        status=exchanged.status,
        headers=exchanged.headers,
        body=exchanged.body.decode("utf-8", "replace"),
        request_id=request_id if line is None else line.value("request_id") or request_id,
        close_code=None if exchanged.closed_by_server is None else exchanged.closed_by_server[0],
        reason=None if line is None else line.value("reason"),
        hint=hint_of(line),
        sent=sent,
        log="" if line is None else line.text,
        event=None if line is None else line.name,
    )


def _request_id(exchanged: Exchanged) -> str | None:
    for name, value in exchanged.headers:
        if name.lower() == "x-request-id":
            return value
    return None if exchanged.closed_by_server is None else exchanged.closed_by_server[1]


def _fields(
    host: str, origin: str | None, cookies: Mapping[str, str], headers: Headers, subprotocols: Sequence[str]
) -> list[tuple[str, str]]:
    fields = [("host", host), *upgrade_headers().items()]
    if origin is not None:
        fields.append(("origin", origin))
    if subprotocols:
        fields.append(("sec-websocket-protocol", ", ".join(subprotocols)))
    if cookies:
        fields.append(("cookie", "; ".join(f"{name}={value}" for name, value in cookies.items())))
    own = list(headers.items() if isinstance(headers, Mapping) else headers)
    replaced = {name.lower() for name, _ in own}
    return [*((name, value) for name, value in fields if name not in replaced), *own]


def _head(path: str, fields: list[tuple[str, str]]) -> bytes:
    if not path.startswith("/") or " " in path or not path.isascii():
        raise ConfigurationError("path", repr(path), 'a path as it is sent, like "/ws/caf%C3%A9?room=1"')
    for text in (path, *(text for pair in fields for text in pair)):
        if _LINE_END.search(text):
            raise ConfigurationError("handshake", repr(text), "no line end: it would begin another field")
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")


def _in_short(path: str, fields: list[tuple[str, str]]) -> str:
    shown = {"host": "Host", "origin": "Origin", "sec-websocket-protocol": "Sec-WebSocket-Protocol"}
    told = [f"{shown[name.lower()]}: {value}" for name, value in fields if name.lower() in shown]
    if not any(name.lower() == "origin" for name, _ in fields):
        told.append("no Origin")
    return ", ".join([f"GET {path.partition('?')[0]}", *told])


def _server_name(host: str) -> str | None:
    """Return the SNI: the Host's name; an address has none (RFC 6066 §3), nor has what is no host."""
    try:
        parsed = Host.parse(host.encode("utf-8"))
    except HostSyntaxError:
        return None
    return None if parsed.is_ip_literal else parsed.name


@cache
def _client_context() -> ssl.SSLContext:
    return loopback_certificate().client_context()
