"""The floors of DESIGN.md as data: a file imports its own folder and the floors below, never a sibling on its floor."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "wsguard"

FLOORS = (
    {"vocabulary"},
    {"wire", "engine"},
    {"tls", "store", "observe"},
    {"identity"},
    {"endpoints"},
    {"admin"},
    {"guard"},
    {"asgi", "gateway", "authorize"},
    {"config", "dev_ca", "supervisor"},
    {"demo"},
    {"cli"},
)
# What a tower may import of ours. Only cli imports towers.
TOWERS = {
    "client": {"vocabulary"},
    "audit": {"vocabulary.secret", "vocabulary.errors", "vocabulary.close_codes"},
    "testing": {"vocabulary", "wire", "engine", "asgi.uvicorn_socket"},
}
# The root re-exports for users, lazily; nobody inside imports it. `python -m wsguard` is the command line.
ROOT = {"__init__", "fastapi", "__main__"}
# The one look upwards: users make a guard of a file by the class's own name (RULES §12), and nothing of it comes back.
UPWARDS = {("guard.guard", "config.guards.guard_from_file")}
# Floors that do not touch the world; logging and randomness come from above.
PURE = {"vocabulary", "wire", "engine"}
WORLD = {"asyncio", "logging", "os", "random", "socket", "ssl", "time"}

FLOOR_OF = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}


def imports(source: str, module: str) -> list[tuple[str, bool]]:
    """Every module that *source*, which is wsguard's *module*, names, and whether the import is lazy or for types."""
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        late = id(node) not in top
        if isinstance(node, ast.Import):
            found += [(alias.name, late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ["wsguard", *module.split(".")][: -node.level]
                base = ".".join(parents + ([base] if base else []))
            # `from wsguard.engine import policy` may name a module; the longer name shows it.
            found += [(f"{base}.{alias.name}", late) for alias in node.names]
    return found


def allowed(folder: str, target: str) -> bool:
    """May a file of *folder* import *target*, which is a dotted name inside wsguard?"""
    other = target.split(".", maxsplit=1)[0]
    if other == folder:
        return True
    if folder in TOWERS:
        return any(target == name or target.startswith(f"{name}.") for name in TOWERS[folder])
    if other in TOWERS:
        return folder == "cli"
    return other in FLOOR_OF and FLOOR_OF[other] < FLOOR_OF[folder]


def violations(module: str, source: str) -> list[str]:
    """What the file *module* (`engine.checks.origin`; a package's own file ends in `.__init__`) must not import."""
    folder = module.split(".", maxsplit=1)[0]
    if folder not in FLOOR_OF and folder not in TOWERS and folder not in ROOT:
        return [f"{module}: {folder} stands on no floor: give it a place in DESIGN.md and here"]
    found: list[str] = []
    for name, late in imports(source, module):
        package, _, target = name.partition(".")
        if package != "wsguard":
            if folder in PURE and package in WORLD:
                found.append(f"{module} touches the world: {name}")
        elif folder == "__init__":
            if not late:
                found.append(f"{module} imports {name} at once: `import wsguard` must be light")
        elif folder not in ROOT and not allowed(folder, target) and not (late and (module, target) in UPWARDS):
            found.append(f"{module} imports {name}, which does not stand below it")
    return found


def modules() -> list[str]:
    return sorted(".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("module", modules())
def test_a_file_imports_only_what_stands_below(module: str) -> None:
    source = SOURCE.joinpath(*module.split(".")).with_suffix(".py").read_text()
    assert violations(module, source) == []


def test_there_is_something_to_look_at() -> None:
    assert {"__init__", "vocabulary.errors"} <= set(modules())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vocabulary.host", "from wsguard.engine.policy import Policy"),
        ("engine.policy", "import wsguard.wire.frames"),
        ("wire.frames", "from wsguard import engine"),
        ("engine.policy", "from wsguard import Policy"),
        ("engine.policy", "import wsguard"),
        ("engine.policy", "from wsguard.fastapi import guard"),
        ("engine.policy", "def f():\n    import time"),
        ("engine.checks.origin", "if TYPE_CHECKING:\n    from ssl import SSLContext"),
        ("wire.__init__", "from ..gateway import relay"),
        ("engine.checks.origin", "from ...wire import frames"),
        ("vocabulary.host", "import os.path"),
        ("asgi.answer", "from wsguard.gateway.answer import answer"),
        ("gateway.listener", "from wsguard.config.file import read"),
        ("audit.probes", "from wsguard.vocabulary.origin import Origin"),
        ("audit.probes", "from wsguard.vocabulary import origin"),
        ("client.connect", "from wsguard.tls.contexts import make"),
        ("demo.check", "from wsguard.testing import hostile"),
        ("gateway.listener", "from wsguard.cli import main"),
        ("attic.old", "x = 1"),
        ("guard.guard", "from wsguard.config.guards import guard_from_file"),
        ("guard.guard", "def f():\n    from wsguard.config.run import load_run"),
        ("__init__", "from wsguard.engine.policy import Policy"),
    ],
)
def test_what_is_forbidden_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.policy", "from wsguard.engine.checks import origin\nfrom wsguard.vocabulary import errors"),
        ("engine.checks.__init__", "from . import origin\nfrom .origin import Origin\nfrom ..policy import Policy"),
        ("wire.frames", "import httptools"),
        ("tls.contexts", "import ssl, os"),
        ("audit.probes", "from wsguard.vocabulary.errors import WSGuardError\nfrom wsguard.vocabulary import secret"),
        ("cli.audit", "from wsguard.audit.probes import probe\nfrom wsguard.config.file import read"),
        ("__init__", "if TYPE_CHECKING:\n    from wsguard.engine.policy import Policy"),
        ("__main__", "from wsguard.cli import main"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(module, source) == []
