"""Who the client is: listed proxies are believed, and nobody else, whatever a header says (RULES §9)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.engine.make import POLICY, handshake, page
from wsguard.engine.proxies import NOBODY, TrustedProxies, client_of
from wsguard.guard import Guard
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.handshake import Client, Handshake, Peer

PROXY = "10.0.0.1"
LISTED = TrustedProxies.read(["10.0.0.0/24", "2001:db8::/32"])
UNIX = TrustedProxies.read(["unix"])


def told(
    fields: dict[str, str], *, peer: str = PROXY, proxies: TrustedProxies = LISTED, reported: bool = False
) -> Client:
    """What is judged of a handshake in the clear with these *fields*, whose TCP peer is *peer*."""
    subject = replace(handshake(fields, secure=False), peer=Peer(peer), reported=reported)
    return client_of(subject, proxies)


def reason_of(client: Client) -> str | None:
    return None if client.doubt is None else client.doubt.reason.code


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}, "192.0.2.7"),
        ({"X-Forwarded-Proto": "HTTPS", "X-Forwarded-For": "192.0.2.7:4711"}, "192.0.2.7"),
        ({"X-Forwarded-Proto": "wss", "X-Forwarded-For": "2001:470::7"}, "2001:470::7"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-For": "[2001:470::7]:4711"}, "2001:470::7"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-For": "::ffff:192.0.2.7"}, "192.0.2.7"),
        ({"X-Forwarded-Proto": "https"}, None),
        ({"Forwarded": "for=192.0.2.7;proto=https"}, "192.0.2.7"),
        ({"Forwarded": 'proto=https; for="[2001:470::7]:4711"; host=evil.test'}, "2001:470::7"),
        (
            {"Forwarded": "for=192.0.2.7;proto=https", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"},
            "192.0.2.7",
        ),
        # over two listed proxies, each of which has added what it saw
        ({"X-Forwarded-Proto": "https, http", "X-Forwarded-For": "192.0.2.7, 10.0.0.9"}, "192.0.2.7"),
        ({"Forwarded": "for=192.0.2.7;proto=https, for=10.0.0.9;proto=http"}, "192.0.2.7"),
    ],
)
def test_a_listed_proxy_is_believed(fields: dict[str, str], address: str | None) -> None:
    """Address and scheme are those of the client's hop, in each spelling that proxies use."""
    client = told(fields)
    assert (client.peer.address, client.secure, client.through_proxy, client.doubt) == (address, True, True, None)


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1, 192.0.2.7"}, "192.0.2.7"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-For": "unknown, 192.0.2.7"}, "192.0.2.7"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4, 192.0.2.7, 10.0.0.9"}, "192.0.2.7"),
        ({"Forwarded": 'for="_hidden";proto=https, for=192.0.2.7;proto=https'}, "192.0.2.7"),
    ],
)
def test_what_the_client_wrote_to_the_left_is_not_read(fields: dict[str, str], address: str) -> None:
    """B-PROXY-02: the rightmost hop that is no listed proxy counts; what stands left of it is anybody's."""
    assert told(fields).peer.address == address


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Forwarded-Proto": "https", "X-Forwarded-For": "unknown"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7, "},
        {"X-Forwarded-Proto": "https", "X-Forwarded-For": '"192.0.2.7, 10.0.0.9"'},
        {"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7\u00b2"},
        {"X-Forwarded-Proto": "gopher", "X-Forwarded-For": "192.0.2.7"},
        {"X-Forwarded-Proto": "https, http, http", "X-Forwarded-For": "192.0.2.7, 10.0.0.9"},
        {"Forwarded": 'for="a, b";proto=https'},
        {"Forwarded": "for=unknown;proto=https"},
        {"Forwarded": "for=192.0.2.7;for=192.0.2.8;proto=https"},
        {"Forwarded": "for=192.0.2.7 proto=https"},
        {"Forwarded": "for=192.0.2.7;proto=https,"},
        {"Forwarded": "for=192.0.2.7;"},
        # one of the two families is the client's own, which the proxy let through
        {"Forwarded": "for=192.0.2.66;proto=https", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"},
        {"Forwarded": "for=192.0.2.7;proto=https", "X-Forwarded-Proto": "http", "X-Forwarded-For": "192.0.2.7"},
    ],
)
def test_forwarded_for_is_parsed(fields: dict[str, str]) -> None:
    """B-PROXY-02: what a listed proxy says is read by its grammar, never taken as it stands; else 400."""
    client = told(fields)
    assert reason_of(client) == "proxies.malformed"
    assert client.secure is None


@pytest.mark.parametrize(
    "fields", [{}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}]
)
def test_a_proxy_that_does_not_say_https_refuses(fields: dict[str, str]) -> None:
    """Silence is not https."""
    assert reason_of(told(fields)) == "transport.insecure"


