"""
May this credential decide? An ambient one never does alone (SEED: "never decided by ambient ones").

A browser attaches cookies, client certificates and HTTP authentication by itself, to a foreign page's handshake too.
Such a credential counts only where the page's origin is on an explicit allow-list. An explicit one was put there by
somebody who has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import OriginProof, Refusal

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Authenticator
    from wsguard.vocabulary.handshake import Handshake

# No browser leaves Origin out, so where those are refused that send one, these come from programs (BROWSERS.md §0.1).
WITHOUT_ORIGIN = frozenset({"client_certificate", "basic"})


def may_decide(authenticator: Authenticator, handshake: Handshake, context: Context) -> Refusal | None:
    """Return why the word of *authenticator* does not count here, or None where it does (RULES §7)."""
    if context.unless_explicit is not None and not _excuses(authenticator, handshake):
        return context.unless_explicit
    if authenticator.carriage == "explicit":
        return None
    if context.policy.browsers == "refuse" and authenticator.name in WITHOUT_ORIGIN:
        return None
    if handshake.is_handshake and context.origin is not OriginProof.LISTED:
        return Refusal(reasons.CREDENTIAL_AMBIENT, authenticator.name, setting="origins, written out")
    return None


def in_header(authenticator: Authenticator) -> bool:
    """Tell whether the credential stands in a header field that no browser's WebSocket can set."""
    return authenticator.carriage == "explicit" and getattr(authenticator, "in_header", False) is True


def _excuses(authenticator: Authenticator, handshake: Handshake) -> bool:
    """Tell whether this credential takes the place of a listed origin: in a header, or for a page any explicit one."""
    return in_header(authenticator) if handshake.is_handshake else authenticator.carriage == "explicit"
