"""
The policy: what one route demands, and `decide`, which judges a handshake by it.

``decide`` first awaits the lists that the policy names and puts their answers into the context; then the checks run in
ORDER and never wait; then authenticators say who it is, and carriage says whether their word counts. Whatever is no
verdict, and whatever raises, refuses. The last line refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

from wsguard.engine.authentication import authenticate, is_preflight
from wsguard.engine.authorization import Requirement
from wsguard.engine.carriage import in_header
from wsguard.engine.checks.host import HostRules
from wsguard.engine.checks.origin import OriginRules, judge_origin
from wsguard.engine.checks.target import has_parameter, is_unambiguous
from wsguard.engine.forwarding import overlong_identity_field
from wsguard.engine.ports import KeptList
from wsguard.vocabulary import close_codes, reasons
from wsguard.vocabulary.bounds import DEFAULTS, Limits, check_bound
from wsguard.vocabulary.decision import (
    NO_SUBPROTOCOLS,
    PASSED,
    Accept,
    OriginProof,
    Passed,
    Refusal,
    Refuse,
    RouteTerms,
    SocketLimits,
    Subprotocols,
)
from wsguard.vocabulary.errors import ConfigurationError, nearest_name
from wsguard.vocabulary.handshake import Client
from wsguard.vocabulary.host import Host, HostSyntaxError
from wsguard.vocabulary.origin import Origin, OriginSyntaxError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from wsguard.engine.checks import Check
    from wsguard.engine.routes import Route, RouteTable
    from wsguard.vocabulary.decision import Decision, Recheck, Redemption
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.identity import Identity

    Entries = Sequence[str] | KeptList | Callable[[str], Awaitable[bool]]

PageRule = Literal["open", "same-policy", "plain"]
OriginRequired = Literal["always", "unless-header-credential"]
Browsers = Literal["allow", "refuse"]
RefusalForm = Literal["status", "close"]
CloseCodes = Literal["registered", "graphql-transport-ws"]
_LOOPBACK_NAMES = ("localhost", "*.localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Policy:
    """
    What one route demands of a handshake.

    *origins*: the pages that may connect, as ``https://host[:port]``; a FileList or URLList that holds them; or an
    async function that says whether one may. None means the served host's own pages only (then *hosts* must be
    given), ``()`` means nobody. *hosts*: the names that are served, by default those of the listed origins; it takes
    the same kinds.

    *auth*: the names of the authenticators that open the socket, any of them; None leaves authentication to the app,
    and *anonymous* says so where the guard has authenticators. *require*: what the identity must hold, as
    ``{"scopes": ["chat"], "groups": ["staff"]}``. *origin_required*: ``unless-header-credential`` lets a client with an
    unlisted or missing Origin in by a valid credential in a header, which no browser's WebSocket can set.
    *browsers*: ``refuse`` refuses every handshake with an Origin and lets those without one pass.

    *http*: what plain HTTP under the route is asked (``open``, ``same-policy``, ``plain``); by default ``same-policy``
    with authenticators, else ``open``. *refusal*: ``close`` tells a browser's script why its credential was refused, by
    a socket that is opened and closed at once. *close_codes*: ``graphql-transport-ws`` sends 4401 and 4403, which that
    protocol's clients know, in place of 3000 and 3003.

    *forward_credential* lets the upstream see the header credential that decided.

    *max_message* (bytes), *messages_per_second*, *idle* and *max_lifetime* (seconds) bound a live socket; the ranges
    stand in ``bounds.BOUNDS``, None means not bounded here.

    What is refused otherwise needs a word, which the log names at start: *allow_missing_origin*, *allow_null_origin*,
    *allow_http_loopback_origins*, *allow_pattern_with_ambient*, and *insecure_loopback*, which serves ``ws://`` where
    Host, Origin and peer are all this machine.

    Raises ConfigurationError for an entry that is none, and for ``origins=None`` without hosts: Origin == Host alone is
    beaten by DNS rebinding (B-HOST-03).
    """

    origins: Entries | None = None
    hosts: Entries | None = None
    allow_missing_origin: bool = False
    allow_null_origin: bool = False
    allow_http_loopback_origins: bool = False
    allow_pattern_with_ambient: bool = False
    insecure_loopback: bool = False
    auth: Sequence[str] | None = None
    anonymous: bool = False
    require: Mapping[str, Sequence[str]] | None = None
    origin_required: OriginRequired = "always"
    browsers: Browsers = "allow"
    http: PageRule | None = None
    refusal: RefusalForm = "status"
    close_codes: CloseCodes = "registered"
    forward_credential: bool = False
    compression: bool = False
    max_message: int | None = None
    messages_per_second: int | None = None
    idle: float | None = None
    max_lifetime: float | None = None
    upstream_host: str = "preserve"
    upstream_origin: str = "preserve"
    origin_rules: OriginRules = field(init=False, repr=False)
    host_rules: HostRules = field(init=False, repr=False)
    page_rule: PageRule = field(init=False, repr=False)
    socket_limits: SocketLimits | None = field(init=False, repr=False)
    requirement: Requirement = field(init=False, repr=False)
    authenticates: bool = field(init=False, repr=False)
    keeps_lists: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Normalise every entry once, so that nothing is parsed per connection."""
        object.__setattr__(self, "authenticates", self.auth is not None and not self.anonymous)
        object.__setattr__(self, "keeps_lists", self.origins_are_kept or self.hosts_are_kept)
        object.__setattr__(self, "origin_rules", self._read_origins())
        object.__setattr__(self, "host_rules", self._read_hosts())
        object.__setattr__(self, "requirement", Requirement.read(self.require))
        _check_words(self)
        for key in ("max_message", "messages_per_second", "idle", "max_lifetime"):
            if getattr(self, key) is not None:
                check_bound(f"policy {key}", getattr(self, key))
        limits = SocketLimits(self.messages_per_second, self.idle, self.max_lifetime)
        object.__setattr__(self, "socket_limits", None if limits == SocketLimits() else limits)
        object.__setattr__(self, "page_rule", self.http or ("same-policy" if self.authenticates else "open"))

    def terms(self, path: str) -> RouteTerms:
        """Return what a route at *path* with this policy holds everything to that it lets in."""
        return RouteTerms(
            route=path,
            max_message=self.max_message,
            limits=self.socket_limits,
            compression=self.compression,
            upstream_host=self.upstream_host,
            upstream_origin=self.upstream_origin,
            close_codes=close_codes.PRESETS[self.close_codes],
        )

    def _read_origins(self) -> OriginRules:
        return self.origin_entries(() if self.origins_are_kept else cast("Sequence[str] | None", self.origins))

    def origin_entries(self, entries: Sequence[str] | None) -> OriginRules:
        """Return the rules of this policy with *entries*. Raises ConfigurationError for one that is none."""
        return OriginRules.read(
            entries,
            allow_missing=self.allow_missing_origin,
            allow_null=self.allow_null_origin,
            allow_http_loopback=self.allow_http_loopback_origins or self.insecure_loopback,
        )

    def _read_hosts(self) -> HostRules:
        if self.hosts_are_kept:
            return HostRules(())
        if self.hosts is not None:
            rules = HostRules.read(cast("Sequence[str]", self.hosts))
        else:
            rules = HostRules.of_origins(self.origin_rules)
        if self.insecure_loopback:
            rules = HostRules((*rules.names, *HostRules.read(_LOOPBACK_NAMES).names))
        if not rules.names:
            raise ConfigurationError("hosts", "none", "the names that are served, like app.example.com")
        return rules

    @property
    def origins_are_kept(self) -> bool:
        """Tell whether the origins are looked up elsewhere."""
        return callable(self.origins) or isinstance(self.origins, KeptList)

    @property
    def hosts_are_kept(self) -> bool:
        """Tell whether the hosts are looked up elsewhere."""
        return callable(self.hosts) or isinstance(self.hosts, KeptList)

    @property
    def notices(self) -> list[str]:
        """Return the insecure words that this policy holds, each with what it means, for the log at start."""
        return [f"{word}: {meaning}" for word, meaning in INSECURE_WORDS.items() if getattr(self, word)]


