"""All parts of the demo together, on loopback, for as long as the `async with` lasts."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from wsguard.admin.client import ask_admin
from wsguard.demo.errors import DemoError
from wsguard.demo.gateway_process import gateway
from wsguard.demo.loopback import listeners, loopback_addresses
from wsguard.demo.observations import Observations
from wsguard.demo.places import ATTACKERS, BEHIND_THE_GATEWAY, CASES, App, Caller, Case, Places, host_of
from wsguard.demo.sites.attackers import Attacker, Recorder
from wsguard.demo.sites.chat import Chat
from wsguard.demo.sites.landing import Landing
from wsguard.demo.sites.server import serving_tls, serving_unix
from wsguard.demo.sites.tokens import TokenIssuer
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
    revocations: Revocations


class Revocations:
    """What *Revoke* on the landing page does: the app ends its login, and the gateway ends its sockets."""

    def __init__(self, chat: Chat, admin: Path) -> None:
        self._chat = chat
        self._admin = admin

    async def revoke(self) -> None:
        """Revoke everybody who has a socket open to the chat that wants tickets."""
        for subject in self._chat.sign_out_readers():
            await asyncio.to_thread(ask_admin, self._admin, "POST", "/revocations", {"subject": subject})


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

    Without *guard* the guarded apps stand in the gateway's place, bare: the check uses it to show that it would notice.
    """
    observations = Observations(places)
    failure: asyncio.Future[DemoError] = asyncio.get_running_loop().create_future()
    tokens = TokenIssuer(places.app(App.TICKETS), secrets.token_hex(32))
    chats = {app: Chat(app, places, observations, tokens) for app in App}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="wsguard-demo-")))
        identity = ServerIdentity.issue(places, folder)
        revocations = Revocations(chats[App.TICKETS], folder / "admin" / "admin.sock")
        own = _sites_on_own_port(places, observations, chats, revocations)
        guarded: dict[str, Site] = {host_of(places.app(app)): chats[app] for app in BEHIND_THE_GATEWAY}
        await stack.enter_async_context(serving_tls(own, listeners(places.port), identity.context()))
        if guard:
            await stack.enter_async_context(serving_unix(guarded, folder / "app.sock"))
            configuration = _gateway_configuration(places, identity, tokens, folder)
            running = await stack.enter_async_context(gateway(configuration, observations.log_line))
            running.ended.add_done_callback(lambda _: failure.set_result(running.failure()))
        else:
            await stack.enter_async_context(serving_tls(guarded, listeners(places.gateway_port), identity.context()))
        yield Demo(places, observations, chats, identity, failure, revocations)


def _sites_on_own_port(
    places: Places, observations: Observations, chats: dict[App, Chat], revocations: Revocations
) -> dict[str, Site]:
    sites: dict[str, Site] = {
        host_of(places.landing): Landing(places, observations, revocations.revoke),
        host_of(places.app(App.OPEN)): chats[App.OPEN],
    }
    for app in BEHIND_THE_GATEWAY:
        sites[host_of(places.recorder(app))] = Recorder(app, places, observations)
    attacking = [case for case in CASES if case.caller in ATTACKERS]
    for origin in {places.caller(case) for case in attacking}:
        cases = tuple(case for case in attacking if places.caller(case) == origin)
        sites[host_of(origin)] = Attacker(cases, places, observations)
    return sites


GATEWAY = """\
listen = {listen}
cert = {cert}
key = {key}
upstream = {upstream}
origins = [{guarded}]
hosts = ["guarded.localhost"]
public_url = {tickets}
admin = {admin}
store = "sqlite:wsguard.db"

[jwt.{tickets}]
audience = [{tickets}]
secret_file = "jwt.secret"

[ticket]
sold_for = ["bearer"]

[[route]]
path = "/ws/*"
hosts = ["tickets.localhost"]
origins = [{tickets}, {sibling}]
auth = ["ticket"]

[[route]]
path = "/*"
hosts = ["guarded.localhost", "tickets.localhost"]
anonymous = true
"""


def _gateway_configuration(places: Places, identity: ServerIdentity, tokens: TokenIssuer, folder: Path) -> Path:
    """Write the gateway's configuration: what anybody would write for apps of their own."""
    tokens.write_secret(folder / "jwt.secret")
    (folder / "admin").mkdir(mode=0o700)
    settings: dict[str, str | list[str]] = {
        "listen": [f"{_in_brackets(address)}:{places.gateway_port}" for address in loopback_addresses()],
        "cert": str(identity.certificate),
        "key": str(identity.key),
        "upstream": f"unix:{folder / 'app.sock'}",
        "admin": f"unix:{folder / 'admin' / 'admin.sock'}",
        "guarded": places.app(App.GUARDED),
        "tickets": places.app(App.TICKETS),
        "sibling": places.caller(Case(Caller.SIBLING, App.TICKETS)),
    }
    path = folder / "wsguard.toml"
    written = GATEWAY.format_map({name: json.dumps(value) for name, value in settings.items()})
    path.write_text(written, encoding="utf-8")
    return path


def _in_brackets(address: str) -> str:
    return f"[{address}]" if ":" in address else address
