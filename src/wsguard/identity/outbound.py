"""
The one door for outgoing calls: https, deadlines, sizes, no redirects, no private address unless it is listed.

The operator's own app (`Outbound.ask`) may be asked in the clear on this machine or its private networks.

A URL that a person wrote is trusted to name a private address; one that was learnt from an answer is not (SSRF,
B-TOKEN-07). The name is resolved here, its addresses are judged, and the connection goes to the judged address, so that
a second answer of the resolver changes nothing (DNS rebinding). Certificate and Host stay those of the name.

The transport of httpx2 is used without its client: no redirect is followed, no cookie kept, no proxy taken from the
environment, no URL logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from wsguard.tls.contexts import client_context
from wsguard.vocabulary.errors import ConfigurationError, OutboundError, OutboundFailed, OutboundRefused
from wsguard.vocabulary.fields import Fields
from wsguard.vocabulary.host import Host, HostSyntaxError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    import httpx2

    from wsguard.engine.ports import Clock
    from wsguard.vocabulary.bounds import Limits

Method = Literal["GET", "POST"]
Resolver = Callable[[str, int], Awaitable["Sequence[str]"]]
"""Returns the addresses of a name for a port, in the order in which they are to be tried. Raises OSError."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORTS = {"https": 443, "http": 80}
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]*", re.ASCII)
_OURS = frozenset({"accept-encoding", "connection", "content-length", "host", "te", "transfer-encoding", "upgrade"})
_REDIRECTS = frozenset({300, 301, 302, 303, 305, 307, 308})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Not for the public Internet (IANA special-purpose registries), or a wrapping of IPv4 that hides where a packet goes.
# What `ipaddress` calls global has changed between patch releases of Python; these do not depend on it.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # shared address space, RFC 6598
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "64:ff9b:1::/48",  # local-use NAT64, RFC 8215
        "2001::/23",  # protocol assignments, Teredo among them, RFC 2928, 4380
        "2002::/16",  # 6to4, RFC 7526
        "3fff::/20",  # documentation, RFC 9637
        "5f00::/16",  # segment routing, RFC 9602
        "fc00::/7",  # unique local, RFC 4193
        "fec0::/10",  # site local, RFC 3879
    )
)


