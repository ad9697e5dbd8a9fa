"""From the keys of a policy to `Policy` objects, one a route, and the bounds and the guard that they stand in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from wsguard.config.certificates import DEVELOPMENT_NAMES
from wsguard.config.collected import CollectedErrors
from wsguard.config.file import (
    APIKeysKeys,
    AskKeys,
    ClientCertificateKeys,
    GatewayConfig,
    ListKeys,
    RequireKeys,
    TicketKeys,
)
from wsguard.config.units import parse_duration, parse_size
from wsguard.engine.authenticators.api_key import APIKeys
from wsguard.engine.authenticators.ask import Ask
from wsguard.engine.authenticators.bearer import Bearer
from wsguard.engine.authenticators.client_certificate import ClientCertificate
from wsguard.engine.policy import Policy
from wsguard.engine.routes import RouteSyntaxError, check_route_path
from wsguard.engine.tickets import Ticket
from wsguard.engine.tokens.jwt import JWT
from wsguard.guard import Guard
from wsguard.identity.allow_lists import FileList, URLList
from wsguard.observe.decision_log import DecisionLog, decision_logger, guard_logger
from wsguard.vocabulary.bounds import BOUNDS, Limits
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, StoreError
from wsguard.vocabulary.host import Host, HostSyntaxError
from wsguard.vocabulary.origin import Origin, OriginSyntaxError, parse_origin_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wsguard.config.file import PolicyKeys, ServedConfig
    from wsguard.engine.ports import KeptList
    from wsguard.guard.assembly import Credential


def guard_of(
    config: ServedConfig,
    routes: Mapping[str, Policy],
    limits: Limits,
    errors: CollectedErrors,
    *,
    clients: ClientCertificate | None = None,
    is_apps: bool = False,
    **proxies: Any,
) -> Guard | None:
    """
    Return the guard of a process of ours, whose log is stdout. Keeps *errors*; None where there are any.

    *clients* are those whose certificates the process's listeners verify. *is_apps*: it is an app's process, which may
    listen to the log itself.
    """
    credentials: list[Credential] = [*_credentials(config, errors), *([] if clients is None else [clients])]
    bearer = errors.attempt(lambda: None if config.bearer is None else Bearer(**_given(config.bearer)))
    ticket = errors.attempt(lambda: _ticket(config.ticket, sold_by_app=config.admin is not None))
    errors.attempt(lambda: _check_workers(config))
    if errors.all or not routes:
        return None
    own = is_apps and config.log_format is None
    logger = guard_logger() if own else decision_logger(config.log_format or "text")
    log = DecisionLog(logger, time.monotonic, limits.hints)

    def made() -> Guard:
        try:
            return Guard(
                routes=routes,
                authenticators=credentials,
                bearer=bearer,
                ticket=ticket,
                public_url=config.public_url,
                store=config.store,
                admin=config.admin,
                outbound=config.outbound or (),
                outbound_ca=config.outbound_ca,
                limits=limits,
                log=log,
                **proxies,
            )
        except StoreError as error:
            raise ConfigurationError("store", f"{config.store} ({error})", "a store that can be had at start") from None

    return errors.attempt(made)


def _check_workers(config: ServedConfig) -> None:
    if (config.workers or 1) > 1 and (config.store or "memory") == "memory":
        found = f"{config.workers} and a store in the memory of each"
        raise ConfigurationError("workers", found, 'store = "sqlite:wsguard.db", which they share')


def _credentials(config: ServedConfig, errors: CollectedErrors) -> list[JWT | APIKeys | Ask]:
    made: list[JWT | APIKeys | Ask | None] = [
        errors.attempt(lambda issuer=issuer, keys=keys: JWT(issuer, **_given(keys)))
        for issuer, keys in (config.jwt or {}).items()
    ]
    keys = config.api_keys
    if keys is not None:
        made.append(errors.attempt(lambda: _api_keys(keys)))
    ask = config.ask
    if ask is not None:
        made.append(errors.attempt(lambda: _ask(ask)))
    return [one for one in made if one is not None]


def client_certificate_of(keys: ClientCertificateKeys | None) -> ClientCertificate | None:
    """Return what ``[client_certificate]`` means. Raises ConfigurationErrors for what must be written and is not."""
    if keys is None:
        return None
    needed = {"ca": "a PEM file of the CAs whose clients count", "subject": "one of 'dns', 'email', 'uri'"}
    missing = [
        ConfigurationError(f"client_certificate.{key}", "nothing", expected)
        for key, expected in needed.items()
        if getattr(keys, key) is None
    ]
    if missing:
        raise ConfigurationErrors(missing)
    return ClientCertificate(**_given(keys))


def _ask(keys: AskKeys) -> Ask:
    given = _given(keys)
    if "url" not in given:
        raise ConfigurationError("ask.url", "nothing", "an address of the app, like http://127.0.0.1:8888/api/me")
    for key in ("timeout", "cache", "recheck"):
        if key in given:
            given[key] = _parsed(f"ask.{key}", given[key], parse_duration)
    return Ask(**given)


def _api_keys(keys: APIKeysKeys) -> APIKeys:
    if keys.file is None:
        raise ConfigurationError("api_keys.file", "nothing", "the file that `wsguard keys add` writes")
    return APIKeys(**_given(keys))


def _ticket(keys: TicketKeys | None, *, sold_by_app: bool) -> Ticket | None:
    if keys is None:
        return None
    given = _given(keys)
    if not given.get("sold_for") and not sold_by_app:
        raise ConfigurationError("ticket.sold_for", "nothing", 'what buys a ticket, like ["bearer"]')
    if "lifetime" in given:
        given["lifetime"] = _parsed("ticket.lifetime", given["lifetime"], parse_duration)
    return Ticket(**given)


def _given(keys: msgspec.Struct) -> dict[str, Any]:
    members = {name: getattr(keys, name) for name in keys.__struct_fields__}
    return {name: value for name, value in members.items() if value is not None}


def limits_of(table: Any) -> Limits:
    """Return the bounds that ``[limits]`` means. Raises ConfigurationErrors with all that are none."""
    errors = CollectedErrors()
    values: dict[str, float] = {}
    for bound in BOUNDS:
        written = None if table is None or bound.table != "limits" else getattr(table, bound.key)
        if written is None:
            continue
        parse: Callable[[Any], float] = {"bytes": parse_size, "seconds": parse_duration, "count": int}[bound.unit]
        try:
            value = parse(written)
        except ValueError as error:
            errors.all.append(ConfigurationError(f"limits.{bound.key}", repr(written), str(error)))
            continue
        if not bound.minimum <= value <= bound.maximum:
            expected = f"between {bound.minimum:g} and {bound.maximum:g} {bound.unit}"
            errors.all.append(ConfigurationError(f"limits.{bound.key}", repr(written), expected))
        else:
            values[bound.key] = value
    errors.tell()
    return Limits(**values)  # type: ignore[arg-type]  # sizes and counts are integers by their parser


def policies_of(config: ServedConfig, names: Sequence[str], errors: CollectedErrors) -> dict[str, Policy]:
    """Return the policy of each path, in written order; *names* are those of the certificate. Keeps *errors*."""
    if not config.route:
        policy = errors.attempt(lambda: _policy(config, None, names))
        return {} if policy is None else {"/*": policy}
    routes: dict[str, Policy] = {}
    for index, keys in enumerate(config.route, start=1):
        policy = errors.attempt(lambda keys=keys: _policy(config, keys, names))
        if keys.path is None:
            continue  # told when the file was read
        try:
            check_route_path(keys.path)
        except RouteSyntaxError as error:
            errors.all.append(ConfigurationError(f"route {index}: path", repr(keys.path), str(error)))
            continue
        if keys.path in routes:
            errors.all.append(ConfigurationError(f"route {index}: path", repr(keys.path), "one route for each path"))
        elif policy is not None:
            routes[keys.path] = policy
    return routes


def _policy(config: ServedConfig, route: PolicyKeys | None, names: Sequence[str]) -> Policy:
    def value(key: str, default: Any) -> Any:
        for keys in (route, config):
            if keys is not None and getattr(keys, key) is not None:
                return getattr(keys, key)
        return default

    origins = _entries("origins", value("origins", None))
    return Policy(
        origins=origins,
        hosts=_hosts(
            origins, _entries("hosts", value("hosts", None)), names, development=config.cert is None and bool(names)
        ),
        allow_missing_origin=value("allow_missing_origin", default=False),
        allow_null_origin=value("allow_null_origin", default=False),
        allow_http_loopback_origins=value("allow_http_loopback_origins", default=False),
        allow_pattern_with_ambient=value("allow_pattern_with_ambient", default=False),
        auth=value("auth", None),
        anonymous=value("anonymous", default=False),
        require=_requirement(value("require", None)),
        origin_required=value("origin_required", "always"),
        browsers=value("browsers", "allow"),
        refusal=value("refusal", "status"),
        close_codes=value("close_codes", "registered"),
        http=value("http", None),
        max_message=_parsed("max_message", value("max_message", None), parse_size),
        messages_per_second=value("messages_per_second", None),
        idle=_parsed("idle", value("idle", None), parse_duration),
        max_lifetime=_parsed("max_lifetime", value("max_lifetime", None), parse_duration),
        **(_gateway_only(value) if isinstance(config, GatewayConfig) else {}),
    )


def _requirement(keys: RequireKeys | None) -> dict[str, list[str]] | None:
    written = {} if keys is None else {"scopes": keys.scopes, "groups": keys.groups}
    return {name: entries for name, entries in written.items() if entries is not None} or None


def _gateway_only(value: Callable[[str, Any], Any]) -> dict[str, Any]:
    return {
        "compression": value("compression", "off") == "passthrough",
        "upstream_host": _rewrite("upstream_host", value("upstream_host", "preserve")),
        "upstream_origin": _rewrite("upstream_origin", value("upstream_origin", "preserve")),
        "forward_credential": bool(value("forward_credential", None)),
    }


def _entries(key: str, written: list[str] | ListKeys | None) -> list[str] | KeptList | None:
    if not isinstance(written, ListKeys):
        return written
    if (written.file is None) == (written.url is None):
        raise ConfigurationError(key, "both file and url" if written.file else "neither file nor url", "one of them")
    if written.file is not None:
        return FileList(written.file)
    return URLList(written.url or "", _parsed(f"{key}.interval", written.interval, parse_duration), written.ca)


def _hosts(
    origins: list[str] | KeptList | None, hosts: list[str] | KeptList | None, names: Sequence[str], *, development: bool
) -> list[str] | KeptList:
    """Return what is written, or the hosts of the listed origins and the names of the certificate (RULES §3, host)."""
    if hosts is None:
        found = _default_hosts(origins if isinstance(origins, list) else (), names)
    elif isinstance(hosts, list):
        found = [*hosts, *(DEVELOPMENT_NAMES if development and hosts else ())]
    else:
        return hosts
    return [_bracketed(name) for name in found]


def _default_hosts(origins: Sequence[str], names: Sequence[str]) -> list[str]:
    hosts: dict[str, None] = {}
    for text in origins:
        try:
            entry = parse_origin_entry(text)
        except OriginSyntaxError:
            continue  # the policy tells this error, with what to write
        if isinstance(entry, Origin):
            if entry.scheme in {"https", "http"}:
                hosts[entry.host] = None
        else:
            hosts[f"{'{label}' if entry.one_label else '*'}.{entry.domain}"] = None
    for name in names:
        hosts["{label}" + name[1:] if name.startswith("*.") else name] = None
    return list(hosts)


def _bracketed(name: str) -> str:
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def _parsed(key: str, written: str | None, parse: Callable[[str], Any]) -> Any:
    try:
        return None if written is None else parse(written)
    except ValueError as error:
        raise ConfigurationError(key, repr(written), str(error)) from None


def _rewrite(key: str, written: str) -> str:
    if written in ("preserve", "upstream"):
        return written
    try:
        if key == "upstream_host":
            return str(Host.parse_entry(written))
        entry = parse_origin_entry(written) if not written.startswith("http://") else Origin.parse(written.encode())
        if isinstance(entry, Origin):
            return str(entry)
    except (HostSyntaxError, OriginSyntaxError, UnicodeEncodeError):
        pass
    example = "app.internal:8888" if key == "upstream_host" else "https://app.internal"
    raise ConfigurationError(key, repr(written), f'"preserve", "upstream", or a value like {example}')
