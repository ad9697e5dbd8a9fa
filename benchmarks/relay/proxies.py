"""The three proxies: how each is configured, started and asked for its version."""

import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.relay.certificates import Certificate
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.handshake import HOST

CIPHER = "TLS_AES_256_GCM_SHA384"
TLS_VERSION = "TLSv1.3"
OURS = "wsguard"
NGINX = "nginx"
NGINX_UNTUNED = "nginx, default buffer"
HAPROXY = "HAProxy"
RIVALS = (NGINX, NGINX_UNTUNED, HAPROXY)
# nginx's WebSocket guide leaves `proxy_buffer_size` at a memory page, which is dear for large messages. So nginx runs
# twice, tuned and as the guide has it; docs/performance.md has the trial of buffer sizes of both rivals.
_NGINX_BUFFERS = {NGINX: "32k", NGINX_UNTUNED: "4k"}
_HAPROXY_BUFFER = "16384"

_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Proxy:
    name: str
    version: str
    command: list[str]
    ready: str
    """A pattern of the line it prints when it accepts connections."""
    port: int


@dataclass(frozen=True)
class Setting:
    """What all proxies of a run have in common."""

    folder: Path
    certificate: Certificate
    upstream: int


def all_proxies(setting: Setting, engine: str) -> list[Proxy]:
    return [
        _wsguard(setting, engine),
        _nginx(setting, NGINX),
        _nginx(setting, NGINX_UNTUNED),
        _haproxy(setting),
    ]


def _wsguard(setting: Setting, engine: str) -> Proxy:
    program = Path(sys.executable).with_name("wsguard")
    if not program.exists():
        raise BenchmarkError(f"{program} is missing: run `make env` and use .venv/bin/python")
    port = _free_port()
    config = _write(setting, "wsguard.toml", port=port)
    command = [str(program), "gateway", "--config", str(config), "--tls-engine", engine]
    return Proxy(OURS, _version([str(program), "--version"]), command, r"\blistening\b", port)


def _nginx(setting: Setting, name: str) -> Proxy:
    program = _program("nginx")
    port = _free_port()
    buffer = _NGINX_BUFFERS[name]
    config = _write(setting, "nginx.conf", port=port, buffer=buffer, pid=setting.folder / f"nginx-{buffer}.pid")
    command = [program, "-c", str(config), "-p", str(setting.folder), "-e", "stderr"]
    return Proxy(name, _version([program, "-v"]), command, r"start worker process \d+", port)


def _haproxy(setting: Setting) -> Proxy:
    program = _program("haproxy")
    port = _free_port()
    config = _write(setting, "haproxy.cfg", port=port, buffer=_HAPROXY_BUFFER)
    # -W -db: a master that says when the worker runs, in the foreground.
    command = [program, "-W", "-db", "-f", str(config)]
    return Proxy(HAPROXY, _version([program, "-v"]), command, r"Loading success", port)


def _write(setting: Setting, name: str, **own: object) -> Path:
    """Fill in a template: @name@ is replaced."""
    certificate = setting.certificate
    values = {
        "folder": setting.folder,
        "host": HOST,
        "cipher": CIPHER,
        "certificate": certificate.certificate,
        "key": certificate.key,
        "pair": certificate.pair,
        "upstream": setting.upstream,
        **own,
    }
    template = (_TEMPLATES / f"{name}.in").read_text()
    target = setting.folder / f"{own['port']}-{name}"
    target.write_text(re.sub(r"@(\w+)@", lambda found: str(values[found[1]]), template))
    return target


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _program(name: str) -> str:
    # Debian keeps servers in /usr/sbin, which a user's PATH may lack.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BenchmarkError(f"{name} is missing: as root, `apt-get install {name}`")
    return found


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    if found is None:
        raise BenchmarkError(f"{command[0]} tells no version")
    return found.group()