@dataclass(frozen=True, slots=True)
class Destination:
    """
    Where a call goes: *host* in its one spelling, *port*, and *target*, the path with its query.

    *socket* is the path of a Unix socket, where it goes to one.
    """

    host: str
    port: int
    target: str = field(repr=False)
    scheme: str = "https"
    socket: str | None = None

    @classmethod
    def parse(cls, url: str) -> Destination:
        """
        Read an absolute https URL (RFC 9110 §4.2.2).

        Raises OutboundRefused for another scheme, for userinfo (RFC 9110 §4.2.4), a fragment, a blank or control
        character, and for what another reader could take for another host.
        """
        return cls._read(url, ("https",))

    @classmethod
    def parse_app(cls, url: str) -> Destination:
        """
        Read the URL of the operator's own app: https, http, or ``unix:PATH:/target``. Raises OutboundRefused.

        Whether an http one is near enough is judged when it is called.
        """
        if not url.startswith("unix:"):
            return cls._read(url, ("https", "http"))
        path, separator, rest = url.removeprefix("unix:").partition(":/")
        if not path or not separator or "#" in rest or not _VISIBLE_ASCII.fullmatch(rest):
            raise OutboundRefused("localhost", f"{shown_url(url)!r} is not like unix:PATH:/api/me")
        return cls("localhost", 80, f"/{rest}", "http", path)

    @classmethod
    def _read(cls, url: str, schemes: Sequence[str]) -> Destination:
        scheme, separator, rest = url.partition("://")
        authority, target = _split_authority(rest)
        if not separator or scheme.lower() not in schemes:
            expected = " or ".join(f"{one}://" for one in schemes)
            raise OutboundRefused(_shown_host(authority), f"the URL does not begin with {expected}")
        if "@" in authority:
            raise OutboundRefused(_shown_host(authority), "the URL holds a user or password before the host")
        if "#" in target:
            raise OutboundRefused(_shown_host(authority), "the URL has a fragment ('#'), which is never sent")
        if not _VISIBLE_ASCII.fullmatch(target):
            raise OutboundRefused(_shown_host(authority), "the URL's path is not visible ASCII: percent-encode it")
        try:
            host = Host.parse_entry(authority)
        except HostSyntaxError as error:
            raise OutboundRefused(_shown_host(authority), f"the URL's host is none ({error})") from None
        return cls(host.name, _PORTS[scheme.lower()] if host.port is None else host.port, target, scheme.lower())

    @property
    def authority(self) -> str:
        """Host and, where it is not the scheme's own, port: the value of the Host field."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL as it may stand in a log: without its query."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"

    @property
    def name(self) -> str:
        """The name that the certificate must hold: an IPv6 address stands without brackets there."""
        return self.host.strip("[]")


@dataclass(frozen=True, slots=True)
class OutboundAnswer:
    """What came back: *status*, *fields* and the whole *body*. Its repr shows no value of them."""

    status: int
    fields: Fields
    body: bytes = field(repr=False)


class Outbound:
    """
    Makes outgoing calls.

    *networks* are the operator's ``outbound = ["10.0.0.0/8"]``: addresses that may be called though they are not
    public. *authority* is a file with a CA to trust besides the system's. *resolve* replaces the system's resolver.

    Raises ConfigurationError when httpx2 is not installed, for a network that is none, and for an *authority* that
    cannot be read.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        networks: Iterable[str] = (),
        authority: Path | None = None,
        resolve: Resolver | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        _require_httpx2()
        self._limits = limits
        self._networks = tuple(_read_network(text) for text in networks)
        self._context = client_context(authority)
        self._resolve = _resolve if resolve is None else resolve
        self._clock = clock
        self._pools: dict[tuple[asyncio.AbstractEventLoop, str], _Pool] = {}

    async def fetch(
        self,
        method: Method,
        url: str,
        *,
        deadline: float,
        max_body: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        listed: Iterable[str] = (),
    ) -> OutboundAnswer:
        """
        Make one call and return the whole answer, whatever its status but a redirect.

        *deadline* is seconds for all of it: resolver, connection, TLS and the last byte of the body. *max_body* is
        bytes, counted while they arrive. *listed* are URLs that the operator wrote: their hosts may have an address
        that is not public. A call that could not connect is tried at the name's next address; nothing is sent twice.

        Raises OutboundRefused for a URL or address that the door does not let out and for a redirect, OutboundFailed
        for everything that goes wrong behind it, and ValueError for a header that is the door's own.
        """
        destination = Destination.parse(url)
        trusted = any(Destination.parse(one).host == destination.host for one in listed)
        call = _Call(method, destination, _fields(destination, headers or {}), body, max_body)
        return await self._called(call, lambda address: trusted or self._may_call(address), deadline)

    async def ask(
        self, destination: Destination, fields: Sequence[tuple[bytes, bytes]], *, deadline: float, max_body: int
    ) -> OutboundAnswer:
        """
        Put a GET of these *fields*, Host among them, to the operator's own app; return whatever it answers.

        In the clear it goes to this machine and to private networks only. A redirect is an answer, and not followed. A
        connection that breaks before the answer is tried once more: a GET may be sent twice (RFC 9110 §9.2.2).
        Raises as `fetch` does.
        """
        names = {name.lower() for name, _ in fields}
        ours = ((b"Accept-Encoding", b"identity"), (b"User-Agent", b"wsguard"))
        whole = [*fields, *(one for one in ours if one[0].lower() not in names)]
        call = _Call("GET", destination, whole, None, max_body, attempts=2, redirects=True)
        return await self._called(
            call, lambda address: destination.scheme == "https" or not is_public(address), deadline
        )

    async def _called(self, call: _Call, allowed: Callable[[Address], bool], deadline: float) -> OutboundAnswer:
        destination = call.destination
        try:
            async with asyncio.timeout(deadline):
                await self._forget_idle()
                addresses = [None] if destination.socket else await self._judged(destination, allowed)
                with self._used(destination) as pool:
                    return await self._tried(pool, call, addresses, deadline / len(addresses))
        except TimeoutError:
            raise OutboundFailed(destination.host, f"no whole answer within {deadline:g} s") from None

    async def aclose(self) -> None:
        """Close the connections of the running loop. A call afterwards opens new ones."""
        loop = asyncio.get_running_loop()
        for key in [key for key in self._pools if key[0] is loop]:
            await self._pools.pop(key).transport.aclose()

    async def _judged(self, destination: Destination, allowed: Callable[[Address], bool]) -> list[Address | None]:
        """Return the addresses that may be called, at least one. Raises OutboundRefused where none may."""
        host = destination.host
        try:
            found = [ipaddress.ip_address(destination.name)]
        except ValueError:
            found = await self._resolved(destination)
        judged: list[Address | None] = [address for address in found if allowed(address)]
        if not judged:
            shown = ", ".join(str(address) for address in found)
            if destination.scheme == "http":
                raise OutboundRefused(host, f"its address is public ({shown}), and http is in the clear: use https")
            raise OutboundRefused(host, f"its address is not public ({shown}); outbound = [...] can list its network")
        return judged

    async def _resolved(self, destination: Destination) -> list[Address]:
        try:
            texts = await self._resolve(destination.host, destination.port)
            found = list(dict.fromkeys(ipaddress.ip_address(text) for text in texts))
        except (OSError, ValueError) as error:
            raise OutboundFailed(destination.host, f"its name cannot be resolved ({_why(error)})") from None
        if not found:
            raise OutboundFailed(destination.host, "its name has no address")
        return found

    def _may_call(self, address: Address) -> bool:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        if any(address in network or (mapped is not None and mapped in network) for network in self._networks):
            return True
        return is_public(address)

    async def _tried(
        self, pool: _Pool, call: _Call, addresses: Sequence[Address | None], connect: float
    ) -> OutboundAnswer:
        import httpx2

        host = call.destination.host
        attempts = call.attempts
        failure = OutboundFailed(host, "not tried")
        for address in addresses:
            while True:
                try:
                    return await _answered(pool.transport, call, address, connect)
                except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                    failure = OutboundFailed(host, f"no connection to {_place(call, address)} ({_why(error)})")
                    break
                except OutboundError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever the libraries raise is a call that failed
                    attempts -= 1
                    if attempts < 1 or not isinstance(error, httpx2.TransportError):
                        raise OutboundFailed(host, f"the call broke ({_why(error)})") from None
        raise failure

    @contextlib.contextmanager
    def _used(self, destination: Destination) -> Generator[_Pool]:
        """Yield the connections to one host: they are verified for that name alone, whatever its address is."""
        key = (asyncio.get_running_loop(), destination.socket or destination.host)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(self._transport(destination.socket))
        pool.calls += 1
        try:
            yield pool
        finally:
            pool.calls -= 1
            pool.last_used = self._clock()

    def _transport(self, path: str | None) -> httpx2.AsyncHTTPTransport:
        import httpx2

        kept = httpx2.Limits(keepalive_expiry=self._limits.upstream_pool_idle)
        return httpx2.AsyncHTTPTransport(
            verify=self._context, trust_env=False, http2=False, limits=kept, retries=0, uds=path
        )

    async def _forget_idle(self) -> None:
        """Close what nobody has called for a while, and drop what belongs to loops that are gone."""
        loop = asyncio.get_running_loop()
        old = self._clock() - self._limits.upstream_pool_idle
        for key, pool in list(self._pools.items()):
            if key[0].is_closed():
                self._pools.pop(key, None)
            elif key[0] is loop and pool.calls == 0 and pool.last_used < old:
                self._pools.pop(key, None)
                await pool.transport.aclose()


