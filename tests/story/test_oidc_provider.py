"""
Access tokens of a real, certified provider, written by other people in another language, open our sockets.

Everything is as in production: discovery and keys over TLS, an ES256 `at+jwt` by client credentials, keys that are
rotated while both run. Only the monotonic clock is the test's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.make import handshake
from tests.identity.open import World
from tests.story.oidc_provider import PROGRAM, OIDCProvider, running
from wsguard import Guard, Policy
from wsguard.engine.authenticators.bearer import Bearer, BearerAuthenticator
from wsguard.engine.tokens.jwt import JWT
from wsguard.identity.jwks import IssuerTokens
from wsguard.identity.outbound import Outbound
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.identity import Identity

pytestmark = [pytest.mark.story, pytest.mark.requires_program("node", PROGRAM)]

RESOURCE = "https://app.test"


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    return tmp_path / "issuer-ca.pem"


@pytest.fixture
def provider(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[OIDCProvider]:
    with running(require_program(PROGRAM), tmp_path, client="machine", scopes="chat read") as provider:
        yield provider


def header_of(token: str) -> dict[str, Any]:
    part = token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_access_tokens_open_sockets_while_keys_are_rotated(provider: OIDCProvider, ca: Path) -> None:
    """Discovery, RFC 9068 tokens and rotation as a provider in production does them, judged by a Guard."""
    world = World()
    outbound = Outbound(DEFAULTS, authority=ca)
    issuer = JWT(provider.issuer, audience=[RESOURCE])
    tokens = IssuerTokens([issuer], outbound=outbound, limits=DEFAULTS, clock=world.clock, log=world.log())
    guard = Guard(
        Policy(
            origins=["https://app.test"],
            auth=["bearer"],
            require={"scopes": ["chat"]},
            origin_required="unless-header-credential",
        ),
        authenticators=[BearerAuthenticator(tokens, Bearer())],
    )

    async def decided(token: str) -> Decision:
        subject = handshake({"Authorization": f"Bearer {token}", "Origin": None})
        return await guard.decide(subject, guard.client_of(subject))

    async def opens(token: str) -> None:
        decision = await decided(token)
        assert isinstance(decision, Accept), decision
        assert decision.identity is not None
        assert (decision.identity.subject, decision.identity.issuer) == ("machine", provider.issuer)

    async def refused(token: str) -> str:
        decision = await decided(token)
        assert isinstance(decision, Refuse), decision
        return decision.reason.code

    async def bought(resource: str = RESOURCE, scope: str = "chat read") -> str:
        return await asyncio.to_thread(provider.access_token, resource, scope)

    async def story() -> None:
        first = await bought()
        assert header_of(first)["alg"] == "ES256"
        assert header_of(first)["typ"] == "at+jwt"
        await opens(first)
        answer = await tokens.verify(first, time.time())
        assert isinstance(answer, Identity)
        assert answer.scopes == {"chat", "read"}
        assert answer.credential_id
        assert answer.expires_at is not None
        assert 0 < answer.expires_at - time.time() <= 300
        # A token for less, for somebody else, and one whose time is over.
        assert await refused(await bought(scope="read")) == "authorization.scope"
        assert await refused(await bought(resource="https://other.test")) == "token.audience"
        late = await tokens.verify(first, answer.expires_at)
        assert not isinstance(late, Identity)
        assert late.reason.code == "token.expiry"

        # Rotated: the new key is learnt at its first token, the old one is still published.
        new, old = await asyncio.to_thread(provider.rotate)
        second = await bought()
        assert (header_of(second)["kid"], header_of(first)["kid"]) == (new, old)
        assert await refused(second) == "token.key"
        world.now = DEFAULTS.issuer_refetch
        await opens(second)
        await opens(first)

        # The old one is gone: an hour later at most its tokens open nothing.
        assert await asyncio.to_thread(provider.forget) == [new]
        world.now += DEFAULTS.issuer_age
        assert await refused(first) == "token.key"
        await opens(second)

    async def main() -> None:
        try:
            await story()
        finally:
            guard.stop()
            tokens.stop()
            await outbound.aclose()

    asyncio.run(main())
    assert world.events == []