INSECURE_WORDS = {
    "allow_missing_origin": "handshakes without an Origin are let in: clients that are no browsers",
    "allow_null_origin": "the origin null is let in: any page can produce it with a sandboxed frame",
    "allow_http_loopback_origins": "http:// origins on loopback are let in",
    "allow_pattern_with_ambient": "cookies count for every host that a pattern of the origins matches",
    "insecure_loopback": "ws:// and http:// are served where Host, Origin and peer are all this machine; "
    "listed origins stay the only ones, so list http://localhost:PORT too",
}


def _check_words(policy: Policy) -> None:
    if policy.auth is not None and (isinstance(policy.auth, str) or not policy.auth):
        raise ConfigurationError("auth", repr(policy.auth), 'a list of names like ["bearer"], or anonymous = true')
    if policy.auth is not None and len(set(policy.auth)) < len(policy.auth):
        raise ConfigurationError("auth", repr(list(policy.auth)), "each name once")
    if policy.http not in (None, "open", "same-policy", "plain"):
        raise ConfigurationError("http", repr(policy.http), '"open", "same-policy" or "plain"')
    if policy.origin_required not in ("always", "unless-header-credential"):
        raise ConfigurationError(
            "origin_required", repr(policy.origin_required), '"always" or "unless-header-credential"'
        )
    if policy.browsers not in ("allow", "refuse"):
        raise ConfigurationError("browsers", repr(policy.browsers), '"allow" or "refuse"')
    if policy.require and not policy.authenticates:
        raise ConfigurationError("require", repr(dict(policy.require)), "auth, which says who it is, beside it")
    if policy.refusal not in ("status", "close"):
        raise ConfigurationError("refusal", repr(policy.refusal), '"status" or "close"')
    if policy.close_codes not in close_codes.PRESETS:
        presets = " or ".join(f'"{name}"' for name in close_codes.PRESETS)
        nearest = nearest_name(str(policy.close_codes), close_codes.PRESETS)
        raise ConfigurationError("close_codes", repr(policy.close_codes), presets, nearest)


