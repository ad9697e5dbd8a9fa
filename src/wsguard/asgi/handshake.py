"""
The mount's protocol in: an ASGI scope as a Handshake.

Only what the scope shows is taken; what it hides stays unknown. Nothing here relies on the server's having checked
anything: some hand on two Hosts, two Origins, a POST, or a key that is none (docs/reference/asgi-servers.md).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from wsguard.engine.proxies import UNIX_PEER
from wsguard.vocabulary.fields import Fields
from wsguard.vocabulary.handshake import Handshake, Peer, asks_for_upgrade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.asgi.types import Scope
    from wsguard.vocabulary.handshake import HTTPVersion

# What a server may have taken out of a websocket scope's headers, because it answers them itself.
_TAKEN_BY_SERVERS = frozenset({b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version"})
_SECURE = {"wss": True, "https": True, "ws": False, "http": False}
_VERSIONS: dict[object, HTTPVersion] = {"1.0": "1.0", "1.1": "1.1", "2": "2", "2.0": "2", "3": "2"}
# What nothing may be made of: a version that this mount does not know.
_OLDEST: HTTPVersion = "1.0"


def handshake_from(scope: Scope) -> Handshake:
    """Return what the engine judges."""
    is_socket = scope["type"] == "websocket"
    version = _VERSIONS.get(scope.get("http_version", "1.1"), _OLDEST)
    fields = _fields(scope, is_socket=is_socket)
    # Over HTTP/2 too: hypercorn takes an ``Upgrade: h2c`` itself and hands the request on as an HTTP/2 page.
    upgrades = is_socket or asks_for_upgrade(fields)
    return Handshake(
        kind="handshake" if upgrades else "page",
        method=None if is_socket else str(scope["method"]),
        target=_target(scope),
        fields=fields,
        http_version=version,
        peer=_peer(scope),
        secure=_SECURE.get(str(scope.get("scheme"))),
        hidden=_TAKEN_BY_SERVERS if is_socket else frozenset(),
        reported=True,
        prefix=_quoted(str(scope.get("root_path") or "").rstrip("/")),
    )


def _fields(scope: Scope, *, is_socket: bool) -> Fields:
    # Some servers hand lists on where the specification says tuples.
    raw = cast("list[tuple[bytes, bytes]]", list(map(tuple, cast("Sequence[Sequence[bytes]]", scope["headers"]))))
    offered = cast("Sequence[str]", scope.get("subprotocols") or ()) if is_socket else ()
    if offered and not any(name.lower() == b"sec-websocket-protocol" for name, _ in raw):
        raw.append((b"sec-websocket-protocol", ", ".join(offered).encode("latin-1")))
    return Fields(raw)


def _target(scope: Scope) -> bytes:
    raw_path = cast("bytes | None", scope.get("raw_path"))
    # Without raw_path the app has only the decoded path to go by, and so have we.
    path = _quoted(str(scope["path"])) if raw_path is None else raw_path
    query = cast("bytes", scope.get("query_string") or b"")
    return b"%b?%b" % (path.partition(b"?")[0], query) if query else path.partition(b"?")[0]


def _quoted(path: str) -> bytes:
    return quote(path, safe="/!$&'()*+,;=:@").encode("ascii") if path else b""


def _peer(scope: Scope) -> Peer:
    client = cast("Sequence[Any] | None", scope.get("client"))
    if client is None:
        server = cast("Sequence[Any] | None", scope.get("server"))
        # A server on a Unix socket names its path and no port.
        return Peer(UNIX_PEER if server is not None and server[1] is None else None)
    address, port = str(client[0]), client[1]
    return Peer(address if _is_address(address) else None, port if isinstance(port, int) and port else None)


@lru_cache(4096)
def _is_address(text: str) -> bool:
    # Test clients name themselves ("testclient"): that is no address, and no error.
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
