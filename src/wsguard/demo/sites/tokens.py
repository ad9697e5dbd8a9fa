"""
The access tokens of the chat that wants tickets: it signs them itself (HS256), as many apps do.

The gateway knows the secret by a file (`[jwt."…"] secret_file`).
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from joserfc import jwt
from joserfc.jwk import OctKey

if TYPE_CHECKING:
    from pathlib import Path

LIFETIME = 300


class TokenIssuer:
    """Signs tokens as the issuer *name*, for the audience of the same name."""

    def __init__(self, name: str, secret: str) -> None:
        self._name = name
        self._secret = secret

    def mint(self, subject: str) -> str:
        """Return a token of *subject* that is good for five minutes."""
        now = time.time()
        claims: dict[str, str | float] = {
            "iss": self._name,
            "aud": self._name,
            "client_id": "chat",
            "sub": subject,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + LIFETIME,
        }
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, OctKey.import_key(self._secret))

    def write_secret(self, path: Path) -> None:
        """Write the secret to a new file, for its owner alone."""
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(self._secret, encoding="utf-8")
