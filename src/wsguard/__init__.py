"""WebSocket endpoints, secure by default: a guard for handshakes, a gateway before any app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsguard.engine.authenticators.api_key import APIKeys
    from wsguard.engine.authenticators.ask import Ask
    from wsguard.engine.authenticators.bearer import Bearer
    from wsguard.engine.authenticators.client_certificate import ClientCertificate
    from wsguard.engine.authenticators.session_lookup import SessionLookup
    from wsguard.engine.cookies import only_cookie
    from wsguard.engine.policy import Context, Policy
    from wsguard.engine.ports import Authenticator
    from wsguard.engine.tickets import Ticket
    from wsguard.engine.tokens.jwt import JWT
    from wsguard.guard import Guard
    from wsguard.identity.allow_lists import FileList, URLList
    from wsguard.vocabulary import reasons
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.decision import Refusal
    from wsguard.vocabulary.errors import ConfigurationError, TicketRefused, WSGuardError
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.identity import Identity

__all__ = [
    "JWT",
    "APIKeys",
    "Ask",
    "Authenticator",
    "Bearer",
    "ClientCertificate",
    "ConfigurationError",
    "Context",
    "FileList",
    "Guard",
    "Handshake",
    "Identity",
    "Limits",
    "Policy",
    "Refusal",
    "SessionLookup",
    "Ticket",
    "TicketRefused",
    "URLList",
    "WSGuardError",
    "only_cookie",
    "reasons",
]

_HOMES = {
    "APIKeys": "wsguard.engine.authenticators.api_key",
    "Ask": "wsguard.engine.authenticators.ask",
    "SessionLookup": "wsguard.engine.authenticators.session_lookup",
    "Bearer": "wsguard.engine.authenticators.bearer",
    "ClientCertificate": "wsguard.engine.authenticators.client_certificate",
    "JWT": "wsguard.engine.tokens.jwt",
    "Ticket": "wsguard.engine.tickets",
    "Authenticator": "wsguard.engine.ports",
    "ConfigurationError": "wsguard.vocabulary.errors",
    "Context": "wsguard.engine.policy",
    "FileList": "wsguard.identity.allow_lists",
    "Guard": "wsguard.guard",
    "Handshake": "wsguard.vocabulary.handshake",
    "Identity": "wsguard.vocabulary.identity",
    "Limits": "wsguard.vocabulary.bounds",
    "Policy": "wsguard.engine.policy",
    "Refusal": "wsguard.vocabulary.decision",
    "TicketRefused": "wsguard.vocabulary.errors",
    "URLList": "wsguard.identity.allow_lists",
    "WSGuardError": "wsguard.vocabulary.errors",
    "only_cookie": "wsguard.engine.cookies",
    "reasons": "wsguard.vocabulary",
}


def __getattr__(name: str) -> Any:
    """Load a public name where it lives, when it is first asked for: importing the package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wsguard' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
