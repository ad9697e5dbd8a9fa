"""The door for outgoing calls: whom it calls, how it knows him, and what it takes from him."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.identity.tls_server import Answer, Server, serving
from wsguard.identity.outbound import Destination, Outbound, OutboundAnswer, _Pool, is_public, shown_url
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import ConfigurationError, OutboundError, OutboundFailed, OutboundRefused

Resolve = Callable[[str, int], Coroutine[Any, Any, Sequence[str]]]


def resolving(*answers: Sequence[str]) -> Resolve:
    """A resolver that gives each answer once, the last one for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def loopback() -> Resolve:
    return resolving(["127.0.0.1"])


async def called(
    outbound: Outbound, url: str, *, deadline: float = 10, max_body: int = 1000, **more: Any
) -> OutboundAnswer:
    """One call, and the door closed behind it."""
    try:
        return await outbound.fetch("GET", url, deadline=deadline, max_body=max_body, **more)
    finally:
        await outbound.aclose()


def call(
    url: str, ca: Path, *, resolve: Resolve | None = None, listed: Sequence[str] | None = None, **more: Any
) -> OutboundAnswer:
    """A call of a listed host, which resolves to loopback."""
    outbound = Outbound(DEFAULTS, authority=ca, resolve=resolve or loopback())
    return asyncio.run(called(outbound, url, listed=(url,) if listed is None else listed, **more))


@contextlib.contextmanager
def failing(kind: type[OutboundError], *words: str) -> Generator[None]:
    with pytest.raises(kind) as caught:
        yield
    for word in words:
        assert word in str(caught.value)


# --- The answer ---


def test_an_answer_comes_whole(authority: trustme.CA, ca_file: Path) -> None:
    """Status, fields and body arrive; the call names itself, the host and its port, and asks for no compression."""
    with serving(authority, "api.test", answer=Answer(404, {"X-A": "1"}, (b"some", b"thing"))) as server:
        answer = call(server.url("/a?b=c", "api.test"), ca_file, headers={"X-Own": "yes"})
    assert (answer.status, answer.body, answer.fields.first(b"x-a")) == (404, b"something", b"1")
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.headers["host"]) == ("GET", "/a?b=c", f"api.test:{server.port}")
    assert (asked.headers["accept-encoding"], asked.headers["x-own"]) == ("identity", "yes")


def test_a_post_carries_its_body_once(authority: trustme.CA, ca_file: Path) -> None:
    """A token request is sent, with its length and type, to one address only."""

    async def main(server: Server) -> OutboundAnswer:
        outbound = Outbound(DEFAULTS, authority=ca_file, resolve=resolving(["127.0.0.1", "127.0.0.1"]))
        url = server.url("/token", "api.test")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            return await outbound.fetch(
                "POST", url, body=b"a=b", headers=headers, deadline=10, max_body=10, listed=(url,)
            )
        finally:
            await outbound.aclose()

    with serving(authority, "api.test", answer=Answer(parts=(b"ok",))) as server:
        assert asyncio.run(main(server)).body == b"ok"
    (asked,) = server.asked
    assert (asked.method, asked.body, asked.headers["content-length"]) == ("POST", b"a=b", "3")


def test_an_answer_shows_no_secret_in_its_repr(authority: trustme.CA, ca_file: Path) -> None:
    """Tokens and cookies of an answer stay out of reprs, and so out of logs."""
    with serving(authority, "api.test", answer=Answer(200, {"Set-Cookie": "s3cret"}, (b"s3cret",))) as server:
        url = server.url("/?q=s3cret", "api.test")
        assert "s3cret" not in repr(call(url, ca_file))
    assert "s3cret" not in repr(Destination.parse(url))


