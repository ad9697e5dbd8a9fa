"""A throw-away CA of client certificates: good ones, and whatever no CA should issue."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DNS, Email, URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier
SAN = x509.OID_SUBJECT_ALTERNATIVE_NAME


@dataclass(frozen=True)
class Client:
    """A client certificate and its key, in one PEM file."""

    file: Path
    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, in hexadecimal digits."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def context(self, authority: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """A client that shows this certificate and trusts *authority*, which vouches for the server."""
        context = ssl.create_default_context(cafile=authority)
        context.check_hostname = False
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(self.file)
        return context


class ClientCA:
    """A root, or an intermediate below *parent*."""

    def __init__(self, folder: Path, name: str = "clients", parent: ClientCA | None = None) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = named(name)
        signer = self if parent is None else parent
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = begun(self.name, signer.name, self.key)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
        self.certificate = builder.sign(signer.key, hashes.SHA256())
        self.file = folder / f"{name}-ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        *names: x509.GeneralName,
        file: str = "client.pem",
        begin: timedelta = timedelta(minutes=-5),
        end: timedelta = timedelta(hours=1),
        common_name: str = "common.name",
        raw_san: bytes | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        chain: Sequence[ClientCA] = (),
    ) -> Client:
        """Issue a certificate with *names* in its subjectAltName, or *raw_san* as its DER."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = begun(named(common_name), self.name, key, begin, end)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        if raw_san is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(SAN, raw_san), False)
        elif names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        secret = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        parts = [certificate.public_bytes(Encoding.PEM), *(one.file.read_bytes() for one in chain), secret]
        (self.folder / file).write_bytes(b"".join(parts))
        return Client(self.folder / file, certificate)

    def crl(self, *revoked: Client | ClientCA, file: str = "clients.crl", age: timedelta = timedelta()) -> Path:
        """Write the CRL that revokes these; it is good for an hour, *age* ago."""
        now = datetime.now(UTC) - age
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - timedelta(minutes=1)).next_update(now + timedelta(hours=1))
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        signed = builder.sign(self.key, hashes.SHA256())
        (self.folder / file).write_bytes(signed.public_bytes(Encoding.PEM))
        return self.folder / file


def named(text: str) -> x509.Name:
    """A name that is a common name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: timedelta = timedelta(minutes=-5),
    end: timedelta = timedelta(hours=1),
) -> x509.CertificateBuilder:
    """A certificate that is still to be extended and signed."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now + begin).not_valid_after(now + end)