@dataclass(slots=True)
class Context:
    """What is known besides the handshake: answers of the lists, and what earlier checks established."""

    table: RouteTable
    limits: Limits
    default: Policy
    route: Route | None
    client: Client
    is_handshake: bool = True
    now: float = 0.0
    origin_listed: str = ""
    host_served: bool = False
    host: Host | None = None
    origin: OriginProof | None = None
    source: str = ""
    subprotocols: Subprotocols = NO_SUBPROTOCOLS
    unless_explicit: Refusal | None = None
    redemption: Redemption | None = None
    recheck: Recheck | None = None
    in_header: bool = False
    field_name: bytes | None = None
    is_endpoint: bool = False

    policy: Policy = field(init=False)

    def __post_init__(self) -> None:
        """Find the policy of the route; the guard's first one where there is no route."""
        self.policy = self.default if self.route is None else self.route.policy

    @property
    def origin_rules(self) -> OriginRules:
        """The allow-list that was written out."""
        return self.policy.origin_rules

    @property
    def takes_header_credential(self) -> bool:
        """Tell whether a credential in a header field, which no browser's WebSocket can set, could decide here."""
        return self.route is not None and any(in_header(one) for one in self.route.authenticators)

    @property
    def takes_explicit_header(self) -> bool:
        """Tell whether a credential in an explicit header could decide on this route."""
        return self.route is not None and any(one.carriage == "explicit" for one in self.route.authenticators)

    @property
    def excused(self) -> bool:
        """
        Tell whether the route's pages are served without TLS and for any Host (``http = "plain"``).

        What is asked about the route at an endpoint of ours is no page of it: it carries credentials.
        """
        return not self.is_endpoint and self.route is not None and self.route.policy.page_rule == "plain"


