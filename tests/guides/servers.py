"""A guide's app under a server, with TLS, and once more in the clear: what a scope says of TLS, the server must say."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.asgi.server_process import Certificates, Files, ServerName, ServerProcess, free_port
from tests.ci_rules import ROOT, require_program
from tests.docs.running import wait_for_port
from tests.guides.client import ORIGIN, Visitor

if TYPE_CHECKING:
    from collections.abc import Generator

EXAMPLES = ROOT / "examples"
# The origins of each guide's apps; the second one because python-socketio's client must resolve the name it connects to.
ORIGINS = f"{ORIGIN} https://localhost"
MEMBER, PASSWORD = "ada", "correct horse battery staple"

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host "";
            proxy_set_header Forwarded "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Place:
    """Where a guide is run: a folder for what it writes, and a certificate for app.test and localhost."""

    folder: Path
    files: Certificates

    @property
    def context(self) -> ssl.SSLContext:
        """A client's context."""
        return ssl.create_default_context(cafile=self.files.authority)


@dataclass(frozen=True)
class RunningGuide:
    """A guide that is being served. *processes*: the one with TLS of its own, and the one in the clear."""

    visitor: Visitor
    processes: tuple[ServerProcess, ServerProcess]

    def output(self) -> str:
        """All that its servers have written."""
        return "\n".join(process.output() for process in self.processes)


def environment(place: Place, **more: str) -> dict[str, str]:
    """What the examples read, and where Python must write nothing."""
    return {
        "APP_ORIGINS": ORIGINS,
        "APP_PASSWORD": PASSWORD,
        "APP_SECRET_KEY": "a key for tests, as long as Django wants one to be, and a bit longer",
        "APP_DATABASE": str(place.folder / "db.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


@contextmanager
def serving(guide: str, server: ServerName, place: Place) -> Generator[RunningGuide]:
    """Serve *guide* under *server*, twice: with TLS and in the clear. Daphne's clear one stands behind nginx, which has TLS."""
    if guide == "channels":
        prepare_database(place)
    behind_proxy = server == "daphne"
    with ExitStack() as stack:

        def start(files: Files | None, *options: str) -> ServerProcess:
            proxies = {"APP_TRUSTED_PROXIES": "127.0.0.1"} if behind_proxy and files is None else {}
            process = ServerProcess(
                server,
                "app:app",
                EXAMPLES / guide,
                files,
                options=options,
                environment=environment(place, **proxies),
                output=place.folder / f"{guide}-{server}-{'secure' if files else 'plain'}.log",
            )
            stack.callback(process.stop)
            return process

        if server == "hypercorn":  # the one that can do both in one process
            plain_port = free_port()
            secure = plain = start(place.files, "--insecure-bind", f"127.0.0.1:{plain_port}")
        else:
            # uvicorn would wait five seconds for a client that still polls
            options = ("--timeout-graceful-shutdown", "1") if server == "uvicorn" else ()
            with ThreadPoolExecutor(2) as pool:
                secure, plain = pool.map(lambda files: start(files, *options), (place.files, None))
            plain_port = plain.port
        visitor = Visitor(secure.port, plain_port, place.context)
        if behind_proxy:
            port = stack.enter_context(nginx(place, plain_port))
            visitor = Visitor(port, plain_port, place.context, unauthorized=403, malformed=403)
        yield RunningGuide(visitor, (secure, plain))


@contextmanager
def nginx(place: Place, upstream: int) -> Generator[int]:
    """Put nginx with TLS before *upstream*, and yield its port."""
    port = free_port()
    file = place.folder / f"nginx-{port}.conf"
    names = {"folder": place.folder, "port": port, "upstream": upstream}
    file.write_text(NGINX.format(**names, cert=place.files.cert, key=place.files.key))
    with (place.folder / f"nginx-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [require_program("nginx"), "-c", str(file), "-p", str(place.folder), "-e", "stderr"], stderr=log
        )
        try:
            wait_for_port(port)
            yield port
        finally:
            process.terminate()
            process.wait(20)


def prepare_database(place: Place) -> None:
    """Do what the Channels guide says: migrate, and make a user. Once is enough for all servers."""
    if (place.folder / "db.sqlite3").exists():
        return
    values = {**os.environ, **environment(place), "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    for words in (
        ["migrate", "--verbosity", "0"],
        ["createsuperuser", "--no-input", "--username", MEMBER, "--email", "ada@app.test"],
    ):
        subprocess.run(
            [sys.executable, "manage.py", *words], cwd=EXAMPLES / "channels", env=values, check=True, timeout=60
        )
