"""From a RunConfig to what ``wsguard run`` serves: a guard, a place to listen, a certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsguard.asgi.uvicorn_server import ListenPlace
from wsguard.config.certificates import DEVELOPMENT_NAMES, Certificate, certificate_of, unnamed_origins
from wsguard.config.collected import CollectedErrors
from wsguard.config.file import RunConfig, read_with_errors
from wsguard.config.listeners import read_tls_address
from wsguard.config.policies import guard_of, limits_of, policies_of
from wsguard.tls.contexts import server_context
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from wsguard.config.certificates import DevelopmentCertificates
    from wsguard.guard import Guard

DEFAULT_LISTEN = "127.0.0.1:8443"
_NO_POLICY = frozenset({"listen", "cert", "key", "log_format", "limits", "workers", "store", "admin"})


@dataclass(frozen=True)
class RunSettings:
    """
    What ``wsguard run`` serves.

    *guard* judges every scope. *asked_for* tells that a policy was written: without one an app that has a guard of
    its own keeps to that.
    """

    place: ListenPlace
    guard: Guard
    asked_for: bool
    certificate: Certificate | None
    notices: tuple[str, ...]
    workers: int = 1


def load_run(
    path: Path | None, flags: Mapping[str, Any], development: Callable[[], DevelopmentCertificates]
) -> RunSettings:
    """
    Read the file at *path* and the *flags*, and return the settings that they mean.

    *development* is called where a loopback listener has no certificate. Raises ConfigurationErrors with all that is
    wrong, in the file's form and in what it asks for, at once.
    """
    config, read_errors = read_with_errors(path, flags, RunConfig)
    errors = CollectedErrors()
    place = errors.attempt(lambda: _place(config)) or ListenPlace()
    secure = not (config.listen or "").startswith(("plain:", "unix:"))
    certificate = errors.attempt(lambda: certificate_of(config, [place.host], development)) if secure else None
    if certificate is not None:
        errors.attempt(lambda: server_context(certificate.certificate, certificate.key))
    limits = errors.attempt(lambda: limits_of(config.limits)) or Limits()
    names = DEVELOPMENT_NAMES if certificate is None else certificate.names
    policies = policies_of(config, names, errors)
    if not secure and not config.trusted_proxies:
        expected = "the proxies in front: an address, a range, or unix"
        errors.all.append(ConfigurationError("trusted_proxies", f"none, and listen = {config.listen!r}", expected))
    proxies: dict[str, Any] = {
        "trusted_proxies": config.trusted_proxies or (),
        "trust_any_proxy": bool(config.trust_any_proxy),
    }
    if (config.workers or 1) > 1 and place.path is not None:
        errors.all.append(
            ConfigurationError("workers", f"{config.workers}, and a Unix socket", "a port, or one process")
        )
    guard = guard_of(config, policies, limits, errors, **proxies)
    told = {error.key.removeprefix("--") for error in read_errors}
    found = [*read_errors, *(error for error in errors.all if error.key not in told)]
    if found or guard is None:
        raise ConfigurationErrors(found)
    return RunSettings(
        place=place,
        guard=guard,
        asked_for=_asks_for_a_policy(config),
        certificate=certificate,
        notices=() if certificate is None else tuple(unnamed_origins(config, certificate)),
        workers=config.workers or 1,
    )


def _place(config: RunConfig) -> ListenPlace:
    entry = config.listen or DEFAULT_LISTEN
    if entry.startswith("unix:"):
        path = entry.removeprefix("unix:")
        if not path:
            raise ConfigurationError("listen", repr(entry), "unix:PATH")
        return ListenPlace(path=path)
    host, port = read_tls_address(entry.removeprefix("plain:"))
    return ListenPlace("127.0.0.1" if host == "localhost" else host, port)


def _asks_for_a_policy(config: RunConfig) -> bool:
    written = {name for name in config.__struct_fields__ if getattr(config, name) is not None}
    return bool(written - _NO_POLICY)
