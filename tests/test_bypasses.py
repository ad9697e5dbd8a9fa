"""BYPASSES.md lists how others were bypassed; each row is a test by its name, or somebody's work to come."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST = tomllib.loads((ROOT / "tests" / "bypasses.toml").read_text())
SOURCE = ROOT.parent / "shared" / "BYPASSES.md"
_ROW = re.compile(r"\| (B-[A-Z]+-[0-9]+) `([a-z0-9_]+)`")


@pytest.mark.skipif(not SOURCE.exists() and os.environ.get("CI") != "true", reason="shared/ is not beside this clone")
def test_every_id_is_listed_under_its_name() -> None:
    """No row is forgotten, and a test bears the name that the row gives it."""
    rows = dict(_ROW.findall(SOURCE.read_text()))
    assert len(rows) > 80
    assert LIST.keys() == rows.keys()
    for identifier, place in LIST.items():
        if "::" in place:
            assert place.rpartition("::")[2] == f"test_{rows[identifier]}"


@pytest.mark.parametrize(("identifier", "place"), [(key, value) for key, value in LIST.items() if "::" in value])
def test_the_named_test_exists_and_names_its_row(identifier: str, place: str) -> None:
    """The id stands in the docstring, so that a failure leads to the advisory."""
    file, _, name = place.partition("::")
    functions = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)]
    found = [function for function in functions if function.name == name]
    assert len(found) == 1, place
    assert identifier in (ast.get_docstring(found[0]) or "")


@pytest.mark.parametrize(("identifier", "place"), [(key, value) for key, value in LIST.items() if "::" not in value])
def test_what_is_to_come_says_from_where(identifier: str, place: str) -> None:
    """An issue, or that there is none yet."""
    assert re.fullmatch(r"issue [0-9]+|not filed yet", place), identifier
