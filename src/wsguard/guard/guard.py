"""
The guard: what every mount asks. It holds the routes, the caps, the live sockets and the decision log of one process.

The engine knows no clock and no network. Here they are joined to it: the lists that a policy keeps elsewhere are
opened, the authenticators that it names are found, and a decision that waits is bounded in time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from wsguard.engine.carriage import WITHOUT_ORIGIN
from wsguard.engine.checks.host import HostRules
from wsguard.engine.limits import AddressLimits, address_key
from wsguard.engine.policy import Policy, decide
from wsguard.engine.proxies import TrustedProxies, client_of
from wsguard.engine.routes import Route, RouteSyntaxError, RouteTable
from wsguard.engine.sessions import Session, SessionRegistry
from wsguard.identity.allow_lists import open_list
from wsguard.observe.decision_log import DecisionLog, guard_logger
from wsguard.vocabulary import reasons
from wsguard.vocabulary.bounds import DEFAULTS, Limits
from wsguard.vocabulary.decision import Accept, Refuse
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, nearest_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from wsguard.engine.ports import Authenticator, Clock, HostList, OriginList, Randomness, WallClock
    from wsguard.identity.allow_lists import OpenList
    from wsguard.observe.decision_log import Value
    from wsguard.vocabulary.decision import Decision
    from wsguard.vocabulary.handshake import Client, Handshake
    from wsguard.vocabulary.host import Host
    from wsguard.vocabulary.origin import Origin

T = TypeVar("T")
_ID_BYTES = 8


class Guard:
    """
    Judges handshakes by its routes, and knows the sockets that it let in.

    Give one *policy* for everything, or *routes*, a mapping of paths (exact, or ending in ``/*``) to policies in the
    order in which they are tried. *authenticators* are those that policies name in ``auth``. *trusted_proxies* are
    the addresses and ranges (or ``unix``) whose X-Forwarded-* and Forwarded fields are believed; without it nobody's.
    *limits* are the bounds in force; *log* replaces the decision log.

    Raises ConfigurationErrors, all at once, for a policy that cannot work: an unknown authenticator, a route that an
    earlier one hides entirely, an ambient authenticator without explicit origins.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        routes: Mapping[str, Policy] | None = None,
        authenticators: Sequence[Authenticator] = (),
        trusted_proxies: Iterable[str] = (),
        trust_any_proxy: bool = False,
        limits: Limits = DEFAULTS,
        log: DecisionLog | None = None,
        clock: Clock = time.monotonic,
        wall_clock: WallClock = time.time,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.wall_clock = wall_clock
        self.randomness = randomness
        self.proxies = TrustedProxies.read(trusted_proxies, trust_any=trust_any_proxy)
        self.log = DecisionLog(guard_logger(), clock, limits.hints) if log is None else log
        self.sessions = SessionRegistry()
        self.addresses = AddressLimits(limits, clock)
        self._lists: list[OpenList[Any]] = []
        self.routes = _Assembly(self, authenticators).table(_written(policy, routes))
        self._waiting = {route.path for route in self.routes.routes if route.authenticators or _keeps_lists(route)}

    def __repr__(self) -> str:
        """Name the routes."""
        return f"Guard({', '.join(route.path for route in self.routes.routes)})"

    @property
    def notices(self) -> list[str]:
        """Return what the log says at start: every insecure word of a policy, with its route."""
        notices = [
            f"{route.path}: {notice}" if len(self.routes.routes) > 1 else notice
            for route in self.routes.routes
            for notice in route.policy.notices
        ]
        if self.proxies.is_anybody:
            notices.append("trust_any_proxy: every peer is believed in what it says of the client")
        return notices

    def client_of(self, handshake: Handshake) -> Client:
        """Return who sent *handshake*, with listed proxies believed (RULES §9)."""
        return client_of(handshake, self.proxies)

    def cap_key(self, client: Client) -> str | None:
        """Return what *client* is counted as by the caps, or None where its address is unknown."""
        return None if client.peer.address is None else address_key(client.peer.address)

    async def decide(self, handshake: Handshake, client: Client) -> Decision:
        """
        Judge *handshake* of *client*; raises nothing.

        A decision that waits, for a list or an authenticator, takes at most ``limits.decision`` seconds.
        """
        key = self.cap_key(client)
        retry_after = self.addresses.attempt(key) if handshake.is_handshake and key is not None else None
        deciding = decide(handshake, self.routes, limits=self.limits, client=client, now=self.wall_clock())
        if self._waiting:
            self._start_lists()
            try:
                async with asyncio.timeout(self.limits.decision):
                    decision = await deciding
            except TimeoutError:
                return Refuse(reasons.POLICY_SLOW)
        else:
            decision = await deciding
        if retry_after is not None and not isinstance(decision, Refuse):
            return Refuse(reasons.LIMITS_ADDRESS, headers=(("Retry-After", str(retry_after)),))
        return decision

    def request_id(self) -> str:
        """Return a new id, for a refusal or a session: unguessable, and no secret."""
        return self.randomness(_ID_BYTES).hex()

    def tell_refusal(self, handshake: Handshake, client: Client, refuse: Refuse) -> str:
        """Write the log line of a refusal; return its request id, which the client is told."""
        request_id = self.request_id()
        self.log.refused(
            refuse.reason,
            status=refuse.status,
            detail=refuse.detail,
            setting=refuse.setting,
            **where(handshake),
            peer=str(client.peer if client.peer.address is not None else handshake.peer),
            request_id=request_id,
            kind=handshake.kind,
        )
        return request_id

    def session_facts(self, handshake: Handshake, accept: Accept) -> dict[str, Any]:
        """Return what a new `Session` for *handshake* is made of."""
        place = where(handshake)
        return {
            "public_id": self.request_id(),
            "origin": place["origin"],
            "host": place["host"] or "",
            "route": accept.route,
            "path": place["path"] or "",
            "peer": str(accept.client.peer),
            "opened_at": self.clock(),
            "client": accept.client,
            "proof": accept.origin,
            "source": accept.source,
            "identity": accept.identity,
        }

    def tell_opened(self, session: Session) -> None:
        """Write the log line of a session's open."""
        self.log.event(
            "session.opened",
            session=session.public_id,
            origin=session.origin,
            host=session.host,
            path=session.path,
            route=session.route,
            source=session.source or None,
            peer=session.peer,
            **_who(session),
        )

    def tell_closed(self, session: Session, *, code: int | None, by: str | None, reason: str, **sums: Value) -> None:
        """Write the log line of a session's close: *code*, who closed it, why, and the *sums* that the mount has."""
        self.log.event(
            "session.closed",
            session=session.public_id,
            code=code,
            by=by,
            reason=reason or None,
            **sums,
            seconds=round(self.clock() - session.opened_at, 3),
            host=session.host,
            path=session.path,
            peer=session.peer,
            **_who(session),
        )

    def _start_lists(self) -> None:
        for kept in self._lists:
            kept.start()

    def stop(self) -> None:
        """End what runs in the background: the polls of lists. A decision afterwards starts them anew."""
        for kept in self._lists:
            kept.stop()

    def keep_list(self, kept: OpenList[T]) -> OpenList[T]:
        """Remember a list that has to be started and stopped, and return it."""
        self._lists.append(kept)
        return kept


def where(handshake: Handshake) -> dict[str, str | None]:
    """Say where a handshake came from and goes to, as received, without its query. The log escapes it."""

    def text(value: bytes | None) -> str | None:
        return None if value is None else value.decode("ascii", "backslashreplace")

    return {
        "origin": text(handshake.fields.first(b"origin")),
        "host": text(handshake.fields.first(b"host")),
        "path": text(handshake.raw_path),
    }


def _who(session: Session) -> dict[str, str | None]:
    identity = session.identity
    if identity is None:
        return {}
    return {
        "issuer": identity.issuer,
        "subject": identity.subject,
        "method": identity.method,
        "credential_id": identity.credential_id,
        "sid": identity.sid,
    }


def _written(policy: Policy | None, routes: Mapping[str, Policy] | None) -> list[tuple[str, Policy]]:
    if (policy is None) == (routes is None):
        found = "neither" if policy is None else "both"
        raise ConfigurationError("Guard", f"{found} of policy and routes", "Guard(policy) or Guard(routes={…})")
    if policy is not None:
        return [("/*", policy)]
    written = list((routes or {}).items())
    if not written:
        raise ConfigurationError("routes", "an empty mapping", 'at least one, like {"/ws/*": Policy(…)}')
    return written


def _keeps_lists(route: Route) -> bool:
    return route.policy.origins_are_kept or route.policy.hosts_are_kept


class _Assembly:
    """Joins policies, authenticators and lists into a route table, and tells all that is wrong at once."""

    def __init__(self, guard: Guard, authenticators: Sequence[Authenticator]) -> None:
        self._guard = guard
        self._errors: list[ConfigurationError] = []
        self._authenticators: dict[str, Authenticator] = {}
        for authenticator in authenticators:
            name = authenticator.name
            if name in self._authenticators:
                self._error("authenticators", f"two of the name {name!r}", "one of each name")
            if authenticator.carriage not in ("ambient", "explicit"):
                self._error(f"authenticator {name}", f"carriage {authenticator.carriage!r}", '"ambient" or "explicit"')
            self._authenticators[name] = authenticator

    def _error(self, key: str, found: str, expected: str, nearest: str | None = None) -> None:
        self._errors.append(ConfigurationError(key, found, expected, nearest))

    def table(self, written: list[tuple[str, Policy]]) -> RouteTable:
        routes: list[Route] = []
        for path, policy in written:
            named = self._named(path, policy)
            try:
                route = Route(path, policy, named, *self._opened(policy, named))
            except RouteSyntaxError as error:
                self._error("routes", repr(path), str(error))
            except ConfigurationError as error:
                self._errors.append(error)
            else:
                self._check_ambient(route)
                routes.append(route)
        table = RouteTable(tuple(routes))
        for hidden, earlier in table.hidden():
            self._error("routes", f"{hidden.path!r} behind {earlier.path!r}, which hides it", "the narrower one first")
        if self._errors:
            raise ConfigurationErrors(self._errors)
        return table

    def _named(self, path: str, policy: Policy) -> tuple[Authenticator, ...]:
        if policy.auth is None or policy.anonymous:
            if policy.anonymous:
                return ()
            if self._authenticators:
                names = ", ".join(self._authenticators)
                self._error(f"routes {path}: auth", "nothing", f"some of {names}, or anonymous=True")
            return ()
        found: list[Authenticator] = []
        for name in policy.auth:
            authenticator = self._authenticators.get(name)
            if authenticator is None:
                there = ", ".join(self._authenticators) or "none"
                nearest = nearest_name(name, self._authenticators)
                self._error(f"routes {path}: auth", repr(name), f"an authenticator that there is ({there})", nearest)
            else:
                found.append(authenticator)
        return tuple(found)

    def _check_ambient(self, route: Route) -> None:
        policy = route.policy
        without = WITHOUT_ORIGIN if policy.browsers == "refuse" else frozenset[str]()
        ambient = [one.name for one in route.authenticators if one.carriage == "ambient" and one.name not in without]
        if not ambient:
            return
        key = f"routes {route.path}: origins"
        names = ", ".join(ambient)
        if policy.origins is None or (not policy.origins_are_kept and not policy.origin_rules.is_explicit):
            self._error(key, repr(policy.origins), f"the origins written out: browsers attach {names} by themselves")
        elif policy.origin_rules.patterns and not policy.allow_pattern_with_ambient:
            expected = f"no pattern beside {names}, or allow_pattern_with_ambient=True"
            self._error(key, repr(list(cast("Sequence[str]", policy.origins))), expected)

    def _opened(self, policy: Policy, named: tuple[Authenticator, ...]) -> tuple[OriginList | None, HostList | None]:
        guard = self._guard
        ambient = any(one.carriage == "ambient" for one in named) and not policy.allow_pattern_with_ambient

        def read_origins(entries: Sequence[str]) -> Callable[[Origin], bool]:
            rules = policy.origin_entries(entries)
            if ambient and rules.patterns:
                raise ConfigurationError("origins", "a pattern", "exact origins beside an ambient authenticator")
            return rules.lists

        def read_hosts(entries: Sequence[str]) -> Callable[[Host], bool]:
            return HostRules.read(entries).serves

        origins: OriginList | None = None
        hosts: HostList | None = None
        world: Any = {"limits": guard.limits, "clock": guard.clock, "log": guard.log}
        if policy.origins_are_kept:
            origins = guard.keep_list(open_list("origins", policy.origins, read=read_origins, **world))
        if policy.hosts_are_kept:
            hosts = guard.keep_list(open_list("hosts", policy.hosts, read=read_hosts, **world))
        return origins, hosts
