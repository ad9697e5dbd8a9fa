"""The rules of a CI run, on a small clone with tests of its own: each thing that must fail it does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.skip(reason="no moon")
def test_skips(): pass

@pytest.mark.xfail(reason="a bug")
def test_fails_as_expected(): assert 0

@pytest.mark.slow
def test_is_deselected(): pass
"""
SKIPPED_WHOLE = 'import pytest\npytest.skip("no sun", allow_module_level=True)\n'
PROGRAMS = """
import pytest

def test_passes(): pass

@pytest.mark.requires_program("wsguard-no-such-program")
def test_by_marker(): pass

def test_by_fixture(require_program): require_program("wsguard-no-such-program")
"""
ALLOWED = """
[[allowed]]
test = "tests/test_one.py::test_skips"
kind = "skip"
reason = "the moon comes and goes"

[[allowed]]
test = "tests/test_two.py"
kind = "skip"
reason = "so does the sun"

[[allowed]]
test = "tests/test_one.py::test_fails*"
kind = "xfail"
reason = "until it is repaired"

[[allowed]]
test = "tests/test_one.py::test_is_deselected"
kind = "deselect"
reason = "too slow for anyone"
"""
STALE = '[[allowed]]\ntest = "tests/test_one.py::test_gone"\nkind = "skip"\nreason = "there was one"\n'


class Clone:
    """What the rules need of a clone, around a few tests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        for name in ("tests/ci_rules.py", "scripts/summarize-tests", "pyproject.toml"):
            path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
        path.joinpath("tests/conftest.py").write_text('pytest_plugins = ["tests.ci_rules"]\n')
        path.joinpath(".test-results").mkdir()
        self.allow("allowed = []\n")
        self.look_for_leaks({"token": 1}, {"stdout": 1})

    def look_for_leaks(self, secrets: dict[str, int], searched: dict[str, int]) -> None:
        """Leave what tests/leaks.py leaves."""
        folder = self._path / ".test-results/leaks"
        folder.mkdir(exist_ok=True)
        (folder / "1.json").write_text(json.dumps({"secrets": secrets, "bytes": searched}))

    def test(self, source: str, *, name: str = "one") -> None:
        self._path.joinpath(f"tests/test_{name}.py").write_text(source)

    def allow(self, entries: str) -> None:
        self._path.joinpath("tests/allowed_skips.toml").write_text(entries)

    def run_suite(self, *, ci: bool, workers: int = 0) -> None:
        report = "--report-file=.test-results/fast.json"
        self._run(["-m", "pytest", "-p", "no:hypothesispytest", "-m", "not slow", "-n", str(workers), report], ci=ci)

    def judge(self, *, ci: bool) -> tuple[int, list[str]]:
        """Add the suite up; return the exit code and the lines printed."""
        ended = self._run(["scripts/summarize-tests", "fast"], ci=ci)
        return ended.returncode, (ended.stdout + ended.stderr).splitlines()

    def _run(self, arguments: list[str], *, ci: bool) -> subprocess.CompletedProcess[str]:
        ours = {"CI", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        if ci:
            environment["CI"] = "true"
        return subprocess.run(
            [sys.executable, *arguments], cwd=self._path, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_did_not_run_must_be_listed_in_ci(clone: Clone, workers: int) -> None:
    clone.test(TESTS)
    clone.test(SKIPPED_WHOLE, name="two")
    clone.run_suite(ci=True, workers=workers)

    code, lines = clone.judge(ci=True)
    assert code == 1
    assert sorted(
        line.removesuffix(": not listed in tests/allowed_skips.toml") for line in lines if line.startswith("rules:")
    ) == [
        "rules: deselect: tests/test_one.py::test_is_deselected: no suite ran it",
        "rules: skip: tests/test_one.py::test_skips: Skipped: no moon",
        "rules: skip: tests/test_two.py: Skipped: no sun",
        "rules: xfail: tests/test_one.py::test_fails_as_expected: a bug",
    ]

    clone.allow(ALLOWED)
    code, lines = clone.judge(ci=True)
    assert (code, lines[-1]) == (0, "1 passed, 0 failed, 3 skipped")

    clone.allow(ALLOWED + STALE)
    code, lines = clone.judge(ci=True)
    assert code == 1
    assert "rules: tests/allowed_skips.toml lists tests/test_one.py::test_gone, which met nothing" in lines

    clone.allow(ALLOWED.replace('reason = "the moon comes and goes"', ""))
    assert clone.judge(ci=True)[0] == 1

    clone.allow("allowed = []\n")
    assert clone.judge(ci=False)[0] == 0  # a laptop need not list anything


@pytest.mark.parametrize(
    ("ci", "closing"), [(False, "1 passed, 0 failed, 2 skipped"), (True, "1 passed, 2 failed, 0 skipped")]
)
def test_a_missing_program_skips_on_a_laptop_and_fails_in_ci(clone: Clone, ci: bool, closing: str) -> None:
    clone.test(PROGRAMS)
    clone.run_suite(ci=ci)
    assert clone.judge(ci=ci)[1][-1] == closing


@pytest.mark.parametrize(
    ("source", "workers"),
    [
        ("def test_it(): assert 0\n", 0),
        ("import wsguard_no_such_module\n", 0),
        ("import os\ndef test_it(): os._exit(3)\n", 0),
        ("import os\ndef test_it(): os._exit(3)\n", 1),
        ("def nothing(): pass\n", 0),
    ],
    ids=["assertion", "collection", "crash", "crash of a worker", "no test"],
)
def test_a_failure_fails_everywhere(clone: Clone, source: str, workers: int) -> None:
    clone.test(source)
    clone.run_suite(ci=False, workers=workers)
    code, lines = clone.judge(ci=False)
    assert (code, lines[-1]) == (1, "0 passed, 1 failed, 0 skipped")


def test_a_place_where_nobody_looked_for_secrets_fails(clone: Clone) -> None:
    """A leak test that looks at nothing finds nothing."""
    clone.test("def test_passes(): pass")
    clone.run_suite(ci=True)
    clone.look_for_leaks({"token": 0, "ticket": 3}, {"stdout": 12, "store file": 0})
    code, lines = clone.judge(ci=True)
    assert (code, lines[-1]) == (1, "1 passed, 2 failed, 0 skipped")
    assert [line for line in lines if line.startswith("rules: ")] == [
        "rules: leaks: there was no token, so none was looked for",
        "rules: leaks: nothing came from store file",
    ]
    clone.look_for_leaks({}, {})
    assert "rules: leaks: no test has looked for secrets" in clone.judge(ci=True)[1]
