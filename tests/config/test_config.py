"""The configuration file and the flags: one structure, every error at once, each with the way out."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from wsguard.config import assemble_gateway, load_gateway, read_config, render_toml, schema
from wsguard.config.run import RunSettings, load_run
from wsguard.config.units import parse_duration, parse_size, write_duration, write_size
from wsguard.dev_ca import DevelopmentAuthority
from wsguard.engine.routes import RouteTable
from wsguard.gateway.lifecycle import GatewaySettings
from wsguard.identity.allow_lists import FileList, URLList
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.host import Host

UPSTREAM = {"upstream": "http://127.0.0.1:8888"}


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's own development CA."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def load(flags: dict[str, Any] | None = None, text: str | None = None, folder: Path | None = None) -> GatewaySettings:
    file = None
    if text is not None:
        assert folder is not None
        file = folder / "wsguard.toml"
        file.write_text(text)
    return load_gateway(file, flags or {}, DevelopmentAuthority.open)


def serves(routes: RouteTable, name: str) -> bool:
    return routes.routes[0].policy.host_rules.serves(Host.parse_entry(name))


def errors_of(flags: dict[str, Any] | None = None, text: str | None = None, folder: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(flags, text, folder)
    return str(raised.value)


def test_the_one_line_command(tmp_path: Path) -> None:
    """An upstream is enough on loopback: same origin, the development names, both loopback addresses."""
    settings = load(UPSTREAM)
    assert [(address.host, address.port) for address in settings.listen] == [("127.0.0.1", 8443), ("::1", 8443)]
    assert all(serves(settings.guard.routes, name) for name in ("localhost", "127.0.0.1", "[::1]"))
    assert not serves(settings.guard.routes, "evil.test")
    assert settings.guard.routes.routes[0].policy.origin_rules.same_origin
    assert settings.urls == ("https://localhost:8443",)


EVERYTHING_WRONG = """
orgins = ["https://a.test"]
upstream = "ws://x"
hosts = []
max_message = 5
http = "opn"
listen = ["localhost"]
[limits]
ping = 5
head = "1B"
hed = 1
[[route]]
origins = ["*"]
[[route]]
path = "/ws*"
"""


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    """A person fixes a file in one go; an unknown key names the nearest valid one."""
    told = errors_of(text=EVERYTHING_WRONG, folder=tmp_path)
    for part in (
        "orgins: found an unknown key, expected a key that there is (did you mean 'origins'?)",
        "upstream: found 'ws://x', expected http://HOST:PORT",
        "perhaps http://x",
        'max_message: found 5, expected a size with its unit, like "16MiB"',
        "http: found 'opn', expected one of 'open', 'same-policy', 'plain'",
        "listen: found 'localhost', expected HOST:PORT",
        'limits.ping: found 5, expected a value with its unit, like "30s"',
        "limits.head: found '1B', expected between 1024 and 262144 bytes",
        "limits.hed: found an unknown key, expected a key that there is (did you mean 'head'?)",
        "route 1: path: found nothing",
        "route 2: path: found '/ws*', expected a path",
    ):
        assert part in told, part
    assert told.count("\n") == 11  # and `hosts`, which the empty list leaves without a name


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({}, "upstream: found nothing, expected --upstream http://127.0.0.1:8888"),
        ({"upstream": "127.0.0.1:8888"}, "perhaps http://127.0.0.1:8888"),
        ({"upstream": "http://127.0.0.1:8888/base"}, "without path"),
        ({"upstream": "http://u:p@127.0.0.1"}, "without path, query or password"),
        ({"upstream": "http://[::1"}, "upstream"),
        ({"upstream": "http://127.0.0.1:0"}, "from 1 to 65535"),
        ({"upstream": "unix:"}, "unix:PATH"),
        ({**UPSTREAM, "listen": ["0.0.0.0:443"]}, "only loopback gets a development certificate"),
        ({**UPSTREAM, "listen": ["::1:8443"]}, "in brackets"),
        ({**UPSTREAM, "listen": ["plain:127.0.0.1:80"]}, "this one is TLS, always"),
        ({**UPSTREAM, "listen": []}, "at least one"),
        ({**UPSTREAM, "listen": ["127.0.0.1:²"]}, "HOST:PORT"),
        ({**UPSTREAM, "hosts": ["app.example.com"]}, "development CA may vouch for"),
        ({**UPSTREAM, "hosts": []}, "hosts"),
        ({**UPSTREAM, "cert": "a.pem"}, "--key too"),
        ({**UPSTREAM, "key": "a.key"}, "--cert too"),
        ({**UPSTREAM, "cert": "missing.pem", "key": "a.key"}, "missing.pem (No such file or directory)"),
        ({**UPSTREAM, "origins": ["https://app.test/"]}, "without the slash"),
        ({**UPSTREAM, "origins": ["http://app.test"]}, "https://"),
        ({**UPSTREAM, "upstream_ca": "ca.pem"}, "an https upstream"),
        ({"upstream": "https://127.0.0.1", "upstream_ca": "none.pem"}, "none.pem"),
        ({**UPSTREAM, "upstream_host": "a/b"}, '"preserve", "upstream"'),
        ({**UPSTREAM, "upstream_origin": "nonsense"}, '"preserve", "upstream"'),
        ({**UPSTREAM, "max_message": "1GiB1"}, "--max-message"),
        ({**UPSTREAM, "max_message": "1B"}, "between 125"),
        ({**UPSTREAM, "max_message": "999999999999B"}, "between 125"),
    ],
)
def test_an_error_says_what_to_do(flags: dict[str, Any], part: str) -> None:
    """Key, what was found, what was expected, the way out."""
    assert part in errors_of(flags)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """Not there, not TOML."""
    with pytest.raises(ConfigurationError, match="No such file"):
        read_config(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(ConfigurationError, match="a TOML file"):
        read_config(tmp_path / "bad.toml", {})
    for text, part in (
        ("route = 1", "[[route]]"),
        ("route = []", "an empty list"),
        ("limits = 1", "[limits]"),
        ("[limits]\norigins = []\n", "above the first [table]"),
    ):
        assert part in errors_of(
            text=text + "\n" if text.startswith("[") else text + '\nupstream = "http://127.0.0.1:1"\n', folder=tmp_path
        )


FULL = """
listen = ["127.0.0.1:9443"]
upstream = "unix:app.sock"
origins = ["https://app.localhost:9443"]
hosts = ["app.localhost"]
compression = "passthrough"
max_message = "1MiB"
upstream_host = "upstream"
log_format = "json"
tls_engine = "stdlib"

