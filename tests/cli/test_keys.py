"""`wsguard keys`, as a person or a script starts it: what goes where, what is kept, and that no key is lost or shown."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import pty
import re
import subprocess
import sys
import termios
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, blocks_of
from wsguard.cli import main
from wsguard.cli.keys import add, list_keys, revoke
from wsguard.identity.key_file import parse_keys
from wsguard.vocabulary.bounds import DEFAULTS

DEADLINE = 20.0
KEY = re.compile(r"wsg_[A-Za-z0-9_-]{43}")
WSGUARD = [sys.executable, "-m", "wsguard", "keys"]


def started(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*WSGUARD, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def run(*words: str, folder: Path, code: int = 0) -> tuple[str, str]:
    """What it wrote to stdout and stderr."""
    with started(*words, folder=folder) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == code, err
    return out, err


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    """The same in this process, which is faster."""
    with pytest.raises(SystemExit) as ended:
        main(["keys", *words])
    assert ended.value.code == code
    return capsys.readouterr()


def table(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_the_key_alone_is_on_stdout(tmp_path: Path) -> None:
    """`KEY=$(wsguard keys add …)` works; the file holds its hash, and the key is in no other place."""
    out, err = run(
        "add", "robot", "--scope", "chat", "--scope", "a:b", "--expires", "90d", "--file", "keys.toml", folder=tmp_path
    )
    assert KEY.fullmatch(out.removesuffix("\n"))
    assert out.count("\n") == 1
    key = out.strip()
    kept = table(tmp_path / "keys.toml")["robot"]
    assert kept["hash"] == hashlib.sha256(key.encode()).hexdigest()
    assert kept["scopes"] == ["a:b", "chat"]
    assert (kept["expires"] - kept["added"]).total_seconds() == 90 * 86400
    assert abs(kept["added"].timestamp() - time.time()) < DEADLINE
    assert "robot" in err
    for text in (err, (tmp_path / "keys.toml").read_text()):
        assert key.removeprefix("wsg_") not in text
        assert not KEY.search(text)
    assert [path.name for path in tmp_path.iterdir()] == ["keys.toml"]
    assert (tmp_path / "keys.toml").stat().st_mode & 0o777 == 0o600


def test_no_key_is_ever_an_argument(tmp_path: Path) -> None:
    """Everybody on the machine reads /proc/PID/cmdline and a shell keeps it: no command takes a key or a hash."""
    for one in (add, list_keys, revoke):
        assert {"key", "hash", "secret"}.isdisjoint(inspect.signature(one).parameters)
    path = tmp_path / "keys.toml"
    path.touch(0o600)
    with path.open("rb") as held:  # so that the command waits while one looks at it
        fcntl.flock(held, fcntl.LOCK_EX)
        with started("add", "robot", "--file", "keys.toml", folder=tmp_path) as process:
            place = Path(f"/proc/{process.pid}")
            end = time.monotonic() + DEADLINE
            while not has_open(place, path):
                assert time.monotonic() < end
                time.sleep(0.01)  # /proc sends no event
            seen = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            fcntl.flock(held, fcntl.LOCK_UN)
            key = process.communicate(timeout=DEADLINE)[0].strip()
    assert process.returncode == 0
    assert b"robot" in seen
    assert key.encode() not in seen


def has_open(process: Path, path: Path) -> bool:
    """Tell whether the *process* of /proc has *path* open."""
    for one in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if one.readlink() == path:
                return True
    return False


def test_two_at_once_lose_none(tmp_path: Path) -> None:
    """Four processes add to one file that is not there yet: each key is in it, and opens."""
    added = [started("add", f"k{number}", "--file", "keys.toml", folder=tmp_path) for number in range(4)]
    keys = [process.communicate(timeout=DEADLINE)[0].strip() for process in added]
    assert [process.returncode for process in added] == [0, 0, 0, 0]
    assert {name: one["hash"] for name, one in table(tmp_path / "keys.toml").items()} == {
        f"k{number}": hashlib.sha256(key.encode()).hexdigest() for number, key in enumerate(keys)
    }
    assert [path.name for path in tmp_path.iterdir()] == ["keys.toml"]


def test_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same facts of all three; the key itself only where it was made."""
    file = str(tmp_path / "keys.toml")
    out, err = said(capsys, "add", "robot", "--scope", "chat", "--expires", "1h", "--file", file, "--json")
    made = json.loads(out)
    assert made.keys() == {"key", "name", "scopes", "added", "expires"}
    assert KEY.fullmatch(made["key"])
    assert not KEY.search(err)
    facts = {name: value for name, value in made.items() if name != "key"}
    assert (facts["name"], facts["scopes"]) == ("robot", ["chat"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", facts["expires"])
    assert json.loads(said(capsys, "list", "--file", file, "--json")[0]) == [{**facts, "state": "valid"}]
    assert json.loads(said(capsys, "revoke", "robot", "--file", file, "--json")[0]) == facts
    assert json.loads(said(capsys, "list", "--file", file, "--json")[0]) == []


def test_list_tells_what_still_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe one line a key, tabs between; no hash, for nobody needs one."""
    path = tmp_path / "keys.toml"
    said(capsys, "add", "robot", "--scope", "b", "--scope", "a", "--file", str(path))
    past = f'\n[old]\nhash = "{"0" * 64}"\nadded = 2020-01-01T00:00:00Z\nexpires = 2020-01-02T00:00:00Z\n'
    path.write_text(path.read_text() + past)
    out, _ = said(capsys, "list", "--file", str(path))
    header, robot, old = [line.split("\t") for line in out.splitlines()]
    assert header == ["name", "scopes", "added", "expires", "state"]
    assert [robot[0], robot[1], *robot[3:]] == ["robot", "a b", "never", "valid"]
    assert old == ["old", "", "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z", "expired"]
    assert "0" * 64 not in out


def test_list_is_a_table_on_a_terminal(tmp_path: Path) -> None:
    """With lines around it; a name is text there, never markup."""
    run("add", "robot", "--scope", "[red]chat[/]", "--file", "keys.toml", folder=tmp_path)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 120))
    try:
        subprocess.run(
            [*WSGUARD, "list", "--file", "keys.toml"],
            cwd=tmp_path, stdout=theirs, stdin=subprocess.DEVNULL, check=True, timeout=DEADLINE,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )  # fmt: skip
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert "│" in shown
    assert "[red]chat[/]" in shown
    assert "valid" in shown


def test_a_revoked_key_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others stay. An unknown name is exit 2 with the nearest one, and changes nothing."""
    path = tmp_path / "keys.toml"
    for name in ("robot", "other"):
        said(capsys, "add", name, "--file", str(path))
    out, _ = said(capsys, "revoke", "robot", "--file", str(path))
    assert out == f"robot: revoked in {path}\n"
    assert table(path).keys() == {"other"}
    before = path.read_bytes()
    out, err = said(capsys, "revoke", "othr", "--file", str(path), code=2)
    assert out == ""
    assert "did you mean 'other'?" in err
    assert path.read_bytes() == before


def test_a_name_is_taken_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, and the way out; the first key stays what it was."""
    path = tmp_path / "keys.toml"
    said(capsys, "add", "robot", "--file", str(path))
    before = path.read_bytes()
    out, err = said(capsys, "add", "robot", "--file", str(path), code=2)
    assert out == ""
    assert "wsguard keys revoke robot" in err
    assert path.read_bytes() == before


def test_the_configuration_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`[api_keys] file`, from the folder of the file that names it, whatever the current one is."""
    config = tmp_path / "conf" / "wsguard.toml"
    config.parent.mkdir()
    config.write_text('upstream = "http://127.0.0.1:8888"\n[api_keys]\nfile = "keys.toml"\n')
    key = said(capsys, "add", "robot", "--config", str(config))[0].strip()
    assert table(config.with_name("keys.toml"))["robot"]["hash"] == hashlib.sha256(key.encode()).hexdigest()
    assert "robot" in said(capsys, "list", "--config", str(config))[0]
    said(capsys, "revoke", "robot", "--config", str(config))
    assert table(config.with_name("keys.toml")) == {}
    config.write_text(f'[api_keys]\nfile = "{tmp_path}/absolute.toml"\n')
    said(capsys, "add", "robot", "--config", str(config))
    assert (tmp_path / "absolute.toml").exists()


@pytest.mark.parametrize(
    "text", ["", "api_keys = 1\n", "[api_keys]\n", "[api_keys]\nfile = 5\n", '[api_keys]\nfile = ""\n']
)
def test_a_configuration_without_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Says what to write into it."""
    config = tmp_path / "wsguard.toml"
    config.write_text(text)
    _, err = said(capsys, "add", "robot", "--config", str(config), code=2)
    assert 'expected [api_keys] with file = "keys.toml"' in err


@pytest.mark.parametrize(("words", "complaint"), [
    (["add", "robot"], "found neither"),
    (["list"], "found neither"),
    (["revoke", "robot"], "found neither"),
    (["add", "robot", "--file", "a", "--config", "b"], "found both"),
    (["list", "--config", "none.toml"], "No such file"),
    (["list", "--file", "none.toml"], "No such file"),
    (["revoke", "robot", "--file", "none.toml"], "No such file"),
    (["add", "robot", "--file", "none/keys.toml"], "No such file"),
    (["add", "ro bot", "--file", "keys.toml"], "NAME"),
    (["add", "robot", "--scope", "a b", "--file", "keys.toml"], "--scope"),
    (["add", "robot", "--expires", "90", "--file", "keys.toml"], "--expires"),
    (["add", "robot", "--expires", "0s", "--file", "keys.toml"], "--expires"),
    (["add", "robot", "--expires", "999999999d", "--file", "keys.toml"], "--expires"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    complaint: str,
) -> None:
    """Exit 2, nothing on stdout, no file left behind."""
    monkeypatch.chdir(tmp_path)
    out, err = said(capsys, *words, code=2)
    assert out == ""
    assert complaint in err
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_is_no_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own error, not the key file's."""
    config = tmp_path / "wsguard.toml"
    config.write_text("[api_keys\n")
    assert "--config: found" in said(capsys, "list", "--config", str(config), code=2)[1]


@pytest.mark.parametrize("name", ["add", "list", "revoke"])
def test_the_example_of_the_help_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Who copies it from --help gets what it says; and help says that comments are lost."""
    monkeypatch.chdir(tmp_path)
    text, _ = said(capsys, name, "--help")
    if name != "list":
        assert "do not survive" in " ".join(text.split())
        said(capsys, "add", "robot" if name == "revoke" else "first", "--file", "keys.toml")
    else:
        said(capsys, "add", "robot", "--file", "keys.toml")
    example = re.search(r"Example: wsguard keys (.*--file keys\.toml)", text)
    assert example is not None
    assert said(capsys, *example[1].split())[0]


def test_the_file_that_the_guide_shows_is_one() -> None:
    """docs/guides/api-keys.md: its key file is read."""
    shown = [block for block in blocks_of(ROOT / "docs" / "guides" / "api-keys.md") if block.title == "keys.toml"]
    (entry,) = parse_keys(shown[0].text.encode(), Path("keys.toml"), DEFAULTS)
    assert entry.name == "robot"
    assert entry.expires is not None
