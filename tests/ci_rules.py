"""
The rules of RULES.md §11 that hold for every test, as a pytest plugin.

A test names the programs it needs. Where one is missing it is skipped by name on a laptop and fails where CI=true. With
--report-file each suite writes down what became of its tests; scripts/summarize-tests adds the suites up.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
IN_CI = os.environ.get("CI") == "true"
# Debian keeps servers where a user's PATH does not lead.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find_program(name: str) -> str | None:
    """Find a program by its name, or by its path from the clone's root: `.venv-jupyter/bin/jupyter-lab`."""
    return shutil.which(str(ROOT / name) if "/" in name else name, path=SEARCH_PATH)


def require_program(name: str) -> str:
    """Return the program's path, or end the test as the rules say."""
    found = find_program(name)
    if found is None:
        _missing(f"{name} is not installed; `make test` as root installs what the tests need")
    return found


@pytest.fixture(scope="session", name="require_program")
def _require_program() -> Callable[[str], str]:
    return require_program


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires_program"):
        for name in marker.args:
            require_program(name)
    if item.get_closest_marker("root") and os.geteuid() != 0:
        _missing("not root")


def _missing(reason: str) -> NoReturn:
    if IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report-file", type=Path, help="write what became of each test to this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    path: Path | None = config.getoption("report_file")
    if path is None:
        return
    worker: str | None = getattr(config, "workerinput", {}).get("workerid")
    if worker is None:
        config.pluginmanager.register(_Outcomes(path))
    if worker in {None, "gw0"}:  # every worker collects the same
        config.pluginmanager.register(_Collected(path.with_suffix(".collected.json")))


class _Collected:
    """All tests that there are, before any is deselected, and the modules skipped whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: list[str] | None = None
        self._skipped: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._tests = [item.nodeid for item in items]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped[report.nodeid] = _skip_reason(report)

    def pytest_sessionfinish(self) -> None:
        if self._tests is not None:  # the process that hands tests out to workers collects none
            self._path.write_text(json.dumps({"tests": self._tests, "skipped": self._skipped}))


class _Outcomes:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, tuple[str, str]] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._outcomes[report.nodeid] = ("failed", "not collected")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        expected_failure: str | None = getattr(report, "wasxfail", None)
        if report.failed:
            self._outcomes[report.nodeid] = ("failed", report.when or "")
        elif report.skipped and expected_failure is not None:
            self._outcomes[report.nodeid] = ("xfailed", expected_failure)
        elif report.skipped:
            self._outcomes[report.nodeid] = ("skipped", _skip_reason(report))
        elif report.when == "call":
            self._outcomes[report.nodeid] = ("passed", "")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._path.write_text(json.dumps({"exit": int(exitstatus), "outcomes": self._outcomes}))


def _skip_reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
