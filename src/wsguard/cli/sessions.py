"""``wsguard sessions``: the live sockets of a gateway or app that runs, over its admin socket."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import App, Parameter

from wsguard.cli.configured import written_values
from wsguard.vocabulary.errors import ConfigurationError, WSGuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

sessions = App(
    name="sessions",
    help="""Live sockets: shown and closed, in the process that has them, over its admin socket.

The socket is what `admin = "unix:PATH"` in its configuration names; only its own user and root may use it.""",
)
_AsJSON = Annotated[bool, Parameter(name="--json", negative="")]
EXIT_FAULT = 1


@sessions.command(name="list")
def list_sessions(*, config: Path | None = None, admin: str | None = None, as_json: _AsJSON = False) -> int:
    """
    Show the live sockets: who, where to, from which page, for how long.

    Example: `wsguard sessions list --config wsguard.toml`

    Parameters
    ----------
    config
        The wsguard.toml whose `admin` names the socket.
    admin
        The socket itself, unix:PATH, instead of --config.
    as_json
        Print JSON for machines.
    """

    def show(path: Path) -> None:
        from wsguard.admin.client import ask_admin

        found: list[dict[str, Any]] = ask_admin(path, "GET", "/sessions")["sessions"]
        if as_json:
            print(json.dumps(found))
        elif sys.stdout.isatty():
            _print_table(found)
        else:
            print("\t".join(_COLUMNS))
            for session in found:
                print("\t".join(_row(session)))

    return _asked(_admin_path(config, admin), show)


@sessions.command
def close(
    session: str | None = None,
    /,
    *,
    subject: str | None = None,
    issuer: str | None = None,
    sid: str | None = None,
    credential_id: str | None = None,
    issued_before: float | None = None,
    config: Path | None = None,
    admin: str | None = None,
    as_json: _AsJSON = False,
) -> int:
    """
    Close one live socket by its id, or revoke all that the given names match: its sockets close, it opens no more.

    Example: `wsguard sessions close --subject alice --config wsguard.toml`

    What is revoked gets 401 from now on, as long as it was issued until now (or until --issued-before). One socket that
    is closed by its id may be opened again.

    Parameters
    ----------
    session
        The id of one live socket, as `wsguard sessions list` and the log show it.
    subject
        Whose sockets and credentials.
    issuer
        Of this issuer alone.
    sid
        Of this login session.
    credential_id
        This one credential: a token's jti, an API key's name, a client certificate's fingerprint.
    issued_before
        What was issued until then, in Unix seconds; by default now.
    config
        The wsguard.toml whose `admin` names the socket.
    admin
        The socket itself, unix:PATH, instead of --config.
    as_json
        Print JSON for machines.
    """
    names: dict[str, Any] = {"subject": subject, "issuer": issuer, "sid": sid, "credential_id": credential_id}
    given = {name: value for name, value in names.items() if value is not None}
    if (session is None) == (not given):
        found = "neither an id nor a name" if session is None else "an id and names"
        raise ConfigurationError(
            "wsguard sessions close", found, "an id, or --subject, --sid, --credential-id, --issuer"
        )
    if issued_before is not None:
        given["issued_before"] = issued_before

    def ask(path: Path) -> None:
        from wsguard.admin.client import ask_admin

        if session is None:
            answer = ask_admin(path, "POST", "/revocations", given)
        else:
            answer = ask_admin(path, "POST", "/sessions/close", {"session": session})
        print(json.dumps(answer) if as_json else f"closed: {answer['closed']}")

    return _asked(_admin_path(config, admin), ask)


def _asked(path: Path, command: Callable[[Path], None]) -> int:
    try:
        command(path)
    except WSGuardError as error:
        print(f"wsguard sessions: {error}", file=sys.stderr)
        return EXIT_FAULT
    return 0


def _admin_path(config: Path | None, admin: str | None) -> Path:
    from wsguard.admin.socket import read_admin_path

    if (config is None) == (admin is None):
        found = "neither" if admin is None else "both"
        raise ConfigurationError("--config, --admin", found, "one: --config wsguard.toml, or --admin unix:PATH")
    if config is None:
        return read_admin_path(cast("str", admin))
    named = written_values(config).get("admin")
    if not isinstance(named, str):
        raise ConfigurationError("admin", f"none in {config}", 'admin = "unix:/run/wsguard/admin.sock"')
    return config.parent / read_admin_path(named)


_COLUMNS = ("session", "subject", "method", "route", "origin", "peer", "age", "ends")


def _row(session: dict[str, Any]) -> Sequence[str]:
    ends = session.get("expires_at")
    left = "never" if ends is None else _time(max(0.0, ends - time.time()))
    told = [session.get(name) for name in ("session", "subject", "method", "route", "origin", "peer")]
    return [*("-" if value is None else _shown(str(value)) for value in told), _time(session["seconds"]), left]


def _shown(text: str) -> str:
    """Return *text* with nothing in it that a terminal obeys: strangers have chosen some of it."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _print_table(found: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS, caption=f"{len(found)} live")
    for session in found:
        table.add_row(*map(Text, _row(session)))
    Console(highlight=False).print(table)
