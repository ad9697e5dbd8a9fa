"""`wsguard demo`: watch a chat being hijacked, and the same chat behind the gateway not."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from cyclopts import Parameter, validators

from wsguard.demo.errors import DemoError

DEFAULT_PORT = 8440
EXTRAS = {"websockets": "demo", "cryptography": "demo", "joserfc": "demo", "playwright": "browser"}

SelfTest = Annotated[bool, Parameter(negative="")]


def demo(
    *,
    port: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65534))] = None,
    browser: bool = True,
    headless_check: Annotated[bool, Parameter(negative="")] = False,
    without_guard: SelfTest = False,
    logged_out: SelfTest = False,
) -> int:
    """
    Watch a chat app being hijacked, and the same app behind wsguard not.

    Everything runs on loopback until Ctrl-C. Exit codes: 0 ended by Ctrl-C or check passed, 1 check failed or the demo
    could not run, 2 flags.

    Parameters
    ----------
    port
        The demo's port; its gateway takes the next one. Default: 8440 and 8441, the check takes free ones.
    browser
        Offer to open an installed Chromium in a throw-away profile.
    headless_check
        Nobody watches: run it in headless Chromium and Firefox, print a verdict, exit 0 or 1.
    without_guard
        Self-test of --headless-check: without the guard both apps are hijacked, so the check must fail.
    logged_out
        Self-test of --headless-check: nobody is signed in, so there is nothing to steal and the check must fail.
    """
    try:
        if headless_check:
            return _check(port, guard=not without_guard, signed_in=not logged_out)
        if without_guard or logged_out:
            return _say("--without-guard and --logged-out are self-tests of --headless-check", code=2)
        return _watch(port or DEFAULT_PORT, offer_browser=browser)
    except DemoError as error:
        return _say(str(error))
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        return _say(f"this needs {missing.name}: pip install 'wsguard[{EXTRAS[missing.name]}]'")


def _watch(port: int, *, offer_browser: bool) -> int:
    from wsguard.demo.interactive import run_until_interrupted
    from wsguard.demo.places import Places

    asyncio.run(run_until_interrupted(Places(port, port + 1), offer_browser=offer_browser))
    return 0


def _check(port: int | None, *, guard: bool, signed_in: bool) -> int:
    from wsguard.demo.check.headless import check
    from wsguard.demo.loopback import free_port
    from wsguard.demo.places import Places

    places = Places(port, port + 1) if port else Places(free_port(), free_port())
    return 0 if asyncio.run(check(places, guard=guard, signed_in=signed_in)) else 1


def _say(what: str, *, code: int = 1) -> int:
    print(f"wsguard demo: {what}", file=sys.stderr)
    return code
