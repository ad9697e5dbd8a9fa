"""
The one door for outgoing calls: https, deadlines, sizes, no redirects, no private address unless it is listed.

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

_HTTPS_PORT = 443
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
    """Where a call goes: *host* in its one spelling, *port*, and *target*, the path with its query."""

    host: str
    port: int
    target: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Destination:
        """
        Read an absolute https URL (RFC 9110 §4.2.2).

        Raises OutboundRefused for another scheme, for userinfo (RFC 9110 §4.2.4), a fragment, a blank or control
        character, and for what another reader could take for another host.
        """
        scheme, separator, rest = url.partition("://")
        authority, target = _split_authority(rest)
        if not separator or scheme.lower() != "https":
            raise OutboundRefused(_shown_host(authority), "the URL does not begin with https://")
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
        return cls(host.name, _HTTPS_PORT if host.port is None else host.port, target)

    @property
    def authority(self) -> str:
        """Host and, where it is not 443, port: the value of the Host field."""
        return self.host if self.port == _HTTPS_PORT else f"{self.host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL as it may stand in a log: without its query."""
        return f"https://{self.authority}{self.target.partition('?')[0]}"

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
        fields = _fields(destination, headers or {})
        try:
            async with asyncio.timeout(deadline):
                await self._forget_idle()
                addresses = await self._judged(destination, trusted=trusted)
                with self._used(destination.host) as pool:
                    ask = _Call(method, destination, fields, body, deadline / len(addresses))
                    return await self._tried(pool, ask, addresses, max_body)
        except TimeoutError:
            raise OutboundFailed(destination.host, f"no whole answer within {deadline:g} s") from None

    async def aclose(self) -> None:
        """Close the connections of the running loop. A call afterwards opens new ones."""
        loop = asyncio.get_running_loop()
        for key in [key for key in self._pools if key[0] is loop]:
            await self._pools.pop(key).transport.aclose()

    async def _judged(self, destination: Destination, *, trusted: bool) -> list[Address]:
        """Return the addresses that may be called, at least one. Raises OutboundRefused where none may."""
        host = destination.host
        try:
            found = [ipaddress.ip_address(destination.name)]
        except ValueError:
            found = await self._resolved(destination)
        allowed = [address for address in found if trusted or self._may_call(address)]
        if not allowed:
            shown = ", ".join(str(address) for address in found)
            raise OutboundRefused(host, f"its address is not public ({shown}); outbound = [...] can list its network")
        return allowed

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

    async def _tried(self, pool: _Pool, ask: _Call, addresses: Sequence[Address], max_body: int) -> OutboundAnswer:
        import httpx2

        host = ask.destination.host
        failure = OutboundFailed(host, "not tried")
        for address in addresses:
            try:
                return await _answered(pool.transport, ask, address, max_body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = OutboundFailed(host, f"no connection to {address} ({_why(error)})")
            except OutboundError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the libraries raise is a call that failed
                raise OutboundFailed(host, f"the call broke ({_why(error)})") from None
        raise failure

    @contextlib.contextmanager
    def _used(self, host: str) -> Generator[_Pool]:
        """Yield the connections to *host*: they are verified for that name alone, whatever its address is."""
        key = (asyncio.get_running_loop(), host)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(self._transport())
        pool.calls += 1
        try:
            yield pool
        finally:
            pool.calls -= 1
            pool.last_used = self._clock()

    def _transport(self) -> httpx2.AsyncHTTPTransport:
        import httpx2

        kept = httpx2.Limits(keepalive_expiry=self._limits.upstream_pool_idle)
        return httpx2.AsyncHTTPTransport(verify=self._context, trust_env=False, http2=False, limits=kept, retries=0)

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
    """One request, before it is known at which address it is tried. *connect* is seconds for one address."""

    method: Method
    destination: Destination
    fields: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    connect: float

    def at(self, address: Address, trace: Callable[[str, dict[str, Any]], Awaitable[None]]) -> httpx2.Request:
        """Return the request to *address*: connected there, verified and addressed by name. *trace* hears of steps."""
        import httpx2

        literal = f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)
        url = httpx2.URL(f"https://{literal}:{self.destination.port}{self.destination.target}")
        extensions = {"sni_hostname": self.destination.name, "timeout": {"connect": self.connect}, "trace": trace}
        return httpx2.Request(self.method, url, headers=self.fields, content=self.body, extensions=extensions)


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
    transport: httpx2.AsyncHTTPTransport, ask: _Call, address: Address, max_body: int
) -> OutboundAnswer:
    host = ask.destination.host
    half_open = _HalfOpen()
    try:
        response = await transport.handle_async_request(ask.at(address, half_open.trace))
    except BaseException:
        await half_open.aclose()
        raise
    async with contextlib.aclosing(response), contextlib.aclosing(response.aiter_raw()) as parts:
        status, fields = response.status_code, Fields(response.headers.raw)
        if status in _REDIRECTS:
            raise OutboundRefused(host, f"it redirects (status {status}), and redirects are not followed")
        if any(coding.lower() != b"identity" for coding in fields.list_members(b"content-encoding")):
            raise OutboundFailed(host, "its answer is compressed, which was not asked for")
        body = bytearray()
        async for part in parts:
            body += part
            if len(body) > max_body:
                raise OutboundFailed(host, f"its answer is larger than {max_body} bytes")
        return OutboundAnswer(status, fields, bytes(body))


def _fields(destination: Destination, headers: Mapping[str, str]) -> dict[str, str]:
    for name in headers:
        if name.lower() in _OURS:
            raise ValueError(f"{name} is set by the door itself")
    return {"Host": destination.authority, "Accept-Encoding": "identity", "User-Agent": "wsguard", **headers}


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
