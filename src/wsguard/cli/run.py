"""``wsguard run``: a Python app behind the guard, TLS and deadlines, under uvicorn, in one process or several."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors

if TYPE_CHECKING:
    from socket import socket

    from wsguard.asgi.types import ASGIApp
    from wsguard.config.run import RunSettings
    from wsguard.guard import Guard
    from wsguard.supervisor.place import WorkerPlace

_SWITCH = Parameter(negative="")
_LIST = Annotated[list[str] | None, Parameter(negative="")]
_EXTRA = "pip install 'wsguard[run]'"
# How a process that uvicorn's reloader starts learns what to serve. Holds paths and names, no secrets.
_ENVIRONMENT = "WSGUARD_RUN"

# uvicorn's options that one of ours stands for, or that would take a protection away.
_INSTEAD = {
    "host": "--listen",
    "port": "--listen",
    "uds": "--listen unix:PATH",
    "fd": "--listen",
    "ssl_keyfile": "--key",
    "ssl_certfile": "--cert",
    "ssl_keyfile_password": "an unencrypted key file",
    "ssl_version": "TLS 1.2 or later, always",
    "ssl_cert_reqs": "no client certificates: an ASGI server does not pass them on",
    "ssl_ca_certs": "no client certificates: an ASGI server does not pass them on",
    "ssl_ciphers": "the ciphers that wsguard sets",
    "proxy_headers": "--trusted-proxy",
    "forwarded_allow_ips": "--trusted-proxy",
    "access_log": "the decision log: an access log holds the query string of every socket",
    "http": "the protocol that gives heads a deadline",
    "reload": "--reload of wsguard run, before the --",
    "workers": "--workers of wsguard run, before the --",
}


def run(
    app: str,
    /,
    *uvicorn_options: Annotated[str, Parameter(allow_leading_hyphen=True)],
    origin: _LIST = None,
    host: _LIST = None,
    listen: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    trusted_proxy: _LIST = None,
    trust_any_proxy: Annotated[bool, _SWITCH] = False,
    config: Path | None = None,
    allow_missing_origin: Annotated[bool, _SWITCH] = False,
    log_format: Literal["text", "json"] | None = None,
    reload: Annotated[bool, _SWITCH] = False,
    workers: int | None = None,
    store: str | None = None,
    admin: str | None = None,
    print_config: Annotated[bool, _SWITCH] = False,
) -> int:
    """
    Serve a Python app (ASGI) with TLS, the guard, and deadlines.

    To try it: wsguard run app:app and open https://localhost:8443. On a server: wsguard run app:app
    --listen 0.0.0.0:443 --cert app.pem --key app.key --origin https://app.example.com

    Without a policy (no --origin, --host, --config …) the served host's own pages may connect; an app that has a
    WebSocketGuard of its own keeps to that one.

    Parameters
    ----------
    app
        The app as module:name, found from the current folder.
    uvicorn_options
        uvicorn's own options, behind two dashes: wsguard run app:app -- --limit-concurrency 500
    origin
        A page that may connect, like https://app.example.com; repeatable. Without it: the served host's own pages.
    host
        A name that is served; repeatable. By default the hosts of the origins and the names of the certificate.
    listen
        HOST:PORT is TLS, always (127.0.0.1:8443); plain:HOST:PORT and unix:PATH are for a --trusted-proxy in front.
    cert
        PEM file with the certificate and its chain. On loopback a development certificate is made if it is missing.
    key
        PEM file with the certificate's private key.
    trusted_proxy
        An address, a range, or unix, whose X-Forwarded-* and Forwarded fields are believed; repeatable.
    trust_any_proxy
        Let a --trusted-proxy be everybody (0.0.0.0/0).
    config
        A TOML file with the same names; flags go before it.
    allow_missing_origin
        Let clients in that send no Origin: they are no browsers.
    log_format
        text or json, on stdout.
    reload
        Start anew when a source file changes (development).
    workers
        How many processes serve the port; several need a --store on disk.
    store
        Where tickets and revocations are kept: memory, or sqlite:FILE over restarts and for several workers.
    admin
        unix:PATH, a socket for this user's commands (wsguard sessions).
    print_config
        Print the TOML file that equals these flags, and exit.
    """
    flags: dict[str, Any] = {
        "origins": origin,
        "hosts": host,
        "listen": listen,
        "cert": cert,
        "key": key,
        "trusted_proxies": trusted_proxy,
        "trust_any_proxy": trust_any_proxy or None,
        "allow_missing_origin": allow_missing_origin or None,
        "log_format": log_format,
        "workers": workers,
        "store": store,
        "admin": admin,
    }
    written = {name: value for name, value in flags.items() if value is not None}
    try:
        for needed in ("uvicorn", "httptools", "cryptography", "websockets"):
            importlib.import_module(needed)
    except ImportError as error:
        raise ConfigurationError("wsguard run", f"{error.name} not installed", _EXTRA) from None
    if print_config:
        from wsguard.config import read_config, render_toml
        from wsguard.config.file import RunConfig

        schema = Path(__file__).parent.parent / "config" / "wsguard-run.schema.json"
        print(render_toml(read_config(config, written, RunConfig), str(schema)), end="")
        return 0
    from wsguard.cli.workers import own_place, run_workers, worker_flags

    place = own_place()
    settings = _settings(config, written | worker_flags(place))
    if settings.workers > 1 and reload:
        raise ConfigurationError("--reload", f"and {settings.workers} workers", "one process while you develop")
    if settings.workers > 1 and place is None:
        _uvicorn_options(app, uvicorn_options)  # told here, once
        return run_workers(settings.guard, settings.workers, [(settings.place.host, settings.place.port)])
    if reload:
        told = {"app": app, "config": None if config is None else str(config.absolute()), "flags": written}
        os.environ[_ENVIRONMENT] = json.dumps({**told, "options": uvicorn_options})
        return _serve_reloading(settings, _uvicorn_options(app, uvicorn_options))
    options = _uvicorn_options(app, uvicorn_options)
    return _serve(app, settings, options) if place is None else _serve_as_worker(app, settings, options, place)


def serve_again(sockets: list[socket] | None) -> None:
    """Serve in a process that uvicorn's reloader has started, on its *sockets*."""
    told = json.loads(os.environ[_ENVIRONMENT])
    settings = _settings(None if told["config"] is None else Path(told["config"]), told["flags"])
    _serve(told["app"], settings, _uvicorn_options(told["app"], tuple(told["options"])), sockets)


