"""The certificate of the servers on loopback: self-signed, made in memory, trusted by nobody but our own client."""

from __future__ import annotations

import ssl
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

_LIFETIME = timedelta(days=7)
_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Certificate:
    """Certificate and key in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    @contextmanager
    def files(self) -> Generator[tuple[Path, Path]]:
        """Write both into a folder of their own for as long as the block runs: servers read files."""
        with tempfile.TemporaryDirectory(prefix="wsguard-testing-") as folder:
            certificate, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
            certificate.write_bytes(self.certificate)
            key.write_bytes(self.key)
            yield certificate, key

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts this certificate alone, whatever name is asked for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the names are the policy's; the one trusted certificate is proof enough
        context.load_verify_locations(cadata=self.certificate.decode("ascii"))
        return context


@cache
def loopback_certificate() -> Certificate:
    """Return the one of this process. Raises ModuleNotFoundError without ``cryptography``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wsguard.testing on loopback")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
