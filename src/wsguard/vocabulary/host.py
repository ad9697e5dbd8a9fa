"""
Host names and addresses as values, by the host rules of the WHATWG URL Standard (§3.5), and the Host field on top.

One trailing dot is dropped: our rule, not WHATWG's, so that ``app.example.com.`` cannot choose another policy.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

# A received name: letters, digits, hyphen, underscore (seen in real names), labels of 1 to 63, at most 253 in all.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_MAX_NAME = 253
_MAX_PORT = 65535
_LONGEST_KEPT = 272  # longer ones are parsed, and remembered by nobody


class HostSyntaxError(ValueError):
    """The text is no host, or no host[:port]."""


class Host(NamedTuple):
    """A host and, where one was written, a port. IPv6 addresses stand in brackets, everything is lower case."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        """Write it as the Host field does."""
        return self.name if self.port is None else f"{self.name}:{self.port}"

    @classmethod
    def parse(cls, value: bytes) -> Host:
        """
        Read a received Host field value (RFC 9110 §7.2): ASCII, ``uri-host [":" port]`` and nothing else.

        Raises HostSyntaxError for anything that another reader could take for a different host.
        """
        return _received(value) if len(value) <= _LONGEST_KEPT else _received.__wrapped__(value)

    @classmethod
    def parse_entry(cls, text: str) -> Host:
        """Read what an operator wrote: like `parse`, but IDNA names are mapped to A-labels first (UTS 46)."""
        name, port = split_port(text.strip())
        return cls(normalise_host(name), port)

    @property
    def is_ip_literal(self) -> bool:
        """Tell whether the name is an IPv4 or IPv6 address."""
        return self.name.startswith("[") or is_ipv4(self.name)

    @property
    def is_loopback(self) -> bool:
        """Tell whether the name means this machine: localhost, below localhost, 127.0.0.0/8, ::1 (RFC 6761 §6.3)."""
        return is_loopback_host(self.name)


@lru_cache(1024)  # a value of its bytes alone: a server is asked for the same few names again and again
def _received(value: bytes) -> Host:
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise HostSyntaxError("not ASCII") from None
    name, port = split_port(text)
    return Host(normalise_ascii_host(name), port)


def split_port(text: str) -> tuple[str, int | None]:
    """Split ``host[:port]``. Raises HostSyntaxError for an empty, signed or too large port."""
    if text.startswith("["):
        name, bracket, rest = text.partition("]")
        if not bracket:
            raise HostSyntaxError("'[' without ']'")
        name += "]"
    else:
        name, colon, rest = text.partition(":")
        rest = colon + rest
    if not rest:
        return name, None
    digits = rest[1:]
    if rest[0] != ":" or not (digits.isascii() and digits.isdigit()) or len(digits) > 5:  # noqa: PLR2004
        raise HostSyntaxError("a port is 1 to 5 digits after ':'")
    port = int(digits)
    if port > _MAX_PORT:
        raise HostSyntaxError("a port is at most 65535")
    return name, port


def normalise_host(text: str) -> str:
    """Map an operator's host to its one spelling: IDNA to A-labels, case, dots (U+3002 and kin), addresses."""
    if not text.isascii():
        text = _domain_to_ascii(text)
    return normalise_ascii_host(text)


def normalise_ascii_host(text: str) -> str:
    """Lower-case *text*, drop one trailing dot, and write addresses in their one spelling."""
    if text.startswith("["):
        return _normalise_ipv6(text)
    name = text.lower()
    name = name.removesuffix(".")
    if not name or len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise HostSyntaxError("not a host name")
    if _ends_in_number(name):
        return _normalise_ipv4(name)
    return name


def is_ipv4(name: str) -> bool:
    """Tell whether a normalised name is an IPv4 address."""
    return name[-1:].isdigit() and name.count(".") == 3 and name.replace(".", "").isdigit()  # noqa: PLR2004


def is_loopback_host(name: str) -> bool:
    """Tell whether a normalised host means this machine; parsed, never compared by prefix (B-ORIGIN-08)."""
    if name == "localhost" or name.endswith(".localhost") or name == "[::1]":
        return True
    return is_ipv4(name) and name.startswith("127.")


def is_loopback_address(text: str) -> bool:
    """Tell whether *text* is an IP address of this machine alone: 127.0.0.0/8, also mapped into IPv6, or ::1."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _domain_to_ascii(text: str) -> str:
    # WHATWG domain to ASCII, beStrict false: UTS 46, non-transitional, then Punycode a label.
    import idna

    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        labels = [
            label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in mapped.split(".")
        ]
    except (idna.IDNAError, UnicodeError) as error:
        raise HostSyntaxError(f"not an IDNA name: {error}") from None
    return ".".join(labels)


def _normalise_ipv6(text: str) -> str:
    if "%" in text or not text.endswith("]"):
        raise HostSyntaxError("an IPv6 address stands in brackets, without a zone")
    try:
        address = ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        raise HostSyntaxError("not an IPv6 address") from None
    return f"[{_compress(address)}]"


def _compress(address: ipaddress.IPv6Address) -> str:
    # WHATWG writes an IPv4-mapped address in hexadecimal pieces; Python 3.13 writes it dotted.
    pieces = [f"{int.from_bytes(address.packed[i : i + 2], 'big'):x}" for i in range(0, 16, 2)]
    best_start, best_length, start = -1, 1, 0
    while start < len(pieces):
        end = start
        while end < len(pieces) and pieces[end] == "0":
            end += 1
        if end - start > best_length:
            best_start, best_length = start, end - start
        start = max(end, start + 1)
    if best_start < 0:
        return ":".join(pieces)
    return ":".join(pieces[:best_start]) + "::" + ":".join(pieces[best_start + best_length :])


def _ends_in_number(name: str) -> bool:
    last = name.rsplit(".", 1)[-1]
    return last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def _normalise_ipv4(name: str) -> str:
    # WHATWG "IPv4 parser": 1 to 4 parts, decimal, octal (0…) or hexadecimal (0x…), the last one fills what is left.
    parts = name.split(".")
    if len(parts) > 4:  # noqa: PLR2004
        raise HostSyntaxError("not an IPv4 address")
    numbers = [_ipv4_number(part) for part in parts]
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(numbers)):  # noqa: PLR2004
        raise HostSyntaxError("not an IPv4 address")
    value = numbers[-1]
    for index, number in enumerate(numbers[:-1]):
        value += number * 256 ** (3 - index)
    return str(ipaddress.IPv4Address(value))


def _ipv4_number(part: str) -> int:
    base = 10
    digits = part
    if digits.startswith("0x"):
        base, digits = 16, digits[2:]
    elif len(digits) > 1 and digits.startswith("0"):
        base, digits = 8, digits[1:]
    if digits == "":
        return 0
    try:
        if len(digits) > 16 or "_" in digits:  # noqa: PLR2004
            raise ValueError
        return int(digits, base)
    except ValueError:
        raise HostSyntaxError("not an IPv4 address") from None
