"""From a GatewayConfig to GatewaySettings: every value read, every file opened, every error told at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsguard.config.certificates import DEVELOPMENT_NAMES, certificate_of, unnamed_origins
from wsguard.config.collected import CollectedErrors
from wsguard.config.file import GatewayConfig, flag_of, read_with_errors, written_entries
from wsguard.config.listeners import read_tls_address
from wsguard.config.policies import client_certificate_of, guard_of, limits_of, policies_of
from wsguard.gateway.lifecycle import GatewaySettings, ListenAddress
from wsguard.gateway.upstream import UpstreamAddress
from wsguard.tls.client_authority import read_client_authority
from wsguard.tls.contexts import client_context, server_context
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.origin import Origin, parse_origin_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsguard.config.certificates import DevelopmentCertificates

DEFAULT_LISTEN = (ListenAddress("127.0.0.1", 8443), ListenAddress("::1", 8443, optional=True))


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
    errors = CollectedErrors()
    listen = errors.attempt(lambda: _listen(config.listen)) or DEFAULT_LISTEN
    upstream = errors.attempt(lambda: _upstream(config))
    limits = errors.attempt(lambda: limits_of(config.limits)) or Limits()
    certificate = errors.attempt(lambda: certificate_of(config, [address.host for address in listen], development))
    upstream_context = errors.attempt(lambda: _upstream_context(config, upstream))
    # Without a certificate, which is told, the names that it would hold must not be missed as well.
    names = DEVELOPMENT_NAMES if certificate is None else certificate.names
    routes = policies_of(config, names, errors)
    clients = errors.attempt(lambda: client_certificate_of(config.client_certificate))
    authority = None if clients is None else errors.attempt(lambda: read_client_authority(clients))
    guard = guard_of(config, routes, limits, errors, clients=clients)
    context = None
    if certificate is not None:
        context = errors.attempt(lambda: server_context(certificate.certificate, certificate.key, authority))
    if errors.all or context is None or upstream is None or certificate is None or guard is None:
        raise ConfigurationErrors(errors.all)
    return GatewaySettings(
        listen=listen,
        context=context,
        guard=guard,
        upstream=upstream,
        upstream_context=upstream_context,
        engine=config.tls_engine or "aiofastnet",
        notices=tuple(unnamed_origins(config, certificate)),
        urls=_urls(config, listen, names),
        workers=config.workers or 1,
    )


def _listen(entries: list[str] | None) -> tuple[ListenAddress, ...]:
    if entries is None:
        return DEFAULT_LISTEN
    if not entries:
        raise ConfigurationError("listen", "an empty list", "at least one HOST:PORT")
    return tuple(address for entry in entries for address in _listen_entry(entry))


def _listen_entry(entry: str) -> tuple[ListenAddress, ...]:
    host, port = read_tls_address(entry)
    if host == "localhost":
        return ListenAddress("127.0.0.1", port), ListenAddress("::1", port, optional=True)
    return (ListenAddress(host, port),)


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


def _urls(config: GatewayConfig, listen: tuple[ListenAddress, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Say what to open in a browser: the listed pages that are served here, else the first name of the certificate."""
    entries = [parse_origin_entry(text) for text in written_entries(config.origins)]
    own = [str(entry) for entry in entries if isinstance(entry, Origin) and entry.host.strip("[]") in names]
    if config.origins is not None:
        return tuple(own)
    port = listen[0].port
    tail = "" if port == 443 else f":{port}"  # noqa: PLR2004
    shown = [f"[{name}]" if ":" in name else name for name in names[:1] if not name.startswith("*")]
    return tuple(f"https://{name}{tail}" for name in shown)
