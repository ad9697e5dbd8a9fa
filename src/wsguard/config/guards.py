"""From a configuration file, ``wsguard gateway``'s or ``wsguard run``'s, to a `Guard` for an app's own process."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsguard.config.certificates import certificate_of
from wsguard.config.collected import CollectedErrors
from wsguard.config.file import GatewayConfig, RunConfig, read_with_errors
from wsguard.config.policies import client_certificate_of, guard_of, limits_of, policies_of
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import ConfigurationErrors

if TYPE_CHECKING:
    from wsguard.config.certificates import DevelopmentCertificates
    from wsguard.config.file import ServedConfig
    from wsguard.guard import Guard


def guard_from_file(path: Path) -> Guard:
    """
    Return the guard that the file at *path* describes; what it says of listeners, upstream and workers is left to them.

    Names that are served and not written are those of the origins, and of ``cert`` where the file names one.
    Raises ConfigurationErrors with all that is wrong.
    """
    config, read_errors = read_with_errors(path, {}, _kind_of(path), named="Guard.from_file")
    errors = CollectedErrors()
    limits = errors.attempt(lambda: limits_of(config.limits)) or Limits()
    certificate = None
    if config.cert is not None and config.key is not None:
        certificate = errors.attempt(lambda: certificate_of(config, (), _no_development))
    policies = policies_of(config, () if certificate is None else certificate.names, errors)
    more: dict[str, Any] = {}
    if isinstance(config, RunConfig):
        more["trusted_proxies"] = config.trusted_proxies or ()
        more["trust_any_proxy"] = bool(config.trust_any_proxy)
    elif isinstance(config, GatewayConfig):
        more["clients"] = errors.attempt(lambda: client_certificate_of(config.client_certificate))
    guard = guard_of(config, policies, limits, errors, is_apps=True, **more)
    told = {error.key for error in errors.all}
    found = [*(error for error in read_errors if error.key not in told), *errors.all]
    if found or guard is None:
        raise ConfigurationErrors(found)
    return guard


def _kind_of(path: Path) -> type[ServedConfig]:
    """Tell whose file it is: the gateway's names its upstream, or several listeners."""
    try:
        with path.open("rb") as file:
            keys = tomllib.load(file)
    except (OSError, ValueError):
        return RunConfig  # reading it tells what is wrong
    return GatewayConfig if "upstream" in keys or isinstance(keys.get("listen"), list) else RunConfig


def _no_development() -> DevelopmentCertificates:
    raise AssertionError("the file names its certificate")
