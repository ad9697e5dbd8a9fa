"""The tables of credentials in the configuration file: every error at once, with its key and the way out."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.engine.tokens import key_of, public
from wsguard.config import load_gateway, read_config, render_toml, schema
from wsguard.config.file import RunConfig
from wsguard.config.run import load_run
from wsguard.dev_ca import DevelopmentAuthority
from wsguard.gateway.lifecycle import GatewaySettings
from wsguard.vocabulary.errors import ConfigurationError

TOP = """
upstream = "http://127.0.0.1:8888"
origins = ["https://app.localhost:8443"]
hosts = ["app.localhost"]
"""

# RULES §12's file, as far as it is brought: addresses and certificate are this machine's.
FULL = (
    TOP
    + """
public_url = "https://app.localhost:8443"
outbound = ["10.0.0.0/8"]

[bearer]
header = "X-Token"

[jwt."https://id.example.com"]
audience = ["https://app.example.com"]
jwks = "file:keys/jwks.json"
typ = ["at+jwt"]
algorithms = ["ES256"]
scopes = "scope"
groups = "groups"

[jwt."https://mine.example.com"]
audience = ["me"]
secret_file = "keys/secret"
missing_claims = ["iss"]

[api_keys]
file = "keys/keys.toml"
header = "X-API-Key"

[ask]
url = "unix:keys/app.sock:/api/me"
cookies = ["username-*"]
headers = ["X-Tenant"]
subject = "identity.username"
expires_at = "until"
scopes = "may"
sid = "login"
timeout = "3s"
cache = "0s"
recheck = "90s"

[ticket]
sold_for = ["bearer"]
lifetime = "10s"
rate = 5
rate_address = 50
replay_closes = false
bind_address = true

[[route]]
path = "/ws/*"
auth = ["ticket", "bearer", "api_key"]
origin_required = "unless-header-credential"
require = { scopes = ["chat"], groups = ["staff"] }
forward_credential = true

[[route]]
path = "/healthz"
http = "plain"
anonymous = true

[[route]]
path = "/*"
auth = ["bearer_subprotocol"]
browsers = "allow"
refusal = "close"
"""
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file's folder, with the files that it names; the test itself runs elsewhere."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "jwks.json").write_bytes(public(key_of("ES256")))
    (keys / "keys.toml").touch(0o600)
    (keys / "secret").write_text("s" * 32)
    (keys / "secret").chmod(0o600)
    return tmp_path


def load(folder: Path, text: str) -> GatewaySettings:
    file = folder / "wsguard.toml"
    file.write_text(text)
    return load_gateway(file, {}, DevelopmentAuthority.open)


def errors_of(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(folder, text)
    return str(raised.value)


def test_the_tables_make_a_guard(folder: Path) -> None:
    """Each key arrives where it belongs; relative paths are read from the file's folder, not from where one stands."""
    guard = load(folder, FULL).guard
    first, health, rest = guard.routes.routes
    assert [one.name for one in first.authenticators] == ["ticket", "bearer", "api_key"]
    assert first.takes_tickets
    assert (first.policy.origin_required, first.policy.forward_credential) == ("unless-header-credential", True)
    assert (first.policy.requirement.scopes, first.policy.requirement.groups) == ({"chat"}, {"staff"})
    assert (health.authenticators, health.policy.page_rule) == ((), "plain")
    assert [one.name for one in rest.authenticators] == ["bearer_subprotocol"]
    assert (rest.policy.refusal, rest.policy.page_rule) == ("close", "same-policy")
    ticket = guard._ticket
    assert ticket is not None
    assert (ticket.lifetime, ticket.rate, ticket.rate_address) == (10, 5, 50)
    assert (ticket.replay_closes, ticket.bind_address) == (False, True)
    assert guard._desk is not None
    assert guard._desk.public_url == "https://app.localhost:8443"
    ask: Any = guard._assembly._known["ask"]
    options = ask._questions.options
    assert (options.timeout, options.cache, options.recheck) == (3, 0, 90)
    assert (options.subject, options.expires_at, options.scopes, options.sid) == (
        "identity.username",
        "until",
        "may",
        "login",
    )
    bearer: Any = first.authenticators[1]
    assert bearer.field_name == b"x-token"
    assert any("missing_claims" in notice for notice in guard.notices)


