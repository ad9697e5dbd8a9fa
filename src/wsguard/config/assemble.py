"""From a GatewayConfig to GatewaySettings: every value read, every file opened, every error told at once."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cryptography import x509

from wsguard.config.file import GatewayConfig, PolicyKeys, flag_of, read_with_errors
from wsguard.config.units import parse_duration, parse_size
from wsguard.engine.policy import Policy
from wsguard.engine.routes import RouteSyntaxError, check_route_path
from wsguard.gateway.lifecycle import GatewaySettings, ListenAddress
from wsguard.gateway.upstream import UpstreamAddress
from wsguard.guard import Guard
from wsguard.observe.decision_log import DecisionLog, LogFormat, decision_logger
from wsguard.tls.contexts import client_context, server_context
from wsguard.vocabulary.bounds import BOUNDS, MAX_MESSAGE, Limits
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.host import Host, HostSyntaxError
from wsguard.vocabulary.origin import Origin, OriginSyntaxError, parse_origin_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

_DEFAULT_LISTEN = (ListenAddress("127.0.0.1", 8443), ListenAddress("::1", 8443, optional=True))
_DEVELOPMENT_NAMES = ("localhost", "127.0.0.1", "::1")


class DevelopmentCertificates(Protocol):
    """What vouches for this machine's own names where no certificate is given; the CLI hands `wsguard.dev_ca` in."""

    def vouches_for(self, name: str) -> bool:
        """Tell whether a certificate may name the host *name*."""
        ...

    def write_leaf(self, names: Sequence[str]) -> tuple[Path, Path]:
        """Issue a certificate for *names*; return the files of certificate and key."""
        ...


class _Errors:
    """Collects errors, so that a person fixes them in one go."""

    def __init__(self) -> None:
        self.all: list[ConfigurationError] = []

    def attempt(self, make: Callable[[], T]) -> T | None:
        """Return what *make* makes, or keep its error and return None."""
        try:
            return make()
        except ConfigurationErrors as errors:
            self.all.extend(errors.errors)
        except ConfigurationError as error:
            self.all.append(error)
        return None

    def tell(self) -> None:
        """Raise ConfigurationErrors if there are any."""
        if self.all:
            raise ConfigurationErrors(self.all)


def load_gateway(
    path: Path | None, flags: Mapping[str, Any], development: Callable[[], DevelopmentCertificates]
) -> GatewaySettings:
    """
    Read the file at *path* and the *flags*, and return the settings that they mean.

    *development* is called where a loopback listener has no certificate.

    Raises ConfigurationErrors with all that is wrong, in the file's form and in what it asks for, at once.
    """
    config, errors = read_with_errors(path, flags)
    try:
        settings = assemble_gateway(config, development)
    except ConfigurationErrors as others:
        # What could not be read is missing for the assembly: it is told once.
        told = {error.key.removeprefix("--") for error in errors}
        raise ConfigurationErrors([*errors, *(error for error in others.errors if error.key not in told)]) from None
    if errors:
        raise ConfigurationErrors(errors)
    return settings


def assemble_gateway(config: GatewayConfig, development: Callable[[], DevelopmentCertificates]) -> GatewaySettings:
    """Return the settings that *config* means. Raises ConfigurationErrors with all that cannot be served."""
    errors = _Errors()
    listen = errors.attempt(lambda: _listen(config.listen)) or _DEFAULT_LISTEN
    upstream = errors.attempt(lambda: _upstream(config))
    limits = errors.attempt(lambda: _limits(config.limits)) or Limits()
    certificate = errors.attempt(lambda: _certificate(config, listen, development))
    upstream_context = errors.attempt(lambda: _upstream_context(config, upstream))
    # Without a certificate, which is told, the names that it would hold must not be missed as well.
    names = _DEVELOPMENT_NAMES if certificate is None else certificate.names
    log_format: LogFormat = config.log_format or "text"
    routes = _routes(config, names, errors)
    guard = errors.attempt(lambda: guard_of(routes, limits, log_format)) if routes and not errors.all else None
    context = None
    if certificate is not None:
        context = errors.attempt(lambda: server_context(certificate.certificate, certificate.key))
    if errors.all or context is None or upstream is None or certificate is None or guard is None:
        raise ConfigurationErrors(errors.all)
    return GatewaySettings(
        listen=listen,
        context=context,
        guard=guard,
        upstream=upstream,
        upstream_context=upstream_context,
        engine=config.tls_engine or "aiofastnet",
        notices=tuple(_unnamed_origins(config, certificate)),
        urls=_urls(config, listen, names),
    )


