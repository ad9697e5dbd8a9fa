"""
A certificate authority for this machine's own development, made on first use in the user's data folder.

It can vouch for nothing but localhost, ``.test`` and loopback addresses: critical name constraints (RFC 5280 §4.2.1.10)
see to that even if its key is stolen. It is never put into a trust store; `trust_instructions` says how a person does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.host import Host

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

AUTHORITY_DAYS = 825
LEAF_DAYS = 30
_RENEW_DAYS = 30
_DOMAINS = ("localhost", "test")
_NETWORKS = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_CERTIFICATE, _KEY = "ca.pem", "ca.key"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A server certificate of the authority, as PEM; *certificate_pem* holds the chain."""

    certificate: x509.Certificate
    certificate_pem: bytes
    key_pem: bytes

    @property
    def spki_sha256_base64(self) -> str:
        """What Chromium's ``--ignore-certificate-errors-spki-list`` takes: the public key's SHA-256 in base64."""
        spki = self.certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(hashlib.sha256(spki).digest()).decode("ascii")


class DevelopmentAuthority:
    """The authority of one data folder."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.folder = folder
        self.certificate = certificate
        self._key = key

    @classmethod
    def open(cls, folder: Path | None = None) -> DevelopmentAuthority:
        """
        Open the authority in *folder* (the user's data folder), making it if it is missing or about to expire.

        Raises ConfigurationError when the folder cannot be written or its files are no certificate and key.
        """
        folder = folder or default_folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder):
                return _load(folder) or _create(folder)
        except OSError as error:
            found = f"{error.filename or folder} ({error.strerror})"
            raise ConfigurationError(
                "development CA", found, "a folder that can be written, or --cert and --key"
            ) from None
        except ValueError:
            raise ConfigurationError(
                "development CA",
                f"{folder / _CERTIFICATE} and {_KEY}",
                "its own PEM files; remove the folder to make new ones",
            ) from None

    @property
    def certificate_path(self) -> Path:
        """Where the authority's certificate stands."""
        return self.folder / _CERTIFICATE

    @property
    def fingerprint(self) -> str:
        """The certificate's SHA-256, in pairs of hexadecimal digits."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def vouches_for(self, name: str) -> bool:
        """Tell whether a certificate of this authority may name the host *name*."""
        return inside_constraints(name)

    def issue(self, names: Sequence[str]) -> Leaf:
        """
        Issue a server certificate for *names*, each written out (browsers refuse ``*.localhost``).

        Raises ConfigurationError for a name outside of the constraints.
        """
        for name in names:
            if not inside_constraints(name):
                raise ConfigurationError("host", repr(name), "a name under localhost or .test, or a loopback address")
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=LEAF_DAYS) - timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(_authority_key_identifier(self.certificate), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        chain += self.certificate.public_bytes(serialization.Encoding.PEM)
        return Leaf(certificate, chain, _key_pem(key))

    def write_leaf(self, names: Sequence[str]) -> tuple[Path, Path]:
        """Issue for *names* and write certificate and key (mode 0600) into the data folder; return their paths."""
        leaf = self.issue(names)
        stem = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        certificate, key = self.folder / f"leaf-{stem}.pem", self.folder / f"leaf-{stem}.key"
        _write(key, leaf.key_pem, 0o600)
        _write(certificate, leaf.certificate_pem, 0o644)
        return certificate, key


def default_folder() -> Path:
    """Return the user's data folder for it (XDG Base Directory; Application Support; LOCALAPPDATA)."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        written = os.environ.get("XDG_DATA_HOME", "")
        base = Path(written) if written.startswith("/") else Path.home() / ".local" / "share"
    return base / "wsguard" / "dev-ca"


def inside_constraints(name: str) -> bool:
    """Tell whether the authority may vouch for the host *name*."""
    host = Host.parse_entry(name if ":" not in name or name.startswith("[") else f"[{name}]")
    if host.is_ip_literal:
        address = ipaddress.ip_address(host.name.strip("[]"))
        return any(address in network for network in _NETWORKS if network.version == address.version)
    return any(host.name == domain or host.name.endswith("." + domain) for domain in _DOMAINS)


def trust_instructions(authority: DevelopmentAuthority) -> str:
    """Say how a person makes browsers and tools trust it, and that nothing here does so by itself."""
    path = authority.certificate_path
    return (
        "Nothing trusts it until you say so. It can vouch only for localhost, .test and loopback addresses.\n"
        f"  curl, Python:   --cacert {path}   /   SSL_CERT_FILE={path}\n"
        f"  Node.js:        NODE_EXTRA_CA_CERTS={path}\n"
        f"  Chromium:       certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n wsguard-dev -i {path}\n"
        "  Firefox:        Settings → Certificates → View Certificates → Authorities → Import\n"
        f"  Debian:         sudo cp {path} /usr/local/share/ca-certificates/wsguard-dev.crt\n"
        "                  sudo update-ca-certificates\n"
        f"  macOS:          security add-trusted-cert -k ~/Library/Keychains/login.keychain-db {path}"
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Hold the folder, so that two first uses at once make one authority."""
    with (folder / "lock").open("w") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _load(folder: Path) -> DevelopmentAuthority | None:
    certificate_path, key_path = folder / _CERTIFICATE, folder / _KEY
    if not certificate_path.exists() or not key_path.exists():
        return None
    certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    if certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=_RENEW_DAYS):
        return None
    key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("no pair")
    return DevelopmentAuthority(folder, certificate, key)


def _create(folder: Path) -> DevelopmentAuthority:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wsguard development CA (localhost and .test only)")])
    permitted: list[x509.GeneralName] = [x509.DNSName(domain) for domain in _DOMAINS]
    permitted += [x509.IPAddress(network) for network in _NETWORKS]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder / _KEY, _key_pem(key), 0o600)
    _write(folder / _CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return DevelopmentAuthority(folder, certificate, key)


def _write(path: Path, data: bytes, mode: int) -> None:
    # Written beside and renamed: a second process never reads half a file, and the mode is right from the first byte.
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    beside.replace(path)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)


def _authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
