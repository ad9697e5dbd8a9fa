"""``wsguard dev-ca``: the development certificate authority of this user."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import App, Parameter

from wsguard.vocabulary.errors import ConfigurationError

dev_ca = App(name="dev-ca", help="The development certificate authority that `wsguard gateway` uses on loopback.")


@dev_ca.command
def show(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """
    Print fingerprint, path, and how to trust it. Makes the authority on first use.

    Example: wsguard dev-ca show

    Parameters
    ----------
    as_json
        Print JSON for machines.
    """
    try:
        from wsguard.dev_ca.authority import DevelopmentAuthority, trust_instructions
    except ImportError as error:
        raise ConfigurationError(
            "wsguard dev-ca", f"{error.name} not installed", "pip install 'wsguard[gateway]'"
        ) from None
    authority = DevelopmentAuthority.open()
    until = authority.certificate.not_valid_after_utc
    if as_json:
        facts = {
            "fingerprint": authority.fingerprint,
            "path": str(authority.certificate_path),
            "until": until.isoformat(),
        }
        print(json.dumps(facts))
        return 0
    print(f"path         {authority.certificate_path}\nfingerprint  SHA-256 {authority.fingerprint}")
    print(f"valid until  {until:%Y-%m-%d}\n\n{trust_instructions(authority)}")
    return 0
