"""Who opened a socket, once an authenticator has said so."""

from __future__ import annotations

from dataclasses import dataclass

LATEST_TIME = 253_402_300_799
"""Unix seconds of the end of the year 9999: a later date is a mistake (milliseconds), or meant to break a clock."""


@dataclass(frozen=True, slots=True)
class Identity:
    """
    One authenticated subject.

    *method* is how it was shown (``bearer``, ``api_key`` …), *credential_id* names the credential without being it,
    *sid* the login session (OIDC), *expires_at* Unix seconds or None where the credential has no end, *issued_at* when
    it was issued, or None where nobody knows: then it counts as older than any revocation.
    """

    subject: str
    issuer: str
    method: str
    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    credential_id: str | None = None
    sid: str | None = None
    expires_at: float | None = None
    issued_at: float | None = None
