"""
Which policy an app serves a path by, and which Host to send, so that a test need not repeat it.

The guard is looked for where frameworks keep middleware. What is found is read, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

from wsguard.engine.checks.host import HostPattern, HostRules
from wsguard.engine.policy import Policy
from wsguard.engine.routes import RouteTable, route_table, single_route
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.host import Host, HostSyntaxError
from wsguard.vocabulary.origin import DEFAULT_PORTS

_INSIDE = ("app", "asgi_app", "middleware_stack")
_MIDDLEWARE_LISTS = ("user_middleware", "middleware")
_DEEPEST = 50
_EXAMPLE = 'host="app.example.com", the name that it serves'


def host_for(app: object, path: str, origin: str | None) -> str:
    """
    Return the Host to send: the origin's own where it is served, so that same origin is judged; else the first served.

    Raises ConfigurationError, with what to write, where the app shows no guard or the guard no host.
    """
    table = _table_of(app)
    if table is None:
        raise ConfigurationError("host", f"no WebSocketGuard around this {type(app).__name__}", _EXAMPLE)
    route = table.find(path.partition("?")[0].encode("utf-8")) or table.routes[0]
    if route.policy.hosts_are_kept:
        raise ConfigurationError("host", "a guard that looks its hosts up elsewhere", _EXAMPLE)
    rules = route.policy.host_rules
    own = _host_of_origin(origin)
    return str(own) if own is not None and rules.serves(own) else _first(rules)


def _first(rules: HostRules) -> str:
    name = rules.names[0]
    return f"test.{name.domain}" if isinstance(name, HostPattern) else str(name)


def _host_of_origin(origin: str | None) -> Host | None:
    scheme, _, authority = (origin or "").partition("://")
    try:
        host = Host.parse(authority.encode("utf-8"))
    except HostSyntaxError:
        return None  # an origin that is none is what the test is about
    return Host(host.name) if host.port == DEFAULT_PORTS.get(scheme) else host


def _table_of(app: object) -> RouteTable | None:
    for layer in _layers(app):
        table = _read(layer)
        if table is not None:
            return table
    return None


def _read(layer: object) -> RouteTable | None:
    """Return the routes of a WebSocketGuard, or of the arguments that one will be made with."""
    found = getattr(getattr(layer, "guard", None), "routes", None)
    if isinstance(found, RouteTable):
        return found
    policy, routes = getattr(layer, "policy", None), getattr(layer, "routes", None)
    if isinstance(policy, Policy):
        return single_route(policy)
    if isinstance(routes, Mapping):
        written = list(cast("Mapping[str, Any]", routes).items())
        if written and all(isinstance(policy, Policy) for _, policy in written):
            return route_table(written)
    return None


def _layers(app: object) -> Iterator[object]:
    """Walk from the outermost layer inwards; a framework's list of middleware stands around the app itself."""
    layers = [app]
    seen: set[int] = set()
    while layers and len(seen) < _DEEPEST:
        layer = layers.pop(0)
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        for name in _MIDDLEWARE_LISTS:
            entries = getattr(layer, name, None)
            if isinstance(entries, list | tuple):
                for entry in cast("Iterable[object]", entries):
                    arguments = getattr(entry, "kwargs", None)
                    if isinstance(arguments, Mapping):
                        yield SimpleNamespace(**cast("Mapping[str, Any]", arguments))
        layers += [getattr(layer, name, None) for name in _INSIDE]
