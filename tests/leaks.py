"""
No secret leaks, over the whole run (RULES.md §11): a pytest plugin.

Whoever makes a secret for a test names it here (`secret`), and whoever sees what a server let out hands it in (`saw`):
its output, its log, what it answered where it refused, what it sent on, its file, its command line, and what its objects
say of themselves. After each test all that came in is looked through for every secret so far; a find fails the test.
What each process has looked through stands in .test-results/leaks/, where scripts/summarize-tests adds it up and fails
on a sink that got nothing.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Generator
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.pretty import pretty_repr

ROOT = Path(__file__).parents[1]
_WINDOW = 16
"""So much of a secret in one piece is a leak: 96 bits of base64url."""
_STEP = 4
_RUN = re.compile(rb"[A-Za-z0-9_-]{%d,}" % _WINDOW)
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{16,}")
_LONGEST_REPR = 20_000


class Sink(StrEnum):
    """Where secrets could leak to."""

    STDOUT = "stdout"
    STDERR = "stderr"
    JSON_LOG = "JSON log"
    SERVER_OUTPUT = "output and access log of an ASGI server"
    REFUSALS = "answers that refuse"
    UPSTREAM = "what the upstream got"
    STORE = "store file"
    COMMAND_LINE = "command line"
    REPRS = "reprs"


class Kind(StrEnum):
    """Which secrets there are."""

    TOKEN = "token"
    API_KEY = "API key"
    TICKET = "ticket"
    HANDLE = "session handle"
    COOKIE = "cookie"
    PASSWORD = "password"


class Leak(NamedTuple):
    """One find."""

    sink: Sink
    kind: Kind
    where: str


class Ledger:
    """The secrets of this process's tests, and what has been let out and not looked through yet."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.looked_through: Counter[str] = Counter()
        self.fresh = False
        self._pieces: dict[bytes, Kind] = {}
        self._let_through: set[tuple[Sink, bytes]] = set()
        self._waiting: list[tuple[Sink, bytes, str]] = []

    def secret(self, kind: Kind, value: str) -> None:
        """Look for *value* from now on, and for its base64url form; of a JWT for its signature, which makes it one."""
        pieces = dict.fromkeys(_pieces(value), kind)
        assert pieces, f"a {kind} of the tests is too short to be looked for"
        self.made[kind] += not value.startswith("planted-")
        self.fresh = True
        self._pieces |= pieces

    def let_through(self, sink: Sink, value: str) -> None:
        """*value* may stand in *sink*: the test's configuration says that it is sent on."""
        self._let_through.update((sink, piece) for piece in _pieces(value))

    def saw(self, sink: Sink, data: str | bytes, where: str) -> None:
        """Look *data* through at the end of this test."""
        self._waiting.append((sink, data.encode("utf-8", "replace") if isinstance(data, str) else data, where))

    def saw_reprs(self, where: str) -> None:
        """Hand in what the objects of wsguard that live now say of themselves."""
        self.saw(Sink.REPRS, "\n".join(reprs()), where)

    def look(self) -> list[Leak]:
        """Look through what waits, and return what was found."""
        waiting, self._waiting = self._waiting, []
        found: list[Leak] = []
        for sink, data, where in waiting:
            self.looked_through[sink] += len(data)
            found += sorted({Leak(sink, kind, where) for kind in self._kinds_in(sink, data)})
        return found

    def _kinds_in(self, sink: Sink, data: bytes) -> Generator[Kind]:
        for match in _RUN.finditer(data):
            run = match[0]
            for begin in range(len(run) - _WINDOW + 1):
                piece = run[begin : begin + _WINDOW]
                kind = self._pieces.get(piece)
                if kind is not None and (sink, piece) not in self._let_through:
                    yield kind


def _pieces(value: str) -> Generator[bytes]:
    secret_part = value.rpartition(".")[2] if _JWT.fullmatch(value) else value
    # The subprotocol's form is the base64url of the whole token: its end is that of the signature.
    encoded = base64.urlsafe_b64encode(value.encode()).rstrip(b"=")[-len(secret_part) :]
    for form in (secret_part.encode(), encoded):
        for run in _RUN.findall(form):
            for begin in range(0, len(run) - _WINDOW + 1, _STEP):
                yield run[begin : begin + _WINDOW]


LEDGER = Ledger()


def secret(kind: Kind, value: str) -> str:
    """Return *value*, which from now on is looked for."""
    LEDGER.secret(kind, value)
    return value


saw = LEDGER.saw


@pytest.fixture
def leaks() -> Ledger:
    """For a test that plants a leak: what its `look` has found does not fail the test."""
    return LEDGER


def reprs() -> Generator[str]:
    """What the objects of wsguard that live now say of themselves, but for one whose constructor failed midway."""
    for found in gc.get_objects():
        kind = type(found)
        module: Any = kind.__module__
        if isinstance(module, str) and module.startswith("wsguard.") and kind.__repr__ is not object.__repr__:
            try:
                said = repr(found)
            except AttributeError:
                continue  # half built, and kept by a traceback: it lacks what it would name
            yield said[:_LONGEST_REPR]
            if hasattr(kind, "__rich_repr__"):
                yield pretty_repr(found, max_depth=2, max_string=_LONGEST_REPR)[:_LONGEST_REPR]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    LEDGER.fresh = False
    try:
        return (yield)
    finally:
        if LEDGER.fresh:
            LEDGER.saw_reprs(item.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    finally:
        folder: Path | None = getattr(item, "funcargs", {}).get("tmp_path")
        if folder is not None:
            _saw_stores(folder)
        found = LEDGER.look()
        assert not found, f"secrets have leaked: {found}"


def _saw_stores(folder: Path) -> None:
    for path in sorted(folder.rglob("*.db*")):
        if path.is_file():
            LEDGER.saw(Sink.STORE, path.read_bytes(), path.name)


def pytest_sessionstart() -> None:
    original = subprocess.Popen.__init__

    def watched(self: subprocess.Popen[Any], *arguments: Any, **keys: Any) -> None:
        original(self, *arguments, **keys)
        # What was asked for: /proc/<pid>/cmdline is empty for a moment behind execve, and again once the program has ended.
        words = [self.args] if isinstance(self.args, (str, bytes, os.PathLike)) else list(self.args)
        line = [os.fsencode(word) for word in words]
        LEDGER.saw(Sink.COMMAND_LINE, b"\0".join(line), line[0].decode("utf-8", "replace"))

    subprocess.Popen.__init__ = watched


def pytest_sessionfinish() -> None:
    folder = ROOT / ".test-results" / "leaks"
    if folder.is_dir():
        report = {
            "secrets": {kind: LEDGER.made[kind] for kind in Kind},
            "bytes": {sink: LEDGER.looked_through[sink] for sink in Sink},
        }
        (folder / f"{os.getpid()}.json").write_text(json.dumps(report))
