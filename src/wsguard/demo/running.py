"""All parts of the demo together, on loopback, for as long as the `async with` lasts."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from wsguard.demo.errors import DemoError
from wsguard.demo.gateway_process import gateway
from wsguard.demo.loopback import listeners, loopback_addresses
from wsguard.demo.observations import Observations
from wsguard.demo.places import ATTACKERS, CASES, App, Places, host_of
from wsguard.demo.sites.attackers import Attacker, Recorder
from wsguard.demo.sites.chat import Chat
from wsguard.demo.sites.landing import Landing
from wsguard.demo.sites.server import serving_tls, serving_unix
from wsguard.dev_ca import DevelopmentAuthority

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wsguard.demo.sites.site import Site


@dataclass(frozen=True)
class Demo:
    """A running demo. *failure* is done when its gateway ended by itself."""

    places: Places
    observations: Observations
    chats: dict[App, Chat]
    identity: ServerIdentity
    failure: asyncio.Future[DemoError]


@dataclass(frozen=True)
class ServerIdentity:
    """The certificate of the demo's hosts, as files, and what a browser needs to trust it."""

    certificate: Path
    key: Path
    authority_certificate: Path
    spki_sha256_base64: str

    @classmethod
    def issue(cls, places: Places, folder: Path) -> ServerIdentity:
        """Let the development CA issue it, and write it into *folder*."""
        authority = DevelopmentAuthority.open()
        leaf = authority.issue(places.host_names)
        certificate, key = folder / "leaf.pem", folder / "leaf.key"
        certificate.write_bytes(leaf.certificate_pem)
        key.touch(mode=0o600)
        key.write_bytes(leaf.key_pem)
        return cls(certificate, key, Path(authority.certificate_path), leaf.spki_sha256_base64)

    def context(self) -> ssl.SSLContext:
        """Return the TLS side of the demo's own server (the gateway makes its own)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.certificate, self.key)
        return context


@asynccontextmanager
async def running_demo(places: Places, *, guard: bool = True) -> AsyncGenerator[Demo]:
    """
    Start everything on *places*.

    Without *guard* the guarded app stands in the gateway's place, bare: the check uses it to show that it would notice.
    """
    observations = Observations(places)
    failure: asyncio.Future[DemoError] = asyncio.get_running_loop().create_future()
    chats = {app: Chat(app, places, observations) for app in App}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="wsguard-demo-")))
        identity = ServerIdentity.issue(places, folder)
        own = _sites_on_own_port(places, observations, chats)
        guarded: dict[str, Site] = {host_of(places.app(App.GUARDED)): chats[App.GUARDED]}
        await stack.enter_async_context(serving_tls(own, listeners(places.port), identity.context()))
        if guard:
            await stack.enter_async_context(serving_unix(guarded, folder / "app.sock"))
            configuration = _gateway_configuration(places, identity, folder)
            running = await stack.enter_async_context(gateway(configuration, observations.log_line))
            running.ended.add_done_callback(lambda _: failure.set_result(running.failure()))
        else:
            await stack.enter_async_context(serving_tls(guarded, listeners(places.gateway_port), identity.context()))
        yield Demo(places, observations, chats, identity, failure)


def _sites_on_own_port(places: Places, observations: Observations, chats: dict[App, Chat]) -> dict[str, Site]:
    sites: dict[str, Site] = {
        host_of(places.landing): Landing(places, observations),
        host_of(places.app(App.OPEN)): chats[App.OPEN],
        host_of(places.recorder): Recorder(places, observations),
    }
    attacking = [case for case in CASES if case.caller in ATTACKERS]
    for origin in {places.caller(case) for case in attacking}:
        cases = tuple(case for case in attacking if places.caller(case) == origin)
        sites[host_of(origin)] = Attacker(cases, places, observations)
    return sites


def _gateway_configuration(places: Places, identity: ServerIdentity, folder: Path) -> Path:
    """Write the gateway's configuration: what anybody would write for an app of their own."""
    settings: dict[str, str | list[str]] = {
        "listen": [f"{_in_brackets(address)}:{places.gateway_port}" for address in loopback_addresses()],
        "cert": str(identity.certificate),
        "key": str(identity.key),
        "upstream": f"unix:{folder / 'app.sock'}",
        "origins": [places.app(App.GUARDED)],
        "hosts": ["guarded.localhost"],
    }
    path = folder / "wsguard.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()), encoding="utf-8")
    return path


def _in_brackets(address: str) -> str:
    return f"[{address}]" if ":" in address else address
