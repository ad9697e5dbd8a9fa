"""Under which address the outside knows us: what a ticket's ``url`` is made of, never from Host (RULES §12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.host import Host
from wsguard.vocabulary.origin import Origin, OriginSyntaxError

if TYPE_CHECKING:
    from wsguard.engine.routes import RouteTable

_EXAMPLE = "https://app.example.com"


def read_public_url(written: str | None, table: RouteTable) -> str:
    """
    Return the public origin: what is *written*, or the listed origin of the only served host, or https and that host.

    Raises ConfigurationError where it is no https origin, or where none is written and there are several.
    """
    if written is not None:
        try:
            origin = Origin.parse(written.removesuffix("/").encode("ascii"))
        except (OriginSyntaxError, UnicodeEncodeError):
            origin = None
        if origin is None or origin.scheme != "https":
            raise ConfigurationError("public_url", repr(written), f"an https origin like {_EXAMPLE}")
        return str(origin)
    hosts = {entry for route in table.routes for entry in route.policy.host_rules.names}
    (only, *others) = hosts or {None}
    if others or not isinstance(only, Host):
        raise ConfigurationError("public_url", "nothing, and several hosts", f"the one that pages use, like {_EXAMPLE}")
    listed = {origin for route in table.routes for origin in route.policy.origin_rules.exact}
    pages = {str(one) for one in listed if only.port is None and (one.scheme, one.host) == ("https", only.name)}
    if len(pages) > 1:
        found = f"nothing, and pages at {', '.join(sorted(pages))}"
        raise ConfigurationError("public_url", found, f"the one where sockets are opened, like {_EXAMPLE}")
    return pages.pop() if pages else f"https://{only}"