[limits]
ping = "10s"
idle = "1m"
head = "32KiB"
open_address = 10

[[route]]
path = "/ws/*"
allow_missing_origin = true
max_message = "2KiB"

[[route]]
path = "/healthz"
http = "plain"

[[route]]
path = "/*"
"""


def test_routes_inherit_what_they_do_not_write(tmp_path: Path) -> None:
    """Keys of a policy at the top are every route's defaults; relative paths are read from the file's folder."""
    settings = load(text=FULL, folder=tmp_path)
    first, health, rest = settings.guard.routes.routes
    assert (first.path, first.policy.max_message, first.policy.allow_missing_origin) == ("/ws/*", 2048, True)
    assert (rest.policy.max_message, rest.policy.allow_missing_origin, rest.policy.compression) == (
        1024 * 1024,
        False,
        True,
    )
    assert health.policy.page_rule == "plain"
    assert settings.upstream.path == str(tmp_path / "app.sock")
    assert (
        settings.guard.limits.ping,
        settings.guard.limits.idle,
        settings.guard.limits.head,
        settings.guard.limits.open_address,
    ) == (
        10,
        60,
        32768,
        10,
    )
    assert settings.engine == "stdlib"
    assert any("allow_missing_origin" in notice for notice in settings.guard.notices)


def test_a_flag_replaces_the_files_list_whole(tmp_path: Path) -> None:
    """Nobody wants two lists mixed."""
    (tmp_path / "wsguard.toml").write_text(FULL)
    config = read_config(tmp_path / "wsguard.toml", {"origins": ["https://b.localhost"]})
    assert config.origins == ["https://b.localhost"]


def test_printed_configuration_means_the_same(tmp_path: Path) -> None:
    """`--print-config` is fed back and gives the same structure, and the same text."""
    flags = {
        **UPSTREAM,
        "origins": ["https://a.localhost"],
        "hosts": ["a.localhost"],
        "listen": ["[::1]:1"],
        "max_message": "2MiB",
        "allow_missing_origin": True,
        "cert": "rel.pem",
        "key": "rel.key",
        "upstream_host": 'quote"d',
    }
    config = read_config(None, flags)
    (tmp_path / "printed.toml").write_text(render_toml(config, "x.json"))
    again = read_config(tmp_path / "printed.toml", {})
    assert again == config
    (tmp_path / "full.toml").write_text(FULL)
    full = read_config(tmp_path / "full.toml", {})
    (tmp_path / "full2.toml").write_text(render_toml(full, "x.json"))
    assert read_config(tmp_path / "full2.toml", {}) == full


def test_the_schema_knows_every_key() -> None:
    """Editors that read the `#:schema` line complete and check what the program accepts."""
    import tomllib

    import jsonschema

    document = schema()
    jsonschema.Draft202012Validator.check_schema(document)
    validator = jsonschema.Draft202012Validator(document)
    assert not list(validator.iter_errors(tomllib.loads(FULL)))
    for wrong in ("max_message = 5", "orgins = []", "[limits]\nping = 5", 'http = "opn"', '[[route]]\nhttp = "open"'):
        assert list(validator.iter_errors(tomllib.loads(wrong))), wrong


def certificate(folder: Path, *names: str) -> dict[str, str]:
    leaf = trustme.CA().issue_cert(*names)
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    leaf.private_key_pem.write_to_path(folder / "cert.key")
    return {"cert": str(folder / "cert.pem"), "key": str(folder / "cert.key")}


def test_the_served_names_are_those_of_origins_and_certificate(tmp_path: Path) -> None:
    """By default; a certificate's wildcard is one label; `hosts` replaces them."""
    files = certificate(tmp_path, "app.example", "*.wild.example")
    settings = load({**UPSTREAM, **files, "origins": ["https://page.example", "https://*.pages.example"]})
    for name in ("app.example", "a.wild.example", "page.example", "a.b.pages.example"):
        assert serves(settings.guard.routes, name), name
    for name in ("wild.example", "a.b.wild.example", "localhost", "pages.example"):
        assert not serves(settings.guard.routes, name), name
    assert not serves(load({**UPSTREAM, **files, "hosts": ["only.example"]}).guard.routes, "app.example")


