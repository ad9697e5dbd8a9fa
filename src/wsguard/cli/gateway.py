"""``wsguard gateway``: the app behind TLS, Origin checks and limits, not a line of it changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from wsguard.vocabulary.errors import ConfigurationError

_SWITCH = Parameter(negative="")
_LIST = Annotated[list[str] | None, Parameter(negative="")]


def gateway(
    *,
    upstream: str | None = None,
    origin: _LIST = None,
    host: _LIST = None,
    listen: _LIST = None,
    cert: str | None = None,
    key: str | None = None,
    config: Path | None = None,
    allow_missing_origin: Annotated[bool, _SWITCH] = False,
    upstream_host: str | None = None,
    upstream_origin: str | None = None,
    upstream_ca: str | None = None,
    compression: Literal["off", "passthrough"] | None = None,
    max_message: str | None = None,
    log_format: Literal["text", "json"] | None = None,
    tls_engine: Literal["aiofastnet", "stdlib"] | None = None,
    workers: int | None = None,
    store: str | None = None,
    admin: str | None = None,
    print_config: Annotated[bool, _SWITCH] = False,
) -> int:
    """
    Put an app behind TLS and the Origin check, without changing it.

    To try it: wsguard gateway --upstream http://127.0.0.1:8888 and open https://localhost:8443.
    On a server: wsguard gateway --listen 0.0.0.0:443 --cert app.pem --key app.key
    --upstream http://127.0.0.1:8888 --origin https://app.example.com

    Parameters
    ----------
    upstream
        The app: http://HOST:PORT, https://HOST:PORT (verified) or unix:PATH.
    origin
        A page that may connect, like https://app.example.com; repeatable. Without it: the served host's own pages.
    host
        A name that is served; repeatable. By default the hosts of the origins and the names of the certificate.
    listen
        HOST:PORT, TLS always; repeatable. By default 127.0.0.1:8443 and [::1]:8443.
    cert
        PEM file with the certificate and its chain. On loopback a development certificate is made if it is missing.
    key
        PEM file with the certificate's private key.
    config
        A TOML file with the same names; flags go before it.
    allow_missing_origin
        Let clients in that send no Origin: they are no browsers.
    upstream_host
        The Host the app sees: preserve, upstream, or a name.
    upstream_origin
        The Origin the app sees: preserve, upstream, or an origin.
    upstream_ca
        PEM file with CAs that an https upstream may have.
    compression
        passthrough lets permessage-deflate be negotiated between the two ends.
    max_message
        The largest message, like 16MiB.
    log_format
        text or json, on stdout.
    tls_engine
        aiofastnet (fast) or stdlib.
    workers
        How many processes serve the port; several need a --store on disk.
    store
        Where tickets and revocations are kept: memory, or sqlite:FILE over restarts and for several workers.
    admin
        unix:PATH, a socket for this user's commands (wsguard sessions).
    print_config
        Print the TOML file that equals these flags, and exit.
    """
    flags: dict[str, Any] = {
        "upstream": upstream,
        "origins": origin,
        "hosts": host,
        "listen": listen,
        "cert": cert,
        "key": key,
        "allow_missing_origin": allow_missing_origin or None,
        "upstream_host": upstream_host,
        "upstream_origin": upstream_origin,
        "upstream_ca": upstream_ca,
        "compression": compression,
        "max_message": max_message,
        "log_format": log_format,
        "tls_engine": tls_engine,
        "workers": workers,
        "store": store,
        "admin": admin,
    }
    try:
        from wsguard.cli.workers import join, own_place, run_workers, worker_flags
        from wsguard.config import load_gateway, read_config, render_toml
        from wsguard.dev_ca import DevelopmentAuthority
        from wsguard.gateway.lifecycle import ListenAddress, bindable, run_gateway
    except ImportError as error:
        raise ConfigurationError(
            "wsguard gateway", f"{error.name} not installed", "pip install 'wsguard[gateway]'"
        ) from None
    written = {name: value for name, value in flags.items() if value is not None}
    if print_config:
        read = read_config(config, written)
        print(render_toml(read, str(Path(__file__).parent.parent / "config" / "wsguard.schema.json")), end="")
        return 0
    place = own_place()
    settings = load_gateway(config, written | worker_flags(place), DevelopmentAuthority.open)
    if place is not None:
        join(place, settings.guard)
        addresses = tuple(ListenAddress(host, port) for host, port in place.listen)
        return run_gateway(dataclasses.replace(settings, listen=addresses, shared_port=True))
    if settings.workers > 1:
        return run_workers(settings.guard, settings.workers, bindable(settings.listen))
    return run_gateway(settings)
