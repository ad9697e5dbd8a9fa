"""`wsguard check`: all errors, the effective policy of each route, and what is probably not meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tokens import key_of, public
from wsguard.cli import main

TOP = """
upstream = "http://127.0.0.1:8888"
origins = ["https://app.localhost:8443"]
hosts = ["app.localhost"]
public_url = "https://app.localhost:8443"
"""
ISSUER = """
[jwt."https://id.example.com"]
audience = ["https://app.example.com"]
jwks = "file:jwks.json"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jwks.json").write_bytes(public(key_of("ES256")))
    return tmp_path


def checked(text: str, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    Path("wsguard.toml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["check", "wsguard.toml", "--json", *words])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    return json.loads(out)


def test_each_route_is_shown_as_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """What it inherits and what is the default stands there too."""
    text = TOP + 'max_message = "1MiB"\nallow_missing_origin = true\n' + ISSUER
    text += '[ticket]\nsold_for = ["bearer"]\n'
    text += '[[route]]\npath = "/ws/*"\nauth = ["ticket", "bearer"]\nrequire = { scopes = ["chat"] }\nidle = "5m"\n'
    text += 'origins = ["https://second.localhost"]\n[[route]]\npath = "/*"\nanonymous = true\n'
    sockets, rest = checked(text, capsys)["routes"]
    assert (sockets["path"], sockets["auth"], sockets["http"]) == ("/ws/*", ["ticket", "bearer"], "same-policy")
    assert sockets["require"] == {"scopes": ["chat"], "groups": []}
    assert (sockets["max_message"], sockets["idle"], sockets["max_lifetime"]) == (1024 * 1024, 300, None)
    assert sockets["origins"] == ["https://second.localhost"]
    assert sockets["insecure"][0].startswith("allow_missing_origin")
    assert (rest["auth"], rest["http"], rest["origins"]) == ("anonymous", "open", ["https://app.localhost:8443"])
    assert (rest["compression"], rest["upstream_host"], rest["forward_credential"]) == (None, None, None)
    (changed,) = checked(TOP + 'compression = "passthrough"\nupstream_host = "upstream"\n', capsys)["routes"]
    assert (changed["compression"], changed["upstream_host"], changed["upstream_origin"]) == (True, "upstream", None)


def test_an_open_fallback_path_is_doubted(capsys: pytest.CaptureFixture[str]) -> None:
    """The sockets need a credential, and polling beside them none: an attacker picks the polling."""
    text = TOP + 'auth = ["bearer"]\nhttp = "open"\n' + ISSUER
    found = checked(text, capsys)["warnings"]
    assert any(one.startswith("/socket.io/ is open to every page") for one in found)
    narrow = text + '[[route]]\npath = "/socket.io/*"\nhttp = "same-policy"\n[[route]]\npath = "/*"\n'
    assert not any(one.startswith("/socket.io/") for one in checked(narrow, capsys)["warnings"])


def test_pages_that_can_never_load_are_doubted(capsys: pytest.CaptureFixture[str]) -> None:
    """A browser that follows a link sends no token; a cookie it does send."""
    found = checked(TOP + 'auth = ["bearer"]\n' + ISSUER, capsys)["warnings"]
    assert [one for one in found if "can ever load" in one]
    ask = '[ask]\nurl = "http://127.0.0.1:8888/me"\ncookies = ["s"]\n'
    found = checked(TOP + 'auth = ["bearer", "ask"]\n' + ISSUER + ask, capsys)["warnings"]
    assert not [one for one in found if "can ever load" in one]
    # The first page has a route of its own; the scripts and pictures that it loads have not.
    first = '[[route]]\npath = "/"\nanonymous = true\n[[route]]\npath = "{rest}"\nauth = ["bearer"]\n'
    found = checked(TOP + first.format(rest="/*") + ISSUER, capsys)["warnings"]
    assert [one for one in found if one.startswith("no page under /* can ever load")]
    found = checked(TOP + first.format(rest="/ws/*") + ISSUER, capsys)["warnings"]
    assert not [one for one in found if "can ever load" in one]


def test_looking_changes_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """No store is made, no socket bound."""
    text = TOP + 'store = "sqlite:wsguard.db"\nadmin = "unix:run/admin.sock"\nworkers = 2\nauth = ["bearer"]\n' + ISSUER
    assert not [notice for notice in checked(text, capsys)["notices"] if "memory" in notice]
    assert not (folder / "wsguard.db").exists()
    assert not (folder / "run").exists()


def test_a_file_of_wsguard_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an upstream it is that command's; told otherwise, it is not."""
    text = TOP.replace('upstream = "http://127.0.0.1:8888"\n', "")
    assert checked(text, capsys)["routes"][0]["auth"] == "the app's own"
    with pytest.raises(SystemExit) as ended:
        main(["check", "wsguard.toml", "--of", "gateway"])
    assert ended.value.code == 2
    assert "upstream" in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_person_runs_it(folder: Path) -> None:
    """All errors at once on stderr and exit code 2; a right one is shown on stdout."""
    command = [sys.executable, "-m", "wsguard", "check", "wsguard.toml"]
    (folder / "wsguard.toml").write_text(TOP + 'htps = "open"\nauth = ["nobody"]\n')
    wrong = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "htps: found an unknown key, expected a key that there is (did you mean 'http'?)" in wrong.stderr
    assert "auth: found 'nobody'" in wrong.stderr
    (folder / "wsguard.toml").write_text(TOP + 'auth = ["bearer"]\n' + ISSUER)
    right = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert right.returncode == 0, right.stderr
    assert "/*" in right.stdout
    assert "warning: no page under /* can ever load" in right.stdout
    assert right.stdout.rstrip().endswith("right, 1 warning")


def test_what_is_wrong_as_json(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """The very case in which a machine asks: each error with its key and the way out, on stdout."""
    (folder / "wsguard.toml").write_text(TOP + 'htps = "open"\norigins2 = 1\n')
    with pytest.raises(SystemExit) as ended:
        main(["check", "wsguard.toml", "--json"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    errors = json.loads(printed.out)["errors"]
    assert [(one["key"], one["nearest"]) for one in errors] == [("htps", "http"), ("origins2", "origins")]


def test_a_store_that_others_could_read_is_found(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Starting would refuse it, so looking does; nothing is made."""
    public = folder / "public"
    public.mkdir()
    public.chmod(0o777)
    (folder / "wsguard.toml").write_text(TOP + 'store = "sqlite:public/wsguard.db"\nauth = ["nobody"]\n')
    with pytest.raises(SystemExit):
        main(["check", "wsguard.toml"])
    told = capsys.readouterr().err
    assert "public (a folder that everybody may write)" in told
    assert list(public.iterdir()) == []


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_fault(folder: Path) -> None:
    """`wsguard check FILE --json | head -c 1`: no traceback, and the code that a shell tells of SIGPIPE."""
    (folder / "wsguard.toml").write_text(TOP)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "wsguard", "check", "wsguard.toml", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
