"""`Guard.from_file`: an ASGI app reads the file that the gateway or `wsguard run` would (RULES §12)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from tests.credentials import Place, bearer
from tests.engine.make import handshake
from wsguard import Guard
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.handshake import Peer

GATEWAYS = """
listen = ["0.0.0.0:443", "[::]:443"]
cert = "nowhere.pem"
upstream = "http://127.0.0.1:8888"
"""
POLICY = """
origins = ["https://app.test"]
hosts = ["app.test"]
auth = ["bearer", "ticket"]
store = "sqlite:wsguard.db"

[jwt."https://id.test"]
audience = ["https://app.test"]
jwks = "file:jwks.json"

[ticket]
sold_for = ["bearer"]

[[route]]
path = "/open/*"
anonymous = true

[[route]]
path = "/*"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with the issuer's keys."""
    Place(tmp_path)
    return tmp_path


def written(folder: Path, text: str) -> Guard:
    path = folder / "wsguard.toml"
    path.write_text(text)
    return Guard.from_file(path)


def judged(guard: Guard, target: bytes = b"/ws", **fields: str) -> Decision:
    subject = handshake(fields, target=target)

    async def decide() -> Decision:
        try:
            return await guard.decide(subject, guard.client_of(subject))
        finally:
            await guard.aclose()
            await guard.store.aclose()

    return asyncio.run(decide())


@pytest.mark.parametrize("before", [GATEWAYS.replace('cert = "nowhere.pem"\n', ""), ""], ids=["gateway's", "run's"])
def test_an_app_gets_what_the_file_says(folder: Path, before: str) -> None:
    """Its routes, credentials, ticket and store, with paths read from its folder; nobody listens for it."""
    decision = judged(written(folder, before + POLICY), b"/ws", **bearer())
    assert isinstance(decision, Accept), decision
    assert decision.identity is not None
    assert decision.identity.issuer == "https://id.test"
    refused = judged(written(folder, before + POLICY))
    assert isinstance(refused, Refuse)
    assert refused.reason.code == "credential.missing"
    assert isinstance(judged(written(folder, before + POLICY), b"/open/x"), Accept)
    foreign = judged(written(folder, before + POLICY), b"/open/x", Origin="https://evil.test")
    assert isinstance(foreign, Refuse)
    guard = written(folder, before + POLICY)
    assert guard.store.is_shared
    assert guard.counter() is not None
    asyncio.run(guard.store.aclose())
    assert (folder / "wsguard.db").exists()


@pytest.mark.parametrize("own", [True, False], ids=["not written", "written"])
def test_the_log_is_the_apps_own_unless_the_file_says_otherwise(
    folder: Path, own: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that listens to the log gets its lines; with a ``log_format`` they go to stdout, and to nobody else."""
    logger = logging.getLogger("wsguard.decisions")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level("INFO", logger.name)
    guard = written(folder, ("" if own else 'log_format = "json"\n') + POLICY)
    guard.log.event("planted.event")
    asyncio.run(guard.store.aclose())
    assert ("planted.event" in caplog.text) is own


def test_proxies_are_believed_as_the_file_says(folder: Path) -> None:
    """They are `wsguard run`'s: the gateway has none before it."""
    guard = written(folder, 'trusted_proxies = ["10.0.0.0/8"]\n' + POLICY)
    assert not guard.proxies.is_anybody
    assert guard.proxies.lists_peer(Peer("10.1.2.3"))
    asyncio.run(guard.store.aclose())


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    """As at the start of the gateway, with the keys' names."""
    with pytest.raises(ConfigurationErrors) as failed:
        written(folder, POLICY.replace('auth = ["bearer", "ticket"]', 'auth = ["nobody"]\noriginz = []'))
    told = str(failed.value)
    assert "originz" in told
    assert "nobody" in told


@pytest.mark.parametrize("content", [None, b"\xff", b"origins = ["], ids=["none", "not UTF-8", "not TOML"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, content: bytes | None) -> None:
    """By what the app has called, which knows no flags."""
    if content is not None:
        (folder / "broken.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^Guard\.from_file: found .*broken\.toml"):
        Guard.from_file(folder / "broken.toml")


def test_two_kinds_of_credential_do_not_stand_in_one_header(folder: Path) -> None:
    """The one that is asked later could never decide: the first takes its credential for a bad one of its own kind."""
    Place(folder).add_key("robot")
    tables = '\n[bearer]\nheader = "X-Key"\n[api_keys]\nfile = "keys.toml"\nheader = "x-key"\n'
    with pytest.raises(ConfigurationErrors, match=r"api_keys\.header: found x-key, where bearer tokens stand"):
        written(folder, POLICY + tables)
