"""From policies and what they name to a route table: authenticators found, lists opened, all errors told at once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from wsguard.engine.authenticators.api_key import APIKeyAuthenticator, APIKeys
from wsguard.engine.authenticators.ask import Ask
from wsguard.engine.authenticators.client_certificate import ClientCertificate, ClientCertificateAuthenticator
from wsguard.engine.authenticators.session_lookup import SessionLookup, SessionLookupAuthenticator
from wsguard.engine.authenticators.ticket import TicketAuthenticator
from wsguard.engine.carriage import WITHOUT_ORIGIN
from wsguard.engine.checks.host import HostRules
from wsguard.engine.policy import Policy
from wsguard.engine.routes import Route, RouteSyntaxError, RouteTable
from wsguard.engine.seen_credentials import SeenCredentials
from wsguard.engine.tokens.jwt import JWT
from wsguard.identity.allow_lists import open_list
from wsguard.identity.key_file import KeyFile
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, nearest_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wsguard.engine.authenticators.bearer import Bearer
    from wsguard.engine.ports import Authenticator, Clock, HostList, OriginList, Randomness, Store
    from wsguard.engine.tickets import SoldTickets, Ticket
    from wsguard.identity.allow_lists import OpenList
    from wsguard.identity.outbound import Outbound
    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.host import Host
    from wsguard.vocabulary.origin import Origin

    Credential = Authenticator | JWT | APIKeys | Ask | SessionLookup | ClientCertificate

T = TypeVar("T")


class Background(Protocol):
    """What runs beside the decisions: `start` is called for every one of them, and is cheap once it runs."""

    def start(self) -> None:
        """Run on the running loop, if it does not yet."""
        ...

    def stop(self) -> None:
        """Run no more."""
        ...


@dataclass(frozen=True)
class World:
    """
    What the assembly hands to what it opens.

    *outbound* are the private networks that calls may reach.
    """

    limits: Limits
    clock: Clock
    log: DecisionLog
    store: Store
    tickets: SoldTickets
    bearer: Bearer | None
    outbound: Sequence[str]
    outbound_ca: str | Path | None
    randomness: Randomness
    on_replay: Callable[[bytes], None]
    on_withdrawn: Callable[[frozenset[str]], None]


_MADE_BY = {
    "bearer": 'JWT(…) or [jwt."https://…"]',
    "bearer_subprotocol": 'JWT(…) or [jwt."https://…"]',
    "api_key": "APIKeys(…) or [api_keys]",
    "ask": "Ask(…) or [ask]",
    "basic": "Ask(…) or [ask]",
    "session_lookup": "SessionLookup(…)",
    "client_certificate": "[client_certificate] of the gateway",
    "ticket": "Ticket(…) or [ticket]",
}


@dataclass
class Assembly:
    """
    The route table of a guard, and what belongs to it.

    *sellers* are the authenticators that sell tickets, in the order of ``sold_for``; *background* has to be started and
    stopped; *notices* are told at start. *keys* is the file of API keys, *tickets* reads tickets, if there are any.
    Raises ConfigurationErrors with all that cannot work.
    """

    written: Sequence[tuple[str, Policy]]
    credentials: Sequence[Credential]
    ticket: Ticket | None
    world: World
    table: RouteTable = field(init=False)
    sellers: dict[str, Authenticator] = field(init=False, default_factory=dict[str, "Authenticator"])
    background: list[Background] = field(init=False, default_factory=list[Background])
    notices: list[str] = field(init=False, default_factory=list[str])
    keys: KeyFile | None = field(init=False, default=None)
    tickets: TicketAuthenticator | None = field(init=False, default=None)
    _errors: list[ConfigurationError] = field(init=False, default_factory=list[ConfigurationError])
    _known: dict[str, Authenticator] = field(init=False, default_factory=dict[str, "Authenticator"])
    _broken: set[str] = field(init=False, default_factory=set[str])
    _seen: SeenCredentials = field(init=False)
    _outbound: Outbound | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Open and join everything."""
        world = self.world
        self._seen = SeenCredentials(world.store, world.randomness, world.limits.cookies_seen)
        self._open_credentials()
        if self.ticket is not None:
            self._sell(self.ticket)
        routes = [route for path, policy in self.written if (route := self._route(path, policy)) is not None]
        self.table = RouteTable(tuple(routes))
        for hidden, earlier in self.table.hidden():
            self._error("routes", f"{hidden.path!r} behind {earlier.path!r}, which hides it", "the narrower one first")
        if self._errors:
            raise ConfigurationErrors(self._errors)

    @property
    def headers(self) -> list[str]:
        """Return the fields, in lower case, that a page sends to an endpoint of ours."""
        names = {"authorization", "content-type", "x-wsguard"}
        for one in self._known.values():
            name = getattr(one, "field_name", None)
            if isinstance(name, bytes):
                names.add(name.decode("ascii"))
        return sorted(names)

    async def aclose(self) -> None:
        """Close the connections of outgoing calls on the running loop."""
        if self._outbound is not None:
            await self._outbound.aclose()

    def _error(self, key: str, found: str, expected: str, nearest: str | None = None) -> None:
        self._errors.append(ConfigurationError(key, found, expected, nearest))

    def _open_credentials(self) -> None:
        issuers = [one for one in self.credentials if isinstance(one, JWT)]
        if issuers:
            self._attempt(lambda: self._open_issuers(issuers), "bearer", "bearer_subprotocol")
        for one in self.credentials:
            if isinstance(one, APIKeys):
                self._attempt(lambda keys=one: self._open_keys(keys), "api_key")
            elif isinstance(one, Ask):
                self._attempt(lambda ask=one: self._open_app(ask), "ask", "basic")
            elif isinstance(one, SessionLookup):
                self._know(SessionLookupAuthenticator(one, self._seen))
            elif isinstance(one, ClientCertificate):
                self._know(ClientCertificateAuthenticator(one))
            elif not isinstance(one, JWT):
                self._know(one)

    def _attempt(self, opening: Callable[[], None], *names: str) -> None:
        """Open what authenticators of these *names* need; keep what is wrong with it."""
        try:
            opening()
        except ConfigurationErrors as errors:
            self._errors.extend(errors.errors)
        except ConfigurationError as error:
            self._errors.append(error)
        else:
            return
        self._broken.update(names)

    def _open_issuers(self, issuers: Sequence[JWT]) -> None:
        from wsguard.engine.authenticators.bearer import BearerAuthenticator, BearerSubprotocolAuthenticator
        from wsguard.identity.jwks import IssuerTokens

        world = self.world
        tokens = IssuerTokens(issuers, outbound=self._door(), limits=world.limits, clock=world.clock, log=world.log)
        self.notices += tokens.notices
        self.background.append(_StopOnly(tokens.stop))
        self._know(BearerAuthenticator(tokens, world.bearer))
        self._know(BearerSubprotocolAuthenticator(tokens))

    def _door(self) -> Outbound:
        """Return the one door for outgoing calls, made when somebody needs it: it needs an extra."""
        from wsguard.identity.outbound import Outbound

        if self._outbound is None:
            world = self.world
            authority = None if world.outbound_ca is None else Path(world.outbound_ca)
            self._outbound = Outbound(world.limits, networks=world.outbound, authority=authority)
        return self._outbound

    def _open_app(self, options: Ask) -> None:
        from wsguard.engine.authenticators.ask import AppQuestions, AskAuthenticator
        from wsguard.engine.authenticators.basic import BasicAuthenticator
        from wsguard.identity.ask import AskedApp

        world = self.world
        app = AskedApp(options, outbound=self._door(), limits=world.limits, clock=world.clock)
        self.background.append(_StopOnly(app.stop))
        if not options.recheck:
            self.notices.append("ask.recheck = 0: a socket outlives the logout of whose cookie opened it")
        questions = AppQuestions(app, options, self._seen)
        self._know(AskAuthenticator(questions))
        # A user's own authenticator of that name goes before it.
        if not any(getattr(one, "name", None) == "basic" for one in self.credentials):
            self._know(BasicAuthenticator(questions))

    def _open_keys(self, options: APIKeys) -> None:
        world = self.world
        self.keys = KeyFile(
            options.file, limits=world.limits, clock=world.clock, log=world.log, on_withdrawn=world.on_withdrawn
        )
        self.background.append(self.keys)
        authenticator = APIKeyAuthenticator(self.keys, options)
        bearer = self._known.get("bearer")
        if getattr(bearer, "field_name", None) == authenticator.field_name:
            header = authenticator.field_name.decode("ascii")
            self._error("api_keys.header", f"{header}, where bearer tokens stand", "a header of its own")
        self._know(authenticator)

    def _know(self, authenticator: Authenticator) -> None:
        fault = _fault_of(authenticator)
        if fault:
            self._error(
                "authenticators", fault, "an object with name, carriage and async authenticate(handshake, context)"
            )
            return
        name = authenticator.name
        if name in self._known:
            self._error("authenticators", f"two of the name {name!r}", "one of each name")
        if name == "ticket":
            self._error("authenticators", "one of the name 'ticket'", "another name: that is wsguard's own")
        if authenticator.carriage not in ("ambient", "explicit"):
            self._error(f"authenticator {name}", f"carriage {authenticator.carriage!r}", '"ambient" or "explicit"')
        self._known[name] = authenticator

    def _sell(self, ticket: Ticket) -> None:
        for name in ticket.sold_for:
            seller = self._found("ticket.sold_for", name)
            if seller is not None:
                self.sellers[name] = seller
        self.tickets = TicketAuthenticator(self.world.tickets, self.sellers, self.world.on_replay)
        self._known["ticket"] = self.tickets

    def _found(self, key: str, name: str) -> Authenticator | None:
        authenticator = self._known.get(name)
        if authenticator is None and name not in self._broken:  # what is wrong with those is told already
            there = ", ".join(self._known) or "none"
            nearest = nearest_name(name, self._known)
            made_by = f"; {_MADE_BY[name]} makes it" if name in _MADE_BY else ""
            self._error(key, repr(name), f"an authenticator that there is ({there}){made_by}", nearest)
        return authenticator

    def _route(self, path: str, policy: Policy) -> Route | None:
        named = self._named(path, policy)
        try:
            route = Route(path, policy, named, *self._lists(policy, named))
        except RouteSyntaxError as error:
            self._error("routes", repr(path), str(error))
        except ConfigurationError as error:
            self._errors.append(error)
        else:
            self._check_ambient(route)
            return route
        return None

    def _named(self, path: str, policy: Policy) -> tuple[Authenticator, ...]:
        if policy.anonymous:
            return ()
        key = f"routes {path}: auth"
        if policy.auth is None:
            if self._known:
                self._error(key, "nothing", f"some of {', '.join(self._known)}, or anonymous = true")
            return ()
        found = [self._found(key, name) for name in policy.auth]
        return tuple(one for one in found if one is not None)

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
            expected = f"no pattern beside {names}, or allow_pattern_with_ambient = true"
            self._error(key, repr(list(cast("Sequence[str]", policy.origins))), expected)

    def _lists(self, policy: Policy, named: tuple[Authenticator, ...]) -> tuple[OriginList | None, HostList | None]:
        ours = self.world
        world: Any = {"limits": ours.limits, "clock": ours.clock, "log": ours.log, "authority": ours.outbound_ca}
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
        if policy.origins_are_kept:
            origins = self._kept(open_list("origins", policy.origins, read=read_origins, **world))
        if policy.hosts_are_kept:
            hosts = self._kept(open_list("hosts", policy.hosts, read=read_hosts, **world))
        return origins, hosts

    def _kept(self, kept: OpenList[T]) -> OpenList[T]:
        self.background.append(kept)
        return kept


