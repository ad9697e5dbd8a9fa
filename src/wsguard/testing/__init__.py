"""
Tower: what tests use. Your policy, through a real server; suites that run against a mount of your own.

`assert_refused`, `assert_accepted` and `handshake` pin a project's policy, `browser_headers` keeps a suite on
Starlette's TestClient alive, `check_mount` sends the table of hostile handshakes, `check_store` tries
a store of your own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsguard.testing.assertions import assert_accepted, assert_refused
    from wsguard.testing.browser import browser_headers
    from wsguard.testing.handshakes import HandshakeResult, handshake
    from wsguard.testing.hostile import Answer, MountUnderTest, Row, RowResult, check_mount, hostile_rows
    from wsguard.testing.loopback_server import ServerStartError
    from wsguard.testing.stores import StoreResult, check_store

__all__ = [
    "Answer",
    "HandshakeResult",
    "MountUnderTest",
    "Row",
    "RowResult",
    "ServerStartError",
    "StoreResult",
    "assert_accepted",
    "assert_refused",
    "browser_headers",
    "check_mount",
    "check_store",
    "handshake",
    "hostile_rows",
]

_HOMES = {
    "Answer": "hostile",
    "HandshakeResult": "handshakes",
    "MountUnderTest": "hostile",
    "Row": "hostile",
    "RowResult": "hostile",
    "ServerStartError": "loopback_server",
    "StoreResult": "stores",
    "assert_accepted": "assertions",
    "assert_refused": "assertions",
    "browser_headers": "browser",
    "check_mount": "hostile",
    "check_store": "stores",
    "handshake": "handshakes",
    "hostile_rows": "hostile",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: pytest imports this package wherever wsguard is installed."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wsguard.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"wsguard.testing.{_HOMES[name]}"), name)
