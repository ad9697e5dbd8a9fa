"""
Bearer tokens (RFC 6750): in a header field, or for a browser's WebSocket, which can set none, among the subprotocols.

Whoever has the token may use it, and a browser never attaches one by itself: it is explicit. A token that is there and
does not count is refused, never passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.engine.checks.subprotocols import KUBERNETES_PREFIX
from wsguard.engine.tokens.jws import decode_base64url
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Carriage, TokenVerifier
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.identity import Identity

_PREFIXES = ("wsguard.bearer.", KUBERNETES_PREFIX)
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_SCHEME = re.compile(rb"(?P<scheme>[!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(?P<rest>.*))?", re.DOTALL)
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750 §2.1
# Set by the browser or by what carries the message: no script or client puts a credential of its own there.
_TAKEN = frozenset(
    {
        "connection",
        "content-length",
        "cookie",
        "forwarded",
        "host",
        "origin",
        "referer",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_TAKEN_PREFIXES = ("sec-", "proxy-", "x-forwarded-", "x-wsguard")


@dataclass(frozen=True)
class Bearer:
    """
    Where a bearer token stands: the field *header*.

    In ``Authorization`` it is ``Bearer TOKEN``; in a field of another name it is the token alone. Raises
    ConfigurationError for a name that is none or is set by browsers or by the protocol.
    """

    header: str = "Authorization"

    def __post_init__(self) -> None:
        """Refuse a field that cannot hold one."""
        name = self.header.lower()
        if not _FIELD_NAME.fullmatch(name) or name in _TAKEN or name.startswith(_TAKEN_PREFIXES):
            raise ConfigurationError("bearer.header", repr(self.header), "a field of the client's own, like X-Token")

    @property
    def name(self) -> bytes:
        """The field's name as `Fields` has it."""
        return self.header.lower().encode("ascii")


class BearerAuthenticator:
    """Reads the token of the header that *bearer* names; *verifier* says whose it is."""

    name: str = "bearer"
    carriage: Carriage = "explicit"
    in_header: bool = True

    def __init__(self, verifier: TokenVerifier, bearer: Bearer | None = None) -> None:
        self._verifier = verifier
        self.field_name = (bearer or Bearer()).name

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Say whose token stands in the header; None where there is none, as with another scheme (Basic)."""
        sent = self.sent(handshake, context)
        return await _judged(self, sent, self._verifier, handshake, context) if sent else None

    def sent(self, handshake: Handshake, context: Context) -> list[str | None]:
        """Return the tokens that were sent this way; None stands for one that cannot be one."""
        values = handshake.fields.values(self.field_name)
        if self.field_name != b"authorization":
            return [_read_token(value) for value in values]
        schemes = [match for value in values if (match := _SCHEME.match(value))]
        return [_read_token(match["rest"] or b"") for match in schemes if match["scheme"].lower() == b"bearer"]


class BearerSubprotocolAuthenticator:
    """
    Reads the token that is offered as a subprotocol, in unpadded base64url.

    Either ``wsguard.bearer.…`` or Kubernetes' ``base64url.bearer.authorization.k8s.io.…``.
    """

    name: str = "bearer_subprotocol"
    carriage: Carriage = "explicit"

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Say whose token was offered, or None."""
        sent = self.sent(handshake, context)
        return await _judged(self, sent, self._verifier, handshake, context) if sent else None

    def sent(self, handshake: Handshake, context: Context) -> list[str | None]:
        """Return the tokens that were offered; None stands for one that cannot be one."""
        return [
            _offered_token(entry.removeprefix(prefix))
            for entry in context.subprotocols.removed
            for prefix in _PREFIXES
            if entry.startswith(prefix)
        ]


async def _judged(
    asked: BearerAuthenticator | BearerSubprotocolAuthenticator,
    sent: list[str | None],
    verifier: TokenVerifier,
    handshake: Handshake,
    context: Context,
) -> Identity | Refusal:
    if len(sent) > 1 or _sent_elsewhere(asked, handshake, context):
        return Refusal(reasons.CREDENTIAL_REPEATED, asked.name)
    token = sent[0]
    if token is None:
        return Refusal(reasons.TOKEN_MALFORMED, asked.name)
    return await verifier.verify(token, context.now)


def _sent_elsewhere(asked: object, handshake: Handshake, context: Context) -> bool:
    """Tell whether the route's other kind of bearer token was sent too: nobody can say which one was meant."""
    others = () if context.route is None else context.route.authenticators
    return any(
        isinstance(other, BearerAuthenticator | BearerSubprotocolAuthenticator)
        and other.name != getattr(asked, "name", None)
        and other.sent(handshake, context)
        for other in others
    )


def _read_token(value: bytes) -> str | None:
    try:
        token = value.decode("ascii")
    except UnicodeDecodeError:
        return None
    return token if _B64TOKEN.fullmatch(token) else None


def _offered_token(encoded: str) -> str | None:
    try:
        return _read_token(decode_base64url(encoded))
    except ValueError:
        return None
