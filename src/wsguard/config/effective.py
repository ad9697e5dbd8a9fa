"""What a configuration means once it is read: the policy of each route, and what is probably not meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from wsguard.engine.ports import KeptList
from wsguard.vocabulary.bounds import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.policy import Policy
    from wsguard.engine.routes import Route
    from wsguard.guard import Guard

# Where libraries look for their transports without WebSocket: long polling, server-sent events, XHR streaming.
FALLBACK_PATHS = {
    "/socket.io/": "Socket.IO (Engine.IO polling)",
    "/engine.io/": "Engine.IO polling",
    "/signalr/": "SignalR (server-sent events, long polling)",
    "/hub/": "SignalR (server-sent events, long polling)",
    "/sockjs/": "SockJS (XHR streaming, polling)",
    "/primus/": "Primus",
    "/cometd/": "CometD (Bayeux long polling)",
    "/faye/": "Faye (Bayeux long polling)",
}

_PAGES = (b"/", b"/any-page-that-no-route-names")


def effective_policies(guard: Guard) -> list[dict[str, Any]]:
    """Return what each route demands, in the order in which they are tried, defaults written out."""
    return [_effective(route) for route in guard.routes.routes]


def doubts(guard: Guard) -> list[str]:
    """Return what is allowed, works, and is probably not meant, each with what to write instead."""
    found: list[str] = []
    for path, library in FALLBACK_PATHS.items():
        route = guard.routes.find(path.encode())
        # Another route of the same name is a decision; the one for everything is not.
        if route is not None and route.policy.authenticates and route.policy.page_rule == "open":
            found.append(
                f"{path} is open to every page: its sockets need a credential, its plain HTTP does not ({route.path} "
                f'has http = "open"). If the app has {library} there, write [[route]] path = "{path}*", '
                'http = "same-policy"'
            )
    # What a route named for sockets covers holds no pages, most likely; the first page does, and what nobody has named.
    for_pages = {route.path: route for path in _PAGES if (route := guard.routes.find(path)) is not None}
    for route in filter(_never_loads, for_pages.values()):
        names = ", ".join(one.name for one in route.authenticators)
        found.append(
            f'no page under {route.path} can ever load, nor what a page loads: http = "same-policy", and a browser '
            f'sends none of {names} by itself. Write http = "open", or a route for the pages with anonymous = true'
        )
    return found


def _never_loads(route: Route) -> bool:
    policy = route.policy
    navigable = any(one.carriage == "ambient" for one in route.authenticators)
    return policy.authenticates and policy.page_rule == "same-policy" and not navigable


def _effective(route: Route) -> dict[str, Any]:
    policy = route.policy
    limits = policy.socket_limits
    required = policy.requirement
    return {
        "path": route.path,
        "origins": _origins(policy),
        "hosts": _entries(policy.hosts) or list(dict.fromkeys(map(str, policy.host_rules.names))),
        "auth": [one.name for one in route.authenticators] if policy.authenticates else _unasked(policy),
        "require": {"scopes": sorted(required.scopes), "groups": sorted(required.groups)},
        "origin_required": policy.origin_required,
        "browsers": policy.browsers,
        "http": policy.page_rule,
        "refusal": policy.refusal,
        "close_codes": policy.close_codes,
        "max_message": MAX_MESSAGE if policy.max_message is None else policy.max_message,
        "messages_per_second": None if limits is None else limits.messages_per_second,
        "idle": None if limits is None else limits.idle,
        "max_lifetime": None if limits is None else limits.max_lifetime,
        "compression": policy.compression or None,
        "upstream_host": _rewritten(policy.upstream_host),
        "upstream_origin": _rewritten(policy.upstream_origin),
        "forward_credential": policy.forward_credential or None,
        "insecure": policy.notices,
    }


def _rewritten(field: str) -> str | None:
    return None if field == "preserve" else field


def _unasked(policy: Policy) -> str:
    return "anonymous" if policy.anonymous else "the app's own"


def _origins(policy: Policy) -> list[str]:
    if policy.browsers == "refuse":
        return ["none: browsers are refused"]
    kept = _entries(policy.origins)
    if kept:
        return kept
    if policy.origins is None:
        return ["the served host's own pages"]
    return list(cast("Sequence[str]", policy.origins)) or ["none"]


def _entries(written: object) -> list[str]:
    """Name a list that is kept elsewhere."""
    if isinstance(written, KeptList):
        return [str(written)]
    return [f"function {getattr(written, '__name__', '')}"] if callable(written) else []
