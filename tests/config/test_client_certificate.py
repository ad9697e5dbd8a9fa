"""The table [client_certificate]: what stops the start, and whom the listener trusts then."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.client_authority import DNS, ClientCA
from wsguard import ClientCertificate, ConfigurationError, Guard, Policy
from wsguard.asgi import WebSocketGuard
from wsguard.config import load_gateway, read_config, render_toml
from wsguard.config.run import load_run
from wsguard.dev_ca import DevelopmentAuthority
from wsguard.gateway.lifecycle import GatewaySettings

TOP = """
upstream = "http://127.0.0.1:8888"
origins = ["https://app.localhost:8443"]
hosts = ["app.localhost"]
auth = ["client_certificate"]
"""
TABLE = TOP + '[client_certificate]\nca = "pki/ca.pem"\nsubject = "dns"\n'
WITH_CRL = TABLE + 'crl = "pki/clients.crl"\n'


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClientCA:
    """A CA, whose file the configuration names; the test itself runs elsewhere."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "pki").mkdir()
    made = ClientCA(tmp_path / "pki")
    (tmp_path / "pki" / "ca.pem").write_bytes(made.file.read_bytes())
    return made


def load(folder: Path, text: str) -> GatewaySettings:
    (folder / "wsguard.toml").write_text(text)
    return load_gateway(folder / "wsguard.toml", {}, DevelopmentAuthority.open)


def errors_of(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(folder, text)
    return str(raised.value)


def test_the_listener_trusts_that_ca_alone(ca: ClientCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody of the system's, whatever the environment says; without the table nobody is asked at all."""
    stranger = ClientCA(tmp_path, "strangers")
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger.file))
    context = load(tmp_path, TABLE).context
    assert context.get_ca_certs(binary_form=True) == [ca.certificate.public_bytes(Encoding.DER)]
    assert context.verify_mode is ssl.CERT_OPTIONAL
    assert (context.num_tickets, context.post_handshake_auth) == (0, False)
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert not context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    plain = load(tmp_path, TOP.replace('auth = ["client_certificate"]', "")).context
    # Without the table the listener must not ask: a browser would show its user a choice of certificates.
    assert plain.verify_mode is ssl.CERT_NONE
    assert plain.get_ca_certs() == []


def test_with_a_crl_it_is_asked_for_the_whole_chain(ca: ClientCA, tmp_path: Path) -> None:
    """But above an intermediate, which is trusted by itself, nobody is left to ask for one."""
    ca.crl()
    assert load(tmp_path, WITH_CRL).context.verify_flags & ssl.VERIFY_CRL_CHECK_CHAIN == ssl.VERIFY_CRL_CHECK_CHAIN
    middle = ClientCA(tmp_path / "pki", "middle", parent=ca)
    middle.crl()
    (tmp_path / "pki" / "ca.pem").write_bytes(middle.file.read_bytes())
    flags = load(tmp_path, WITH_CRL).context.verify_flags
    assert flags & ssl.VERIFY_CRL_CHECK_CHAIN == ssl.VERIFY_CRL_CHECK_LEAF