def test_printed_configuration_means_the_same(folder: Path) -> None:
    """`--print-config` is fed back and gives the same structure, wherever it is read from."""
    (folder / "wsguard.toml").write_text(FULL)
    config = read_config(folder / "wsguard.toml", {})
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "printed.toml").write_text(render_toml(config, "x.json"))
    again = read_config(elsewhere / "printed.toml", {})
    assert again == config
    assert again.jwt is not None
    assert again.api_keys is not None
    assert again.jwt["https://id.example.com"].jwks == f"file:{folder}/keys/jwks.json"
    assert again.jwt["https://mine.example.com"].secret_file == f"{folder}/keys/secret"
    assert again.api_keys.file == f"{folder}/keys/keys.toml"
    assert again.ask is not None
    assert again.ask.url == f"unix:{folder}/keys/app.sock:/api/me"
    assert load_gateway(elsewhere / "printed.toml", {}, DevelopmentAuthority.open).guard.routes.routes[0].takes_tickets


@pytest.mark.slow
def test_the_command_prints_it(folder: Path) -> None:
    """From another folder too; no secret's content stands there, only its file."""
    (folder / "wsguard.toml").write_text(FULL)
    command = [sys.executable, "-m", "wsguard", "gateway", "--config", str(folder / "wsguard.toml"), "--print-config"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd="/")
    assert "s" * 32 not in printed.stdout
    (folder / "again.toml").write_text(printed.stdout)
    assert read_config(folder / "again.toml", {}) == read_config(folder / "wsguard.toml", {})


def test_an_issuers_name_may_hold_anything(folder: Path) -> None:
    """It is compared exactly, so it is written exactly: quotes and dots come back."""
    text = TOP + '[jwt.\'https://id.test/"a".b\']\naudience = ["x"]\n'
    (folder / "wsguard.toml").write_text(text)
    config = read_config(folder / "wsguard.toml", {})
    (folder / "printed.toml").write_text(render_toml(config, "x.json"))
    assert read_config(folder / "printed.toml", {}) == config


def test_the_schema_knows_the_tables() -> None:
    """Editors complete and check what the program accepts."""
    validator = jsonschema.Draft202012Validator(schema())
    assert not list(validator.iter_errors(tomllib.loads(FULL)))
    for wrong in (
        "[ticket]\nsold_fr = []",
        "[ticket]\nlifetime = 30",
        "[ticket]\nrate = 0",
        "[jwt.x]\naudience = 1",
        "[api_keys]\nfle = 'x'",
        "[bearer]\nheader = 1",
        "require = { scope = ['x'] }",
        "auth = 'bearer'",
        "origin_required = 'never'",
    ):
        assert list(validator.iter_errors(tomllib.loads(wrong))), wrong


def test_all_errors_are_told_at_once(folder: Path) -> None:
    """Each table says its own, and none hides another's."""
    told = errors_of(
        folder,
        TOP
        + """
[bearer]
header = "Cookie"

[jwt."http://id.example.com"]
audience = []
jwks = "file:x"
secret_file = "y"

[jwt."https://other.example.com"]
algorithms = []

[api_keys]
header = "Host"

[ticket]
lifetime = "1h"
""",
    )
    for key in (
        "bearer.header",
        "http://id.example.com",
        "https://other.example.com",
        "api_keys.file",
        "ticket.sold_for",
    ):
        assert key in told, key
    assert "Traceback" not in told


