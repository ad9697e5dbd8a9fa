"""
The CAs whose client certificates count, and what they have revoked: files that are read and judged before the start.

A file that is missing, empty, broken, or holds something else ends the start: an error that is passed over here would
let the certificates of any CA in (B-TLS-02). The system's CAs are never asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography import x509

    from wsguard.engine.authenticators.client_certificate import ClientCertificate

_CA_KEY = "client_certificate.ca"
_CRL_KEY = "client_certificate.crl"
_LARGEST_FILE = 16 * 1024 * 1024
# RFC 7468 §2: what stands between the lines is explanatory text.
_BLOCK = re.compile(rb"-----BEGIN ([^\n-]+)-----.*?-----END \1-----", re.DOTALL)
_BEGIN = re.compile(rb"-----(?:BEGIN|END) ")


@dataclass(frozen=True, slots=True)
class ClientAuthority:
    """
    Files that have been read and judged, and how many certificates and CRLs stand in them.

    *are_roots* tells that each of the CAs is its own issuer.
    """

    ca: Path
    certificates: int
    are_roots: bool
    crl: Path | None = None
    crls: int = 0


def read_client_authority(options: ClientCertificate) -> ClientAuthority:
    """
    Read the files that *options* name.

    Raises ConfigurationError for one that cannot be read, is empty or broken, or holds something else; for a
    certificate that is no CA's (RFC 5280 §4.2.1.9); and for a CA that has no CRL where there are CRLs.
    """
    from cryptography import x509

    path = Path(options.ca)
    expected = "a PEM file that holds CA certificates and nothing else"
    blocks = _blocks(_CA_KEY, path, b"CERTIFICATE", expected)
    try:
        authorities = [x509.load_pem_x509_certificate(block) for block in blocks]
        others = [one for one in authorities if not _is_authority(one)]
    except ValueError:
        raise ConfigurationError(_CA_KEY, f"{path} (a certificate is broken)", expected) from None
    if others:
        raise ConfigurationError(
            _CA_KEY, f"{path} with {others[0].subject.rfc4514_string()!r}, which is no CA", "CAs alone: it would be one"
        )
    roots = all(one.subject == one.issuer for one in authorities)
    if options.crl is None:
        return ClientAuthority(path, len(set(authorities)), roots)
    crl = Path(options.crl)
    return ClientAuthority(path, len(set(authorities)), roots, crl, _count_of_crls(crl, authorities))


def _count_of_crls(path: Path, authorities: list[x509.Certificate]) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    expected = "a PEM file that holds CRLs and nothing else"
    blocks = _blocks(_CRL_KEY, path, b"X509 CRL", expected)
    try:
        crls = [x509.load_pem_x509_crl(block) for block in blocks]
    except ValueError:
        raise ConfigurationError(_CRL_KEY, f"{path} (a CRL is broken)", expected) from None
    for authority in authorities:
        if not any(_is_signed_by(crl, authority) for crl in crls):
            # OpenSSL would refuse every client of that CA: nobody has said which of them are revoked.
            name = authority.subject.rfc4514_string()
            raise ConfigurationError(_CRL_KEY, f"{path} without a CRL of {name!r}", "one that each CA has signed")
    return len({crl.public_bytes(Encoding.DER) for crl in crls})


def _blocks(key: str, path: Path, label: bytes, expected: str) -> list[bytes]:
    """Return the PEM blocks of a file that holds *label* alone: OpenSSL takes whatever it finds, CAs among CRLs too."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(key, f"{path} ({error.strerror})", "a file that can be read") from None
    if len(text) > _LARGEST_FILE:
        raise ConfigurationError(key, f"{path} (larger than {_LARGEST_FILE} bytes)", expected)
    found = list(_BLOCK.finditer(text))
    if not found:
        raise ConfigurationError(key, f"{path} (nothing in PEM)", expected)
    other = next((one[1] for one in found if one[1] != label), None)
    if other is not None:
        raise ConfigurationError(key, f"{path} with a {other.decode('ascii', 'replace')}", expected)
    if _BEGIN.search(_BLOCK.sub(b"", text)) or any(len(_BEGIN.findall(one[0])) > 2 for one in found):  # noqa: PLR2004
        raise ConfigurationError(key, f"{path} (a block is cut off)", expected)
    return [one[0] + b"\n" for one in found]


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm

    if crl.issuer != authority.subject:
        return False
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # other keys raise TypeError
    except (TypeError, UnsupportedAlgorithm):
        return False