def test_a_pair_that_is_none_is_told(tmp_path: Path) -> None:
    """Certificate of one, key of another; a file that is no PEM."""
    files = certificate(tmp_path, "a.test")
    trustme.CA().issue_cert("b.test").private_key_pem.write_to_path(tmp_path / "other.key")
    told = errors_of({**UPSTREAM, **files, "key": str(tmp_path / "other.key")})
    assert "cert, key" in told
    assert "its own private key" in told
    (tmp_path / "cert.pem").write_text("nonsense")
    assert "a PEM certificate" in errors_of({**UPSTREAM, **files})


def test_an_origin_that_the_certificate_does_not_name_is_a_notice(tmp_path: Path) -> None:
    """It says what to write; with it written, it is silent."""
    flags = {**UPSTREAM, "origins": ["https://app.localhost:8443", "https://page.example"]}
    notices = load(flags).notices
    assert any("write --host app.localhost" in notice for notice in notices)
    assert any("page.example: write --cert and --key" in notice for notice in notices)
    assert load({**UPSTREAM, "origins": ["https://app.localhost:8443"], "hosts": ["app.localhost"]}).notices == ()


def test_assembling_tells_its_own_errors() -> None:
    """Also without the reading step."""
    with pytest.raises(ConfigurationErrors):
        assemble_gateway(read_config(None, {}), DevelopmentAuthority.open)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("1.5s", 1.5), ("5m", 300), ("2h", 7200), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    """With a unit, always."""
    assert parse_duration(text) == seconds
    assert parse_duration(write_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("512B", 512), ("64KiB", 65536), ("16MiB", 16 * 1024**2), ("1GiB", 1024**3)]
)
def test_sizes(text: str, count: int) -> None:
    """Binary units, exact."""
    assert parse_size(text) == count
    assert write_size(count) == text


@pytest.mark.parametrize("text", ["", "5", "5 s", "-5s", "s", "5S", "1e3s", "٥s", "5s\n"])
def test_what_is_no_duration_or_size(text: str) -> None:
    """A bare number is an error: nobody can tell seconds from milliseconds."""
    for parse in (parse_duration, parse_size):
        with pytest.raises(ValueError, match="with its unit"):
            parse(text)


