"""What a verified client certificate says, read once a connection: the engine parses no certificates."""

from __future__ import annotations

import hashlib

from wsguard.vocabulary.handshake import PeerCertificate

_MOST_NAMES = 2
_LONGEST_NAME = 1024


class _Fault(ValueError):
    """Why the certificate is not read. The message never quotes it."""


def read_client_certificate(der: bytes) -> PeerCertificate:
    """
    Return what *der* says, an X.509 certificate that TLS has verified (RFC 5280 §4.1).

    Raises nothing: one that cannot be read, or a name that is none, gives a certificate with a fault.
    """
    fingerprint = hashlib.sha256(der).hexdigest()
    try:
        return _read(der, fingerprint)
    except _Fault as fault:
        return PeerCertificate(fingerprint, fault=str(fault))
    except Exception as error:  # noqa: BLE001 - fail closed: whatever the parser raises, it names nobody
        return PeerCertificate(fingerprint, fault=f"it cannot be read ({type(error).__name__})")


def _read(der: bytes, fingerprint: str) -> PeerCertificate:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = x509.SubjectAlternativeName([])
    return PeerCertificate(
        fingerprint,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        # DNS names are the same in any letter case (RFC 4343); the other kinds are not.
        dns=tuple(name.lower() for name in _names(alternatives.get_values_for_type(x509.DNSName))),
        email=_names(alternatives.get_values_for_type(x509.RFC822Name)),
        uri=_names(alternatives.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def _names(found: list[str]) -> tuple[str, ...]:
    """Return the first names of *found*. Raises _Fault for one that is none: a NUL has hidden the rest before."""
    for name in found:
        if not 0 < len(name) <= _LONGEST_NAME:
            raise _Fault(f"a name is empty, or longer than {_LONGEST_NAME} characters")
        if not all("!" <= character <= "~" for character in name):
            raise _Fault("a name holds something else than visible ASCII")
    return tuple(found[:_MOST_NAMES])