def test_nothing_of_a_call_is_logged(authority: trustme.CA, ca_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The library's own log line would show the query, which may be a secret."""
    caplog.set_level(logging.INFO)
    with serving(authority, "api.test") as server:
        call(server.url("/?q=s3cret", "api.test"), ca_file)
    assert "s3cret" not in caplog.text


def test_no_cookie_is_kept(authority: trustme.CA, ca_file: Path) -> None:
    """What one answer sets is no part of the next call: two users would share it."""

    async def main(server: Server) -> None:
        outbound = Outbound(DEFAULTS, authority=ca_file, resolve=loopback())
        url = server.url(host="api.test")
        for _ in range(2):
            await outbound.fetch("GET", url, deadline=10, max_body=10, listed=(url,))
        await outbound.aclose()

    with serving(authority, "api.test", answer=Answer(200, {"Set-Cookie": "a=b"})) as server:
        asyncio.run(main(server))
    assert ["cookie" in asked.headers for asked in server.asked] == [False, False]
    assert server.asked[0].connection == server.asked[1].connection


@pytest.mark.parametrize(
    "name", ["Host", "host", "Content-Length", "Transfer-Encoding", "Accept-Encoding", "Connection"]
)
def test_the_doors_own_headers_cannot_be_given(ca_file: Path, name: str) -> None:
    """Host decides who answers and Accept-Encoding what is bounded: no caller replaces them."""
    with pytest.raises(ValueError, match=name):
        call("https://api.test/", ca_file, headers={name: "x"})


def test_a_header_cannot_bring_another(authority: trustme.CA, ca_file: Path) -> None:
    """A line break in a value would be a header of the attacker's: nothing is sent."""
    with serving(authority, "api.test") as server, failing(OutboundFailed, "api.test"):
        call(server.url(host="api.test"), ca_file, headers={"X-A": "b\r\nX-C: d"})
    assert server.asked == []


# --- What is not followed, and not taken ---


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_a_redirect_is_refused(authority: trustme.CA, ca_file: Path, status: int) -> None:
    """B-TOKEN-07: a redirect would choose the address; the other place is never asked."""
    with serving(authority, "api.test") as other, serving(authority, "api.test") as server:
        server.says(Answer(status, {"Location": other.url(host="api.test")}))
        with failing(OutboundRefused, "api.test", "redirect"):
            call(server.url(host="api.test"), ca_file)
    assert (len(server.asked), other.asked) == (1, [])


def test_a_switch_of_protocols_is_no_answer(authority: trustme.CA, ca_file: Path) -> None:
    """Nobody asked for 101: what comes behind it has no end."""
    with (
        serving(authority, "api.test", answer=Answer(101, {"Upgrade": "x", "Connection": "Upgrade"})) as server,
        failing(OutboundFailed, "api.test"),
    ):
        call(server.url(host="api.test"), ca_file)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(parts=(b"x" * 4096,) * 1000),
        Answer(200, {"Transfer-Encoding": "chunked"}, (b"1000\r\n" + b"x" * 4096 + b"\r\n",) * 1000),
    ],
    ids=["length", "chunked"],
)
def test_a_body_over_the_bound_is_not_read(authority: trustme.CA, ca_file: Path, answer: Answer) -> None:
    """Memory is bounded while bytes arrive, whatever the length that the answer tells or hides."""
    with (
        serving(authority, "api.test", answer=answer) as server,
        failing(OutboundFailed, "api.test", "larger than 8192 bytes"),
    ):
        call(server.url(host="api.test"), ca_file, max_body=8192)


def test_a_body_of_just_the_bound_is_taken(authority: trustme.CA, ca_file: Path) -> None:
    """The bound is a bound of what is allowed, not of what is refused."""
    with serving(authority, "api.test", answer=Answer(parts=(b"x" * 4096,))) as server:
        url = server.url(host="api.test")
        assert len(call(url, ca_file, max_body=4096).body) == 4096
        with failing(OutboundFailed, "larger than 4095 bytes"):
            call(url, ca_file, max_body=4095)


def test_a_compressed_answer_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    """A small gzip can be a bomb: it was not asked for, and is not unpacked."""
    packed = gzip.compress(b"x" * 100)
    with (
        serving(authority, "api.test", answer=Answer(200, {"Content-Encoding": "gzip"}, (packed,))) as server,
        failing(OutboundFailed, "api.test", "compressed"),
    ):
        call(server.url(host="api.test"), ca_file)


