"""
The one place where a TLS context is made that aiofastnet or an outbound call gets.

No Python callback is ever set on one, neither ``sni_callback`` nor a key log: aiofastnet 1.2.0's direct engine ends the
process with SIGSEGV at the first ClientHello (2026-11). `ssl.create_default_context` sets a key log by itself where
SSLKEYLOGFILE is in the environment, so it is not used here.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from wsguard.tls.client_authority import ClientAuthority

# Mozilla "intermediate", version 5.7, for TLS 1.2; TLS 1.3's suites are all good.
_TLS12_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)


def server_context(certificate: Path, key: Path, clients: ClientAuthority | None = None) -> ssl.SSLContext:
    """
    Return the context of a listener: TLS 1.2 or later, ALPN http/1.1, no renegotiation.

    With *clients* it asks for a client certificate, takes none for an answer, and ends the TLS handshake of one that
    does not verify against these CAs and their CRLs; otherwise it asks for none.

    Raises ConfigurationError, which names the file, when one cannot be read or the two are no pair.
    """
    _must_be_readable("cert", certificate)
    _must_be_readable("key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_TLS12_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A key with a passphrase would ask on the terminal, and a service would wait for ever.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        found = f"{certificate} and {key} ({error.reason or 'no PEM certificate and key'})"
        raise ConfigurationError(
            "cert, key", found, "a PEM certificate chain and its own private key, unencrypted"
        ) from None
    if clients is not None:
        _ask_for_certificates(context, clients)
    return context


def client_context(authority: Path | None = None) -> ssl.SSLContext:
    """
    Return the context of an outgoing call: certificate and name are verified, against the system's CAs and *authority*.

    Raises ConfigurationError when *authority* cannot be read or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    if authority is not None:
        _must_be_readable("upstream_ca", authority)
        try:
            context.load_verify_locations(cafile=authority)
        except ssl.SSLError:
            raise ConfigurationError("upstream_ca", str(authority), "a file of PEM certificates") from None
    return context


def _ask_for_certificates(context: ssl.SSLContext, clients: ClientAuthority) -> None:
    # A resumed session would not be verified anew against CRL and clock (RFC 8446 §2.2): none in TLS 1.3, and no
    # tickets in TLS 1.2. OpenSSL's own memory of TLS 1.2 sessions, which Python cannot turn off, keeps the certificate.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    # What the operator lists is trusted by itself, so that an intermediate CA can stand there without its root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load_exactly(context, "client_certificate.ca", clients.ca, {"x509": clients.certificates})
    if clients.crl is not None:
        _load_exactly(context, "client_certificate.crl", clients.crl, {"crl": clients.crls})
        # Above an intermediate that is trusted by itself OpenSSL finds nobody to verify a CRL by.
        chain = clients.are_roots
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN if chain else ssl.VERIFY_CRL_CHECK_LEAF
    context.verify_mode = ssl.CERT_OPTIONAL


def _load_exactly(context: ssl.SSLContext, key: str, path: Path, more: dict[str, int]) -> None:
    """Load the file, and make sure that what has been read and judged before is what OpenSSL trusts now."""
    before = context.cert_store_stats()
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(key, f"{path} ({error})", "a PEM file that OpenSSL can read") from None
    after = context.cert_store_stats()
    if any(after[kind] - before[kind] != more.get(kind, 0) for kind in ("x509", "crl")):
        raise ConfigurationError(key, f"{path}, which has just changed", "a file that stays as it is during the start")


def _must_be_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(key, f"{path} ({error.strerror})", "a file that can be read") from None