async def decide(
    handshake: Handshake,
    table: RouteTable,
    *,
    limits: Limits = DEFAULTS,
    client: Client | None = None,
    now: float = 0.0,
    checks: Sequence[Check] | None = None,
) -> Decision:
    """
    Judge *handshake*, which *client* sent, by the route of *table* that its path belongs to; *now* is Unix seconds.

    Returns Accept or Refuse and raises nothing: an exception in a list, a check or an authenticator is a refusal
    (503). *checks* is ORDER unless a test puts another one in.
    """
    client = Client(handshake.peer, handshake.secure) if client is None else client
    route = table.find(handshake.raw_path)
    context = Context(table, limits, table.routes[0].policy, route, client, handshake.kind == "handshake", now)
    if context.policy.keeps_lists:
        refused = await _ask_lists(handshake, context)
        if refused is not None:
            return refused
    for check in _order() if checks is None else checks:
        try:
            verdict: Any = check.check(handshake, context)
        except Exception as error:  # noqa: BLE001 - fail closed: whatever a check raises refuses
            return Refuse(reasons.POLICY_BAD_VERDICT, f"{check.name} raised {type(error).__name__}")
        if verdict is PASSED:
            continue
        if isinstance(verdict, Refusal):
            return Refuse(verdict.reason, verdict.detail, verdict.setting, verdict.headers)
        if not isinstance(verdict, Passed):
            return Refuse(reasons.POLICY_BAD_VERDICT, f"{check.name} answered {type(verdict).__name__}")
        _keep_what_was_proven(context, verdict)
    if context.route is None:
        return Refuse(reasons.ROUTE_NONE)
    if _asks_nobody(handshake, context):
        left = context.unless_explicit
        return _accept(context, context.route, None) if left is None else _refused(handshake, context, left)
    return await _authenticated(handshake, context, context.route)


@cache
def _order() -> Sequence[Check]:
    from wsguard.engine.checks import ORDER  # the checks know the policy: a cycle, unless it is asked for late

    return ORDER


def _asks_nobody(handshake: Handshake, context: Context) -> bool:
    policy = context.policy
    judged = handshake.is_handshake or policy.page_rule == "same-policy"
    return not policy.authenticates or not judged or is_preflight(handshake, context)


async def _authenticated(handshake: Handshake, context: Context, route: Route) -> Decision:
    policy = route.policy
    if handshake.is_handshake and route.takes_tickets and has_parameter(handshake.target, b"ticket"):
        # Whatever else was sent: logs and histories keep a query (B-TICKET-06).
        return _refused(handshake, context, Refusal(reasons.TICKET_QUERY))
    identity = await authenticate(handshake, context, route.authenticators)
    if isinstance(identity, Refusal):
        return _refused(handshake, context, identity)
    lacking = lacks(policy, identity)
    if lacking is not None:
        return _refused(handshake, context, lacking, identity)
    return _accept(context, route, identity)


def lacks(policy: Policy, identity: Identity) -> Refusal | None:
    """Return what *identity* lacks for a route of *policy*, if anything: what it requires, names that a field holds."""
    lacking = policy.requirement.refusal(identity)
    if lacking is not None:
        return lacking
    # An upstream is told who it is in fields, and may cut or refuse long ones: then it would be told something else.
    field_name = overlong_identity_field(identity)
    return None if field_name is None else Refusal(reasons.IDENTITY_TOO_LONG, field_name)


def _refused(handshake: Handshake, context: Context, refusal: Refusal, identity: Identity | None = None) -> Refuse:
    tells_script = origin_has_passed(context.origin, excused=context.unless_explicit is not None)
    return refused_by(context.policy, handshake, refusal, identity, tells_script=tells_script)


def origin_has_passed(origin: OriginProof | None, *, excused: bool) -> bool:
    """
    Tell whether a handshake's Origin has passed by itself. *excused*: it counts only if an explicit credential decides.

    To any other page the close codes would tell whether its visitor's cookie is a valid login.
    """
    return origin in _PROVEN or (origin is OriginProof.ABSENT and not excused)


_PROVEN = (OriginProof.LISTED, OriginProof.SAME_ORIGIN)


def refused_by(
    policy: Policy, handshake: Handshake, refusal: Refusal, identity: Identity | None = None, *, tells_script: bool
) -> Refuse:
    """
    Return the decision that *refusal* of a credential means: with a close code where *policy* tells a script why.

    *identity* is who was refused, where the refusal does not say so itself. *tells_script*: its `origin_has_passed`.
    """
    headers = refusal.headers
    if refusal.reason.status == 401 and policy.authenticates and "basic" in (policy.auth or ()):  # noqa: PLR2004
        headers += _BASIC
    told = tells_script and policy.refusal == "close" and handshake.is_handshake
    told = told and refusal.reason.status in _CLOSE_CODES
    code = _CLOSE_CODES[refusal.reason.status] if told else None
    if code is not None:
        code = close_codes.PRESETS[policy.close_codes].get(code, code)
    return Refuse(refusal.reason, refusal.detail, refusal.setting, headers, code, refusal.identity or identity)