ISSUER = '[jwt."https://id.example.com"]\naudience = ["x"]\njwks = "file:keys/jwks.json"\n'


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('auth = ["bearer"]\n', "auth: found 'bearer', expected an authenticator that there is (none)"),
        ('auth = ["api_key"]\n', "auth: found 'api_key'"),
        ('auth = ["ticket"]\n', "auth: found 'ticket'"),
        ('auth = ["basic"]\n', "auth: found 'basic'"),
        ('auth = ["ask"]\n', "auth: found 'ask'"),
        ('auth = ["bearr"]\n' + ISSUER, "(did you mean 'bearer'?)"),
        ("auth = []\n", 'auth: found [], expected a list of names like ["bearer"], or anonymous = true'),
        ('auth = "bearer"\n', "auth: found 'bearer', expected a list of texts"),
        ("auth = [1]\n", "auth: found [1]"),
        (ISSUER, "auth: found nothing, expected some of bearer, bearer_subprotocol, or anonymous = true"),
        (
            'auth = ["bearer"]\nrequire = { scope = ["chat"] }\n' + ISSUER,
            "require.scope: found an unknown key, expected a key that there is (did you mean 'scopes'?)",
        ),
        ('require = { scopes = ["x"] }\n', "require: found"),
        ('require = { scope = ["x"] }\n', "require"),
        ("anonymous = 1\n", "anonymous: found 1"),
        (
            'origin_required = "no"\n',
            "origin_required: found 'no', expected one of 'always', 'unless-header-credential'",
        ),
        ('browsers = "no"\n', "browsers: found 'no'"),
        ('refusal = "no"\n', "refusal: found 'no'"),
        ("bearer = 1\n", "bearer: found 1, expected a table: [bearer]"),
        ("jwt = 1\n", 'jwt: found 1, expected a table for each issuer: [jwt."https://id.example.com"]'),
        ("[jwt]\nx = 1\n", "expected a table for each issuer"),
        ('[jwt."https://id.example.com"]\naudiens = ["x"]\n', "(did you mean 'audience'?)"),
        ('[jwt."https://id.example.com"]\n', "audience"),
        ('[jwt."https://id.example.com"]\naudience = ["x"]\njwks = "http://id.example.com/k"\n', "jwks"),
        ('[jwt."https://id.example.com"]\naudience = ["x"]\nalgorithms = ["none"]\n', "algorithms"),
        ('[jwt."https://id.example.com"]\naudience = ["x"]\nalgorithms = []\n', "algorithms"),
        ('[bearer]\nheader = "Cookie"\n', "bearer.header: found 'Cookie'"),
        ('[bearer]\nheadr = "X"\n', "bearer.headr: found an unknown key"),
        (
            '[api_keys]\nheader = "X-Key"\n',
            "api_keys.file: found nothing, expected the file that `wsguard keys add` writes",
        ),
        ('[api_keys]\nfile = "keys/keys.toml"\nheader = "X-WSGuard-Key"\n', "api_keys.header"),
        ('[ask]\ncookies = ["s"]\n', "ask.url: found nothing, expected an address of the app"),
        ('[ask]\nurl = "http://127.0.0.1:1/me"\n', "ask.cookies: found none"),
        ('[ask]\nurl = "http://1.1.1.1/me"\ncookies = ["s"]\n', "ask.url: found http:// to 1.1.1.1, expected https"),
        ('[ask]\nurl = "http://127.0.0.1:1/me"\ncookies = ["s"]\nrecheck = 60\n', "ask.recheck: found 60"),
        ('[ask]\nurl = "http://127.0.0.1:1/me"\ncookies = ["s"]\nrechek = "60s"\n', "(did you mean 'recheck'?)"),
        ('[ask]\nurl = "http://127.0.0.1:1/me"\ncookies = ["a b"]\n', "ask.cookies: found 'a b'"),
        (
            '[ticket]\nlifetime = "30s"\n',
            'ticket.sold_for: found nothing, expected what buys a ticket, like ["bearer"]',
        ),
        ("[ticket]\nsold_for = []\n", "ticket.sold_for"),
        ('[ticket]\nsold_for = ["basic"]\n', "expected a credential that a page can send by fetch"),
        ('auth = ["ticket"]\n[ticket]\nsold_for = ["bearer"]\n', "ticket.sold_for: found 'bearer'"),
        ('[ticket]\nsold_for = ["bearer"]\nlifetime = 30\n', 'expected a value with its unit, like "30s"'),
        ('[ticket]\nsold_for = ["bearer"]\nlifetime = "1s"\n', "ticket.lifetime: found 1"),
        ('[ticket]\nsold_for = ["bearer"]\nlifetime = "1h"\n', "expected between 5 and 300"),
        ('[ticket]\nsold_for = ["bearer"]\nrate = 0\n', "ticket.rate"),
        ("[ticket]\npublic_url = 'x'\n", "expected it above the first [table]"),
        (
            'public_url = "http://app.localhost"\nauth = ["ticket"]\n[ticket]\nsold_for = ["bearer"]\n' + ISSUER,
            "public_url: found 'http://app.localhost', expected an https origin",
        ),
        ('outbound = ["nonsense"]\nauth = ["bearer"]\n' + ISSUER, "outbound"),
        ('outbound_ca = "none.pem"\nauth = ["bearer"]\n' + ISSUER, "none.pem"),
    ],
)
def test_an_error_says_what_to_do(folder: Path, text: str, part: str) -> None:
    """Key, what was found, what was expected, the way out."""
    told = errors_of(folder, TOP + text)
    assert part in told, told


