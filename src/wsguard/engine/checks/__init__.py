"""
The countermeasures, one file each, and the order in which they run.

First what the request is (syntax, target), then how it came (transport, host), then where it goes (route), then who
asks for it (origin, fetch metadata), last what it asks for (subprotocols). A later check may rely on what an earlier
one has shown: the host check on a single Host field, the origin check on a Host that is served.
A new check is one file and one line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from wsguard.engine.checks.fetch_metadata import FetchMetadataCheck
from wsguard.engine.checks.host import HostCheck
from wsguard.engine.checks.origin import OriginCheck
from wsguard.engine.checks.route import RouteCheck
from wsguard.engine.checks.subprotocols import SubprotocolsCheck
from wsguard.engine.checks.syntax import SyntaxCheck
from wsguard.engine.checks.target import TargetCheck
from wsguard.engine.checks.transport import TransportCheck

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake


class Check(Protocol):
    """One countermeasure: synchronous, without state, the same answer for the same handshake and context."""

    name: ClassVar[str]
    """The first half of its reason codes."""

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Return Passed or Refusal, never anything else."""
        ...


ORDER: tuple[Check, ...] = (
    SyntaxCheck(),
    TargetCheck(),
    TransportCheck(),
    HostCheck(),
    RouteCheck(),
    OriginCheck(),
    FetchMetadataCheck(),
    SubprotocolsCheck(),
)
