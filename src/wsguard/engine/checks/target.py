"""
Demand that the guard and the app behind it see one path (B-HEAD-04, B-HEAD-05, B-ORIGIN-06).

The target is in origin form (RFC 9112 §3.2.1): no URL is ever built from it and Host. The path is matched raw and again
decoded; where the two differ in route, nobody can say which one the app will serve. What is matched is what goes on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from wsguard.engine.routes import decoded_path, is_dot_segment, is_reserved, percent_decode
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, Refusal

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.engine.routes import RouteTable
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake

# Origin form without an escape, a dot, a backslash or a ";": it has one reading. Most paths are so.
_PLAIN = re.compile(rb"/(?!/)[\w/~-]*(?:\?[\x21\x22\x24-\x7e]*)?", re.ASCII)
_ORIGIN_FORM = re.compile(rb"/(?!/)[\x21\x22\x24-\x7e]*")
_HIDDEN = re.compile(rb"\\|%(?:2f|5c|[01][0-9a-f]|7f)", re.IGNORECASE)
_INCOMPLETE_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class TargetCheck:
    """Origin form, one meaning."""

    name: ClassVar[str] = "target"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Refuse another form, a hidden separator in a handshake, and a path whose two readings differ in route."""
        moved = _moved(handshake, context) if handshake.prefix else None
        if moved is not None:
            return moved
        if _PLAIN.fullmatch(handshake.target):
            return PASSED
        if not _ORIGIN_FORM.fullmatch(handshake.target):
            return Refusal(reasons.TARGET_FORM)
        raw = handshake.raw_path
        decoded = decoded_path(raw)
        if is_reserved(raw) or is_reserved(decoded):
            return Refusal(reasons.ROUTE_RESERVED)
        if context.is_handshake and _hides_something(raw):
            return Refusal(reasons.TARGET_AMBIGUOUS)
        if decoded != raw and context.table.find(decoded) is not context.route:
            return Refusal(reasons.TARGET_AMBIGUOUS)
        return PASSED


def _moved(handshake: Handshake, context: Context) -> Refusal | None:
    """
    Refuse a path that, without what stands before it for the app, is wsguard's own or an earlier route's.

    uvicorn's ``--root-path`` puts there what no client has sent: routes that were written without it would all be
    passed over, down to one for everything that asks for less.
    """
    prefix, path = handshake.prefix, handshake.raw_path
    if not path.startswith(prefix + b"/"):
        return None
    below = path[len(prefix) :]
    if is_reserved(below) or is_reserved(decoded_path(below)):
        return Refusal(reasons.ROUTE_RESERVED)
    routes = context.table.routes
    earlier = routes if context.route is None else routes[: routes.index(context.route)]
    meant = next((route for route in earlier if route.matches(below)), None)
    if meant is None:
        return None
    text = prefix.decode("ascii", "replace")
    return Refusal(reasons.TARGET_AMBIGUOUS, f"{meant.path} below root_path {text}", setting=f"{text}{meant.path}")


def is_unambiguous(path: bytes, table: RouteTable) -> bool:
    """Tell whether *path*, without a query, means one place of *table* to every reader, as a handshake's must."""
    if _PLAIN.fullmatch(path):
        return b"?" not in path
    if not _ORIGIN_FORM.fullmatch(path) or b"?" in path or _hides_something(path):
        return False
    decoded = decoded_path(path)
    return not is_reserved(decoded) and table.find(decoded) is table.find(path)


def has_parameter(target: bytes, name: bytes) -> bool:
    """Tell whether a parameter *name*, in any spelling that decodes to it, stands in the query of *target*."""
    query = target.partition(b"?")[2]
    return bool(query) and any(percent_decode(part.partition(b"=")[0]) == name for part in query.split(b"&"))


def _hides_something(path: bytes) -> bool:
    if _HIDDEN.search(path) or _INCOMPLETE_ESCAPE.search(path):
        return True
    return any(is_dot_segment(segment) for segment in path.split(b"/"))
