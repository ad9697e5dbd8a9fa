"""What a mount answers, as values: a refusal's fields and text, and the subprotocol of an acceptance."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from wsguard.engine.checks.subprotocols import COMPANION, KUBERNETES_PREFIX, SECRET_PREFIXES
from wsguard.engine.delivery import delivered_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.forwarding import RawFields
    from wsguard.vocabulary.decision import Accept


def refusal_answer(
    status: int, request_id: str, *, host: bytes | None, secure: bool, headers: tuple[tuple[str, str], ...] = ()
) -> tuple[RawFields, bytes]:
    """Return fields and body of a refusal: a fixed short text and the request id, and the connection's end."""
    text = f"{status} {HTTPStatus(status).phrase}\nrequest id: {request_id}\n".encode()
    fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(text)),
        (b"Connection", b"close"),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"X-Request-Id", request_id.encode("ascii")),
        *((name.encode("ascii"), value.encode("ascii")) for name, value in headers),
    ]
    return delivered_fields(fields, host=host, secure=secure), text


def answered_subprotocol(accept: Accept, selected: str | None) -> str | None:
    """Return what is answered: the app's choice, else the companion where it was offered; never a secret."""
    if selected is not None:
        return selected
    return COMPANION if accept.subprotocols.companion_offered else None


def refused_subprotocol(offered: Sequence[str]) -> str | None:
    """
    Return what a socket answers that is opened only to be closed with a code; never what may be a secret.

    Chromium fails a socket whose offer is not answered, and would not see the code.
    """
    if COMPANION in offered:
        return COMPANION
    secrets = (*SECRET_PREFIXES, KUBERNETES_PREFIX)
    return next((name for name in offered if not name.startswith(secrets)), None)
