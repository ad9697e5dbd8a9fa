"""
Deliver the page over HTTPS and keep it there, so that an sslstrip-like attacker finds nothing to strip.

Every answer over TLS carries HSTS (RFC 6797), and every cookie of the app becomes Secure. Names that are only local get
no HSTS: it would bind every other port of localhost to TLS (B-DELIVER-01, B-DELIVER-02).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from wsguard.vocabulary.host import Host, HostSyntaxError

if TYPE_CHECKING:
    from collections.abc import Iterable

HSTS_SECONDS = 180 * 24 * 3600
_MAX_AGE = re.compile(rb'max-age\s*=\s*"?([0-9]{1,12})', re.IGNORECASE)


def delivered_fields(
    fields: Iterable[tuple[bytes, bytes]], *, host: bytes | None, secure: bool
) -> list[tuple[bytes, bytes]]:
    """
    Return an answer's *fields* as they reach the browser that asked for *host* (the Host field) over TLS or not.

    An HSTS field of the app stays where it asks for at least as long as ours, and is taken out on local names.
    """
    hsts = secure and takes_hsts(host)
    delivered: list[tuple[bytes, bytes]] = []
    stronger: tuple[bytes, bytes] | None = None
    for name, value in fields:
        lower = name.lower()
        if lower == b"strict-transport-security":
            match = _MAX_AGE.search(value)
            if match and int(match[1]) >= HSTS_SECONDS:
                stronger = (name, value)
        elif lower == b"set-cookie" and secure:
            delivered.append((name, secured_cookie(value)))
        else:
            delivered.append((name, value))
    if hsts:
        delivered.append(stronger or (b"Strict-Transport-Security", b"max-age=%d" % HSTS_SECONDS))
    return delivered


def takes_hsts(host: bytes | None) -> bool:
    """Tell whether HSTS belongs on answers for this Host: not for localhost, *.localhost, .test and IP literals."""
    if host is None:
        return False
    try:
        return not _is_local(Host.parse(host))
    except HostSyntaxError:
        return False


@lru_cache(1024)
def _is_local(host: Host) -> bool:
    return host.is_loopback or host.is_ip_literal or host.name == "test" or host.name.endswith(".test")


def secured_cookie(value: bytes) -> bytes:
    """Add Secure to a Set-Cookie value that lacks it (RFC 6265 §4.1.2.5)."""
    attributes = {part.partition(b"=")[0].strip().lower() for part in value.split(b";")[1:]}
    return value if b"secure" in attributes else value + b"; Secure"