class _Certificate:
    """Which files a listener uses, and the names that the certificate holds."""

    def __init__(
        self, certificate: Path, key: Path, names: tuple[str, ...], issuer: DevelopmentCertificates | None = None
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.names = names
        self.issuer = issuer


def _listen(entries: list[str] | None) -> tuple[ListenAddress, ...]:
    if entries is None:
        return _DEFAULT_LISTEN
    if not entries:
        raise ConfigurationError("listen", "an empty list", "at least one HOST:PORT")
    return tuple(address for entry in entries for address in _listen_entry(entry))


def _listen_entry(entry: str) -> tuple[ListenAddress, ...]:
    expected = "HOST:PORT with an address, like 0.0.0.0:443 or [::]:443"
    if entry.startswith(("plain:", "unix:")):
        raise ConfigurationError(
            "listen",
            repr(entry),
            f"{expected}; a listener without TLS needs a trusted proxy, which this version has not",
        )
    host, _, port = entry.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535 or not host:  # noqa: PLR2004
        raise ConfigurationError("listen", repr(entry), expected)
    if host == "localhost":
        return ListenAddress("127.0.0.1", int(port)), ListenAddress("::1", int(port), optional=True)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ConfigurationError("listen", repr(entry), expected) from None
    if (address.version == 6) != bracketed:  # noqa: PLR2004
        raise ConfigurationError("listen", repr(entry), "an IPv6 address in brackets, like [::1]:8443")
    return (ListenAddress(str(address), int(port)),)


def _upstream(config: GatewayConfig) -> UpstreamAddress:
    if config.upstream is None:
        raise ConfigurationError(
            "upstream", "nothing", f"{flag_of('upstream')} http://127.0.0.1:8888, the app to protect"
        )
    return UpstreamAddress.parse(config.upstream)


def _upstream_context(config: GatewayConfig, upstream: UpstreamAddress | None) -> Any:
    authority = None if config.upstream_ca is None else Path(config.upstream_ca)
    if upstream is None or upstream.scheme != "https":
        if authority is not None and upstream is not None:
            raise ConfigurationError("upstream_ca", str(authority), "an https upstream; this one has no certificate")
        return None
    return client_context(authority)


def _limits(table: Any) -> Limits:
    errors = _Errors()
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


def _certificate(
    config: GatewayConfig, listen: tuple[ListenAddress, ...], development: Callable[[], DevelopmentCertificates]
) -> _Certificate:
    if (config.cert is None) != (config.key is None):
        missing = "key" if config.key is None else "cert"
        raise ConfigurationError(missing, "nothing", f"{flag_of(missing)} too: a certificate and its key go together")
    if config.cert is not None and config.key is not None:
        certificate = Path(config.cert)
        return _Certificate(certificate, Path(config.key), _names_of(certificate))
    public = [address.host for address in listen if not ipaddress.ip_address(address.host).is_loopback]
    if public:
        raise ConfigurationError(
            "cert",
            f"nothing, and a listener on {public[0]}",
            "--cert app.pem --key app.key (from your CA, or certbot); only loopback gets a development certificate",
        )
    return _development_certificate(config, development())


def _development_certificate(config: GatewayConfig, issuer: DevelopmentCertificates) -> _Certificate:
    names: list[str] = list(_DEVELOPMENT_NAMES)
    for entry in _all_hosts(config):
        try:
            host = Host.parse_entry(entry)
            inside = issuer.vouches_for(host.name)
        except HostSyntaxError:
            continue  # the policy tells this error, with what to write
        if not inside:
            raise ConfigurationError(
                "hosts",
                repr(entry),
                "a name that the development CA may vouch for (localhost, .test, loopback), or --cert and --key",
            )
        if host.name.strip("[]") not in names:
            names.append(host.name.strip("[]"))
    certificate, key = issuer.write_leaf(names)
    return _Certificate(certificate, key, tuple(names), issuer)


def _all_hosts(config: GatewayConfig) -> list[str]:
    entries = list(config.hosts or ())
    for route in config.route or ():
        entries += route.hosts or ()
    return entries


def _names_of(path: Path) -> tuple[str, ...]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigurationError("cert", f"{path} ({error.strerror})", "a file that can be read") from None
    except ValueError:
        raise ConfigurationError("cert", str(path), "a PEM certificate") from None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    found = [*names.get_values_for_type(x509.DNSName), *(str(ip) for ip in names.get_values_for_type(x509.IPAddress))]
    return tuple(found)


def guard_of(routes: Mapping[str, Policy], limits: Limits, log_format: LogFormat) -> Guard:
    """Return the guard of a process of ours, whose log is stdout. Raises ConfigurationErrors as Guard does."""
    log = DecisionLog(decision_logger(log_format), time.monotonic, limits.hints)
    return Guard(routes=routes, limits=limits, log=log)


def _routes(config: GatewayConfig, names: tuple[str, ...], errors: _Errors) -> dict[str, Policy]:
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


def _policy(config: GatewayConfig, route: PolicyKeys | None, names: tuple[str, ...]) -> Policy:
    def value(key: str, default: Any) -> Any:
        for keys in (route, config):
            if keys is not None and getattr(keys, key) is not None:
                return getattr(keys, key)
        return default

    origins: list[str] | None = value("origins", None)
    hosts: list[str] | None = value("hosts", None)
    development = config.cert is None
    served = hosts if not hosts else [*hosts, *(_DEVELOPMENT_NAMES if development else ())]
    return Policy(
        origins=origins,
        hosts=[_bracketed(name) for name in (_default_hosts(origins, names) if served is None else served)],
        allow_missing_origin=value("allow_missing_origin", default=False),
        allow_null_origin=value("allow_null_origin", default=False),
        allow_http_loopback_origins=value("allow_http_loopback_origins", default=False),
        http=value("http", None),
        compression=value("compression", "off") == "passthrough",
        max_message=_max_message(value("max_message", None)),
        upstream_host=_rewrite("upstream_host", value("upstream_host", "preserve")),
        upstream_origin=_rewrite("upstream_origin", value("upstream_origin", "preserve")),
    )


def _default_hosts(origins: list[str] | None, names: tuple[str, ...]) -> list[str]:
    """Return the hosts of the listed origins and the names of the certificate (RULES §3, host)."""
    hosts: dict[str, None] = {}
    for text in origins or ():
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


def _max_message(written: str | None) -> int:
    if written is None:
        return MAX_MESSAGE
    try:
        value = parse_size(written)
    except ValueError as error:
        raise ConfigurationError("max_message", repr(written), str(error)) from None
    return value


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


def _unnamed_origins(config: GatewayConfig, certificate: _Certificate) -> list[str]:
    issuer = certificate.issuer
    if issuer is None:
        return []
    notices: list[str] = []
    listed = dict.fromkeys(text for keys in (config, *(config.route or ())) for text in keys.origins or ())
    for text in listed:
        entry = parse_origin_entry(text)
        if isinstance(entry, Origin) and entry.scheme == "https" and entry.host.strip("[]") not in certificate.names:
            way = f"write --host {entry.host}" if issuer.vouches_for(entry.host) else "write --cert and --key"
            notices.append(f"{text} is allowed, but the development certificate does not name {entry.host}: {way}")
    return notices


def _urls(config: GatewayConfig, listen: tuple[ListenAddress, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Say what to open in a browser: the listed pages that are served here, else the first name of the certificate."""
    entries = [parse_origin_entry(text) for text in config.origins or ()]
    own = [str(entry) for entry in entries if isinstance(entry, Origin) and entry.host.strip("[]") in names]
    if config.origins is not None:
        return tuple(own)
    port = listen[0].port
    tail = "" if port == 443 else f":{port}"  # noqa: PLR2004
    return tuple(f"https://{_bracketed(name)}{tail}" for name in names[:1] if not name.startswith("*"))
