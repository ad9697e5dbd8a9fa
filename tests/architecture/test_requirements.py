"""Locked requirements have hashes, name no address, and are up to date with pyproject.toml."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def problems_of_lock(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = "\n".join(lines).replace("\\\n", " ").splitlines()
    found = [f"an address: {line}" for line in text.splitlines() if "://" in line]
    for entry in filter(str.strip, entries):
        if entry.startswith("-"):
            found.append(f"an option: {entry}")
        elif not HASH.search(entry):
            found.append(f"no hash: {entry}")
    return found


def files_of_the_project() -> list[Path]:
    """All that is in git or about to be: what is neither ignored nor gone."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def resolved_addresses(lock: Any) -> list[str]:
    """Every `resolved` of an npm lock that is an address, at any depth."""
    if isinstance(lock, list):
        return [address for item in lock for address in resolved_addresses(item)]
    if not isinstance(lock, dict):
        return []
    found = [value for name, value in lock.items() if name == "resolved" and "://" in str(value)]
    return found + [address for value in lock.values() for address in resolved_addresses(value)]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_entry_has_a_hash_and_no_line_an_address(lock: Path) -> None:
    text = lock.read_text()
    assert HASH.search(text)
    assert problems_of_lock(text) == []


def test_all_locks_are_there() -> None:
    assert [lock.name for lock in LOCKS] == ["dev.txt", "jupyter.txt", "uv.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "six==1.17.0\n",
        "six==1.17.0 \\\n    # via nothing\n",
        "--extra-index-url=x\n",
        "-e .\n",
        "# " + "http" + "://index.test/simple\n",
    ],
)
def test_a_bad_entry_is_found(text: str) -> None:
    assert len(problems_of_lock(text)) == 1


def test_npm_locks_name_no_address() -> None:
    locks = [path for path in files_of_the_project() if path.name == "package-lock.json"]
    assert {str(lock): resolved_addresses(json.loads(lock.read_text())) for lock in locks} == {
        str(lock): [] for lock in locks
    }


def test_an_address_in_an_npm_lock_is_found() -> None:
    assert resolved_addresses({"packages": {"a": {"resolved": "http" + "://npm.test/a.tgz"}, "b": {"link": True}}})


def test_locks_that_name_their_registry_stay_out_of_git() -> None:
    names = {path.name for path in files_of_the_project()}
    assert "pyproject.toml" in names
    assert names & {"uv.lock", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "Pipfile.lock"} == set()


def test_the_lock_is_up_to_date_with_pyproject() -> None:
    # Without a network: every requirement written by hand is met by what is locked.
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = [entry for extra in project["optional-dependencies"].values() for entry in extra]
    everything = [*pyproject["build-system"]["requires"], *project["dependencies"], *extras, *groups["dev"]]
    wanted = {"dev.txt": everything, "jupyter.txt": groups["jupyter"]}
    unmet = [
        f"{requirement} in {name}: make lock"
        for name, entries in wanted.items()
        for requirement in map(Requirement, entries)
        if requirement.name != project["name"] and not met(requirement, (REQUIREMENTS / name).read_text())
    ]
    assert unmet == []


def met(requirement: Requirement, lock: str) -> bool:
    versions = re.findall(rf"^{canonicalize_name(requirement.name)}==(\S+)", lock, re.MULTILINE)
    return any(requirement.specifier.contains(version) for version in versions)
