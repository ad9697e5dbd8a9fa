"""
Every code block of README, ARCHITECTURE and docs/ is tried out: configurations are assembled, commands parsed and their
gateway assembled, requests judged by the engine, Python run, log lines compared with what the source can write.

A block that cannot be tried says why in its info string (``data-untested``), or which file tries it (``data-tested``).
"""

from __future__ import annotations

import asyncio
import configparser
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, Block, blocks, blocks_of, commands, pages
from wsguard.cli import main
from wsguard.config import load_gateway
from wsguard.dev_ca import DevelopmentAuthority
from wsguard.engine.forwarding import UpstreamName, forwarded_fields
from wsguard.engine.policy import Policy, decide
from wsguard.engine.routes import single_route
from wsguard.gateway.handshake import ConnectionFacts, handshake_from
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.decision import Accept, Refuse
from wsguard.vocabulary.errors import HeadViolation
from wsguard.vocabulary.handshake import Handshake, Peer, TLSFacts
from wsguard.vocabulary.reasons import all_reasons
from wsguard.wire.head_writer import write_request_head
from wsguard.wire.request_head import parse_request_head

UPSTREAM = "http://127.0.0.1:8888"
FILE_KEYS = ("cert", "key", "upstream_ca")
TRIED = {"toml", "python", "console", "sh", "json", "log", "http", "ini"}
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "wsguard").rglob("*.py"))


def tried(language: str, *more: str) -> list[Any]:
    """The blocks in *language* that this file tries, as parameters."""
    found = [block for block in blocks(language, *more) if not {"data-untested", "data-tested"} & set(block.attributes)]
    return [pytest.param(block, id=str(block)) for block in found]


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()])
def test_every_block_is_tried_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        untested, elsewhere = block.attributes.get("data-untested"), block.attributes.get("data-tested")
        if elsewhere is not None:
            assert (ROOT / "tests" / "docs" / elsewhere).exists(), f"{block}: {elsewhere} does not exist"
        else:
            assert untested or block.language in TRIED, f"{block}: {block.language!r} is not tried: say why"


def test_there_are_blocks_of_every_kind() -> None:
    assert {block.language for block in blocks()} >= TRIED
    assert len(blocks("toml")) >= 8
    assert len([block for block in blocks("http") if "data-refused" in block.attributes]) >= 6


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", tried("toml"))
def test_a_configuration_is_served(block: Block, place: Path) -> None:
    path = written_configuration(block, place)
    flags = {} if "upstream" in tomllib.loads(block.text) else {"upstream": UPSTREAM}
    settings = load_gateway(path, flags, DevelopmentAuthority.open)
    assert settings.guard.routes.routes


