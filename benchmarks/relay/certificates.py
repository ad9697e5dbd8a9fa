"""The one certificate all proxies show: ECDSA P-256, from a CA that the load trusts and nobody else."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

from benchmarks.relay.handshake import HOST


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path
    pair: Path
    """Key and certificate in one file, as HAProxy wants it."""
    context: ssl.SSLContext
    """For the load: TLS 1.3 only."""


def make_certificate(folder: Path) -> Certificate:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = authority.issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    certificate, key, pair = (folder / name for name in ("bench.pem", "bench.key", "bench.pair.pem"))
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    leaf.private_key_and_cert_chain_pem.write_to_path(pair)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority.configure_trust(context)
    return Certificate(certificate, key, pair, context)
