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


def may_decide(authenticator: Authenticator, handshake: Handshake, context: Context) -> Refusal | None:
    """Return why the word of *authenticator* does not count here, or None where it does (RULES §7)."""
    if authenticator.carriage == "explicit":
        return None
    if context.unless_explicit is not None:
        return context.unless_explicit
    if handshake.is_handshake and context.origin is not OriginProof.LISTED:
        return Refusal(reasons.CREDENTIAL_AMBIENT, authenticator.name, setting="origins, written out")
    return None
