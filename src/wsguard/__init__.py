"""WebSocket endpoints, secure by default: a guard for handshakes, a gateway before any app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsguard.engine.policy import Policy
    from wsguard.vocabulary.errors import ConfigurationError, WSGuardError

__all__ = ["ConfigurationError", "Policy", "WSGuardError"]

_HOMES = {
    "Policy": "wsguard.engine.policy",
    "ConfigurationError": "wsguard.vocabulary.errors",
    "WSGuardError": "wsguard.vocabulary.errors",
}


def __getattr__(name: str) -> Any:
    """Load a public name where it lives, when it is first asked for: importing the package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wsguard' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
