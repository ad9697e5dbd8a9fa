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

# Mozilla "intermediate", version 5.7, for TLS 1.2; TLS 1.3's suites are all good.
_TLS12_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """
    Return the context of a listener: TLS 1.2 or later, ALPN http/1.1, no renegotiation.

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


def _must_be_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(key, f"{path} ({error.strerror})", "a file that can be read") from None
