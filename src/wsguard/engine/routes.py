"""Which policy covers which path: exact paths and ``/…/*`` by whole segments, first match in written order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.policy import Policy
    from wsguard.engine.ports import Authenticator, HostList, OriginList
    from wsguard.vocabulary.decision import RouteTerms

RESERVED = b"/.wsguard"
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_PATH = re.compile(r"/[\x21-\x7e]*", re.ASCII)
# How frameworks write a part that varies: {id}, <int:id>, :id. None but the last may stand in a URI as it is.
_TEMPLATE = re.compile(r"[{}<>]|(?<=/):")


class RouteSyntaxError(ValueError):
    """A route's path is not written as one."""


def check_route_path(path: str) -> None:
    """Refuse a path that could never match, or that means another one. Raises RouteSyntaxError."""
    stem = path.removesuffix("/*") or "/"
    if not _PATH.fullmatch(path) or "*" in stem or "?" in stem or "#" in stem:
        raise RouteSyntaxError("a path that is exact (/login) or ends in /*, and holds no query")
    template = _TEMPLATE.search(stem)
    if template is not None:
        expected = f"no template, which would match nothing but itself: {stem[: template.start()].rstrip('/')}/*"
        raise RouteSyntaxError(expected)
    decoded = decoded_path(stem.encode("ascii"))
    if decoded != stem.encode("ascii"):
        raise RouteSyntaxError(f"it decoded and without dot-segments: {decoded.decode('latin-1')}")


@dataclass(frozen=True)
class Route:
    """
    One path and the policy that covers everything under it, plain HTTP too.

    What the policy names stands beside it, opened: its *authenticators* in the order of ``auth``, and the lists that
    are kept elsewhere.
    """

    path: str
    policy: Policy
    authenticators: tuple[Authenticator, ...] = ()
    origin_list: OriginList | None = None
    host_list: HostList | None = None
    terms: RouteTerms = field(init=False, repr=False, compare=False)
    takes_tickets: bool = field(init=False, repr=False, compare=False)
    """Whether a ticket opens sockets here."""
    _stem: bytes = field(init=False, repr=False, compare=False)
    _is_exact: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a path that is none. Raises RouteSyntaxError."""
        check_route_path(self.path)
        object.__setattr__(self, "terms", self.policy.terms(self.path))
        object.__setattr__(self, "takes_tickets", any(one.name == "ticket" for one in self.authenticators))
        object.__setattr__(self, "_is_exact", not self.path.endswith("/*"))
        object.__setattr__(self, "_stem", self.path.removesuffix("/*").encode("ascii"))

    def hides(self, later: Route) -> bool:
        """Tell whether everything that *later* matches is matched here already."""
        if not self.path.endswith("/*"):
            return later.path == self.path
        return self.matches(later.path.removesuffix("/*").encode("ascii"))

    def matches(self, path: bytes) -> bool:
        """Tell whether *path* is this one or, with ``/*``, stands at or below it by whole segments."""
        stem = self._stem
        return path == stem or (
            not self._is_exact and path.startswith(stem) and path[len(stem) : len(stem) + 1] == b"/"
        )


@dataclass(frozen=True)
class RouteTable:
    """All routes of a guard, in written order."""

    routes: tuple[Route, ...]

    def hidden(self) -> list[tuple[Route, Route]]:
        """Return the routes that an earlier one hides entirely, each with that one."""
        found: list[tuple[Route, Route]] = []
        for index, route in enumerate(self.routes):
            earlier = next((other for other in self.routes[:index] if other.hides(route)), None)
            if earlier is not None:
                found.append((route, earlier))
        return found

    def find(self, path: bytes) -> Route | None:
        """Return the first route that matches *path*, or None."""
        for route in self.routes:
            if route.matches(path):
                return route
        return None


def is_reserved(path: bytes) -> bool:
    """Tell whether *path* is wsguard's own, ``/.wsguard`` or below."""
    return path == RESERVED or path.startswith(RESERVED + b"/")


def percent_decode(data: bytes) -> bytes:
    """Decode ``%XX`` once; what is no escape stays (RFC 3986 §2.1)."""
    return _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), data) if b"%" in data else data


def is_dot_segment(segment: bytes) -> bool:
    """Tell whether *segment* is ``.`` or ``..`` in any spelling: encoded, twice encoded, or with ``;parameters``."""
    for _ in range(3):
        if segment.partition(b";")[0] in (b".", b".."):
            return True
        decoded = percent_decode(segment)
        if decoded == segment:
            return False
        segment = decoded
    return segment.partition(b";")[0] in (b".", b"..")


def decoded_path(path: bytes) -> bytes:
    """Return *path* after one percent-decoding, dot-segments removed (RFC 3986 §5.2.4)."""
    if b"%" not in path and b"/." not in path:
        return path
    output: list[bytes] = []
    segments = percent_decode(path).split(b"/")[1:]
    for segment in segments:
        name = segment.partition(b";")[0]
        if name == b"..":
            if output:
                output.pop()
        elif name != b".":
            output.append(segment)
    if segments and segments[-1].partition(b";")[0] in (b".", b".."):
        output.append(b"")
    return b"/" + b"/".join(output)


def single_route(policy: Policy) -> RouteTable:
    """Return the table of a guard with one policy: everything."""
    return RouteTable((Route("/*", policy),))


def route_table(routes: Sequence[tuple[str, Policy]]) -> RouteTable:
    """Make a table of (path, policy) in written order."""
    return RouteTable(tuple(Route(path, policy) for path, policy in routes))
