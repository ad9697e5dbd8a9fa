"""Serve only our own names. This stops DNS rebinding: a foreign name that resolves here is refused (B-HOST-03)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, Refusal
from wsguard.vocabulary.errors import ConfigurationError, check_text
from wsguard.vocabulary.host import Host, HostSyntaxError
from wsguard.vocabulary.origin import below_domain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsguard.engine.checks.origin import OriginRules
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.handshake import Handshake


@dataclass(frozen=True, slots=True)
class HostPattern:
    """The names below a domain: exactly one label with *one_label* (as in a certificate, RFC 9525 §6.3), else any."""

    domain: str
    one_label: bool


@dataclass(frozen=True, slots=True)
class HostRules:
    """The served names. An entry with a port serves that port only; one without serves every port."""

    names: tuple[Host | HostPattern, ...]

    @classmethod
    def read(cls, entries: Iterable[str]) -> HostRules:
        """Normalise the operator's *entries*. Raises ConfigurationError for one that is no host[:port]."""
        if isinstance(entries, str):
            raise ConfigurationError("hosts", repr(entries), f"a list: [{entries!r}]")
        return cls(tuple(_read_entry(entry) for entry in entries))

    @classmethod
    def of_origins(cls, rules: OriginRules) -> HostRules:
        """Serve the hosts of the listed origins: what an operator means who lists origins and no hosts."""
        names: dict[Host | HostPattern, None] = {}
        for origin in rules.exact:
            if origin.scheme in {"https", "http"}:
                names[Host(origin.host)] = None
        for pattern in rules.patterns:
            names[HostPattern(pattern.domain, pattern.one_label)] = None
        return cls(tuple(names))

    def serves(self, host: Host) -> bool:
        """Tell whether *host* is one of the served names."""
        for entry in self.names:
            if isinstance(entry, HostPattern):
                if below_domain(host.name, entry.domain, one_label=entry.one_label):
                    return True
            elif entry.name == host.name and entry.port in (None, host.port):
                return True
        return False


class HostCheck:
    """RFC 9110 §7.2; 421 as §15.5.20 says."""

    name: ClassVar[str] = "host"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Refuse a Host that is none, and one that is not ours. Keeps the parsed Host for the checks behind."""
        value = handshake.fields.first(b"host")
        if value is None:
            # HTTP/1.0 alone may leave it out (syntax has seen to that); nobody can then say whose page is asked for.
            return PASSED if context.excused else Refusal(reasons.HOST_MALFORMED, "no Host")
        try:
            host = Host.parse(value)
        except HostSyntaxError as error:
            return Refusal(reasons.HOST_MALFORMED, str(error))
        context.host = host
        if context.excused and not context.is_handshake:
            return PASSED
        if not (context.host_served or context.policy.host_rules.serves(host)):
            return Refusal(reasons.HOST_NOT_ALLOWED, host.name, setting=f'hosts += ["{host.name}"]')
        return PASSED


def _read_entry(entry: str) -> Host | HostPattern:
    check_text("hosts", entry)
    try:
        for prefix, one_label in (("*.", False), ("{label}.", True)):
            if entry.startswith(prefix):
                return HostPattern(Host.parse_entry(entry.removeprefix(prefix)).name, one_label)
        return Host.parse_entry(entry)
    except HostSyntaxError as error:
        expected = "a host or host:port, like app.example.com"
        raise ConfigurationError("hosts", repr(entry), f"{expected} ({error})") from None
