"""Floor 8: the command line, one file a command."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from typing import Annotated

from cyclopts import App, Parameter

from wsguard.cli.check import check
from wsguard.cli.demo import demo
from wsguard.cli.dev_ca import dev_ca
from wsguard.cli.gateway import gateway
from wsguard.cli.keys import keys
from wsguard.cli.run import run
from wsguard.cli.sessions import sessions
from wsguard.vocabulary.errors import EXIT_CONFIGURATION, ConfigurationError

_EXIT_SIGPIPE = 141  # what a shell tells of a program that SIGPIPE has ended

app = App(
    name="wsguard",
    help="""WebSocket endpoints, secure by default.

Exit codes: 0 ended well, 1 a fault while running, 2 flags or configuration.""",
    version_flags=[],
    help_flags=["--help", "-h"],
)
app.command(gateway)
app.command(run)
app.command(check)
app.command(demo)
app.command(dev_ca)
app.command(keys)
app.command(sessions)


@app.default
def wsguard(
    *,
    version: Annotated[bool, Parameter(negative="")] = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")] = False,
) -> int:
    """
    Protect WebSocket endpoints.

    Example: wsguard gateway --upstream http://127.0.0.1:8888

    Parameters
    ----------
    version
        Print the version; with -v also the TLS engine, OpenSSL and Python.
    verbose
        Say more.
    """
    if not version:
        app.help_print()
        return 0
    print(f"wsguard {installed_version('wsguard')}")
    if verbose:
        _print_engine()
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command that *arguments* (by default the process's) name, and exit with its code."""
    try:
        result = app(arguments, exit_on_error=True, result_action="return_value")
        sys.stdout.flush()
    except ConfigurationError as error:
        print(f"wsguard: {error}".replace("\n", "\nwsguard: "), file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)
    except BrokenPipeError:
        # Whoever reads has enough. What is still to be flushed at the end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_EXIT_SIGPIPE)
    sys.exit(result if isinstance(result, int) else 0)


def _print_engine() -> None:
    import platform
    import ssl

    from wsguard.gateway.transports import transport_engine

    try:
        engine = transport_engine("aiofastnet", 0).description
    except ConfigurationError:
        engine = transport_engine("stdlib", 0).description
    print(f"TLS engine  {engine}\nOpenSSL     {ssl.OPENSSL_VERSION}\nPython      {platform.python_version()}")