SPOOFED = (
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"},
    {"Forwarded": "for=10.0.0.1;proto=https"},
    {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.1"},
)


def decided(subject: Handshake, proxies: list[str]) -> Decision:
    import asyncio

    guard = Guard(POLICY, trusted_proxies=proxies)
    return asyncio.run(guard.decide(subject, guard.client_of(subject)))


@pytest.mark.parametrize("fields", SPOOFED)
@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("proxies", [[], ["10.0.0.0/24"]])
def test_stranger_cannot_claim_https(fields: dict[str, str], reported: bool, proxies: list[str]) -> None:
    """B-TLS-03: plain HTTP from a peer that is not listed stays plain HTTP, whatever it says."""
    for peer in ("192.0.2.66", "127.0.0.1"):
        subject = replace(handshake(fields, secure=False), peer=Peer(peer), reported=reported)
        decision = decided(subject, proxies)
        assert isinstance(decision, Refuse)
        assert (decision.status, decision.reason.code) == (403, "transport.insecure")


def test_no_list_trusts_nobody() -> None:
    """B-PROXY-01: without a list the fields are ignored where the peer is known, and make it unknown where it is told."""
    assert not NOBODY
    seen = told({"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}, proxies=NOBODY)
    assert (seen.peer.address, seen.secure, seen.through_proxy) == (PROXY, False, False)
    reported = told({"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}, proxies=NOBODY, reported=True)
    assert (reported.peer.address, reported.secure) == (None, None)
    assert reported.doubt is not None
    assert "trusted_proxies" in reported.doubt.setting
    for everybody in ("0.0.0.0/0", "::/0"):
        with pytest.raises(ConfigurationError, match="trust_any_proxy"):
            Guard(POLICY, trusted_proxies=[everybody])
    guard = Guard(POLICY, trusted_proxies=["0.0.0.0/0"], trust_any_proxy=True)
    assert any("trust_any_proxy" in notice for notice in guard.notices)


def test_a_rewritten_peer_is_noticed() -> None:
    """A server that reads X-Forwarded-For by itself has put a stranger's word in place of the peer: refused, with the switch."""
    for proxies in (NOBODY, LISTED):
        client = told({"X-Forwarded-For": "192.0.2.7"}, peer="192.0.2.7", proxies=proxies, reported=True)
        assert client.doubt is not None
        assert "--no-proxy-headers" in client.doubt.setting


def test_a_direct_client_without_such_fields_is_what_the_server_says() -> None:
    """A list of proxies takes nothing from clients that come without one."""
    client = client_of(replace(handshake(), peer=Peer("192.0.2.7", 5), reported=True), LISTED)
    assert (client.peer, client.secure, client.through_proxy) == (Peer("192.0.2.7", 5), True, False)


@pytest.mark.parametrize("listed", [True, False])
def test_forwarded_host_never_feeds_origin(listed: bool) -> None:
    """B-ORIGIN-07: not even a listed proxy's X-Forwarded-Host decides what "same origin" is, or which Host is served."""
    fields = {
        "X-Forwarded-Host": "evil.test",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.7",
        "Forwarded": "for=192.0.2.7;proto=https;host=evil.test",
        "Origin": "https://evil.test",
    }
    subject = replace(handshake(fields, secure=not listed), peer=Peer(PROXY))
    decision = decided(subject, ["10.0.0.0/24"] if listed else [])
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.reason.code) == (403, "origin.not_allowed")


def test_peers_of_a_unix_socket_are_listed_by_a_word() -> None:
    """`unix` names them; nothing else does."""
    fields = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    assert told(fields, peer="unix", proxies=UNIX).secure is True
    assert told(fields, peer="unix", proxies=LISTED).secure is False


def test_the_sni_of_a_listed_proxy_is_not_compared() -> None:
    """It may put its own name there (RULES §9)."""
    fields = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    subject = replace(handshake(fields, server_name="internal.test"), peer=Peer(PROXY))
    assert isinstance(decided(subject, ["10.0.0.0/24"]), Accept)
    assert isinstance(decided(subject, []), Refuse)


def test_a_plain_page_needs_no_proxy() -> None:
    """`http = "plain"` excuses transport, in doubt too: health probes ask by address."""
    from wsguard.engine.policy import Policy

    guard = Guard(Policy(origins=["https://app.test"], http="plain"))
    import asyncio

    subject = replace(page({"X-Forwarded-For": "192.0.2.7"}, secure=False), reported=True)
    assert isinstance(asyncio.run(guard.decide(subject, guard.client_of(subject))), Accept)


@pytest.mark.parametrize("entry", ["localhost", "10.0.0.1/8", "10.0.0", "", "unix:/run/x", "*"])
def test_an_entry_that_is_none_stops_the_start(entry: str) -> None:
    """A typing error must not list nobody, or somebody else."""
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        TrustedProxies.read([entry])
    with pytest.raises(ConfigurationError, match="a list"):
        TrustedProxies.read("10.0.0.1")


def test_caps_count_the_client_behind_the_proxy() -> None:
    """A listed proxy is not capped, its clients are: each by its own address (RULES §9)."""
    guard = Guard(POLICY, trusted_proxies=["10.0.0.1"])
    keys = {
        guard.cap_key(
            guard.client_of(
                replace(handshake({"X-Forwarded-Proto": "https", "X-Forwarded-For": one}), peer=Peer(PROXY))
            )
        )
        for one in ("192.0.2.7", "192.0.2.8")
    }
    assert keys == {"192.0.2.7", "192.0.2.8"}
    assert guard.cap_key(guard.client_of(replace(handshake({"X-Forwarded-Proto": "https"}), peer=Peer(PROXY)))) is None