# --- the development CA -------------------------------------------------------------------------------------------------
def test_the_authority_is_made_once_and_kept(tmp_path: Path) -> None:
    """Key mode 0600 in a 0700 folder; the same one the next time."""
    authority = DevelopmentAuthority.open()
    assert authority.folder == tmp_path / "data" / "wsguard" / "dev-ca"
    assert stat.S_IMODE((authority.folder / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    assert DevelopmentAuthority.open().fingerprint == authority.fingerprint


def test_the_authority_can_vouch_only_for_this_machine() -> None:
    """Critical name constraints, path length 0, leaves of at most 30 days that list each name."""
    from cryptography import x509

    authority = DevelopmentAuthority.open()
    constraints = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert {str(name.value) for name in constraints.value.permitted_subtrees or ()} == {
        "localhost",
        "test",
        "127.0.0.0/8",
        "::1/128",
    }
    basic = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    leaf = authority.issue(["app.localhost", "127.0.0.1"]).certificate
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 30
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["app.localhost"]
    for name in ("example.com", "10.0.0.1", "localhost.example", "::2", "nottest"):
        with pytest.raises(ConfigurationError):
            authority.issue([name])


def test_two_first_uses_at_once_make_one_authority(tmp_path: Path) -> None:
    """Parallel starts must not mix one's certificate with another's key."""
    program = "from wsguard.dev_ca import DevelopmentAuthority as A; print(A.open().fingerprint)"
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


def test_broken_files_are_told(tmp_path: Path) -> None:
    """Somebody edited them."""
    authority = DevelopmentAuthority.open()
    (authority.folder / "ca.key").write_text("nonsense")
    with pytest.raises(ConfigurationError, match="remove the folder"):
        DevelopmentAuthority.open()
    with pytest.raises(ConfigurationError, match="a folder that can be written"):
        DevelopmentAuthority.open(Path("/proc/none"))


# --- the command line ---------------------------------------------------------------------------------------------------
def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsguard", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "100"},
        check=False,
    )


def test_flags_and_configuration_errors_exit_2() -> None:
    """On stderr, without a traceback; stdout stays empty."""
    result = run("gateway", "--upstream", "nonsense", "--listen", "0.0.0.0:1")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("wsguard: ") == 2
    assert "Traceback" not in result.stderr
    assert run("gateway", "--no-such-flag").returncode != 0


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    """And how to find out who has it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("gateway", "--upstream", "http://127.0.0.1:1", "--listen", f"127.0.0.1:{port}")
    assert result.returncode == 2
    assert "Address already in use" in result.stderr
    assert "ss -ltnp" in result.stderr


def test_every_command_has_help_with_an_example() -> None:
    """A person looks rather than reads."""
    for command in (["gateway"], ["demo"], ["dev-ca", "show"]):
        result = run(*command, "--help")
        assert result.returncode == 0, result.stderr
        assert "wsguard " + " ".join(command) in result.stdout
    assert run("--help").returncode == 0


def test_version_names_the_engine() -> None:
    """`--version -v` tells what a bug report needs."""
    assert run("--version").stdout.startswith("wsguard ")
    told = run("--version", "-v").stdout
    assert "aiofastnet" in told
    assert "OpenSSL" in told


def test_dev_ca_show_for_people_and_machines() -> None:
    """Fingerprint, path, how to trust it."""
    told = run("dev-ca", "show").stdout
    facts = json.loads(run("dev-ca", "show", "--json").stdout)
    assert facts["fingerprint"] in told
    assert facts["path"] in told
    assert "certutil" in told


def test_print_config_is_toml_with_its_schema() -> None:
    """And exits."""
    result = run("gateway", "--upstream", "http://127.0.0.1:1", "--origin", "https://a.localhost", "--print-config")
    assert result.returncode == 0
    first, *rest = result.stdout.splitlines()
    assert first.startswith("#:schema ")
    assert Path(first.removeprefix("#:schema ")).exists()
    assert 'origins = ["https://a.localhost"]' in rest


# --- lists that are kept elsewhere, and `wsguard run` --------------------------------------------------------------


def test_a_kept_list_is_read_from_the_files_folder(tmp_path: Path) -> None:
    """Customers' origins and hosts stand in files of their own, found beside the configuration."""
    (tmp_path / "origins.txt").write_text("https://customer.test\n")
    (tmp_path / "hosts.txt").write_text("customer.test\n")
    text = 'upstream = "http://127.0.0.1:1"\norigins = { file = "origins.txt" }\nhosts = { file = "hosts.txt" }\n'
    (route,) = load(text=text, folder=tmp_path).guard.routes.routes
    assert route.policy.origins == FileList(str(tmp_path / "origins.txt"))
    assert route.policy.hosts == FileList(str(tmp_path / "hosts.txt"))
    text = 'upstream = "http://127.0.0.1:1"\n[[route]]\npath = "/ws/*"\norigins = { file = "origins.txt" }\n'
    (route,) = load(text=text, folder=tmp_path).guard.routes.routes
    assert route.policy.origins == FileList(str(tmp_path / "origins.txt"))
    url = 'origins = { url = "https://lists.test/origins", interval = "5m" }'
    (route,) = load(text=f'upstream = "http://127.0.0.1:1"\n{url}\n', folder=tmp_path).guard.routes.routes
    assert route.policy.origins == URLList("https://lists.test/origins", 300)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{ file = "missing.txt" }', "missing.txt"),
        ('{ file = "a.txt", url = "https://lists.test" }', "both file and url"),
        ("{ }", "neither file nor url"),
        ('{ url = "http://lists.test" }', "https"),
        ('{ url = "https://lists.test", interval = "often" }', "interval"),
        ('{ flie = "a.txt" }', "origins"),
        ('"https://app.test"', "origins"),
    ],
)
def test_a_kept_list_that_cannot_be_kept_stops_the_start(written: str, told: str, tmp_path: Path) -> None:
    """By its key, with the way out."""
    (tmp_path / "a.txt").write_text("https://app.test")
    text = f'upstream = "http://127.0.0.1:1"\norigins = {written}\nhosts = ["app.test"]\n'
    assert told in errors_of(text=text, folder=tmp_path)


