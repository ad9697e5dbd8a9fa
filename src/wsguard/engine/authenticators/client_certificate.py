"""
Client certificates: the listener has verified one, and a name in its subjectAltName says who it is.

Ambient: a browser shows the certificate that its user once chose to every page's handshake, a foreign page's too. So it
counts only beside a listed origin, or where browsers are refused (`wsguard.engine.carriage`).

The name never comes from the common name: RFC 5280 gives that no type, and CAs write anything there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.identity import Identity

if TYPE_CHECKING:
    from pathlib import Path

    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Carriage
    from wsguard.vocabulary.handshake import Handshake, PeerCertificate

SubjectKind = Literal["dns", "email", "uri"]
"""The kinds of a subjectAltName that can name a client: dNSName, rfc822Name, uniformResourceIdentifier."""


@dataclass(frozen=True, kw_only=True)
class ClientCertificate:
    """
    Client certificates of the CAs in *ca*, for the gateway alone: no ASGI server passes them to an app.

    *ca* is a PEM file of CA certificates, each trusted by itself, and nobody else is; *crl* a PEM file of what they
    have revoked, with a CRL of each of them. *subject* is the kind of subjectAltName that names the client; a
    certificate must hold exactly one of it. *issuer* is the identity's issuer: a name of your own, so that an identity
    outlives a change of the CA.

    Raises ConfigurationError for another *subject*, and for an empty *issuer*.
    """

    ca: str | Path
    subject: SubjectKind
    crl: str | Path | None = None
    issuer: str = "client_certificate"

    def __post_init__(self) -> None:
        """Refuse what names nobody."""
        kinds = get_args(SubjectKind)
        if self.subject not in kinds:
            raise ConfigurationError("client_certificate.subject", repr(self.subject), f"one of {', '.join(kinds)}")
        if not self.issuer:
            raise ConfigurationError("client_certificate.issuer", repr(self.issuer), "a name, or none written")


class ClientCertificateAuthenticator:
    """Reads who it is from the certificate of the TLS connection, by the rule that *options* give."""

    name = "client_certificate"
    carriage: Carriage = "ambient"

    def __init__(self, options: ClientCertificate) -> None:
        self._options = options

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Say whose certificate the connection has; None where it has none."""
        certificate = None if handshake.tls is None else handshake.tls.certificate
        if certificate is None or context.client.through_proxy:
            return None  # what a proxy shows is its own certificate, not the client's
        return _unusable(certificate, context.now) or self._identity(certificate)

    def _identity(self, certificate: PeerCertificate) -> Identity | Refusal:
        names: tuple[str, ...] = getattr(certificate, self._options.subject)
        if len(names) != 1 or "*" in names[0]:
            found = "a pattern" if len(names) == 1 else f"{'several' if names else 'none'}"
            detail = f"{found} of the kind {self._options.subject} in the subjectAltName"
            return Refusal(reasons.CLIENT_CERTIFICATE_SUBJECT, detail, setting="client_certificate.subject")
        return Identity(
            subject=names[0],
            issuer=self._options.issuer,
            method=self.name,
            credential_id=certificate.fingerprint,
            expires_at=certificate.not_after,
            issued_at=certificate.not_before,
        )


def _unusable(certificate: PeerCertificate, now: float) -> Refusal | None:
    """Return why *certificate* says nothing at *now*: a connection that is kept alive outlives what was verified."""
    if certificate.fault is not None:
        return Refusal(reasons.CLIENT_CERTIFICATE_MALFORMED, certificate.fault)
    if certificate.not_after <= now:
        return Refusal(reasons.CREDENTIAL_EXPIRED, f"client certificate {certificate.fingerprint}")
    if certificate.not_before > now:
        return Refusal(reasons.CREDENTIAL_INVALID, f"client certificate {certificate.fingerprint} is not valid yet")
    return None
