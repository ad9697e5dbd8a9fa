"""
The policy: what one route demands, and `decide`, which judges a handshake by it.

``decide`` first awaits the ports that the policy names and puts their answers into the context; then the checks run in
ORDER and never wait. Whatever is no verdict, and whatever raises, refuses. The last line refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from wsguard.engine.checks.host import HostRules
from wsguard.engine.checks.origin import OriginRules
from wsguard.vocabulary import reasons
from wsguard.vocabulary.bounds import DEFAULTS, MAX_MESSAGE, Limits
from wsguard.vocabulary.decision import Accept, OriginProof, Passed, Refusal, Refuse, Subprotocols
from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.checks import Check
    from wsguard.engine.ports import OriginSource
    from wsguard.engine.routes import Route, RouteTable
    from wsguard.vocabulary.decision import Decision
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.host import Host

PageRule = Literal["open", "same-policy", "plain"]


@dataclass(frozen=True)
class Policy:
    """
    What one route demands of a handshake.

    *origins*: the pages that may connect, as ``https://host[:port]``; None means the served host's own pages only
    (then *hosts* must be given), ``()`` means nobody. *hosts*: the names that are served, by default those of the
    listed origins. *max_message*: bytes, ``bounds.BOUNDS``. *http*: what plain HTTP under the route is asked
    (``open``, ``same-policy``, ``plain``). *allow_missing_origin*, *allow_null_origin* and
    *allow_http_loopback_origins* let in what is refused otherwise; they are named in the log at start.

    Raises ConfigurationError for an entry that is none, and for ``origins=None`` without hosts: Origin == Host alone is
    beaten by DNS rebinding (B-HOST-03).
    """

    origins: Sequence[str] | OriginSource | None = None
    hosts: Sequence[str] | None = None
    allow_missing_origin: bool = False
    allow_null_origin: bool = False
    allow_http_loopback_origins: bool = False
    http: PageRule = "open"
    compression: bool = False
    max_message: int = MAX_MESSAGE
    upstream_host: str = "preserve"
    upstream_origin: str = "preserve"
    origin_rules: OriginRules = field(init=False, repr=False)
    host_rules: HostRules = field(init=False, repr=False)
    origin_source: OriginSource | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Normalise every entry once, so that nothing is parsed per connection."""
        source = self.origins if self.origins is not None and hasattr(self.origins, "entries") else None
        written = None if self.origins is None or source is not None else cast("Sequence[str]", self.origins)
        origin_rules = OriginRules.read(
            () if source is not None else written,
            allow_missing=self.allow_missing_origin,
            allow_null=self.allow_null_origin,
            allow_http_loopback=self.allow_http_loopback_origins,
        )
        host_rules = HostRules.read(self.hosts) if self.hosts is not None else HostRules.of_origins(origin_rules)
        if not host_rules.names:
            raise ConfigurationError("hosts", "none", "the names that are served, like app.example.com")
        object.__setattr__(self, "origin_source", source)
        object.__setattr__(self, "origin_rules", origin_rules)
        object.__setattr__(self, "host_rules", host_rules)


@dataclass(slots=True)
class Context:
    """What the checks know besides the handshake: answers of the ports, and what earlier checks established."""

    table: RouteTable
    limits: Limits
    default: Policy
    route: Route | None
    origin_rules: OriginRules
    host: Host | None = None
    origin: OriginProof | None = None
    subprotocols: Subprotocols = field(default_factory=Subprotocols)

    @property
    def policy(self) -> Policy:
        """The policy of the route, or the guard's first one while no route is known."""
        return self.default if self.route is None else self.route.policy

    @property
    def excused(self) -> bool:
        """Tell whether the route's pages are served without TLS and for any Host (``http = "plain"``)."""
        return self.route is not None and self.route.policy.http == "plain"


async def decide(
    handshake: Handshake, table: RouteTable, *, limits: Limits = DEFAULTS, checks: Sequence[Check] | None = None
) -> Decision:
    """
    Judge *handshake* by the route of *table* that its path belongs to.

    Returns Accept or Refuse and raises nothing: an exception in a port or a check is a refusal (503). *checks* is
    ORDER unless a test puts another one in.
    """
    from wsguard.engine.checks import ORDER

    route = table.find(handshake.raw_path)
    default = table.routes[0].policy
    rules = await _origin_rules(default if route is None else route.policy)
    if isinstance(rules, Refuse):
        return rules
    context = Context(table, limits, default, route, rules)
    for check in ORDER if checks is None else checks:
        try:
            verdict = cast("object", check.check(handshake, context))
        except Exception as error:  # noqa: BLE001 - fail closed: whatever a check raises refuses
            return Refuse(reasons.POLICY_BAD_VERDICT, f"{check.name} raised {type(error).__name__}")
        if isinstance(verdict, Refusal):
            return Refuse(verdict.reason, verdict.detail, verdict.setting, verdict.headers)
        if not isinstance(verdict, Passed):
            return Refuse(reasons.POLICY_BAD_VERDICT, f"{check.name} answered {type(verdict).__name__}")
        _keep_what_was_proven(context, verdict)
    if context.route is not None:
        return _accept(context, context.route)
    return Refuse(reasons.ROUTE_NONE)


async def _origin_rules(policy: Policy) -> OriginRules | Refuse:
    source = policy.origin_source
    if source is None:
        return policy.origin_rules
    try:
        return policy.origin_rules.with_entries(await source.entries())
    except Exception as error:  # noqa: BLE001 - fail closed: a list that cannot be had allows nobody
        return Refuse(reasons.POLICY_SOURCE_UNAVAILABLE, f"{source.name}: {type(error).__name__}")


def _keep_what_was_proven(context: Context, passed: Passed) -> None:
    if passed.origin is not None:
        context.origin = passed.origin
    if passed.subprotocols is not None:
        context.subprotocols = passed.subprotocols


def _accept(context: Context, route: Route) -> Accept:
    policy = route.policy
    return Accept(
        route=route.path,
        max_message=policy.max_message,
        compression=policy.compression,
        upstream_host=policy.upstream_host,
        upstream_origin=policy.upstream_origin,
        origin=context.origin,
        subprotocols=context.subprotocols,
    )
