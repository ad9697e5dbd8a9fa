"""Who sent a handshake, by Django's session cookie."""

import hashlib
from typing import Literal

from channels.auth import get_user
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore

from wsguard import Context, Handshake, Identity, Refusal, only_cookie, reasons


class DjangoSession:
    """
    Asks Django whose session it is.

    Browsers attach the cookie by themselves, to a foreign page's handshake too: it is *ambient*, and wsguard demands
    that the origins beside it are written out.
    """

    name = "django_session"
    carriage: Literal["ambient"] = "ambient"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Look the session up; one that is unknown, expired or nobody's is refused."""
        key = only_cookie(handshake, settings.SESSION_COOKIE_NAME)
        if key is None or isinstance(key, Refusal):
            return key  # none, or two: a sibling domain may have set one of them
        session = SessionStore(key)
        user = await get_user({"session": session})  # with the check that Django makes after a change of password
        if not user.is_authenticated or not user.is_active:
            return Refusal(reasons.CREDENTIAL_INVALID)
        expiry = await session.aget_expiry_date()
        return Identity(
            subject=user.get_username(),
            issuer="django",
            method=self.name,
            credential_id=hashlib.sha256(key.encode()).hexdigest()[:16],  # the key itself stands in no log
            expires_at=expiry.timestamp(),
        )