def test_identity_is_no_compression(authority: trustme.CA, ca_file: Path) -> None:
    """Some servers write the word."""
    with serving(authority, "api.test", answer=Answer(200, {"Content-Encoding": "identity"}, (b"a",))) as server:
        assert call(server.url(host="api.test"), ca_file).body == b"a"


# --- Time ---


def test_a_slow_body_meets_the_deadline(authority: trustme.CA, ca_file: Path) -> None:
    """A byte now and then would keep a read timeout happy for ever: the deadline is for all of it."""
    with (
        serving(authority, "api.test", answer=Answer(parts=(b"x",) * 1000, wait=0.05)) as server,
        failing(OutboundFailed, "api.test", "within 0.5 s"),
    ):
        call(server.url(host="api.test"), ca_file, deadline=0.5, max_body=1_000_000)


def test_a_silent_server_meets_the_deadline(ca_file: Path) -> None:
    """A port that accepts and says nothing, not even TLS."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://api.test:{silent.getsockname()[1]}/"
        with failing(OutboundFailed, "api.test"):
            call(url, ca_file, deadline=0.3)


def test_a_deadline_during_the_tls_handshake_closes_the_socket(ca_file: Path) -> None:
    """Each poll of a server that says nothing would leave a descriptor behind until the garbage collector comes."""

    async def main(silent: socket.socket) -> None:
        url = f"https://api.test:{silent.getsockname()[1]}/"
        outbound = Outbound(DEFAULTS, authority=ca_file, resolve=loopback())
        task = asyncio.create_task(outbound.fetch("GET", url, deadline=60, max_body=10, listed=(url,)))
        accepted, _ = await asyncio.to_thread(silent.accept)
        with accepted:
            accepted.settimeout(10)
            assert await asyncio.to_thread(accepted.recv, 65536)
            task.cancel()
            await asyncio.wait((task,))
            assert accepted.recv(65536) == b""
        await outbound.aclose()

    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(10)
            asyncio.run(main(silent))
    finally:
        gc.enable()


def test_a_slow_resolver_meets_the_deadline(ca_file: Path) -> None:
    """The name server is part of the call."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with failing(OutboundFailed, "api.test", "within 0.1 s"):
        call("https://api.test/", ca_file, resolve=resolve, deadline=0.1)


# --- Who may be called ---


@pytest.mark.parametrize("url", [
    "http://api.test/", "file:///etc/passwd", "ftp://api.test/", "//api.test/", "api.test", "", "https:api.test",
    " https://api.test/", "https://", "https:///path", "https://user@api.test/", "https://user:s3cret@api.test/",
    "https://api.test\\@evil.test/", "https://api.test#@evil.test/", "https://api.test/#part", "https://api.test/a b",
    "https://api.test/\r\nX: y", "https://api.test\t/", "https://api.test:99999/", "https://api.test:/", "https://a..b/",
    "https://[::1/", "https://[fe80::1%25eth0]/", "https://api.test/é", "https://api.test:443:443/",
])  # fmt: skip
def test_a_url_that_is_not_plainly_https_is_refused(ca_file: Path, url: str) -> None:
    """B-TOKEN-07 and the parsers' disagreements: no other scheme, no userinfo, nothing that could mean two hosts."""
    with failing(OutboundRefused):
        asyncio.run(called(Outbound(DEFAULTS, authority=ca_file, resolve=loopback()), url))


