"""Hosts as values: one spelling for one host (WHATWG URL §3.5), and nothing that two readers could take for two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsguard.vocabulary.host import Host, HostSyntaxError, normalise_host

ONE_SPELLING = [
    ("APP.Example.COM", "app.example.com"),
    ("app.example.com.", "app.example.com"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("app。example", "app.example"),
    ("faß.example", "xn--fa-hia.example"),
    ("127.1", "127.0.0.1"),
    ("0x7f.0.0.1", "127.0.0.1"),
    ("0177.0.0.1", "127.0.0.1"),
    ("2130706433", "127.0.0.1"),
    ("[0:0:0:0:0:0:0:1]", "[::1]"),
    ("[2001:DB8:0:0:1:0:0:1]", "[2001:db8::1:0:0:1]"),
    ("[::ffff:1.2.3.4]", "[::ffff:102:304]"),
    ("under_score.example", "under_score.example"),
]

NO_HOST = [
    "",
    ".",
    "a..b",
    "-a.example",
    "a-.example",
    "a b",
    "a/b",
    "a%41",
    "a@b",
    "256.0.0.1",
    "1.2.3.4.5",
    "08.0.0.1",
    "[::1",
    "[::g]",
    "[fe80::1%eth0]",
    "[1::2::3]",
    "x" * 64 + ".example",
    ".".join(["abcdefgh"] * 32),
    "a,b",
    'a"b',
    "a;b",
]

NO_HOST_FIELD = [
    b"a:",
    b"a:+1",
    b"a:-1",
    b"a:65536",
    b"a:123456",
    b"a: 80",
    b"a:80:80",
    b"a/?x=",
    b"a\xc3\xa9",
    b"u@a",
    b"[::1]80",
    b"::1",
]


@pytest.mark.parametrize(("written", "value"), ONE_SPELLING)
def test_each_host_has_one_spelling(written: str, value: str) -> None:
    """Two spellings of one host must not meet two policies."""
    assert normalise_host(written) == value


@pytest.mark.parametrize("text", NO_HOST)
def test_what_is_no_host_is_refused(text: str) -> None:
    """A host that another parser would read differently never becomes a value."""
    with pytest.raises(HostSyntaxError):
        normalise_host(text)


@pytest.mark.parametrize("value", NO_HOST_FIELD)
def test_what_is_no_host_field_is_refused(value: bytes) -> None:
    """B-HOST-01: a Host field is uri-host [":" port] and nothing else."""
    with pytest.raises(HostSyntaxError):
        Host.parse(value)


def test_port_is_a_number() -> None:
    """A port is compared as a value, not as text."""
    assert Host.parse(b"app.test:0443") == Host("app.test", 443)
    assert Host.parse(b"[::1]:8443") == Host("[::1]", 8443)
    assert str(Host("[::1]", 8443)) == "[::1]:8443"


@pytest.mark.parametrize("name", ["localhost", "app.localhost", "127.0.0.1", "127.255.0.9", "[::1]"])
def test_loopback_is_recognised(name: str) -> None:
    """These names mean this machine (RFC 6761 §6.3)."""
    assert Host(name).is_loopback


@pytest.mark.parametrize("name", ["127.attacker.example", "localhost.evil.test", "notlocalhost", "128.0.0.1", "[::2]"])
def test_loopback_is_parsed_not_prefixed_host(name: str) -> None:
    """B-ORIGIN-08: a name that begins or ends like loopback is none."""
    assert not Host(name).is_loopback


@given(st.text(max_size=40))
def test_normalising_is_idempotent_and_raises_only_its_error(text: str) -> None:
    """Whatever a stranger sends becomes one fixed value or HostSyntaxError, never another exception."""
    try:
        once = normalise_host(text)
    except HostSyntaxError:
        return
    assert once.isascii()
    assert once == once.lower()
    assert normalise_host(once) == once


@given(st.binary(max_size=40))
def test_parsing_a_field_raises_only_its_error(value: bytes) -> None:
    """Any bytes are a Host or HostSyntaxError; a Host serialises to something that parses to itself."""
    try:
        host = Host.parse(value)
    except HostSyntaxError:
        return
    assert Host.parse(str(host).encode()) == host


@given(st.ip_addresses(v=6))
def test_every_ipv6_address_has_one_spelling(address: object) -> None:
    """Compressed or exploded, an address is one value."""
    exploded = getattr(address, "exploded")  # noqa: B009 - the strategy's type is a union
    assert normalise_host(f"[{exploded}]") == normalise_host(f"[{str(address).upper()}]")
