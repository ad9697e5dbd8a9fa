"""How a listener is written: ``HOST:PORT`` with an address, TLS always."""

from __future__ import annotations

import ipaddress

from wsguard.vocabulary.errors import ConfigurationError

_MAX_PORT = 65535


def read_tls_address(entry: str) -> tuple[str, int]:
    """Return address (or ``localhost``) and port. Raises ConfigurationError for anything else."""
    expected = "HOST:PORT with an address, like 0.0.0.0:443 or [::]:443"
    if entry.startswith(("plain:", "unix:")):
        raise ConfigurationError("listen", repr(entry), f"{expected}: this one is TLS, always")
    host, _, port = entry.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT or not host:
        raise ConfigurationError("listen", repr(entry), expected)
    if host == "localhost":
        return host, int(port)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ConfigurationError("listen", repr(entry), expected) from None
    if (address.version == 6) != bracketed:  # noqa: PLR2004 - IPv6
        raise ConfigurationError("listen", repr(entry), "an IPv6 address in brackets, like [::1]:8443")
    return str(address), int(port)