@pytest.mark.parametrize(
    "url", ["https://user:s3cret@api.test/", "ftp://s3cret@h.test/", "s3cret@h.test", "http://h/?s3cret"]
)
def test_a_refusal_names_no_secret(url: str) -> None:
    """Userinfo and query are left out of the error, and of what a repr shows."""
    with pytest.raises(OutboundRefused) as caught:
        Destination.parse(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in shown_url(url)


def test_a_refusal_says_what_is_wrong_with_the_url() -> None:
    """The operator reads it at start: userinfo is told as that, not as an odd host."""
    with failing(OutboundRefused, "api.test: ", "user or password"):
        Destination.parse("https://user:s3cret@api.test/")
    with failing(OutboundRefused, "api.test: ", "https://"):
        Destination.parse("http://api.test/")
    with failing(OutboundRefused, "api.test: ", "fragment"):
        Destination.parse("https://api.test/#x")


def test_a_url_has_one_spelling() -> None:
    """Case, IDNA, default port, a trailing dot and old ways to write IPv4 are settled before anything is judged."""
    parse = Destination.parse
    assert parse("HTTPS://API.test.:443?q") == Destination("api.test", 443, "/?q")
    assert parse("https://bücher.test/").host == "xn--bcher-kva.test"
    assert parse("https://0x7f.1/").host == "127.0.0.1"
    assert parse("https://[::1]:8/a").authority == "[::1]:8"
    assert parse("https://a.test/b?c").shown == "https://a.test/b"


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
    "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%2", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "2001::1",
    "2002:7f00:1::", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "100::1", "3fff::1", "5f00::1", "4000::1",
])  # fmt: skip
def test_an_address_that_is_not_public_is_refused(ca_file: Path, address: str) -> None:
    """SSRF: a name that somebody else chose leads nowhere inside, in no spelling of an address."""
    assert not is_public(ipaddress.ip_address(address))
    outbound = Outbound(DEFAULTS, authority=ca_file, resolve=resolving([address]))
    with failing(OutboundRefused, "evil.test", "not public"):
        asyncio.run(called(outbound, "https://evil.test/"))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808"])
def test_a_public_address_may_be_called(address: str) -> None:
    """The rule would be of no use if it refused everything; NAT64 carries public IPv4 to hosts without it."""
    assert is_public(ipaddress.ip_address(address))


def test_a_literal_address_is_judged_as_a_name_is(ca_file: Path) -> None:
    """An address in the URL is resolved by nobody, and refused all the same."""
    for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433"):
        with failing(OutboundRefused, "not public"):
            asyncio.run(called(Outbound(DEFAULTS, authority=ca_file), f"https://{host}/"))


def test_only_the_listed_host_may_be_private(authority: trustme.CA, ca_file: Path) -> None:
    """What the operator wrote lists that host, not another one that resolves to the same place."""
    with serving(authority, "idp.test", "evil.test") as server:
        listed = (server.url(host="idp.test"),)
        assert call(server.url("/keys", "idp.test"), ca_file, listed=listed).status == 200
        with failing(OutboundRefused, "evil.test", "127.0.0.1"):
            call(server.url(host="evil.test"), ca_file, listed=listed)
        with failing(OutboundRefused, "idp.test"):
            call(server.url(host="idp.test"), ca_file, listed=())
    assert len(server.asked) == 1


@pytest.mark.parametrize("network", ["127.0.0.0/8", "127.0.0.1", "0.0.0.0/1"])
def test_a_network_of_the_operator_may_be_called(authority: trustme.CA, ca_file: Path, network: str) -> None:
    """`outbound = [...]` lists addresses."""
    outbound = Outbound(DEFAULTS, networks=[network], authority=ca_file, resolve=loopback())
    with serving(authority, "api.test") as server:
        assert asyncio.run(called(outbound, server.url(host="api.test"))).status == 200


def test_a_mapped_address_is_in_the_network_of_its_ipv4(authority: trustme.CA, ca_file: Path) -> None:
    """An operator who lists 127.0.0.0/8 means the address, however the resolver writes it; another is not meant."""
    with serving(authority, "api.test") as server:
        url = server.url(host="api.test")
        resolve = resolving(["::ffff:127.0.0.1"])
        near = Outbound(DEFAULTS, networks=["127.0.0.0/8"], authority=ca_file, resolve=resolve)
        far = Outbound(DEFAULTS, networks=["10.0.0.0/8"], authority=ca_file, resolve=resolve)
        assert asyncio.run(called(near, url)).status == 200
        with failing(OutboundRefused, "not public"):
            asyncio.run(called(far, url))


@pytest.mark.parametrize("network", ["10.0.0.1/8", "example.com", "", "0.0.0.0/0", "::/0"])
def test_a_network_that_is_none_is_an_error_at_start(network: str) -> None:
    """A range that is everything would switch the rule off without saying so."""
    with pytest.raises(ConfigurationError, match="outbound"):
        Outbound(DEFAULTS, networks=[network])


