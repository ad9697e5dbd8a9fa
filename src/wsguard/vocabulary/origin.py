"""
Web origins as values (RFC 6454): tuples of scheme, host and port, compared whole, and the entries of an allow-list.

A received Origin must already be serialised as RFC 6454 §6.2 says. An operator's entry is normalised when it is read.
There are no regular expressions in an entry: a leading ``*.`` or ``{label}.`` is all a pattern can say (B-ORIGIN-04).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from wsguard.vocabulary.host import HostSyntaxError, is_loopback_host, normalise_ascii_host, normalise_host, split_port

DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_LONGEST_KEPT = 300  # longer ones are parsed, and remembered by nobody
_FORBIDDEN_IN_ENTRY = re.compile(r"[\\^$]")


class OriginSyntaxError(ValueError):
    """The text is no serialised origin, or no entry of an allow-list. The message says what to write instead."""


class Origin(NamedTuple):
    """One web origin. *port* is None where it is the scheme's default."""

    scheme: str
    host: str
    port: int | None = None

    def __str__(self) -> str:
        """Serialise as RFC 6454 §6.2."""
        tail = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{self.host}{tail}"

    @classmethod
    def parse(cls, value: bytes) -> Origin:
        """
        Read a received Origin field value that is not ``null``.

        Raises OriginSyntaxError unless it is serialised exactly as a browser does it: lower case, A-labels, no
        trailing dot or slash, no path, no userinfo, one origin only. An explicit default port is read as none.
        Source: RFC 6454 §6.2, §7.
        """
        return _received(value) if len(value) <= _LONGEST_KEPT else _received.__wrapped__(value)

    @property
    def is_loopback(self) -> bool:
        """Tell whether the host means this machine."""
        return is_loopback_host(self.host)


@lru_cache(1024)  # a value of its bytes alone: the same pages come again and again
def _received(value: bytes) -> Origin:
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise OriginSyntaxError("not ASCII") from None
    scheme, authority = _split_scheme(text)
    try:
        name, port = split_port(authority)
        if normalise_ascii_host(name) != name:
            raise OriginSyntaxError("the host is not in its one spelling")
    except HostSyntaxError as error:
        raise OriginSyntaxError(str(error)) from None
    return Origin(scheme, name, None if port == DEFAULT_PORTS.get(scheme) else port)


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """
    An entry that allows the names below one domain.

    With *one_label* exactly one label (``{label}.``), else one or more (``*.``); never the domain itself, never a
    name that merely ends in the same letters.
    """

    scheme: str
    domain: str
    port: int | None
    one_label: bool

    def __str__(self) -> str:
        """Write it as the operator does."""
        tail = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{'{label}' if self.one_label else '*'}.{self.domain}{tail}"

    def matches(self, origin: Origin) -> bool:
        """Tell whether *origin* stands below this domain, with the same scheme and port."""
        return (
            origin.scheme == self.scheme
            and origin.port == self.port
            and below_domain(origin.host, self.domain, one_label=self.one_label)
        )


def below_domain(host: str, domain: str, *, one_label: bool) -> bool:
    """Tell whether the normalised *host* is one (or, without *one_label*, one or more) labels below *domain*."""
    if not host.endswith("." + domain):
        return False
    labels = host[: -len(domain) - 1]
    return bool(labels) and not (one_label and "." in labels)


def parse_origin_entry(text: str) -> Origin | OriginPattern:
    """
    Read one entry of an allow-list, as a person wrote it.

    Normalises case, default port and IDNA. Any scheme may be listed exactly (``tauri://localhost``). Raises
    OriginSyntaxError, with what to write instead, for ``*``, for pattern characters, for ``null``, for a path.
    """
    _refuse_what_is_no_origin(text)
    scheme, separator, authority = text.partition("://")
    scheme = scheme.lower()
    if not separator or not _SCHEME.fullmatch(scheme):
        raise OriginSyntaxError("scheme and host, like https://app.example.com")
    if scheme in {"ws", "wss"}:
        raise OriginSyntaxError(f"the origin of the page, not of the socket: https://{authority}")
    host, slash, path = authority.partition("/")
    if slash:
        what = "the path" if path else "the slash at the end"
        raise OriginSyntaxError(f"an origin without {what}: {scheme}://{host}")
    try:
        name, port = split_port(authority)
        port = None if port == DEFAULT_PORTS.get(scheme) else port
        for prefix, one_label in (("*.", False), ("{label}.", True)):
            if name.startswith(prefix):
                return OriginPattern(scheme, _pattern_domain(name.removeprefix(prefix)), port, one_label)
        if "*" in name or "{" in name:
            raise OriginSyntaxError("a pattern is a leading '*.' or '{label}.' of the host, nothing else")
        return Origin(scheme, normalise_host(name), port)
    except HostSyntaxError as error:
        raise OriginSyntaxError(f"scheme and host, like https://app.example.com ({error})") from None


def _split_scheme(text: str) -> tuple[str, str]:
    scheme, separator, authority = text.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise OriginSyntaxError("not scheme://host[:port]")
    return scheme, authority


def _refuse_what_is_no_origin(text: str) -> None:
    if text == "null":
        raise OriginSyntaxError("no 'null', which any sandboxed frame sends; if you must, allow_null_origin = true")
    if text == "*":
        raise OriginSyntaxError("the origins of your own pages: '*' would let every page in")
    if match := _FORBIDDEN_IN_ENTRY.search(text):
        raise OriginSyntaxError(f"{match.group()!r} has no meaning here: entries are no regular expressions")
    if "*" in text.partition("://")[0]:
        raise OriginSyntaxError("https://, for the scheme cannot be a pattern")


def _pattern_domain(text: str) -> str:
    if "*" in text or "{" in text:
        raise OriginSyntaxError("only the first label can be a pattern")
    domain = normalise_host(text)
    if "." not in domain and domain not in {"localhost", "test"}:
        raise OriginSyntaxError(f"a pattern over all of {domain!r} would let strangers in")
    if domain[-1:].isdigit() or domain.startswith("["):
        raise OriginSyntaxError("an address has nothing below it")
    return domain