def written_configuration(block: Block, place: Path) -> Path:
    """Write the block into *place*; the files that it names by an absolute path are those of the same name there."""
    text = block.text
    for key, value in tomllib.loads(text).items():
        if key in FILE_KEYS:
            text = text.replace(f'"{value}"', f'"{Path(value).name}"')
    path = place / (Path(block.title).name if block.title.endswith(".toml") else "wsguard.toml")
    path.write_text(text, encoding="utf-8")
    return path


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", tried("console", "sh"))
def test_a_command_does_what_it_says(
    block: Block, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = commands(block)
    assert lines, f"{block} holds no command"
    files_of_page(block, place)
    for line in lines:
        run(shlex.split(line, comments=True), place, monkeypatch, capsys)


@pytest.mark.parametrize("block", tried("ini"))
def test_a_unit_starts_the_gateway(
    block: Block, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read_string(block.text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    files_of_page(block, place)
    run(shlex.split(unit["Service"]["ExecStart"]), place, monkeypatch, capsys)


def files_of_page(block: Block, place: Path) -> None:
    """Write the configurations that the block's page shows, so that its commands find them."""
    (place / "wsguard.toml").write_text(f'upstream = "{UPSTREAM}"\n', encoding="utf-8")
    for other in blocks_of(block.page):
        if other.language == "toml" and other.title.endswith(".toml"):
            written_configuration(other, place)


def run(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Try one command: `wsguard` in this process up to the moment when it would serve, others by what they name."""
    program = Path(words[0]).name
    if program == "pip":
        (requirement,) = words[2:]
        assert words[1] == "install"
        assert_extras_exist(requirement)
    elif program == "make":
        assert re.search(rf"^{words[1]}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {words[1]}"
    elif program in {"uvicorn", "hypercorn", "granian", "daphne"}:
        pass  # another's command: tests/asgi/server_process.py and scripts/smoke-readme run them
    elif program == "uvx":
        assert words[1] == "--from"
        assert_extras_exist(words[2])
        run(words[3:], place, monkeypatch, capsys)
    else:
        assert program == "wsguard", f"{program} cannot be tried here: say why in the block's info string"
        output = words[words.index(">") + 1] if ">" in words else None
        arguments = words[1:-2] if output else words[1:]
        served = run_wsguard(arguments, place, monkeypatch)
        printed = capsys.readouterr().out
        if output is not None:
            (place / output).write_text(printed, encoding="utf-8")
        assert served or printed, "it neither serves nor prints"


def run_wsguard(arguments: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the command line in this process; return whether it came to the point of serving."""
    served: list[object] = []
    recorder: Callable[[object], int] = lambda settings: served.append(settings) or 0  # noqa: E731
    monkeypatch.setattr("wsguard.gateway.lifecycle.run_gateway", recorder)
    monkeypatch.setattr("wsguard.asgi.uvicorn_server.serve", lambda settings, *_: recorder(settings))
    monkeypatch.setattr(sys.modules["wsguard.cli.run"], "_loaded", lambda *_, **__: lambda *_: None)
    found = [str(place / Path(word).name) if word.endswith((".toml", ".pem", ".key")) else word for word in arguments]
    with pytest.raises(SystemExit) as ended:
        main(found)
    assert ended.value.code == 0
    return bool(served)


def assert_extras_exist(requirement: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match = re.fullmatch(r"wsguard\[([a-z,]+)\]", requirement)
    assert match is not None, f"{requirement!r} is not how wsguard is installed"
    assert set(match[1].split(",")) <= set(project["optional-dependencies"])


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", tried("http"))
def test_a_request_is_answered_as_the_page_says(block: Block) -> None:
    if block.attributes.get("data-forwarded") == "this":
        return  # what the app gets; the next test compares it
    decision = judged(block)
    if "data-accepted" in block.attributes:
        assert isinstance(decision, Accept), decision
    else:
        assert isinstance(decision, Refuse)
        assert decision.reason.code == block.attributes["data-refused"]


def test_the_app_gets_the_request_that_the_page_shows() -> None:
    shown = [block for block in blocks("http") if "data-forwarded" in block.attributes]
    assert shown
    for sent, received in list(pairwise(shown))[::2]:
        handshake, decision = handshake_of(sent), judged(sent)
        assert isinstance(decision, Accept)
        fields = forwarded_fields(handshake, decision, UpstreamName("http", "127.0.0.1:8888"))
        fields += [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
        head = write_request_head(handshake.method or "GET", handshake.target, fields).decode()
        assert head.split("\r\n")[:-2] == received.text.splitlines()


def judged(block: Block) -> Accept | Refuse:
    policy = Policy(origins=["https://app.example.com"], hosts=["app.example.com"])
    try:
        return asyncio.run(decide(handshake_of(block), single_route(policy)))
    except HeadViolation as violation:
        return Refuse(violation.reason)


def handshake_of(block: Block) -> Handshake:
    data = block.text.rstrip("\n").replace("\n", "\r\n").encode("ascii") + b"\r\n\r\n"
    return handshake_from(parse_request_head(data, Limits()), ConnectionFacts(Peer("203.0.113.7", 51474), TLSFacts()))


# --- Python, and what the log writes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", tried("python"))
def test_python_runs(block: Block, place: Path) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", tried("json"))
def test_json_is_a_line_of_the_log(block: Block) -> None:
    for line in block.text.splitlines():
        values = json.loads(line)
        assert list(values)[:2] == ["time", "event"]
        assert_log_line(values.pop("event"), values.pop("time"), values)


@pytest.mark.parametrize("block", tried("log"))
def test_log_lines_are_such_as_the_source_writes(block: Block) -> None:
    for line in block.text.splitlines():
        time, event, rest = line.split(" ", 2)
        assert_log_line(event, time, values_of(rest))


def values_of(rest: str) -> dict[str, str]:
    """Part ``key=value`` pairs; a value that is not plain is JSON."""
    values: dict[str, str] = {}
    while rest:
        key, equals, rest = rest.partition("=")
        assert equals, f"not key=value: {key}"
        end = json.JSONDecoder().raw_decode(rest)[1] if rest[0] in '["' else len(rest.split(" ", 1)[0])
        values[key], rest = rest[:end], rest[end:].removeprefix(" ")
    return values


def assert_log_line(event: str, time: str, values: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert f'"{event}"' in SOURCE, f"the source writes no {event}"
    for key in values:
        assert re.search(rf'\b{key}=|"{key}"', SOURCE), f"the source writes no {key}"
    if "reason" in values and "status" in values:
        assert {reason.code: str(reason.status) for reason in all_reasons()}[values["reason"]] == str(values["status"])
