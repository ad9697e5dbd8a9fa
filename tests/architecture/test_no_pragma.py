"""Where the decisions are made no line is excused from coverage, and no file is named for nothing."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "wsguard"
EXCUSE = "pragma: no " + "cover"
# A name says what a thing holds; these say that nobody knew.
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common"}


@pytest.mark.parametrize("folder", ["vocabulary", "wire", "engine", "identity"])
def test_no_line_is_excused_from_coverage(folder: str) -> None:
    excused = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCE.joinpath(folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if EXCUSE in line
    ]
    assert excused == []


def test_every_name_says_what_is_inside() -> None:
    folders = [ROOT / name for name in ("src", "tests", "benchmarks", "scripts")]
    paths = [path for folder in folders for path in folder.rglob("*") if "node_modules" not in path.parts]
    assert SOURCE in paths
    assert [str(path.relative_to(ROOT)) for path in paths if path.stem in EMPTY_NAMES] == []