def _serve(
    app: str,
    settings: RunSettings,
    options: dict[str, Any],
    sockets: list[socket] | None = None,
    *,
    worker: WorkerPlace | None = None,
) -> int:
    from wsguard.asgi import WebSocketGuard
    from wsguard.asgi.uvicorn_server import ServerSettings, below, serve
    from wsguard.cli.workers import join

    sys.path.insert(0, options.pop("app_dir", "") or os.getcwd())  # noqa: PTH109 - sys.path holds texts
    loaded = _loaded(app, factory=bool(options.pop("factory", False)))
    own = _own_guard(loaded)
    if own is not None and settings.asked_for:
        if worker is not None:  # the inner one would be a stranger to the inner ones of the other workers
            raise ConfigurationError("workers", "a policy, and an app with a guard of its own", "one of the two")
        own = None
    if own is not None and worker is None:
        _refuse_unheard(settings.guard)
    guard = settings.guard if own is None else own
    if worker is not None:
        join(worker, guard)
    if guard.admin is not None:
        guard.admin.bind()
    _tell_start(settings, by="wsguard run" if own is None else "the app's own")
    certificate = settings.certificate
    if own is None:
        # The guard judges what the client has sent: what uvicorn would put before it is put there behind the guard.
        loaded = WebSocketGuard(below(loaded, options.pop("root_path", "")), guard=guard)
    served = ServerSettings(
        app=loaded,
        place=settings.place,
        limits=settings.guard.limits,
        certificate=None if certificate is None else certificate.certificate,
        key=None if certificate is None else certificate.key,
        options=options,
    )
    return serve(served, time.monotonic, sockets)


def _refuse_unheard(unused: Guard) -> None:
    """Refuse a store and an admin socket that were written for *unused*: the app keeps to a guard of its own."""
    written = {
        "store": f"{unused.store!r}" if unused.store.is_shared else None,
        "admin": None if unused.admin is None else f"unix:{unused.admin.path}",
    }
    errors = [
        ConfigurationError(key, f"{value}, and an app with a guard of its own", f"Guard(…, {key}=…) in the app")
        for key, value in written.items()
        if value is not None
    ]
    if errors:
        raise ConfigurationErrors(errors)