def is_public(address: Address) -> bool:
    """
    Tell whether *address* belongs to the public Internet, and hides no other one.

    Not public: private, loopback, link-local, unspecified, multicast, reserved, documentation, shared (RFC 6890); an
    IPv6 address with a zone; IPv4 mapped into IPv6 or wrapped in 6to4 or Teredo. What NAT64 translates (RFC 6052) is
    judged by the IPv4 address inside.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None or address.ipv4_mapped is not None:
            return False
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(address.packed[-4:]))
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


@dataclass(slots=True)
class _Pool:
    """The connections to one host: how many *calls* use them now, and when (clock) the last one ended."""

    transport: httpx2.AsyncHTTPTransport
    calls: int = 0
    last_used: float = 0.0


@dataclass(frozen=True, slots=True)
class _Call:
    """
    One request, before it is known at which address it is tried; *max_body* is bytes of the answer.

    It is begun at most *attempts* times, and *redirects* are answers like others, or refused.
    """

    method: Method
    destination: Destination
    fields: Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes | None = field(repr=False)
    max_body: int
    attempts: int = 1
    redirects: bool = False

    def at(
        self, address: Address | None, connect: float, trace: Callable[[str, dict[str, Any]], Awaitable[None]]
    ) -> httpx2.Request:
        """Return the request to *address*: connected there, verified and addressed by name. *trace* hears of steps."""
        import httpx2

        place = self.destination
        literal = f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address or place.host)
        url = httpx2.URL(f"{place.scheme}://{literal}:{place.port}{place.target}")
        extensions: dict[str, Any] = {"timeout": {"connect": connect}, "trace": trace}
        if place.scheme == "https":
            extensions["sni_hostname"] = place.name
        return httpx2.Request(self.method, url, headers=list(self.fields), content=self.body, extensions=extensions)


class _HalfOpen:
    """
    A TCP connection whose TLS handshake has not ended.

    httpcore2 2.16.2 forgets it when the call is cancelled there, as a deadline does: the socket would stay open until
    the garbage collector comes.
    """

    def __init__(self) -> None:
        self._stream: Any = None

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """Keep the connection between the two steps (httpcore2's ``trace`` extension)."""
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.complete":
            self._stream = None

    async def aclose(self) -> None:
        """Close it, if there is one."""
        if self._stream is not None:
            await self._stream.aclose()


async def _answered(
    transport: httpx2.AsyncHTTPTransport, call: _Call, address: Address | None, connect: float
) -> OutboundAnswer:
    host = call.destination.host
    half_open = _HalfOpen()
    try:
        response = await transport.handle_async_request(call.at(address, connect, half_open.trace))
    except BaseException:
        await half_open.aclose()
        raise
    async with contextlib.aclosing(response), contextlib.aclosing(response.aiter_raw()) as parts:
        status, fields = response.status_code, Fields(response.headers.raw)
        if status in _REDIRECTS and not call.redirects:
            raise OutboundRefused(host, f"it redirects (status {status}), and redirects are not followed")
        if any(coding.lower() != b"identity" for coding in fields.list_members(b"content-encoding")):
            raise OutboundFailed(host, "its answer is compressed, which was not asked for")
        body = bytearray()
        async for part in parts:
            body += part
            if len(body) > call.max_body:
                raise OutboundFailed(host, f"its answer is larger than {call.max_body} bytes")
        return OutboundAnswer(status, fields, bytes(body))


def _place(call: _Call, address: Address | None) -> str:
    return call.destination.socket or str(address)


def _fields(destination: Destination, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    for name in headers:
        if name.lower() in _OURS:
            raise ValueError(f"{name} is set by the door itself")
    whole = {"Host": destination.authority, "Accept-Encoding": "identity", "User-Agent": "wsguard", **headers}
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in whole.items()]


def _split_authority(rest: str) -> tuple[str, str]:
    """Split at the first of ``/``, ``?`` and ``#``; the target gets the slash that it must begin with."""
    match = re.search(r"[/?#]", rest)
    if match is None:
        return rest, "/"
    authority, target = rest[: match.start()], rest[match.start() :]
    return authority, target if target.startswith("/") else f"/{target}"


def _shown_host(authority: str) -> str:
    """Return what may be told of an authority that is refused: nothing before its last ``@``."""
    return authority.rpartition("@")[2] or "a URL without a host"


def shown_url(url: str) -> str:
    """Return *url* as it may stand in a repr or a log: without userinfo and query, whatever else is wrong with it."""
    scheme, separator, rest = url.partition("://")
    authority, target = _split_authority(rest)
    if not separator:
        return "a URL without a scheme"
    return f"{scheme}://{_shown_host(authority)}{re.split('[?#]', target)[0]}"


async def _resolve(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _read_network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ConfigurationError("outbound", repr(text), "an address or a range of them, like 10.0.0.0/8") from None
    if network.prefixlen == 0:
        raise ConfigurationError("outbound", repr(text), "a range that is not everything, like 10.0.0.0/8")
    return network


def _require_httpx2() -> None:
    try:
        importlib.import_module("httpx2")
    except ImportError:
        raise ConfigurationError("outbound", "no httpx2", "what `pip install 'wsguard[oauth]'` installs") from None


def _why(error: BaseException) -> str:
    """Say what happened in words that hold nothing of the peer's: its text may be anything."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate does not verify: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
