"""
Judge the offered subprotocols (RFC 6455 §4.2.1, §11.3.4), and part what may be shown from what is a secret.

A browser's WebSocket API cannot set headers, so credentials travel here. They are taken out before app, upstream or
log see anything, and are never answered. Beside them a client offers a companion, because Chromium fails a socket that
offered protocols and got none (BROWSERS.md §0.10).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, Passed, Refusal, Subprotocols

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake

COMPANION = "wsguard.v1"
SECRET_PREFIXES = ("wsguard.ticket.", "wsguard.bearer.")
# Kubernetes' own form of a bearer token: a secret where bearer_subprotocol reads it, elsewhere the app's own.
KUBERNETES_PREFIX = "base64url.bearer.authorization.k8s.io."
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


class SubprotocolsCheck:
    """Tokens, no duplicates, bounded, and never secrets alone."""

    name: ClassVar[str] = "subprotocol"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Return the parted offer as Passed.subprotocols."""
        values = handshake.fields.values(b"sec-websocket-protocol")
        if not context.is_handshake or not values:
            return PASSED
        if sum(map(len, values)) > context.limits.subprotocol_bytes:
            return Refusal(reasons.SUBPROTOCOL_TOO_LARGE)
        offered = [part.strip(" \t") for value in values for part in value.decode("ascii").split(",")]
        if not all(_TOKEN.fullmatch(token) for token in offered):
            return Refusal(reasons.SUBPROTOCOL_MALFORMED)
        if len(set(offered)) < len(offered):
            return Refusal(reasons.SUBPROTOCOL_REPEATED)
        if len(offered) > context.limits.subprotocols:
            return Refusal(reasons.SUBPROTOCOL_TOO_MANY, str(len(offered)))
        return _part(offered, _secret_prefixes(context))


def _secret_prefixes(context: Context) -> tuple[str, ...]:
    policy = context.policy
    is_read = policy.authenticates and "bearer_subprotocol" in (policy.auth or ())
    return (*SECRET_PREFIXES, KUBERNETES_PREFIX) if is_read else SECRET_PREFIXES


def _part(offered: list[str], secret_prefixes: tuple[str, ...]) -> Verdict:
    secrets = tuple(token for token in offered if token.startswith(secret_prefixes))
    if len(secrets) == len(offered):
        return Refusal(reasons.SUBPROTOCOL_ONLY_CREDENTIALS)
    forwarded = tuple(token for token in offered if token != COMPANION and token not in secrets)
    return Passed(subprotocols=Subprotocols(forwarded, secrets, COMPANION in offered))
