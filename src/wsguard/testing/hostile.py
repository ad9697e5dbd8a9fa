"""
The table of hostile handshakes, and how it is sent to a mount: raw bytes on a TLS socket, one connection a row.

A mount is right when every row is answered as written. A server in front of it may refuse earlier (any 4xx, or a close)
and may hide facts; what is hidden is told. No row may reach the app when its Origin is foreign, hidden or not.
"""

from __future__ import annotations

import socket
import ssl
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = Literal["as written", "refused earlier", "hidden", "failed"]

_GOOD_FIELDS = (
    ("Host", "{host}"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Origin", "{origin}"),
)


@dataclass(frozen=True)
class Row:
    """One row of the table; `hostile_handshakes.toml` explains the keys."""

    name: str
    status: int
    reason: str | None
    facts: frozenset[str]
    foreign: bool
    bypass: str | None
    server_name: str | None
    table: dict[str, Any] = field(repr=False)

    def head(self, names: dict[str, str]) -> bytes:
        """Write the request's bytes; *names* are the mount's own for the placeholders."""
        return _fill(self._text(), names).encode("latin-1")

    def _text(self) -> str:
        after = str(self.table.get("after", ""))
        if "raw" in self.table:
            return str(self.table["raw"]) + after
        lines = [str(self.table.get("line", "GET /ws HTTP/1.1"))]
        lines += [f"{name}: {value}" for name, value in self._fields()]
        return "\r\n".join([*lines, "", ""]) + after

    def _fields(self) -> Iterator[tuple[str, str]]:
        changed: dict[str, str] = self.table.get("set", {})
        good = dict(_GOOD_FIELDS)
        for name, value in _GOOD_FIELDS:
            if name not in self.table.get("remove", ()):
                yield name, changed.get(name, value)
        yield from ((name, value) for name, value in changed.items() if name not in good)
        yield from (tuple(pair) for pair in self.table.get("add", ()))
        many = self.table.get("many_fields", len(good)) - len(good)
        yield from ((f"X-Many-{number}", "x") for number in range(many))
        if "large_value" in self.table:
            yield "X-Large", "x" * self.table["large_value"]
        if "large_subprotocol" in self.table:
            yield "Sec-WebSocket-Protocol", "x" * self.table["large_subprotocol"]


@dataclass(frozen=True)
class MountUnderTest:
    """
    A mount that serves *host* (a name, without port) and lists the one *origin* (``https://…``, default port).

    *reached* counts what the app behind it has been given so far. *reason_of* returns the logged reason of a request
    id, where the mount's log can be read. *hides* names the facts that its protocol or server does not show. An answer
    is waited for *seconds*; a server that stays silent has refused.
    """

    address: tuple[str, int]
    context: ssl.SSLContext
    host: str
    origin: str
    reached: Callable[[], int]
    reason_of: Callable[[str], str | None] | None = None
    hides: frozenset[str] = frozenset()
    seconds: float = 5.0


@dataclass(frozen=True)
class Answer:
    """What came back: the status (0: closed without one), the request id, and the first bytes."""

    status: int
    request_id: str | None
    begin: bytes


@dataclass(frozen=True)
class RowResult:
    """How one row went; *detail* says what was seen instead where it failed."""

    row: Row
    result: Result
    answer: Answer
    detail: str = ""


def hostile_rows() -> tuple[Row, ...]:
    """Return the table."""
    text = files("wsguard.testing").joinpath("hostile_handshakes.toml").read_text(encoding="utf-8")
    return tuple(_row(table) for table in tomllib.loads(text)["row"])


def check_mount(mount: MountUnderTest, rows: tuple[Row, ...] | None = None) -> list[RowResult]:
    """Send every row to *mount*; the mount is right when no result is ``failed``."""
    return [_check_row(mount, row) for row in (hostile_rows() if rows is None else rows)]


def _row(table: dict[str, Any]) -> Row:
    return Row(
        name=table["name"],
        status=table["status"],
        reason=table.get("reason"),
        facts=frozenset(table.get("facts", ())),
        foreign=table.get("foreign", False),
        bypass=table.get("bypass"),
        server_name=table.get("server_name"),
        table=table,
    )


def _check_row(mount: MountUnderTest, row: Row) -> RowResult:
    before = mount.reached()
    answer = _exchange(mount, row)
    reached = mount.reached() - before
    if row.status == 101:  # noqa: PLR2004 - Switching Protocols
        if answer.status == row.status and reached == 1:
            return RowResult(row, "as written", answer)
        stricter = not reached and bool(row.facts & mount.hides)
        detail = f"status {answer.status}, app reached {reached}"
        return RowResult(row, "hidden" if stricter else "failed", answer, detail)
    if reached and row.foreign:
        return RowResult(row, "failed", answer, "a foreign origin reached the app")
    hidden = bool(row.facts & mount.hides)
    if reached:
        return RowResult(row, "hidden" if hidden else "failed", answer, "it reached the app")
    logged = _logged(mount, answer)
    if answer.status == row.status and (row.reason is None or logged in (None, row.reason)):
        return RowResult(row, "as written", answer)
    if _refused_earlier(mount, answer, logged):
        return RowResult(row, "refused earlier", answer, f"status {answer.status}")
    return RowResult(row, "hidden" if hidden else "failed", answer, f"status {answer.status}, reason {logged}")


def _logged(mount: MountUnderTest, answer: Answer) -> str | None:
    if mount.reason_of is None or answer.request_id is None:
        return None
    return mount.reason_of(answer.request_id)


def _refused_earlier(mount: MountUnderTest, answer: Answer, logged: str | None) -> bool:
    # A mount whose log can be read and that hides nothing has no server in front: it answers all by itself.
    if logged is not None or (mount.reason_of is not None and not mount.hides):
        return False
    return answer.status == 0 or 400 <= answer.status < 500  # noqa: PLR2004 - client errors


def _exchange(mount: MountUnderTest, row: Row) -> Answer:
    server_name = mount.host if row.server_name is None else row.server_name
    try:
        with (
            socket.create_connection(mount.address, timeout=mount.seconds) as plain,
            mount.context.wrap_socket(plain, server_hostname=server_name or None) as secure,
        ):
            secure.sendall(row.head(_names(mount)))
            return _read_answer(secure)
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return Answer(0, None, b"")


def _read_answer(secure: ssl.SSLSocket) -> Answer:
    data = b""
    try:
        while b"\r\n\r\n" not in data and (more := secure.recv(65536)):
            data += more
    except (ConnectionError, ssl.SSLError, TimeoutError):
        pass
    words = data.split(b" ", 2)
    status = (
        int(words[1]) if data.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) and len(words) > 1 and words[1].isdigit() else 0
    )
    request_id = None
    for line in data.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"x-request-id":
            request_id = value.strip().decode("latin-1")
    return Answer(status, request_id, data[:200])


def _names(mount: MountUnderTest) -> dict[str, str]:
    origin_host = mount.origin.removeprefix("https://")
    return {
        "host": mount.host,
        "host_name": mount.host,
        "host_name_dot": mount.host + ".",
        "host_upper": mount.host.upper(),
        "origin": mount.origin,
        "origin_host": origin_host,
        "origin_host_dashed": origin_host.replace(".", "-") + ".test",
    }


def _fill(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text
