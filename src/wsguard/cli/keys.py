"""``wsguard keys``: make, show and take back API keys. A key is printed once, and is never an argument."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import App, Parameter

from wsguard.cli.configured import written_values
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.authenticators.api_key import KeyEntry

keys = App(
    name="keys",
    help="""API keys for programs: made, shown and taken back. A guard that runs sees a change within a second.

The file holds hashes, one table a key. `wsguard keys` writes it whole and anew, so comments in it do not survive.""",
)
_AsJSON = Annotated[bool, Parameter(name="--json", negative="")]


@keys.command
def add(
    name: str,
    /,
    *,
    scope: Annotated[list[str] | None, Parameter(negative="")] = None,
    expires: str | None = None,
    config: Path | None = None,
    file: Path | None = None,
    as_json: _AsJSON = False,
) -> int:
    """
    Make a key and print it, this once: the file keeps its hash. Makes the file (mode 0600) if it is missing.

    Example: `wsguard keys add robot --scope chat --expires 90d --file keys.toml`

    The key alone goes to stdout: `KEY=$(wsguard keys add …)`. Comments in the file do not survive.

    Parameters
    ----------
    name
        Who will use it; the subject that the app sees.
    scope
        What it may do, for routes that require scopes; repeatable.
    expires
        How long it holds, like 90d or 12h. Without it the key has no end.
    config
        The wsguard.toml whose [api_keys] names the key file.
    file
        The key file itself, instead of --config.
    as_json
        Print JSON for machines, the key in it.
    """
    from wsguard.config.units import parse_duration
    from wsguard.identity.key_writer import add_key

    try:
        lifetime = None if expires is None else parse_duration(expires)
    except ValueError:
        raise ConfigurationError("--expires", repr(expires), 'a duration with its unit: "90d", "12h"') from None
    path = _key_file(config, file)
    key, entry = add_key(
        path,
        name,
        scopes=scope or (),
        lifetime=lifetime,
        now=time.time(),
        randomness=secrets.token_bytes,
        limits=DEFAULTS,
    )
    print(json.dumps({"key": key, **_facts(entry)}) if as_json else key)
    end = "has no end" if entry.expires is None else f"expires {_shown(entry.expires)}"
    scopes = ", ".join(sorted(entry.scopes)) or "none"
    print(f"{name}: added to {path}; scopes: {scopes}; {end}. Nobody can show this key again.", file=sys.stderr)
    return 0


@keys.command(name="list")
def list_keys(*, config: Path | None = None, file: Path | None = None, as_json: _AsJSON = False) -> int:
    """
    Show the keys: name, scopes, when it was added, when it expires, and whether it counts.

    Example: `wsguard keys list --file keys.toml`

    Parameters
    ----------
    config
        The wsguard.toml whose [api_keys] names the key file.
    file
        The key file itself, instead of --config.
    as_json
        Print JSON for machines.
    """
    from wsguard.identity.key_writer import read_keys

    entries = read_keys(_key_file(config, file), DEFAULTS)
    if as_json:
        print(json.dumps([{**_facts(entry), "state": _state(entry)} for entry in entries]))
    elif sys.stdout.isatty():
        _print_table(entries)
    else:
        print("\t".join(_COLUMNS))
        for entry in entries:
            print("\t".join(_row(entry)))
    return 0


@keys.command
def revoke(name: str, /, *, config: Path | None = None, file: Path | None = None, as_json: _AsJSON = False) -> int:
    """
    Take a key out of the file: it opens nothing more, and within a second its sockets close.

    Example: `wsguard keys revoke robot --file keys.toml`

    Comments in the file do not survive.

    Parameters
    ----------
    name
        Whose key.
    config
        The wsguard.toml whose [api_keys] names the key file.
    file
        The key file itself, instead of --config.
    as_json
        Print JSON for machines.
    """
    from wsguard.identity.key_writer import revoke_key

    path = _key_file(config, file)
    entry = revoke_key(path, name, limits=DEFAULTS)
    print(json.dumps(_facts(entry)) if as_json else f"{name}: revoked in {path}")
    return 0


def _key_file(config: Path | None, file: Path | None) -> Path:
    """Return where the key file is: named itself, or by the configuration, from whose folder its path is read."""
    if (config is None) == (file is None):
        found = "neither" if file is None else "both"
        raise ConfigurationError("--config, --file", found, "one: --config wsguard.toml, or --file keys.toml")
    if config is None:
        return cast("Path", file)
    table: Any = written_values(config).get("api_keys")
    named: Any = cast("dict[str, Any]", table).get("file") if isinstance(table, dict) else None
    if not isinstance(named, str) or not named:
        raise ConfigurationError("api_keys.file", f"none in {config}", '[api_keys] with file = "keys.toml"')
    return config.parent / named


_COLUMNS = ("name", "scopes", "added", "expires", "state")


def _row(entry: KeyEntry) -> Sequence[str]:
    end = "never" if entry.expires is None else _shown(entry.expires)
    return entry.name, " ".join(sorted(entry.scopes)), _shown(entry.added), end, _state(entry)


def _print_table(entries: Sequence[KeyEntry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS)
    for entry in entries:
        *cells, state = _row(entry)
        table.add_row(*map(Text, cells), Text(state, style="green" if state == "valid" else "red"))
    Console(highlight=False).print(table)


def _facts(entry: KeyEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "scopes": sorted(entry.scopes),
        "added": _shown(entry.added),
        "expires": None if entry.expires is None else _shown(entry.expires),
    }


def _state(entry: KeyEntry) -> str:
    return "expired" if entry.expires is not None and entry.expires <= time.time() else "valid"


def _shown(seconds: float) -> str:
    from wsguard.identity.key_writer import as_time

    return as_time(seconds)