def test_the_judged_address_is_the_called_one(authority: trustme.CA, ca_file: Path) -> None:
    """DNS rebinding: the resolver is asked once a call, and a later answer of another address changes nothing."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    outbound = Outbound(DEFAULTS, networks=["127.0.0.2"], authority=ca_file, resolve=resolve)
    with serving(authority, "api.test", address="127.0.0.2") as server:
        url = server.url(host="api.test")

        async def main() -> None:
            assert (await outbound.fetch("GET", url, deadline=10, max_body=10)).status == 200
            assert asked == ["api.test"]
            # The second answer is judged anew, though a connection to the first one is still open.
            with failing(OutboundRefused, "127.0.0.1"):
                await called(outbound, url)

        asyncio.run(main())
    assert len(server.asked) == 1


def test_addresses_that_are_not_public_are_left_out(authority: trustme.CA, ca_file: Path) -> None:
    """A name with a public and a private address is called at the public one only."""
    outbound = Outbound(
        DEFAULTS, networks=["127.0.0.2"], authority=ca_file, resolve=resolving(["127.0.0.1", "127.0.0.2"])
    )
    with serving(authority, "api.test", address="127.0.0.2") as server:
        assert asyncio.run(called(outbound, server.url(host="api.test"))).status == 200


def test_the_next_address_is_tried(authority: trustme.CA, ca_file: Path) -> None:
    """A name with an IPv6 address where nobody listens (localhost, often) is still reached over IPv4."""
    with serving(authority, "api.test") as server:
        url = server.url(host="api.test")
        assert call(url, ca_file, resolve=resolving(["127.0.0.2", "127.0.0.1"])).status == 200


def test_nobody_listens(ca_file: Path) -> None:
    """The error says where and why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with failing(OutboundFailed, "api.test", "127.0.0.1"):
        call(f"https://api.test:{port}/", ca_file)


@pytest.mark.parametrize("answer", [OSError("x"), socket.gaierror(-2, "Name or service not known"), [], ["nonsense"]])
def test_a_name_that_cannot_be_resolved(ca_file: Path, answer: Any) -> None:
    """No address, no call."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with failing(OutboundFailed, "api.test", "name"):
        call("https://api.test/", ca_file, resolve=resolve)


def test_the_systems_resolver_is_asked(authority: trustme.CA, ca_file: Path) -> None:
    """Without another resolver localhost is this machine."""
    with serving(authority) as server:
        url = server.url()
        outbound = Outbound(DEFAULTS, authority=ca_file)
        assert asyncio.run(called(outbound, url, listed=(url,))).status == 200


# --- Who answers ---


def test_the_certificate_must_be_the_names(authority: trustme.CA, ca_file: Path) -> None:
    """The connection goes to an address, and is verified for the name: another host there is nobody."""
    with serving(authority, "other.test", "127.0.0.1") as server, failing(OutboundFailed, "api.test", "certificate"):
        call(server.url(host="api.test"), ca_file)
        assert (server.asked, server.names) == ([], ["api.test"])


def test_the_certificate_must_be_of_a_known_authority(ca_file: Path) -> None:
    """A certificate of anybody's CA is no proof."""
    with serving(trustme.CA(), "api.test") as server, failing(OutboundFailed, "api.test", "certificate"):
        call(server.url(host="api.test"), ca_file)
    assert server.asked == []


def test_the_tests_authority_is_not_trusted_by_default(authority: trustme.CA) -> None:
    """Only `authority` adds a CA; without it the system's count."""
    with serving(authority, "api.test") as server:
        url = server.url(host="api.test")
        with failing(OutboundFailed, "certificate"):
            asyncio.run(called(Outbound(DEFAULTS, resolve=loopback()), url, listed=(url,)))


def test_an_address_is_verified_as_one(authority: trustme.CA, ca_file: Path) -> None:
    """A literal address needs a certificate for the address, IPv6 too."""
    with serving(authority, "127.0.0.1") as server:
        url = server.url(host="127.0.0.1")
        assert call(url, ca_file).status == 200