def test_a_url_must_be_written_where_there_are_several_hosts(folder: Path) -> None:
    """With a certificate of one name only that is taken; who sells no tickets needs none."""
    sells = 'auth = ["ticket"]\n[ticket]\nsold_for = ["bearer"]\n' + ISSUER
    several = (
        'upstream = "http://127.0.0.1:1"\norigins = ["https://a.localhost"]\nhosts = ["a.localhost", "b.localhost"]\n'
    )
    assert "public_url: found nothing, and several hosts" in errors_of(folder, several + sells)
    load(folder, several + 'auth = ["bearer"]\n' + ISSUER)
    load(folder, several + 'public_url = "https://a.localhost"\n' + sells)


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("jwks.json", None, "jwks"),
        ("jwks.json", "{}", "jwks"),
        ("secret", "short", "secret_file"),
        ("keys.toml", "nonsense", "keys.toml"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(folder: Path, name: str, text: str | None, part: str) -> None:
    """Told with its path, before anybody connects."""
    file = folder / "keys" / name
    file.unlink()
    if text is not None:
        file.write_text(text)
        file.chmod(0o600)
    told = errors_of(folder, FULL)
    assert part in told
    assert str(folder) in told


def test_an_anonymous_route_beats_what_it_inherits(folder: Path) -> None:
    """``auth`` at the top is every route's, but of one that says it asks nobody."""
    text = (
        TOP + 'auth = ["bearer"]\n' + ISSUER + '[[route]]\npath = "/open"\nanonymous = true\n[[route]]\npath = "/*"\n'
    )
    first, rest = load(folder, text).guard.routes.routes
    assert (first.authenticators, first.policy.page_rule) == ((), "open")
    assert [one.name for one in rest.authenticators] == ["bearer"]


def test_wsguard_run_knows_the_same_tables(folder: Path) -> None:
    """But what says something to an upstream, which it has none of."""
    text = FULL.replace('upstream = "http://127.0.0.1:8888"\n', "").replace("forward_credential = true\n", "")
    (folder / "run.toml").write_text(text)
    settings = load_run(folder / "run.toml", {}, DevelopmentAuthority.open)
    assert settings.guard.routes.routes[0].takes_tickets
    config = read_config(folder / "run.toml", {}, RunConfig)
    (folder / "again.toml").write_text(render_toml(config, "x.json"))
    assert read_config(folder / "again.toml", {}, RunConfig) == config
    (folder / "run.toml").write_text(text + "forward_credential = true\n")
    with pytest.raises(ConfigurationError, match="forward_credential"):
        load_run(folder / "run.toml", {}, DevelopmentAuthority.open)
