"""What is read from a client certificate that TLS has verified: names that are names, and never an exception."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import DirectoryName

from tests.client_authority import DNS, URI, Client, ClientCA, Email, named
from wsguard.tls.certificates import read_client_certificate


@pytest.fixture
def ca(tmp_path: Path) -> ClientCA:
    return ClientCA(tmp_path)


def der(client: Client) -> bytes:
    return client.certificate.public_bytes(Encoding.DER)


def test_names_times_and_fingerprint(ca: ClientCA) -> None:
    """Names by their kind: DNS in lower case, the others as they are. Two of a kind tell that there are several."""
    names = [DNS("A.Test"), DNS("b.test"), DNS("c.test"), Email("Me@Test"), URI("spiffe://Test/Me")]
    client = ca.issue(*names, DirectoryName(named("x")), end=timedelta(hours=2))
    found = read_client_certificate(der(client))
    assert (found.dns, found.email, found.uri) == (("a.test", "b.test"), ("Me@Test",), ("spiffe://Test/Me",))
    assert found.fingerprint == hashlib.sha256(der(client)).hexdigest() == client.fingerprint
    assert found.not_before == client.certificate.not_valid_before_utc.timestamp()
    assert found.not_after == client.certificate.not_valid_after_utc.timestamp()
    assert found.fault is None


def test_the_common_name_is_no_name(ca: ClientCA) -> None:
    found = read_client_certificate(der(ca.issue(common_name="robot.test")))
    assert (found.dns, found.email, found.uri, found.fault) == ((), (), (), None)


def general_name(tag: int, content: bytes) -> bytes:
    """A GeneralNames with one name (RFC 5280 §4.2.1.6), whatever bytes it has."""
    name = bytes([tag]) + length(content) + content
    return b"\x30" + length(name) + name


def length(content: bytes) -> bytes:
    return bytes([len(content)]) if len(content) < 128 else b"\x82" + len(content).to_bytes(2, "big")


@pytest.mark.parametrize(
    "san",
    [
        general_name(0x82, b"good\0bad"),
        general_name(0x82, b"good bad"),
        general_name(0x86, b"spiffe://test/\n"),
        general_name(0x81, b"me@test\x7f"),
        general_name(0x82, b""),
        general_name(0x82, b"a" * 1025),
        general_name(0x82, b"b\xffd"),
        general_name(0x9F, b"x"),
        b"\x30\x03\x82\x09x",
        b"",
        b"nonsense",
    ],
)
def test_a_name_that_is_none_is_a_fault(ca: ClientCA, san: bytes) -> None:
    """Cut off at a NUL it would be another's; a line end would be a field of its own."""
    found = read_client_certificate(der(ca.issue(raw_san=san)))
    assert found.fault
    assert (found.dns, found.email, found.uri) == ((), (), ())


def test_what_is_no_certificate_is_a_fault() -> None:
    found = read_client_certificate(b"nonsense")
    assert found.fault == "it cannot be read (ValueError)"
    assert found.fingerprint == hashlib.sha256(b"nonsense").hexdigest()
