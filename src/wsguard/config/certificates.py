"""Which certificate a listener of ours uses: the operator's, or on loopback a development certificate."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography import x509

from wsguard.config.file import flag_of, written_entries
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.host import Host, HostSyntaxError
from wsguard.vocabulary.origin import Origin, parse_origin_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsguard.config.file import ServedConfig

DEVELOPMENT_NAMES = ("localhost", "127.0.0.1", "::1")


class DevelopmentCertificates(Protocol):
    """What vouches for this machine's own names where no certificate is given; the CLI hands `wsguard.dev_ca` in."""

    def vouches_for(self, name: str) -> bool:
        """Tell whether a certificate may name the host *name*."""
        ...

    def write_leaf(self, names: Sequence[str]) -> tuple[Path, Path]:
        """Issue a certificate for *names*; return the files of certificate and key."""
        ...


class Certificate:
    """Which files a listener uses, and the names that the certificate holds."""

    def __init__(
        self, certificate: Path, key: Path, names: tuple[str, ...], issuer: DevelopmentCertificates | None = None
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.names = names
        self.issuer = issuer


def certificate_of(
    config: ServedConfig, addresses: Sequence[str], development: Callable[[], DevelopmentCertificates]
) -> Certificate:
    """
    Return the certificate of listeners on *addresses*; *development* is called where a loopback one has none.

    Raises ConfigurationError for half a pair, for an unreadable file, and for a public listener without one.
    """
    if (config.cert is None) != (config.key is None):
        missing = "key" if config.key is None else "cert"
        raise ConfigurationError(missing, "nothing", f"{flag_of(missing)} too: a certificate and its key go together")
    if config.cert is not None and config.key is not None:
        certificate = Path(config.cert)
        return Certificate(certificate, Path(config.key), _names_of(certificate))
    public = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if public:
        raise ConfigurationError(
            "cert",
            f"nothing, and a listener on {public[0]}",
            "--cert app.pem --key app.key (from your CA, or certbot); only loopback gets a development certificate",
        )
    return _development_certificate(config, development())


def _development_certificate(config: ServedConfig, issuer: DevelopmentCertificates) -> Certificate:
    names: list[str] = list(DEVELOPMENT_NAMES)
    for entry in _all_hosts(config):
        try:
            host = Host.parse_entry(entry)
            inside = issuer.vouches_for(host.name)
        except HostSyntaxError:
            continue  # the policy tells this error, with what to write
        if not inside:
            raise ConfigurationError(
                "hosts",
                repr(entry),
                "a name that the development CA may vouch for (localhost, .test, loopback), or --cert and --key",
            )
        if host.name.strip("[]") not in names:
            names.append(host.name.strip("[]"))
    certificate, key = issuer.write_leaf(names)
    return Certificate(certificate, key, tuple(names), issuer)


def _all_hosts(config: ServedConfig) -> list[str]:
    return [entry for keys in (config, *(config.route or ())) for entry in written_entries(keys.hosts)]


def _names_of(path: Path) -> tuple[str, ...]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigurationError("cert", f"{path} ({error.strerror})", "a file that can be read") from None
    except ValueError:
        raise ConfigurationError("cert", str(path), "a PEM certificate") from None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    found = [*names.get_values_for_type(x509.DNSName), *(str(ip) for ip in names.get_values_for_type(x509.IPAddress))]
    return tuple(found)


def unnamed_origins(config: ServedConfig, certificate: Certificate) -> list[str]:
    """Say which allowed origins a development certificate does not name."""
    issuer = certificate.issuer
    if issuer is None:
        return []
    notices: list[str] = []
    listed = dict.fromkeys(text for keys in (config, *(config.route or ())) for text in written_entries(keys.origins))
    for text in listed:
        entry = parse_origin_entry(text)
        if isinstance(entry, Origin) and entry.scheme == "https" and entry.host.strip("[]") not in certificate.names:
            way = f"write --host {entry.host}" if issuer.vouches_for(entry.host) else "write --cert and --key"
            notices.append(f"{text} is allowed, but the development certificate does not name {entry.host}: {way}")
    return notices
