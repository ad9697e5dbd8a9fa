"""Client certificates through the gateway, on real sockets and over both TLS engines: who gets in, who not even that far."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import ObjectIdentifier, OtherName
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.client_authority import DNS, URI, Client, ClientCA, Email
from tests.credentials import Visitor, closed, echoes
from tests.gateway.conftest import Certificates, StartGateway
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.raw_client import RawClient, handshake
from tests.gateway.recording_upstream import Received, RecordingUpstream, echo
from wsguard.admin.client import ask_admin

CONFIGURATION = """
listen = ["127.0.0.1:0"]
cert = "{cert}"
key = "{key}"
upstream = "{upstream}"
origins = ["https://app.test"]
hosts = ["app.test"]
tls_engine = "{engine}"
admin = "unix:admin/admin.sock"

[client_certificate]
ca = "clients-ca.pem"
subject = "{subject}"
{crl}

[[route]]
path = "/machines"
auth = ["client_certificate"]
browsers = "refuse"

[[route]]
path = "/open"
anonymous = true

[[route]]
path = "/*"
auth = ["client_certificate"]
"""
# What Active Directory writes beside: an otherName with the user's principal name.
UPN = OtherName(ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05robot")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Mount:
    """A gateway that asks for client certificates, what stands behind it, and who visits it."""

    def __init__(
        self, ca: ClientCA, gateway: GatewayProcess, upstream: RecordingUpstream, trust: Path, stack: ExitStack
    ) -> None:
        self.ca, self.gateway, self.upstream, self.trust, self.stack = ca, gateway, upstream, trust, stack

    def visitor(self, client: Client | None, origin: str | None = "https://app.test", **more: Any) -> Visitor:
        """Somebody with that certificate, or with none."""
        if client is None:
            context = ssl.create_default_context(cafile=self.trust)
            context.check_hostname = False
        else:
            context = client.context(self.trust, **more)
        return Visitor(self.gateway.address, context, self.stack, origin)

    def refused(self, client: Client | None, **more: Any) -> tuple[int, str | None]:
        """Status and logged reason of who comes in vain."""
        status, request_id = self.visitor(client, **more).refused()
        return status, self.gateway.reason_of(request_id)

    def ends_in_tls(self, client: Client, **more: Any) -> bool:
        """Tell whether the TLS handshake fails; in TLS 1.3 the client hears of it when it first reads."""
        before = self.upstream.count()
        try:
            with contextlib.closing(RawClient(self.gateway.address, client.context(self.trust, **more))) as raw:
                raw.send(handshake())
                nothing = raw.sock.recv(1) == b""
        except OSError:
            nothing = True
        return nothing and self.upstream.count() == before


Start = Callable[..., Mount]


def serve(received: Received) -> None:
    """Echo sockets, and answer pages."""
    if received.first("Upgrade") is not None:
        echo(received)
    else:
        received.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def ca(tmp_path: Path) -> ClientCA:
    return ClientCA(tmp_path)


@pytest.fixture
def start(certificates: Certificates, tmp_path: Path, engine: str, ca: ClientCA) -> Iterator[Start]:
    """Start the gateway; in the end it stops with 0, and wrote nothing to stderr."""
    with ExitStack() as stack:

        def begin(subject: str = "dns", crl: str = "") -> Mount:
            upstream = RecordingUpstream(serve)
            stack.callback(upstream.close)
            files = {"cert": certificates.cert, "key": certificates.key}
            text = CONFIGURATION.format(**files, upstream=upstream.url, engine=engine, subject=subject, crl=crl)
            (tmp_path / "wsguard.toml").write_text(text)
            gateway = GatewayProcess(tmp_path / "wsguard.toml")
            stack.callback(ended, gateway)
            assert gateway.start_line["engine"].startswith(engine)
            return Mount(ca, gateway, upstream, certificates.authority, stack)

        yield begin


def ended(gateway: GatewayProcess) -> None:
    assert gateway.stop() == 0, gateway.stderr()
    assert gateway.stderr() == ""


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_listed_page_and_a_good_certificate_open(start: Start, version: ssl.TLSVersion) -> None:
    """The app hears who it is; the log too; the certificate's end is the socket's; a revocation of it closes."""
    mount = start()
    client = mount.ca.issue(DNS("Robot.Example.com"), Email("robot@example.com"), UPN)
    raw, fields = mount.visitor(client, version=version).open()
    assert raw.sock.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
    assert echoes(raw, "hello")
    assert "x-wsguard-session" not in fields  # ambient: no handle
    received = mount.upstream.wait_for(1)
    assert received.value("X-WSGuard-Subject") == "robot.example.com"
    assert received.value("X-WSGuard-Issuer") == "client_certificate"
    assert received.value("X-WSGuard-Method") == "client_certificate"
    line = mount.gateway.wait_for("session.opened")
    assert (line["subject"], line["credential_id"]) == ("robot.example.com", client.fingerprint)
    admin = mount.ca.folder / "admin" / "admin.sock"
    assert ask_admin(admin, "POST", "/revocations", {"credential_id": client.fingerprint})["closed"] == 1
    assert closed(raw) == (3000, "revoked")
    assert mount.refused(client) == (401, "session.revoked")


@pytest.mark.slow
def test_who_does_not_get_in(start: Start) -> None:
    """
    A foreign page, nobody, and certificates that name nobody, several, or a pattern: the upstream hears of none.

    Strangers' certificates, revoked or ended ones, and a server's do not even get through TLS.
    """
    mount = start()
    ca, good = mount.ca, mount.ca.issue(DNS("robot.test"), file="good.pem")
    assert mount.refused(good, origin="https://evil.test") == (403, "origin.not_allowed")
    assert mount.refused(good, origin=None) == (403, "origin.missing")
    assert mount.refused(None) == (401, "credential.missing")
    unnamed = {
        "no SAN": ca.issue(common_name="robot.test", file="none.pem"),
        "another kind": ca.issue(Email("robot@test"), URI("spiffe://test/robot"), file="other.pem"),
        "two": ca.issue(DNS("a.test"), DNS("b.test"), file="two.pem"),
        "twice": ca.issue(DNS("a.test"), DNS("A.test"), file="twice.pem"),
        "pattern": ca.issue(DNS("*.test"), file="pattern.pem"),
    }
    for name, client in unnamed.items():
        assert mount.refused(client) == (401, "client_certificate.subject"), name
    # GeneralNames { dNSName }, with a NUL that would hide the rest.
    nul = ca.issue(raw_san=b"\x30\x0a\x82\x08good\0bad", file="nul.pem")
    assert mount.refused(nul) == (401, "client_certificate.malformed")
    stranger = ClientCA(ca.folder, "strangers")
    forged = ClientCA(ca.folder / "..", "clients")  # its name, another key
    below = ClientCA(ca.folder, "below", parent=stranger)
    outside = {
        "another CA's": stranger.issue(DNS("robot.test"), file="stranger.pem"),
        "a forged CA's": forged.issue(DNS("robot.test"), file="forged.pem"),
        "an intermediate's of another CA": below.issue(DNS("robot.test"), file="below.pem", chain=[below, stranger]),
        "ended": ca.issue(DNS("robot.test"), file="ended.pem", begin=-timedelta(days=2), end=-timedelta(days=1)),
        "not yet": ca.issue(DNS("robot.test"), file="early.pem", begin=timedelta(days=1), end=timedelta(days=2)),
        "no text": ca.issue(raw_san=b"\x30\x06\x82\x04b\xffad", file="text.pem"),
        "a server's": ca.issue(DNS("robot.test"), file="server.pem", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    }
    for name, client in outside.items():
        for version in VERSIONS:
            assert mount.ends_in_tls(client, version=version), name
    assert mount.upstream.count() == 0
    assert mount.visitor(good).open()[0]
    leaf = ca.issue(DNS("robot.test"), file="again.pem")
    assert not mount.ends_in_tls(leaf)  # the measure itself
    hint = mount.gateway.wait_for("listener.client_certificate")
    assert "client_certificate.ca" in hint["hint"]


@pytest.mark.slow
def test_programs_where_browsers_are_refused(start: Start) -> None:
    """There a certificate counts without an Origin; with one nobody gets in; elsewhere an Origin is asked for."""
    mount = start("uri")
    client = mount.ca.issue(URI("spiffe://test/Robot"))
    program = mount.visitor(client, None)
    raw, _ = program.open(path="/machines")
    assert echoes(raw, "hello")
    assert mount.upstream.wait_for(1).value("X-WSGuard-Subject") == "spiffe://test/Robot"
    page = mount.visitor(client)
    for visitor, path, expected in [
        (page, "/machines", (403, "origin.browser")),
        (program, "/ws", (403, "origin.missing")),
        (mount.visitor(None, None), "/machines", (401, "credential.missing")),
    ]:
        status, request_id = visitor.refused(path=path)
        assert (status, mount.gateway.reason_of(request_id)) == expected


@pytest.mark.slow
def test_pages_are_judged_as_sockets_are(start: Start) -> None:
    """HTTP under the route asks for the certificate too; a route that asks nobody is open to who has none."""
    mount = start("email")
    client = mount.ca.issue(Email("Robot@example.com"), DNS("robot.test"))
    assert mount.visitor(client).ask("/chat", {}, None, method="GET").status == 200
    assert mount.upstream.wait_for(1).value("X-WSGuard-Subject") == "Robot@example.com"
    assert mount.visitor(None).ask("/chat", {}, None, method="GET").status == 401
    assert mount.visitor(client, "https://evil.test").ask("/chat", {}, None, method="GET").status == 403
    assert mount.visitor(None).ask("/open", {}, None, method="GET").status == 200
    assert mount.upstream.count() == 2


@pytest.mark.slow
def test_the_end_of_the_certificate_is_the_end(start: Start) -> None:
    """A socket closes at notAfter; a connection that is kept alive has no certificate any more that would count."""
    mount = start()
    client = mount.ca.issue(DNS("robot.test"), end=timedelta(seconds=4))
    end = client.certificate.not_valid_after_utc.timestamp()
    kept = mount.visitor(client).connect()
    kept.send(b"GET /chat HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.test\r\n\r\n")
    assert kept.reader.head().startswith(b"HTTP/1.1 200 ")
    assert kept.reader.exactly(2) == b"ok"
    raw, _ = mount.visitor(client).open()
    assert echoes(raw, "hello")
    assert closed(raw) == (3000, "credential expired")
    assert end <= time.time() < end + 1
    assert kept.status(handshake()) == 401
    assert mount.gateway.wait_for("handshake.refused")["reason"] == "credential.expired"
    assert mount.ends_in_tls(client)


@pytest.mark.slow
def test_what_the_crl_names_does_not_get_through_tls(start: Start, ca: ClientCA) -> None:
    """Neither a revoked certificate nor one of a revoked intermediate; others do."""
    good, revoked = (ca.issue(DNS(f"{name}.test"), file=f"{name}.pem") for name in ("good", "revoked"))
    middle, withdrawn = (ClientCA(ca.folder, name, parent=ca) for name in ("middle", "withdrawn"))
    below = {
        one.name: one.issue(DNS("below.test"), file=f"{one.file.stem}-leaf.pem", chain=[one])
        for one in (middle, withdrawn)
    }
    crls = [ca.crl(revoked, withdrawn, file="a"), middle.crl(file="b"), withdrawn.crl(file="c")]
    (ca.folder / "clients.crl").write_bytes(b"".join(file.read_bytes() for file in crls))
    mount = start(crl='crl = "clients.crl"')
    for version in VERSIONS:
        assert echoes(mount.visitor(good, version=version).open()[0], "hello")
        assert echoes(mount.visitor(below[middle.name], version=version).open()[0], "hello")
        assert mount.ends_in_tls(revoked, version=version)
        assert mount.ends_in_tls(below[withdrawn.name], version=version)
    assert mount.upstream.count() == 4
    assert "certificate revoked: " in mount.gateway.wait_for("listener.client_certificate")["hint"]


@pytest.mark.slow
def test_a_stale_crl_lets_nobody_in_and_is_told(start: Start, ca: ClientCA) -> None:
    """Nobody knows who has been revoked since: the log says so, and who shows no certificate is served as ever."""
    ca.crl(age=timedelta(days=1))
    mount = start(crl='crl = "clients.crl"')
    assert mount.ends_in_tls(ca.issue(DNS("robot.test")))
    assert "CRL has expired: " in mount.gateway.wait_for("listener.client_certificate")["hint"]
    assert mount.visitor(None).ask("/open", {}, None, method="GET").status == 200


@pytest.mark.slow
def test_an_intermediate_can_be_trusted_alone(start: Start, ca: ClientCA) -> None:
    """Its clients get in, those of the root above it and of its siblings do not; its CRL counts."""
    middle, sibling = (ClientCA(ca.folder, name, parent=ca) for name in ("middle", "sibling"))
    good, revoked = (middle.issue(DNS(f"{name}.test"), file=f"{name}.pem") for name in ("good", "revoked"))
    above = ca.issue(DNS("above.test"), file="above.pem", chain=[ca])
    beside = sibling.issue(DNS("beside.test"), file="beside.pem", chain=[sibling, ca])
    middle.crl(revoked)
    ca.file.write_bytes(middle.file.read_bytes())
    mount = start(crl='crl = "clients.crl"')
    assert echoes(mount.visitor(good).open()[0], "hello")
    for client in (revoked, above, beside):
        assert mount.ends_in_tls(client), client.file
    assert mount.upstream.count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_is_still_that_client(start: Start, version: ssl.TLSVersion) -> None:
    """
    TLS 1.3 resumes nothing here; what TLS 1.2 resumes by its id has the same certificate, until that ends.

    Nobody becomes nobody, and nobody somebody, by a session that is resumed.
    """
    mount = start()
    client = mount.ca.issue(DNS("robot.test"), end=timedelta(seconds=4))
    context = client.context(mount.trust, version)
    first = resumed(mount, context, None)
    assert not first.session_reused
    assert first.session is not None
    assert not first.session.has_ticket
    again = resumed(mount, context, first.session)
    assert again.session_reused is (version is ssl.TLSVersion.TLSv1_2)
    # What is tested is the end of a real certificate, in OpenSSL's clock and ours: that moment has to pass.
    time.sleep(max(0, client.certificate.not_valid_after_utc.timestamp() - time.time()) + 0.1)
    before = mount.upstream.count()
    with contextlib.suppress(OSError):
        resumed(mount, context, first.session, status=b"401" if version is ssl.TLSVersion.TLSv1_2 else b"")
    assert mount.upstream.count() == before == 2
    plain = ssl.create_default_context(cafile=mount.trust)
    plain.check_hostname = False
    plain.minimum_version = plain.maximum_version = version
    nobody = resumed(mount, plain, None, status=b"401")
    resumed(mount, plain, nobody.session, status=b"401")
    assert mount.upstream.count() == 2


def resumed(
    mount: Mount, context: ssl.SSLContext, session: ssl.SSLSession | None, *, status: bytes = b"101"
) -> ssl.SSLSocket:
    """Come with a session of before; the handshake is answered with *status*."""
    plain = mount.stack.enter_context(socket.create_connection(mount.gateway.address, timeout=20))
    sock = mount.stack.enter_context(context.wrap_socket(plain, server_hostname="app.test", session=session))
    sock.sendall(handshake())
    assert sock.recv(12)[9:] == status
    return sock


@pytest.mark.slow
def test_without_the_table_nobody_is_asked(
    start_gateway: StartGateway,
    start_upstream: Callable[..., RecordingUpstream],
    certificates: Certificates,
    ca: ClientCA,
) -> None:
    """A browser would ask its user for one at every visit."""
    gateway = start_gateway(start_upstream().url, hosts=["app.test"])
    stranger = ca.issue(DNS("robot.test"))
    with contextlib.closing(RawClient(gateway.address, stranger.context(certificates.authority))) as raw:
        raw.open()