def test_a_connection_is_never_shared_between_hosts(authority: trustme.CA, ca_file: Path) -> None:
    """One address serves two names, one certificate only one: the open connection must not serve the other name."""

    async def main(server: Server) -> None:
        outbound = Outbound(DEFAULTS, networks=["127.0.0.1"], authority=ca_file, resolve=loopback())
        for _ in range(2):
            await outbound.fetch("GET", server.url(host="a.test"), deadline=10, max_body=10)
        with failing(OutboundFailed, "b.test", "certificate"):
            await outbound.fetch("GET", server.url(host="b.test"), deadline=10, max_body=10)
        await outbound.aclose()

    with serving(authority, "a.test") as server:
        asyncio.run(main(server))
    assert server.names == ["a.test", "b.test"]
    assert [asked.headers["host"] for asked in server.asked] == [f"a.test:{server.port}"] * 2


def test_a_connection_that_nobody_uses_is_closed(authority: trustme.CA, ca_file: Path) -> None:
    """Hosts learnt from answers must not fill memory: what was idle long enough is forgotten at the next call."""
    now = [0.0]

    async def main(server: Server) -> None:
        outbound = Outbound(
            DEFAULTS, networks=["127.0.0.1"], authority=ca_file, resolve=loopback(), clock=lambda: now[0]
        )
        await outbound.fetch("GET", server.url(host="a.test"), deadline=10, max_body=10)
        now[0] += DEFAULTS.upstream_pool_idle + 1
        await outbound.fetch("GET", server.url(host="b.test"), deadline=10, max_body=10)
        assert [host for _, host in outbound._pools] == ["b.test"]
        await outbound.aclose()
        assert outbound._pools == {}

    with serving(authority, "a.test", "b.test") as server:
        asyncio.run(main(server))


def test_a_door_outlives_its_loop(authority: trustme.CA, ca_file: Path) -> None:
    """A test or a script runs two loops: the second one uses no connection of the first."""
    outbound = Outbound(DEFAULTS, networks=["127.0.0.1"], authority=ca_file, resolve=loopback())
    with serving(authority, "api.test") as server:

        async def main() -> int:
            return (await outbound.fetch("GET", server.url(host="api.test"), deadline=10, max_body=10)).status

        async def last() -> None:
            assert await main() == 200
            assert len(outbound._pools) == 1
            await outbound.aclose()

        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(main()) == 200
        loop.run_until_complete(outbound.aclose())
        outbound._pools[loop, "left.test"] = _Pool(outbound._transport(None))
        loop.close()
        asyncio.run(last())


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_environments_proxy_is_not_used(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A proxy would resolve the name itself: nothing that was judged would count."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, serving(authority, "api.test") as server:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert call(server.url(host="api.test"), ca_file).status == 200
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


# --- Construction ---


def test_without_httpx2_the_door_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named when the thing that needs it is made, not at the first handshake."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigurationError, match=r"wsguard\[oauth\]"):
        Outbound(DEFAULTS)


def test_an_authority_that_cannot_be_read_is_an_error_at_start(tmp_path: Path) -> None:
    """A missing CA would be told by every call, one by one."""
    with pytest.raises(ConfigurationError, match=os.fspath(tmp_path / "none.pem")):
        Outbound(DEFAULTS, authority=tmp_path / "none.pem")


def test_a_cancelled_call_leaves_nothing_behind(authority: trustme.CA, ca_file: Path) -> None:
    """Who asked goes away: the connection is closed, and the next call is a fresh one."""

    async def main(server: Server) -> None:
        outbound = Outbound(DEFAULTS, networks=["127.0.0.1"], authority=ca_file, resolve=loopback())
        url = server.url(host="api.test")
        server.says(Answer(parts=(b"x", b"y"), wait=60))
        task = asyncio.create_task(outbound.fetch("GET", url, deadline=60, max_body=10))
        await asyncio.to_thread(server.arrived.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.says(Answer(parts=(b"z",)))
        assert (await outbound.fetch("GET", url, deadline=10, max_body=10)).body == b"z"
        await outbound.aclose()

    with serving(authority, "api.test") as server:
        asyncio.run(main(server))
    assert server.asked[0].connection != server.asked[1].connection
