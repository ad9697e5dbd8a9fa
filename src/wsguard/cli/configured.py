"""What commands that do not serve read of a configuration: a value or two, whatever else is wrong with the file."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def written_values(config: Path) -> dict[str, Any]:
    """Return what stands in the TOML file *config*. Raises ConfigurationError where it cannot be read or is none."""
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("--config", f"{config} ({error.strerror})", "a TOML file that can be read") from None
    except ValueError as error:
        raise ConfigurationError("--config", f"{config} ({error})", "TOML") from None
