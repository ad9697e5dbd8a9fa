"""The decision log: one escaped line an event, on stdout, and never at the cost of a handshake."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.engine.make import POLICY, handshake
from wsguard.guard import Guard
from wsguard.observe.decision_log import DecisionLog, LogFormat, _line, _plain_line, decision_logger
from wsguard.vocabulary.decision import Refuse


def log(log_format: LogFormat = "text") -> DecisionLog:
    return DecisionLog(decision_logger(log_format), lambda: 0.0, 16)


class Full(io.StringIO):
    """A stdout on a disk that is full, until there is room again."""

    full = True

    def flush(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")


def refused_by(guard: Guard) -> Refuse:
    """A foreign handshake is refused, and the refusal told."""

    async def scenario() -> Refuse:
        subject = handshake({"Origin": "https://evil.test"})
        client = guard.client_of(subject)
        decision = await guard.decide(subject, client)
        assert isinstance(decision, Refuse)
        guard.tell_refusal(subject, client, decision)
        return decision

    return asyncio.run(scenario())


@pytest.mark.parametrize("broken", ["closed", "none", "full"])
def test_a_log_that_cannot_be_written_costs_no_handshake(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pipe's reader is gone, the disk is full: decisions go on, and stderr says it once until a line gets through."""
    guard = Guard(POLICY, log=log())
    stdout = Full()
    if broken == "closed":
        stdout.close()
    monkeypatch.setattr(sys, "stdout", None if broken == "none" else stdout)
    for _ in range(3):
        assert refused_by(guard).status == 403
    assert capsys.readouterr().err.count("the decision log cannot be written") == 1


def test_it_goes_to_what_stdout_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may put another stdout in its place after the guard was made (a daemon, a test runner)."""
    subject = log()
    for _ in range(2):
        stdout = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stdout)
        subject.event("session.opened", path="/ws")
        assert stdout.getvalue().endswith("Z session.opened path=/ws\n")


def test_a_strangers_text_stays_in_one_escaped_value(capsys: pytest.CaptureFixture[str]) -> None:
    """No line, key or terminal sequence can be forged by what somebody sends; long values are cut."""
    hostile = {
        "origin": 'https://a.test" reason=ok\r\nforged',
        "path": "/\x1b[31m",
        "host": "",
        "detail": "é\u2028",
        "peer": "x" * 300,
    }
    log().event("handshake.refused", **hostile, status=403, seconds=0.5, secure=True, on=["a", "b"], nothing=None)
    (line,) = capsys.readouterr().out.splitlines()
    assert r'origin="https://a.test\" reason=ok\r\nforged"' in line
    assert r'path="/\u001b[31m" host="" detail="\u00e9\u2028"' in line
    assert "x" * 255 + "…" not in line
    assert '"' + "x" * 255 + "\\u2026" + '"' in line
    assert line.endswith('status=403 seconds=0.5 secure=true on=["a", "b"]')
    log("json").event("handshake.refused", **hostile, status=403)
    told = json.loads(capsys.readouterr().out)
    assert (told["event"], told["origin"], told["status"]) == ("handshake.refused", hostile["origin"], 403)


TEXTS = st.text(alphabet=st.one_of(st.sampled_from('aZ0 ="\\\n\x1b…é-./:[]'), st.characters()), max_size=12)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.lists(TEXTS, max_size=3))


@given(st.dictionaries(st.sampled_from(["origin", "path", "host", "status", "on"]), VALUES))
@example({"origin": "", "path": "a"})
@example({"origin": "a b=c"})
@example({"origin": "a=b"})
@example({"origin": "a b"})
@example({"origin": "x" * 257})
@example({"origin": "é"})
def test_a_line_that_is_written_at_once_is_the_same_line(values: dict[str, Any]) -> None:
    """Other handlers get a Line; ours writes plain ones without: the text, and so what is escaped and cut, is one."""
    plain = _plain_line("session.opened", values)
    assert plain in (None, str(_line("session.opened", values)))


def test_a_usual_line_is_plain() -> None:
    """Else the short way would be no way at all."""
    values: dict[str, Any] = {
        "session": "0f1e",
        "origin": "https://app.test",
        "seconds": 0.5,
        "source": None,
        "code": 1,
    }
    expected = "session.opened session=0f1e origin=https://app.test seconds=0.5 code=1"
    assert _plain_line("session.opened", values) == expected


def test_an_app_that_listens_itself_gets_records(caplog: pytest.LogCaptureFixture) -> None:
    """Another handler beside ours is given what logging gives: a level, and one line as its message."""
    subject = log()
    logger = logging.getLogger("wsguard.decisions")
    logger.addHandler(caplog.handler)
    try:
        subject.event("session.opened", path="/ws")
    finally:
        logger.removeHandler(caplog.handler)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "session.opened path=/ws")
