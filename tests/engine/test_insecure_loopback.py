"""`insecure_loopback`: ws:// for a developer, where Host, Origin and peer are all this machine, and nowhere else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.engine.make import accepted, handshake, page, reason
from wsguard.engine.policy import Policy
from wsguard.vocabulary.decision import OriginProof
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.handshake import Handshake, Peer

LOOPBACK = Policy(insecure_loopback=True)


def plain(
    host: str = "localhost:8000", origin: str | None = "http://localhost:8000", peer: str | None = "127.0.0.1"
) -> Handshake:
    return replace(handshake({"Host": host, "Origin": origin}, secure=False), peer=Peer(peer))


@pytest.mark.parametrize("host", ["localhost:8000", "app.localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "unix", None])
def test_a_developer_works_on_loopback(host: str, peer: str | None) -> None:
    """The page of the app itself, over http, opens its socket over ws."""
    assert accepted(plain(host, f"http://{host}", peer), LOOPBACK).origin is OriginProof.SAME_ORIGIN
    assert reason(replace(page({"Host": host}, secure=False), peer=Peer(peer)), LOOPBACK) is None


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (plain(origin="http://localhost:9000"), "origin.not_allowed"),
        (plain(origin="http://evil.localhost:8000"), "origin.not_allowed"),
        (plain(origin="http://evil.test:8000"), "transport.insecure"),
        (plain(origin="http://127.evil.test"), "transport.insecure"),
        (plain(origin="null"), "transport.insecure"),
        (plain(origin=None), "origin.missing"),
        (plain(host="app.test", origin="http://app.test"), "transport.insecure"),
        (plain(host="127.evil.test", origin="http://127.evil.test"), "transport.insecure"),
        (plain(peer="192.0.2.7"), "transport.insecure"),
        (plain(peer="::ffff:192.0.2.7"), "transport.insecure"),
        (replace(plain(), secure=None), "transport.insecure"),
    ],
)
def test_nothing_else_is_served_in_the_clear(subject: Handshake, expected: str) -> None:
    """A name that only begins like loopback, a peer from outside, another page of this machine: refused as ever."""
    assert reason(subject, LOOPBACK) == expected


def test_the_word_is_needed() -> None:
    """Without it ws:// is refused, on loopback too (B-ORIGIN-09: there is no "trust loopback")."""
    assert reason(plain(), Policy(hosts=["localhost"])) == "transport.insecure"
    assert reason(plain(), Policy(hosts=["localhost"], allow_http_loopback_origins=True)) == "transport.insecure"


def test_it_is_named_at_start_and_brings_the_names() -> None:
    """The log says it; same origin needs no hosts then, but a list of origins keeps to what it lists."""
    assert any("insecure_loopback" in notice for notice in LOOPBACK.notices)
    listed = Policy(origins=["https://app.test"], insecure_loopback=True)
    assert reason(handshake(), listed) is None
    assert reason(plain(), listed) == "origin.not_allowed"
    assert reason(plain(), Policy(origins=["http://localhost:8000"], insecure_loopback=True)) is None
    with pytest.raises(ConfigurationError):
        Policy(origins=["http://app.test"], insecure_loopback=True)
