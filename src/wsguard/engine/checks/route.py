"""No route, no policy; no policy, no way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, Refusal

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake


class RouteCheck:
    """Tell 404 only here: whoever was refused before must not learn which paths exist."""

    name: ClassVar[str] = "route"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Refuse a path that no route covers."""
        if context.route is None:
            return Refusal(reasons.ROUTE_NONE, setting='[[route]] path = "…"')
        del handshake
        return PASSED
