"""The reference pages and the schema of the configuration are what the code makes of them today."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.docs.blocks import ROOT, blocks
from wsguard.cli import main
from wsguard.config import GatewayConfig
from wsguard.vocabulary.bounds import BOUNDS
from wsguard.vocabulary.reasons import all_reasons

SCHEMA = ROOT / "src" / "wsguard" / "config" / "wsguard.schema.json"


def load_generator() -> ModuleType:
    loader = SourceFileLoader("generate_reference", str(ROOT / "scripts" / "generate-reference"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    saved, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = saved
    return module


GENERATOR = load_generator()
FILES: dict[Path, str] = GENERATOR.files()


@pytest.mark.parametrize("path", list(FILES), ids=str)
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    written = (ROOT / path).read_text(encoding="utf-8")
    assert written == FILES[path], "run scripts/generate-reference"


def test_no_page_stands_in_the_reference_that_nobody_makes() -> None:
    pages = {path.relative_to(ROOT) for path in (ROOT / "docs" / "reference").iterdir()}
    # That one is made by tests/asgi, which runs the servers.
    assert pages - {Path("docs/reference/asgi-servers.md")} == {path for path in FILES if path.suffix == ".md"}


@pytest.mark.parametrize("reason", [pytest.param(reason, id=reason.code) for reason in all_reasons()])
def test_a_reason_is_explained_on_the_page_of_its_countermeasure(reason: Any) -> None:
    _, link = GENERATOR.PAGES[reason.code.partition(".")[0]]
    page = ROOT / "docs" / "reference" / link.partition("#")[0]
    assert f"`{reason.code}`" in page.read_text(encoding="utf-8")


def test_every_bound_and_key_is_in_its_table() -> None:
    bounds, config = FILES[Path("docs/reference/bounds.md")], FILES[Path("docs/reference/config.md")]
    for bound in BOUNDS:
        assert f"| `{bound.key}` |" in bounds
    for field in msgspec.structs.fields(GatewayConfig):
        assert f"`{field.name}`" in config or f"`[{field.name}]`" in config or f"`[[{field.name}]]`" in config


# --- the schema -------------------------------------------------------------------------------------------------------


def schema() -> Any:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def validate(text: str) -> None:
    jsonschema.Draft202012Validator(schema()).validate(tomllib.loads(text))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("block", [pytest.param(block, id=str(block)) for block in blocks("toml")])
def test_the_configurations_of_the_pages_follow_the_schema(block: Any) -> None:
    validate(block.text)


@pytest.mark.parametrize(
    "text",
    [
        'orgins = ["https://app.example.com"]',
        'origins = "https://app.example.com"',
        'compression = "on"',
        'max_message = "16 MB"',
        "[limits]\nping = 25",
        '[limits]\nfields = "100"',
        '[[route]]\norigins = ["https://app.example.com"]',
        '[[route]]\npath = "/ws"\nupstream = "http://127.0.0.1:1"',
    ],
)
def test_what_the_program_refuses_the_schema_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(text)


def test_print_config_names_the_schema_that_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    run: Callable[[list[str]], object] = main
    with pytest.raises(SystemExit):
        run(["gateway", "--upstream", "http://127.0.0.1:8888", "--print-config"])
    first = capsys.readouterr().out.splitlines()[0]
    assert Path(first.removeprefix("#:schema ")).samefile(SCHEMA)