def _serve_as_worker(app: str, settings: RunSettings, options: dict[str, Any], place: WorkerPlace) -> int:
    from wsguard.supervisor.place import shared_socket

    ((host, port),) = place.listen
    settings = dataclasses.replace(settings, place=dataclasses.replace(settings.place, host=host, port=port))
    return _serve(app, settings, options, [shared_socket(host, port)], worker=place)


def _serve_reloading(settings: RunSettings, options: dict[str, Any]) -> int:
    import uvicorn
    from uvicorn.supervisors import ChangeReload

    watched = {name: value for name, value in options.items() if name.startswith("reload_")}
    place = settings.place
    if settings.certificate is not None:  # for the line that says https
        watched |= {"ssl_certfile": settings.certificate.certificate, "ssl_keyfile": settings.certificate.key}
    config = uvicorn.Config("app:app", host=place.host, port=place.port, uds=place.path, reload=True, **watched)
    ChangeReload(config, target=serve_again, sockets=[config.bind_socket()]).run()
    return 0


def _settings(config: Path | None, flags: dict[str, Any]) -> RunSettings:
    from wsguard.config.run import load_run
    from wsguard.dev_ca import DevelopmentAuthority

    return load_run(config, flags, DevelopmentAuthority.open)


def _uvicorn_options(app: str, written: tuple[str, ...]) -> dict[str, Any]:
    """Return what stands after ``--``, read by uvicorn itself, as arguments of its Config."""
    import click
    from click.core import ParameterSource
    from uvicorn.main import main

    try:
        context = main.make_context("uvicorn", [app, *written])
    except click.ClickException as error:
        raise ConfigurationError("uvicorn", error.format_message(), "an option of uvicorn --help") from None
    except click.exceptions.Exit as told:  # --help and --version have told what was asked
        raise SystemExit(told.exit_code) from None
    given = {
        name: value
        for name, value in context.params.items()
        if name != "app" and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    for name in given:
        if name in _INSTEAD:
            flag = "--" + name.replace("_", "-")
            raise ConfigurationError(flag, "an option of uvicorn's", _INSTEAD[name])
    if given.get("log_level") in ("debug", "trace"):
        found = f"{given['log_level']}, at which uvicorn writes every socket's query string and cookies"
        raise ConfigurationError("--log-level", found, "info, warning, error or critical")
    if "headers" in given:
        given["headers"] = [_header(written) for written in given["headers"]]
    return given


def _header(written: str) -> tuple[str, str]:
    name, colon, value = written.partition(":")
    if not colon:
        raise ConfigurationError("--header", repr(written), "NAME:VALUE")
    return name, value


def _loaded(app: str, *, factory: bool) -> ASGIApp:
    from uvicorn.importer import ImportFromStringError, import_from_string

    try:
        loaded = import_from_string(app)
    except ImportFromStringError as error:
        raise ConfigurationError("app", repr(app), f"module:name of an ASGI app ({error})") from None
    return loaded() if factory else loaded


def _own_guard(app: Any) -> Guard | None:
    """
    Return the guard that *app* has, if it can be seen: around it, or among a Starlette or FastAPI app's middleware.

    Starlette makes its middleware with the first scope. That is too late to stop the start for a policy that cannot
    work, and for a worker to join the others: so the guard is made here. Raises ConfigurationErrors as `Guard` does.
    """
    from wsguard.asgi import WebSocketGuard
    from wsguard.guard import Guard

    for around in (app, getattr(app, "asgi_app", None)):
        if isinstance(around, WebSocketGuard):
            return around.guard
    for entry in getattr(app, "user_middleware", ()):
        if getattr(entry, "cls", None) is WebSocketGuard:
            keys: dict[str, Any] = entry.kwargs
            guard = keys.get("guard")
            if guard is None:
                guard = Guard(**keys)
                keys.clear()
                keys["guard"] = guard
            return guard
    return None


def _tell_start(settings: RunSettings, *, by: str) -> None:
    log, place = settings.guard.log, settings.place
    for notice in settings.notices:
        log.event("guard.notice", notice=notice)
    shown = f"[{place.host}]" if ":" in place.host else place.host
    log.event(
        "run.starting", on=[place.path or f"{shown}:{place.port}"], open=_urls(settings), guard=by, engine="uvicorn"
    )


def _urls(settings: RunSettings) -> list[str] | None:
    names = () if settings.certificate is None else settings.certificate.names
    shown = [f"https://{name}:{settings.place.port}" for name in names if not name.startswith("*")]
    return shown[:1] or None