def test_a_printed_kept_list_means_the_same(tmp_path: Path) -> None:
    """--print-config writes it as the inline table that it was."""
    (tmp_path / "origins.txt").write_text("https://customer.test\n")
    file = tmp_path / "wsguard.toml"
    file.write_text('upstream = "http://127.0.0.1:1"\norigins = { file = "origins.txt" }\nidle = "30s"\n')
    printed = render_toml(read_config(file, {}), "x")
    again = tmp_path / "elsewhere" / "printed.toml"
    again.parent.mkdir()
    again.write_text(printed)
    assert read_config(again, {}) == read_config(file, {})


def run_settings(text: str, folder: Path, flags: dict[str, Any] | None = None) -> RunSettings:
    file = folder / "wsguard.toml"
    file.write_text(text)
    return load_run(file, flags or {}, DevelopmentAuthority.open)


def test_a_run_configuration(tmp_path: Path) -> None:
    """The same words as the gateway's, but for what is about an upstream."""
    text = """
listen = "plain:127.0.0.1:8000"
trusted_proxies = ["10.0.0.0/8"]
origins = ["https://app.test"]
messages_per_second = 5
idle = "30s"
max_lifetime = "2h"

[limits]
head_timeout = "3s"

[[route]]
path = "/healthz"
http = "plain"

[[route]]
path = "/*"
max_message = "64KiB"
"""
    settings = run_settings(text, tmp_path)
    health, rest = settings.guard.routes.routes
    assert health.policy.page_rule == "plain"
    assert (rest.policy.max_message, rest.policy.messages_per_second) == (65536, 5)
    assert (rest.policy.idle, rest.policy.max_lifetime) == (30, 7200)
    assert settings.guard.limits.head_timeout == 3
    assert settings.certificate is None
    assert settings.asked_for
    assert not run_settings("", tmp_path).asked_for
    assert not run_settings('[limits]\nhead = "8KiB"\n', tmp_path).asked_for


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('upstream = "http://127.0.0.1:1"', "upstream"),
        ('upstream_host = "preserve"', "upstream_host"),
        ('compression = "passthrough"', "compression"),
        ('listen = ["127.0.0.1:1"]', "listen"),
        ("messages_per_second = 0", "messages_per_second"),
        ('idle = "0s"', "idle"),
        ("idle = 30", "idle"),
        ('[[route]]\npath = "/*"\n[[route]]\npath = "/ws"', "hides"),
        ('[[route]]\npath = "/ws"\n[[route]]\npath = "/ws"', "one route for each path"),
    ],
)
def test_what_a_run_configuration_cannot_mean(text: str, told: str, tmp_path: Path) -> None:
    """What is the gateway's alone is an unknown key here; a value that bounds nothing is told."""
    with pytest.raises(ConfigurationError, match=told):
        run_settings(text, tmp_path)


def test_a_list_of_addresses_is_the_gateways(tmp_path: Path) -> None:
    """Who starts `wsguard run` with a file of the gateway's is told that, and not merely that a text was expected."""
    (tmp_path / "wsguard.toml").write_text('listen = ["127.0.0.1:8443", "[::1]:8443"]\n')
    with pytest.raises(ConfigurationErrors, match=r"one address.* a list stands in a file of `wsguard gateway`"):
        load_run(tmp_path / "wsguard.toml", {}, DevelopmentAuthority.open)