_BASIC = (("WWW-Authenticate", 'Basic realm="wsguard", charset="UTF-8"'),)
_CLOSE_CODES = {401: close_codes.CREDENTIAL, 403: close_codes.POLICY}


async def judge_place(
    handshake: Handshake, path: str | Route, table: RouteTable, *, limits: Limits, client: Client, now: float
) -> Context | Refusal:
    """
    Judge a request to an endpoint of ours that is about *path*: by the route of that path, as its handshakes are.

    A Route in its place is judged itself. Returns what was established, its ``origin`` None where no Origin was sent;
    or the Refusal.
    """
    if isinstance(path, str):
        target = path.encode("utf-8", "surrogatepass")
        route, is_clear = table.find(target), is_unambiguous(target, table)
    else:
        route, is_clear = path, True
    default = table.routes[0].policy
    context = Context(table, limits, default, route, client, is_handshake=False, now=now, is_endpoint=True)
    refused = await _ask_lists(handshake, context, always=True) if context.policy.keeps_lists else None
    if refused is not None:
        return Refusal(refused.reason, refused.detail)
    for check in _place_checks():
        verdict = check.check(handshake, context)
        if isinstance(verdict, Refusal):
            return verdict
    if context.route is None or not is_clear:
        return Refusal(reasons.TICKET_ROUTE, setting='auth = […, "ticket"] on a route of that path')
    values = handshake.fields.values(b"origin")
    if values:
        verdict = judge_origin(values, context)
        if isinstance(verdict, Refusal):
            return verdict
        _keep_what_was_proven(context, verdict)
    return context


@cache
def _place_checks() -> Sequence[Check]:
    from wsguard.engine.checks import HostCheck, SyntaxCheck, TransportCheck  # late, as in _order

    return SyntaxCheck(), TransportCheck(), HostCheck()


async def _ask_lists(handshake: Handshake, context: Context, *, always: bool = False) -> Refuse | None:
    """Ask the lists that the route keeps elsewhere about this Host and this Origin, before any check runs."""
    policy = context.policy
    route = context.route or context.table.routes[0]
    try:
        if policy.hosts_are_kept:
            host = _host_of(handshake)
            context.host_served = host is not None and await _present(route.host_list).allows(host)
        asks_origin = always or handshake.is_handshake or policy.page_rule == "same-policy"
        if policy.origins_are_kept and asks_origin:
            origin = _origin_of(handshake)
            if origin is not None and await _present(route.origin_list).allows(origin):
                context.origin_listed = _present(route.origin_list).name
    except Exception as error:  # noqa: BLE001 - fail closed: a list that cannot be had allows nobody
        return Refuse(reasons.POLICY_SOURCE_UNAVAILABLE, f"{type(error).__name__}: {error}")
    return None


def _present(allow_list: Any) -> Any:
    if allow_list is None:
        raise LookupError("the list is not open: decide through a Guard")
    return allow_list


def _host_of(handshake: Handshake) -> Host | None:
    try:
        return Host.parse(handshake.fields.first(b"host") or b"")
    except HostSyntaxError:
        return None  # the host check refuses it


def _origin_of(handshake: Handshake) -> Origin | None:
    values = handshake.fields.values(b"origin")
    try:
        return Origin.parse(values[0]) if len(values) == 1 else None
    except OriginSyntaxError:
        return None  # the origin check refuses it, null among them


def _keep_what_was_proven(context: Context, passed: Passed) -> None:
    if passed.origin is not None:
        context.origin = passed.origin
        context.source = passed.source
    if passed.subprotocols is not None:
        context.subprotocols = passed.subprotocols
    if passed.unless_explicit is not None and context.unless_explicit is None:
        context.unless_explicit = passed.unless_explicit


def _accept(context: Context, route: Route, identity: Identity | None) -> Accept:
    # In their order, without their names: msgspec looks each name up.
    return Accept(
        route.terms,
        context.client,
        context.origin,
        context.source,
        context.subprotocols,
        context.unless_explicit is not None and context.is_handshake,
        identity,
        context.redemption,
        context.recheck,
        context.in_header,
        None if route.policy.forward_credential else context.field_name,
    )
