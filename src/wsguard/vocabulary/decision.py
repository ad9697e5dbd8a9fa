"""What a check says (`Passed` or `Refusal`) and what the policy decides (`Accept` or `Refuse`)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsguard.vocabulary.identity import Identity
    from wsguard.vocabulary.reasons import Reason


class OriginProof(enum.Enum):
    """What the origin check has shown. Carriage judges credentials by it; the last two are never proof of a page."""

    LISTED = "listed"
    SAME_ORIGIN = "same_origin"
    ABSENT = "absent"
    UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True)
class Passed:
    """A check found nothing. Whatever else it established stands here, for the checks behind it."""

    origin: OriginProof | None = None
    subprotocols: Subprotocols | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A check refuses. *setting* names the setting that would allow it; it may quote what the peer sent."""

    reason: Reason
    detail: str = ""
    setting: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Verdict = Passed | Refusal


@dataclass(frozen=True, slots=True)
class Subprotocols:
    """What the client offered, parted: *forwarded* is what app or upstream sees, *removed* is shown to nobody."""

    forwarded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    companion_offered: bool = False


@dataclass(frozen=True, slots=True)
class Accept:
    """
    The request may go on.

    *route* is the path of the route whose policy decided; *subprotocols* tells forwarding which are taken out.
    *compression* lets permessage-deflate stay in the offer, *max_message* bounds a message in bytes;
    *upstream_host* and *upstream_origin* are ``preserve``, ``upstream`` or a value to send instead.
    """

    route: str
    max_message: int
    compression: bool = False
    upstream_host: str = "preserve"
    upstream_origin: str = "preserve"
    identity: Identity | None = None
    origin: OriginProof | None = None
    subprotocols: Subprotocols = field(default_factory=Subprotocols)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request is refused with *reason*'s status. Only the status and a request id reach the client."""

    reason: Reason
    detail: str = ""
    setting: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> int:
        """The HTTP status that answers."""
        return self.reason.status


Decision = Accept | Refuse
