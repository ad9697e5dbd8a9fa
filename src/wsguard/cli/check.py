"""``wsguard check``: is a configuration right, what does each route demand, and what is probably not meant."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import Parameter

from wsguard.store.sqlite_file import check_folder
from wsguard.vocabulary.errors import EXIT_CONFIGURATION, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.guard import Guard

_AsJSON = Annotated[bool, Parameter(name="--json", negative="")]
_SQLITE = "sqlite:"


def check(file: Path, /, *, of: Literal["gateway", "run"] | None = None, as_json: _AsJSON = False) -> int:
    """
    Read a configuration as the gateway or `wsguard run` would, show what each route demands, and serve nothing.

    Example: `wsguard check wsguard.toml`

    What is wrong goes to stderr, all of it, and the exit code is 2; with --json to stdout. What is allowed and probably
    not meant is shown as a warning.

    Parameters
    ----------
    file
        The TOML file.
    of
        Whose file it is; by default the gateway's if it names an upstream.
    as_json
        Print JSON for machines.
    """
    # A store that is not there yet is made here for the moment: looking changes nothing.
    with tempfile.TemporaryDirectory(prefix="wsguard-") as folder:
        try:
            guard, notices = _loaded(file, of or _kind(file), _unmade_store(file, folder))
        except ConfigurationError as error:
            if not as_json:
                raise
            print(json.dumps({"errors": [_told(one) for one in getattr(error, "errors", (error,))]}))
            return EXIT_CONFIGURATION
    from wsguard.config.effective import doubts, effective_policies

    found = {"routes": effective_policies(guard), "warnings": doubts(guard), "notices": [*guard.notices, *notices]}
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0


def _told(error: ConfigurationError) -> dict[str, str | None]:
    return {"key": error.key, "found": error.found, "expected": error.expected, "nearest": error.nearest}


def _kind(file: Path) -> Literal["gateway", "run"]:
    return "gateway" if "upstream" in _written(file) else "run"


def _written(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # told when it is read in earnest


def _loaded(file: Path, kind: Literal["gateway", "run"], flags: dict[str, Any]) -> tuple[Guard, Sequence[str]]:
    try:
        from wsguard.config import load_gateway
        from wsguard.dev_ca import DevelopmentAuthority

        if kind == "gateway":
            gateway = load_gateway(file, flags, DevelopmentAuthority.open)
            return gateway.guard, gateway.notices
        from wsguard.config.run import load_run

        run = load_run(file, flags, DevelopmentAuthority.open)
    except ImportError as error:
        expected = f"pip install 'wsguard[{kind}]'"
        if kind == "run":
            expected += ', or upstream = "http://…" in the file, if it is the gateway\'s'
        raise ConfigurationError("wsguard check", f"{error.name} not installed", expected) from None
    return run.guard, run.notices


def _unmade_store(file: Path, folder: str) -> dict[str, Any]:
    """Return the flag for a store in *folder* in place of the file's, where that one is not there yet."""
    store: Any = _written(file).get("store")
    if not isinstance(store, str) or not store.startswith(_SQLITE):
        return {}
    path = file.parent / store.removeprefix(_SQLITE)
    try:
        check_folder(path)
    except ConfigurationError:
        return {}  # told with the rest, when it is opened in earnest
    if path.exists():
        return {}
    return {"store": f"{_SQLITE}{folder}/wsguard.db"}


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for route in cast("list[dict[str, Any]]", found["routes"]):
        table = Table(title=Text(route["path"], style="bold"), title_justify="left", show_header=False)
        for name, value in route.items():
            if name != "path" and value not in (None, [], {"scopes": [], "groups": []}):
                style = "yellow" if name == "insecure" else ""
                table.add_row(name, Text(_text(value), style=style))
        console.print(table)
    for notice in found["notices"]:
        console.print(Text(f"notice: {notice}"))
    for warning in found["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))
    count = len(found["warnings"])
    console.print(
        Text("right" + (f", {count} warnings" if count > 1 else ", 1 warning" if count else ""), style="green")
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[Any]", value)))
    if isinstance(value, dict):
        items = cast("dict[str, list[str]]", value).items()
        return "; ".join(f"{name} {' '.join(entries)}" for name, entries in items if entries)
    return str(value)