@dataclass(frozen=True)
class _StopOnly:
    """Something that begins by itself, when it is first asked."""

    stop: Callable[[], None]

    def start(self) -> None:
        """Nothing has to be begun."""


def _fault_of(authenticator: object) -> str:
    """Say what is wrong with the form of an authenticator that a user has written, or nothing."""
    if isinstance(authenticator, type):
        return f"the class {authenticator.__name__}, not an object of it"
    kind = type(authenticator).__name__
    if not isinstance(getattr(authenticator, "name", None), str):
        return f"a {kind} without a name"
    judge = getattr(authenticator, "authenticate", None)
    if not callable(judge):
        return f"a {kind} without authenticate"
    # A decorator may stand between: what it wraps says how it is meant.
    return "" if inspect.iscoroutinefunction(inspect.unwrap(judge)) else f"a {kind} whose authenticate is not async"


def written_routes(policy: Policy | None, routes: Mapping[str, Policy] | None) -> list[tuple[str, Policy]]:
    """Return the (path, policy) pairs of a guard. Raises ConfigurationError for neither, both, or none."""
    if (policy is None) == (routes is None):
        found = "neither" if policy is None else "both"
        raise ConfigurationError("Guard", f"{found} of policy and routes", "Guard(policy) or Guard(routes={…})")
    if policy is not None:
        _check_policy("policy", policy)
        return [("/*", policy)]
    written = list((routes or {}).items())
    if not written:
        raise ConfigurationError("routes", "an empty mapping", 'at least one, like {"/ws/*": Policy(…)}')
    for path, one in written:
        _check_policy(f"routes {path}", one)
    return written


def _check_policy(key: str, policy: object) -> None:
    if not isinstance(policy, Policy):
        raise ConfigurationError(key, type(policy).__name__, "a Policy(…)")
