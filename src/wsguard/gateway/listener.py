"""
A connection arrives: it is accepted, counted, its ClientHello peeked, its TLS handshake done, and then served.

Slow handshakes cost a bounded wait and a bounded number of places (`Limits.tls_handshake`, `preauth`). The ClientHello
is peeked with SO_RCVLOWAT, so that a client that sends it byte by byte wakes nobody in vain.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

from wsguard.engine.limits import Place, address_key
from wsguard.gateway.connection import Connection, Services
from wsguard.gateway.handshake import ConnectionFacts
from wsguard.gateway.stream import ByteStream
from wsguard.gateway.transports import adopted
from wsguard.tls.certificates import read_client_certificate
from wsguard.vocabulary import reasons
from wsguard.vocabulary.errors import ConfigurationError, HelloViolation
from wsguard.vocabulary.handshake import Peer, PeerCertificate, TLSFacts
from wsguard.wire.client_hello import MAX_HELLO, ClientHello, read_client_hello

_BACKLOG = 4096
_ACCEPTS_A_WAKE = 64
_ACCEPT_PAUSE = 0.1
_PEEK_BYTES = MAX_HELLO + 64
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# What somebody gets who speaks HTTP to the TLS port: the only bytes that ever leave it in the clear.
_SPEAK_TLS_TEXT = b"This port speaks TLS only: use https:// or wss://\n"
_SPEAK_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_SPEAK_TLS_TEXT), _SPEAK_TLS_TEXT)
)


def listening_socket(host: str, port: int, *, share: bool = False) -> socket.socket:
    """Bind and listen, beside other workers if *share*. Raises ConfigurationError that says what is in the way."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Both where it is shared: else what lingers of connections that we closed keeps everybody off for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    except OSError as error:
        sock.close()
        raise ConfigurationError("listen", f"{host}:{port} ({error.strerror})", _way_out(error, port)) from None
    return sock


class Listener:
    """Accepts connections of one listening socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, services: Services) -> None:
        self._sock = sock
        self._context = context
        # A question, no setting: the context of a [client_certificate] asks clients for one, and tls/ has made it so.
        self._asks = context.verify_mode is not ssl.CERT_NONE
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """Host and port that it listens on."""
        host, port = self._sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Accept from now on."""
        self._pause = None
        self._loop.add_reader(self._sock, self._accept_ready)

    def stop(self) -> None:
        """Accept no more; connections that are there go on."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    async def end_connections(self) -> None:
        """End every connection that is no socket (yet)."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._services.limits.close_deadline)

    def _accept_ready(self) -> None:
        for _ in range(_ACCEPTS_A_WAKE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                self._services.guard.log.hint(
                    "listener.out_of_descriptors", "raise the limit of open files (ulimit -n)"
                )
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(_ACCEPT_PAUSE, self.start)
                return
            self._begin(sock, address)

    def _begin(self, sock: socket.socket, address: tuple[str, int]) -> None:
        place = self._services.guard.addresses.enter(address_key(address[0]))
        if place is None:
            hint = "limits.preauth_address, limits.preauth"
            self._services.guard.log.hint(reasons.LIMITS_PREAUTH.code, hint, peer=address_key(address[0]))
            sock.close()
            return
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        task = self._loop.create_task(self._serve(sock, Peer(address[0], address[1]), place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, peer: Peer, place: Place) -> None:
        connection: Connection | None = None
        try:
            stream, facts = await self._secured(sock, peer)
            connection = Connection(stream, facts, self._services, place)
            # An app that is slow to answer must not hold what is gone: with the client goes the task.
            stream.on_lost = asyncio.current_task().cancel  # type: ignore[union-attr]  # this is a task
            try:
                await connection.serve()
            except asyncio.CancelledError:
                if not stream.lost:
                    raise
            finally:
                stream.on_lost = None  # a socket that lives on needs no task, and would hold it
        except ssl.SSLCertVerificationError as error:
            # A stale CRL stops every client at once: the operator must not have to guess why.
            self._hint_at_certificate(f"{error.verify_message}: client_certificate.ca, client_certificate.crl", peer)
        except (OSError, HelloViolation, TimeoutError):
            pass  # counted below, and told once a minute
        finally:
            if connection is None or not connection.heads:
                self._services.guard.log.unfinished()
            if connection is None or not connection.handed_over:
                place.release()

    async def _secured(self, sock: socket.socket, peer: Peer) -> tuple[ByteStream, ConnectionFacts]:
        limits = self._services.limits
        end = self._loop.time() + limits.tls_handshake
        try:
            async with asyncio.timeout_at(end):
                hello = await self._peek_hello(sock)
        except BaseException:
            sock.close()
            raise
        opening = self._services.engine.accept(
            lambda: ByteStream(self._services.buffer, limits, self._services.reaper),
            sock,
            self._context,
            max(0.1, end - self._loop.time()),
        )
        try:
            transport, stream = await adopted(opening, sock)
        except UnicodeDecodeError:
            # asyncio and aiofastnet decode a certificate's names themselves, where bytes that are no text end it.
            self._hint_at_certificate("a name in the client certificate is no text: ask its CA", peer)
            raise ConnectionAbortedError from None
        cipher = transport.get_extra_info("cipher") or (None, None, None)
        certificate = _certificate_of(transport) if self._asks else None
        return stream, ConnectionFacts(peer, TLSFacts(hello.server_name, cipher[1], cipher[0], certificate))

    def _hint_at_certificate(self, hint: str, peer: Peer) -> None:
        self._services.guard.log.hint("listener.client_certificate", hint, peer=str(peer))

    async def _peek_hello(self, sock: socket.socket) -> ClientHello:
        seen = 0
        try:
            while True:
                try:
                    data = sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
                except BlockingIOError:
                    await self._readable(sock)
                    continue
                if not data or len(data) == seen:
                    raise HelloViolation("the connection ended before the ClientHello was whole")
                hello = read_client_hello(data)
                if hello is not None:
                    return hello
                seen = len(data)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
                await self._readable(sock)
        except HelloViolation:
            _tell_to_speak_tls(sock)
            raise
        finally:
            if seen:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    async def _readable(self, sock: socket.socket) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(sock, _set_ready, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(sock)


def _certificate_of(transport: asyncio.Transport) -> PeerCertificate | None:
    """Return the client's certificate, if it showed one: had it not verified, there would be no connection."""
    der: bytes | None = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return None if der is None else read_client_certificate(der)


def _set_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _tell_to_speak_tls(sock: socket.socket) -> None:
    try:
        begin = sock.recv(8, socket.MSG_PEEK)
        if begin[:1].isalpha():
            sock.recv(_PEEK_BYTES)
            sock.send(_SPEAK_TLS)
    except OSError:
        pass


def _way_out(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"a free port (see who has it: ss -ltnp 'sport = :{port}')"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "a port this user may bind: 1024 and up, or run with CAP_NET_BIND_SERVICE"
    return "HOST:PORT of this machine"