def test_missing_client_ca_stops_start(ca: ClientCA, tmp_path: Path) -> None:
    """
    B-TLS-02: a CA file that is missing, empty or broken, or holds anything but CAs, is an error that names its key.

    Swallowed, it would leave the system's CAs, or nobody's, to vouch for strangers (Caddy CVE-2026-27586).
    """
    file = tmp_path / "pki" / "ca.pem"
    good = file.read_bytes()
    load(tmp_path, TABLE)
    leaf = ca.issue(DNS("robot.test"))
    ca.crl()
    for content, found in {
        b"": "nothing in PEM",
        b"\n": "nothing in PEM",
        b"nonsense": "nothing in PEM",
        good[: len(good) // 2]: "nothing in PEM",
        good + good[: len(good) // 2]: "a block is cut off",
        good[: len(good) // 2] + good: "a block is cut off",
        good + good.replace(b"M", b"N", 9): "a certificate is broken",
        good.replace(b"BEGIN CERTIFICATE", b"BEGIN TRUSTED CERTIFICATE").replace(
            b"END CERTIFICATE", b"END TRUSTED CERTIFICATE"
        ): "with a TRUSTED CERTIFICATE",
        leaf.file.read_bytes(): "with a PRIVATE KEY",
        leaf.certificate.public_bytes(Encoding.PEM): "which is no CA",
        good + leaf.certificate.public_bytes(Encoding.PEM): "which is no CA",
        good + (tmp_path / "pki" / "clients.crl").read_bytes(): "with a X509 CRL",
        good + b"\n" * (16 * 1024 * 1024): "larger than",
    }.items():
        file.write_bytes(content)
        told = errors_of(tmp_path, TABLE)
        assert told.startswith("client_certificate.ca: found "), told
        assert found in told, told
    file.unlink()
    assert errors_of(tmp_path, TABLE).startswith("client_certificate.ca: found ")
    assert "No such file" in errors_of(tmp_path, TABLE)
    file.mkdir()
    assert "client_certificate.ca: found " in errors_of(tmp_path, TABLE)
    command = [sys.executable, "-m", "wsguard", "gateway", "--config", str(tmp_path / "wsguard.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "client_certificate.ca" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_crl_that_is_none_stops_the_start(ca: ClientCA, tmp_path: Path) -> None:
    """Missing, empty or broken; not of the CA, or with a CA in it, which OpenSSL would trust from there."""
    file = ca.crl()
    good = file.read_bytes()
    load(tmp_path, WITH_CRL)
    stranger = ClientCA(tmp_path, "strangers")
    forged = ClientCA(tmp_path, "clients")  # the same name, another key
    for content, found in {
        b"": "nothing in PEM",
        good[: len(good) // 2]: "nothing in PEM",
        good + good.replace(b"M", b"N", 9): "a CRL is broken",
        good + stranger.file.read_bytes(): "with a CERTIFICATE",
        stranger.crl(file="s").read_bytes(): "without a CRL of 'CN=clients'",
        forged.crl(file="f").read_bytes(): "without a CRL of 'CN=clients'",
    }.items():
        file.write_bytes(content)
        told = errors_of(tmp_path, WITH_CRL)
        assert told.startswith("client_certificate.crl: found "), told
        assert found in told, told
    file.unlink()
    assert "client_certificate.crl: found " in errors_of(tmp_path, WITH_CRL)


def test_a_file_that_changes_during_the_start_stops_it(
    ca: ClientCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been judged is what is trusted."""
    stranger = ClientCA(tmp_path, "strangers")
    original = ssl.SSLContext.load_verify_locations

    def changed(self: ssl.SSLContext, cafile: Path) -> None:
        cafile.write_bytes(cafile.read_bytes() + stranger.file.read_bytes())
        original(self, cafile=cafile)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", changed)
    assert "which has just changed" in errors_of(tmp_path, TABLE)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (TOP, "auth: found 'client_certificate', expected an authenticator that there is (none)"),
        (TOP + "[client_certificate]\n", "client_certificate.ca: found nothing"),
        (TOP + "[client_certificate]\n", "client_certificate.subject: found nothing"),
        (TABLE + 'issuer = ""\n', "client_certificate.issuer: found ''"),
        (TABLE.replace('"dns"', '"cn"'), "client_certificate.subject: found 'cn', expected one of 'dns'"),
        (TABLE + "crls = 'x'\n", "(did you mean 'crl'?)"),
        (TABLE.replace('"pki/ca.pem"', "1"), "client_certificate.ca: found 1"),
        (TABLE.replace("origins = ", "# "), "origins: found None"),
    ],
)
def test_an_error_says_what_to_do(ca: ClientCA, tmp_path: Path, text: str, part: str) -> None:
    assert ca.file.exists()
    assert part in errors_of(tmp_path, text)


def test_printed_configuration_means_the_same(ca: ClientCA, tmp_path: Path) -> None:
    """Paths are read from the file's folder, and come out absolute."""
    ca.crl()
    (tmp_path / "wsguard.toml").write_text(WITH_CRL)
    config = read_config(tmp_path / "wsguard.toml", {})
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "printed.toml").write_text(render_toml(config, "x.json"))
    again = read_config(tmp_path / "data" / "printed.toml", {})
    assert again == config
    assert again.client_certificate is not None
    assert again.client_certificate.ca == f"{tmp_path}/pki/ca.pem"
    assert again.client_certificate.crl == f"{tmp_path}/pki/clients.crl"


def test_it_is_the_gateways_alone(ca: ClientCA, tmp_path: Path) -> None:
    """`wsguard run` has no such table, and a mount in Python says why a route cannot name it."""
    (tmp_path / "wsguard.toml").write_text(TABLE.replace("upstream", "# "))
    with pytest.raises(ConfigurationError, match="a key of the gateway, expected it in a file of `wsguard gateway`"):
        load_run(tmp_path / "wsguard.toml", {}, DevelopmentAuthority.open)
    options = ClientCertificate(ca=ca.file, subject="dns")
    policy = Policy(origins=["https://app.test"], auth=["client_certificate"])

    async def app(*_: object) -> None: ...

    for mount in (
        lambda: WebSocketGuard(app, guard=Guard(policy, authenticators=[options])),
        lambda: WebSocketGuard(app, policy=policy, authenticators=[options]),
        lambda: WebSocketGuard(
            app,
            routes={"/a": Policy(origins=["https://app.test"], anonymous=True), "/*": policy},
            authenticators=[options],
        ),
    ):
        with pytest.raises(ConfigurationError, match=r"no ASGI server passes client certificates .* `wsguard gateway`"):
            mount()
    unused = {"/*": Policy(origins=["https://app.test"], anonymous=True)}
    WebSocketGuard(app, routes=unused, authenticators=[options])
