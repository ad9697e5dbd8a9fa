"""The keys of issuers: where they come from, how long they count, and what an issuer who is away changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from joserfc.jwk import ECKey

from tests.engine.tokens import ABSENT, AUDIENCE, NOW, SECRET, code, key_of, public, token
from tests.identity.open import DEADLINE, World
from tests.identity.tls_server import Answer, Asked, Server, serving
from wsguard.engine.tokens.jwt import JWT
from wsguard.identity.jwks import IssuerTokens
from wsguard.identity.outbound import Outbound
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationErrors
from wsguard.vocabulary.identity import Identity

WELL_KNOWN = "/.well-known/openid-configuration"
RFC_8414 = "/.well-known/oauth-authorization-server"


@dataclass
class Provider:
    """What an issuer answers at each path; None is its own idea of a fault (404)."""

    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])

    def __call__(self, asked: Asked) -> Answer:
        return self.answers.get(asked.target, Answer(404))

    def says(self, path: str, body: Any, status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = Answer(status, parts=(data,))


@dataclass
class Run:
    """One IssuerTokens at work, and the world around it."""

    world: World
    tokens: IssuerTokens
    outbound: Outbound

    async def verify(self, text: str) -> str | None:
        async with asyncio.timeout(DEADLINE):
            return code(await self.tokens.verify(text, NOW))


def jwt(issuer: str, **changes: Any) -> JWT:
    written: dict[str, Any] = {"audience": [AUDIENCE], **changes}
    return JWT(issuer, **written)


def run(
    ca: Path,
    script: Callable[[Run], Coroutine[Any, Any, None]],
    *issuers: JWT,
    limits: Limits | None = None,
    **outbound: Any,
) -> World:
    """Run *script* over *issuers*; what is open afterwards is closed."""
    world = World(limits or Limits())

    async def main() -> None:
        door = Outbound(world.limits, authority=ca, **outbound)
        tokens = IssuerTokens(issuers, outbound=door, limits=world.limits, clock=world.clock, log=world.log())
        try:
            await script(Run(world, tokens, door))
        finally:
            tokens.stop()
            await door.aclose()

    asyncio.run(main())
    return world


def of(server: Server, **claims: Any) -> str:
    """A good token of the issuer at *server*."""
    return token({"iss": server.url(""), **claims})


def targets(server: Server) -> list[str]:
    return [asked.target for asked in server.asked]


def discovered(server: Server, *keys: Any, **metadata: Any) -> Provider:
    """A provider with metadata and *keys*."""
    provider = Provider()
    provider.says(WELL_KNOWN, {"issuer": server.url(""), "jwks_uri": server.url("/keys"), **metadata})
    provider.says("/keys", public(*(keys or (key_of("ES256"),))))
    server.answer = provider
    return provider


async def gathered(asking: list[Awaitable[str | None]]) -> set[str | None]:
    async with asyncio.timeout(DEADLINE):
        return set(await asyncio.gather(*asking))


# --- Where keys come from ---


def test_an_issuer_tells_where_its_keys_are(authority: trustme.CA, ca_file: Path) -> None:
    """Discovery over TLS; its host is on loopback and may be called because the operator wrote it."""

    async def script(run: Run) -> None:
        answer = await run.tokens.verify(of(server), NOW)
        assert isinstance(answer, Identity)
        assert (answer.issuer, answer.subject, answer.method) == (server.url(""), "alice", "bearer")
        assert await run.verify(of(server, sub="bob")) is None
        assert targets(server) == [WELL_KNOWN, "/keys"]

    with serving(authority) as server:
        discovered(server)
        run(ca_file, script, jwt(server.url("")))


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_issuer_below_a_path_may_follow_rfc_8414(authority: trustme.CA, ca_file: Path, slash: str) -> None:
    """The second place to look is RFC 8414's, whose path stands behind the well-known one."""

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": issuer})) is None
        assert targets(server) == ["/tenant/.well-known/openid-configuration", f"{RFC_8414}/tenant", "/keys"]

    with serving(authority) as server:
        issuer = server.url("/tenant") + slash
        provider = Provider()
        provider.says(f"{RFC_8414}/tenant", {"issuer": issuer, "jwks_uri": server.url("/keys")})
        provider.says("/keys", public(key_of("ES256")))
        server.answer = provider
        run(ca_file, script, jwt(issuer))


def test_keys_at_a_url_need_no_discovery(authority: trustme.CA, ca_file: Path) -> None:
    """`jwks = "https://…"`: the issuer is then a name, and nothing else is called."""

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": "my-app"})) is None
        assert targets(server) == ["/jwks"]
        assert server.asked[0].headers["accept"] == "application/json"

    with serving(authority, answer=Answer(parts=(public(key_of("ES256")),))) as server:
        run(ca_file, script, jwt("my-app", jwks=server.url("/jwks")))


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"issuer": "https://other.test", "jwks_uri": "URL/keys"}, "its metadata names another issuer"),
        ({"issuer": "URL/", "jwks_uri": "URL/keys"}, "its metadata names another issuer"),
        ({"jwks_uri": "URL/keys"}, "its metadata names another issuer"),
        ({"issuer": "URL"}, "its metadata has no jwks_uri"),
        ({"issuer": "URL", "jwks_uri": ["URL/keys"]}, "its metadata has no jwks_uri"),
        ([], "no JSON object"),
        (b'{"issuer": "URL", "jwks_uri": "URL/keys", "issuer": "URL"}', "two JSON members of one name"),
        (b"<html>", "no JSON"),
    ],
)
def test_metadata_that_does_not_fit_brings_no_keys(
    authority: trustme.CA, ca_file: Path, metadata: Any, why: str
) -> None:
    """The issuer of the document must be the one asked for, or one issuer could speak for another (RFC 8414 §3.3)."""

    async def script(run: Run) -> None:
        assert await run.verify(of(server)) == "token.unavailable"
        assert targets(server) == [WELL_KNOWN]

    with serving(authority) as server:
        written = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        provider = Provider()
        provider.says(WELL_KNOWN, written.replace(b"URL", server.url("").encode()))
        server.answer = provider
        world = run(ca_file, script, jwt(server.url("")))
    assert world.events == ["issuer.failed"]
    assert why in world.text


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(404), "status 404"),
        (Answer(500, parts=(public(key_of("ES256")),)), "status 500"),
        (Answer(parts=(b"{}",)), "no JWK set"),
        (Answer(parts=(b'{"keys": []}',)), "no key that counts"),
        (Answer(parts=(public(key_of("HS256")),)), "symmetric"),
        (Answer(parts=(b'{"keys": "' + b"x" * 300_000 + b'"}',)), "larger than 262144 bytes"),
    ],
)
def test_what_is_no_key_set_is_told_once(authority: trustme.CA, ca_file: Path, answer: Answer, why: str) -> None:
    """503, and one line in the log however many tokens come."""

    async def script(run: Run) -> None:
        for _ in range(3):
            assert await run.verify(token({"iss": "my-app"})) == "token.unavailable"

    with serving(authority, answer=answer) as server:
        world = run(ca_file, script, jwt("my-app", jwks=server.url("/jwks")))
        assert targets(server) == ["/jwks"]
    assert world.events == ["issuer.failed"]
    assert why in world.text
    assert "its tokens are refused meanwhile" in world.text


def test_a_key_that_does_not_count_is_told(authority: trustme.CA, ca_file: Path) -> None:
    """Its tokens would be refused without anybody knowing why; the others of the set verify."""

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": "my-app"})) is None

    keys = [{"kty": "oct", "k": "AAAA"}, *json.loads(public(key_of("ES256")))["keys"]]
    with serving(authority, answer=Answer(parts=(json.dumps({"keys": keys}).encode(),))) as server:
        world = run(ca_file, script, jwt("my-app", jwks=server.url("/jwks")))
    assert world.events == ["issuer.keys_ignored"]
    assert "key 1: symmetric" in world.text


# --- How long they count ---


def rotated(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


def test_keys_are_rotated_while_running(authority: trustme.CA, ca_file: Path) -> None:
    """A token of a new key is verified at once; the old key counts until it is gone from the set."""
    new = rotated("new")

    async def script(run: Run) -> None:
        assert await run.verify(of(server)) is None
        run.world.now = 30
        provider.says("/keys", public(key_of("ES256"), new))
        assert await run.verify(token({"iss": server.url("")}, key=new)) is None
        assert await run.verify(of(server)) is None
        run.world.now = 60
        provider.says("/keys", public(new))
        assert await run.verify(token({"iss": server.url("")}, key=rotated("third"))) == "token.key"
        assert await run.verify(of(server)) == "token.key"

    with serving(authority) as server:
        provider = discovered(server)
        world = run(ca_file, script, jwt(server.url("")))
    assert world.events == []


def test_keys_are_at_most_an_hour_old(authority: trustme.CA, ca_file: Path) -> None:
    """A key that its issuer has taken back is forgotten without any unknown kid, and without a restart."""

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": "my-app"})) is None
        server.says(Answer(parts=(public(rotated("new")),)))
        run.world.now = 3600
        assert await run.verify(token({"iss": "my-app"})) == "token.key"
        assert len(server.asked) == 2

    with serving(authority, answer=Answer(parts=(public(key_of("ES256")),))) as server:
        run(ca_file, script, jwt("my-app", jwks=server.url("/jwks")))


def test_from_half_their_age_on_keys_are_fetched_while_the_old_ones_count(authority: trustme.CA, ca_file: Path) -> None:
    """Nobody waits for that fetch; an issuer who does not answer it is not noticed."""

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": "my-app"})) is None
        server.says(Answer(parts=(public(rotated("new")),)))
        run.world.now = 1799
        assert await run.verify(token({"iss": "my-app"})) is None
        assert len(server.asked) == 1
        run.world.now = 1800
        assert await run.verify(token({"iss": "my-app"})) is None
        # An unknown kid joins the fetch that is under way; then the new set counts.
        assert await run.verify(token({"iss": "my-app", "x": 1}, kid="unknown")) == "token.key"
        assert await run.verify(token({"iss": "my-app"})) == "token.key"
        assert len(server.asked) == 2

    with serving(authority, answer=Answer(parts=(public(key_of("ES256")),))) as server:
        run(ca_file, script, jwt("my-app", jwks=server.url("/jwks")))


# --- An issuer who is away ---


def test_an_issuer_that_is_down_stops_only_its_own_tokens(authority: trustme.CA, ca_file: Path) -> None:
    """It does not stop the start; 503 and one line; tried again after 1 s, 2 s, 4 s …; back without a restart."""

    async def script(run: Run) -> None:
        mine = token({"iss": "down"})
        asked: list[float] = []
        for second in range(12):
            run.world.now = float(second)
            before = len(server.asked)
            assert await run.verify(mine) == "token.unavailable"
            asked += [second] * (len(server.asked) - before)
            assert await run.verify(of(up)) is None
        assert asked == [0, 1, 3, 7]
        server.says(Answer(parts=(public(key_of("ES256")),)))
        run.world.now = 14
        assert await run.verify(mine) == "token.unavailable"
        run.world.now = 15
        assert await run.verify(mine) is None

    with serving(authority, answer=Answer(503)) as server, serving(authority) as up:
        discovered(up)
        world = run(ca_file, script, jwt("down", jwks=server.url("/jwks")), jwt(up.url("")))
    assert world.events == ["issuer.failed", "issuer.recovered"]


def test_the_time_between_two_tries_has_an_end(authority: trustme.CA, ca_file: Path) -> None:
    """An issuer that was away for days is back within half a minute, however often it was tried."""

    async def script(run: Run) -> None:
        for number in range(100):
            run.world.now = number * 30.0
            assert await run.verify(token({"iss": "down"})) == "token.unavailable"
        assert len(server.asked) == 100

    with serving(authority, answer=Answer(503)) as server:
        run(ca_file, script, jwt("down", jwks=server.url("/jwks")))


def test_the_last_good_keys_count_up_to_their_age(authority: trustme.CA, ca_file: Path) -> None:
    """An outage of minutes is not noticed; an unknown key meanwhile is 503, for nobody can say; after an hour all are."""

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": "my-app"})) is None
        server.says(Answer(503))
        run.world.now = 3000
        assert await run.verify(token({"iss": "my-app"}, kid="unknown")) == "token.unavailable"
        assert await run.verify(token({"iss": "my-app"})) is None
        run.world.now = 3599
        assert await run.verify(token({"iss": "my-app"})) is None
        run.world.now = 3600
        assert await run.verify(token({"iss": "my-app"})) == "token.unavailable"
        server.says(Answer(parts=(public(key_of("ES256")),)))
        run.world.now = 3630
        assert await run.verify(token({"iss": "my-app"})) is None

    with serving(authority, answer=Answer(parts=(public(key_of("ES256")),))) as server:
        world = run(ca_file, script, jwt("my-app", jwks=server.url("/jwks")))
    assert world.events == ["issuer.failed", "issuer.recovered"]
    assert "the last good keys count meanwhile" in world.text


@dataclass
class Held:
    """A server that answers only once it may; *asked* counts its calls."""

    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may: threading.Event = field(default_factory=threading.Event)

    def __call__(self, asked: Asked) -> Answer:
        self.asked.release()
        self.may.wait(DEADLINE)
        return Answer(parts=(public(key_of("ES256")),))


@contextlib.contextmanager
def holding(server: Server) -> Generator[Held]:
    server.answer = held = Held()
    try:
        yield held
    finally:
        held.may.set()


def test_a_slow_issuer_is_bounded_and_others_do_not_notice(authority: trustme.CA, ca_file: Path) -> None:
    """Its tokens are refused after `issuer_timeout`; meanwhile another issuer's are verified."""

    async def script(run: Run) -> None:
        waiting = asyncio.create_task(run.verify(token({"iss": "slow"})))
        await asyncio.to_thread(held.asked.acquire)
        assert await run.verify(of(up)) is None
        assert not waiting.done()
        assert await waiting == "token.unavailable"

    with serving(authority) as server, serving(authority) as up, holding(server) as held:
        discovered(up)
        issuers = jwt("slow", jwks=server.url("/jwks")), jwt(up.url(""))
        world = run(ca_file, script, *issuers, limits=Limits(issuer_timeout=0.5))
    assert "within 0.5 s" in world.text


def test_two_hundred_who_ask_at_once_cost_one_fetch(authority: trustme.CA, ca_file: Path) -> None:
    """Single flight: one call for all, and one who leaves does not end it for the others."""

    async def script(run: Run) -> None:
        leaving = asyncio.create_task(run.verify(of(server)))
        asking = [asyncio.create_task(run.verify(of(server))) for _ in range(200)]
        await asyncio.to_thread(server.arrived.acquire)
        leaving.cancel()
        assert await gathered([*asking]) == {None}
        assert targets(server) == [WELL_KNOWN, "/keys"]

    with serving(authority) as server:
        discovered(server)
        run(ca_file, script, jwt(server.url("")))


def test_a_fetch_that_is_stopped_leaves_nobody_waiting(authority: trustme.CA, ca_file: Path) -> None:
    """At the end of the process who still waits is refused, and a token afterwards begins anew."""

    async def script(run: Run) -> None:
        waiting = asyncio.create_task(run.verify(token({"iss": "slow"})))
        await asyncio.to_thread(held.asked.acquire)
        run.tokens.stop()
        run.tokens.stop()
        assert await asyncio.wait_for(waiting, DEADLINE) == "token.unavailable"
        held.may.set()
        run.world.now = 30
        assert await run.verify(token({"iss": "slow"})) is None
        assert run.tokens.notices == []

    with serving(authority) as server, holding(server) as held:
        run(ca_file, script, jwt("slow", jwks=server.url("/jwks")))


def test_keys_had_on_one_loop_count_on_the_next(authority: trustme.CA, ca_file: Path) -> None:
    """A server that is stopped and started in one process has a new loop; a fetch of the old one holds nobody."""
    world = World()
    with serving(authority) as server:
        discovered(server)
        door = Outbound(world.limits, authority=ca_file)
        tokens = IssuerTokens(
            [jwt(server.url(""))], outbound=door, limits=world.limits, clock=world.clock, log=world.log()
        )

        async def ask() -> str | None:
            try:
                return code(await tokens.verify(of(server), NOW))
            finally:
                await door.aclose()

        assert asyncio.run(ask()) is None
        world.now = 3600
        assert asyncio.run(ask()) is None
        tokens.stop()
        assert targets(server) == [WELL_KNOWN, "/keys"] * 2


# --- Files ---


def in_file(tmp_path: Path, data: bytes) -> tuple[Path, JWT]:
    path = tmp_path / "jwks.json"
    path.write_bytes(data)
    return path, jwt("my-app", jwks=f"file:{path}")


def test_a_file_is_read_again_when_it_changes(ca_file: Path, tmp_path: Path) -> None:
    """Within five seconds (RULES §13): here at the first token a second later; until then the old keys count."""
    path, issuer = in_file(tmp_path, public(key_of("ES256")))
    new = rotated("new")

    async def script(run: Run) -> None:
        mine, theirs = token({"iss": "my-app"}), token({"iss": "my-app"}, key=new)
        assert await run.verify(mine) is None
        path.write_bytes(public(new))
        run.world.now = 0.5
        assert await run.verify(mine) is None
        run.world.now = 1.5
        assert await run.verify(theirs) is None
        assert await run.verify(mine) == "token.key"

    run(ca_file, script, issuer)


def test_a_file_that_becomes_bad_does_not_count_until_its_keys_are_old(ca_file: Path, tmp_path: Path) -> None:
    """A half-written or deleted file stops nobody at once; but keys are never older than an hour."""
    path, issuer = in_file(tmp_path, public(key_of("ES256")))

    async def script(run: Run) -> None:
        mine = token({"iss": "my-app"})
        for second, written in ((10.0, b'{"keys": ['), (20.0, None), (3599.0, None)):
            path.unlink(missing_ok=True)
            if written is not None:
                path.write_bytes(written)
            run.world.now = second
            assert await run.verify(mine) is None
        run.world.now = 3700
        assert await run.verify(mine) == "token.unavailable"
        assert await run.verify(mine) == "token.unavailable"
        path.write_bytes(public(key_of("ES256")))
        run.world.now = 3702
        assert await run.verify(mine) is None

    world = run(ca_file, script, issuer)
    assert world.events == ["issuer.failed", "issuer.failed", "issuer.recovered"]
    assert "No such file" in world.text


def test_a_fault_of_any_kind_leaves_the_last_good_keys(
    ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong while a file or an answer is read is a failure that is told, never an exception."""
    path, issuer = in_file(tmp_path, public(key_of("ES256")))

    def broken(data: bytes) -> Any:
        raise ZeroDivisionError

    async def script(run: Run) -> None:
        keys: Any = run.tokens._issuers["my-app"]
        monkeypatch.setattr(keys._file, "_understand", broken)
        path.write_bytes(public(key_of("ES256")) + b" ")
        run.world.now = 2
        assert await run.verify(token({"iss": "my-app"})) is None

    assert "ZeroDivisionError" in run(ca_file, script, issuer).text


def test_a_fault_while_fetching_is_told(authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a URL: 503, and the name of the error alone."""

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": "my-app"})) == "token.unavailable"

    def broken(data: bytes) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("wsguard.identity.jwks.KeySet.read", broken)
    with serving(authority, answer=Answer(parts=(b"{}",))) as server:
        world = run(ca_file, script, jwt("my-app", jwks=server.url("/jwks")))
    assert "ZeroDivisionError" in world.text


def test_a_hanging_disk_holds_one_asker_for_a_bounded_time(
    ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while the file is looked at has the last good keys at once; too old, he waits for that look."""
    _, issuer = in_file(tmp_path, public(key_of("ES256")))
    go = threading.Event()

    async def script(run: Run) -> None:
        keys: Any = run.tokens._issuers["my-app"]
        monkeypatch.setattr(keys._file, "_changed", lambda: go.wait(DEADLINE) and None)
        mine = token({"iss": "my-app"})
        run.world.now = 2
        assert await run.verify(mine) is None
        task = keys._file._task
        assert not task.done()
        assert await run.verify(mine) is None
        run.world.now = 3600
        asking = asyncio.create_task(run.verify(mine))
        go.set()
        assert await asking is None
        assert keys._file._task is task

    try:
        run(ca_file, script, issuer, limits=Limits(issuer_timeout=0.1))
    finally:
        go.set()


def test_a_secret_is_read_again_when_it_changes(ca_file: Path, tmp_path: Path) -> None:
    """A new secret counts without a restart, and the old one no more."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)

    async def script(run: Run) -> None:
        mine = token({"iss": "my-app"}, algorithm="HS256")
        assert await run.verify(mine) is None
        path.write_text("another secret of more than thirty-two bytes")
        run.world.now = 2
        assert await run.verify(mine) == "token.signature"
        assert run.tokens.notices == []

    world = run(ca_file, script, jwt("my-app", secret_file=str(path)))
    assert SECRET not in world.text


def test_what_weakens_a_secret_is_said_at_start(ca_file: Path, tmp_path: Path) -> None:
    """A secret that every user of the machine can read, and claims that may be missing, stand in the log at start."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o644)

    async def script(run: Run) -> None:
        assert await run.verify(token({"iss": ABSENT, "aud": ABSENT}, algorithm="HS256")) is None
        assert [notice.partition(":")[0] for notice in run.tokens.notices] == [
            'jwt."my-app".missing_claims',
            'jwt."my-app".missing_claims',
            'jwt."my-app".secret_file',
        ]

    run(ca_file, script, jwt("my-app", secret_file=str(path), missing_claims=["iss", "aud"]))


# --- Written wrongly ---


def mistakes(*issuers: JWT) -> str:
    world = World(Limits(issuer_bytes=1024))
    with pytest.raises(ConfigurationErrors) as caught:
        IssuerTokens(issuers, outbound=Outbound(world.limits), limits=world.limits, clock=world.clock, log=world.log())
    return str(caught.value)


def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    """Key, what was found and what would be right, all at once."""
    short, empty, large, pipe = (tmp_path / name for name in ("short", "empty", "large", "pipe"))
    short.write_text("too short")
    empty.write_text('{"keys": []}')
    large.write_text(" " * 2000)
    os.mkfifo(pipe)
    told = mistakes(
        jwt("a", jwks=f"file:{tmp_path}/missing"),
        jwt("b", jwks=f"file:{empty}"),
        jwt("c", jwks=f"file:{large}"),
        jwt("d", jwks=f"file:{pipe}"),
        jwt("e", secret_file=str(short)),
        jwt("f", secret_file=f"{tmp_path}/missing"),
    ).splitlines()
    assert told == [
        f'jwt."a".jwks: found {tmp_path}/missing (No such file or directory), expected a file with a JWK set (RFC 7517) that holds a public key',
        f'jwt."b".jwks: found {empty} (no key that counts), expected a file with a JWK set (RFC 7517) that holds a public key',
        f'jwt."c".jwks: found {large} (more than 1024 bytes), expected a file with a JWK set (RFC 7517) that holds a public key',
        f'jwt."d".jwks: found {pipe} (no regular file), expected a file with a JWK set (RFC 7517) that holds a public key',
        f'jwt."e".secret_file: found {short} (a secret of 9 bytes), expected a file with a secret of at least 32 bytes',
        f'jwt."f".secret_file: found {tmp_path}/missing (No such file or directory), expected a file with a secret of at least 32 bytes',
    ]


def test_issuers_that_contradict_each_other_stop_the_start(tmp_path: Path) -> None:
    """One table an issuer, one secret: a token without `iss` could else be anybody's."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    assert "a second one" in mistakes(jwt("https://a.test"), jwt("https://a.test"))
    assert 'jwt."b".secret_file' in mistakes(jwt("a", secret_file=str(path)), jwt("b", secret_file=str(path)))


@pytest.mark.parametrize("url", ["https://user:secret@id.test/jwks", "https://id.test/a b", "https://*.test/jwks"])
def test_a_url_that_cannot_be_called_stops_the_start(url: str) -> None:
    """The door for outgoing calls is asked at start, and no password is told."""
    told = mistakes(jwt("a", jwks=url))
    assert 'jwt."a".jwks' in told
    assert "secret" not in told


# --- How others were bypassed ---


def test_jwks_cache(authority: trustme.CA, ca_file: Path) -> None:
    """B-TOKEN-06: a key is (issuer, kid); a set is replaced whole; a thousand unknown kids cost one fetch in 30 s."""
    key_a, key_b = rotated("same"), rotated("same")

    async def script(run: Run) -> None:
        a, b = server_a.url(""), server_b.url("")
        assert await run.verify(token({"iss": a}, key=key_a)) is None
        assert await run.verify(token({"iss": b}, key=key_b)) is None
        # The same kid at both: neither verifies for the other.
        assert await run.verify(token({"iss": b}, key=key_a)) == "token.signature"
        assert await run.verify(token({"iss": a}, key=key_b)) == "token.signature"
        before = len(server_a.asked)
        unknown = [token({"iss": a}, key=key_a, kid=f"kid-{number}") for number in range(1000)]
        assert await gathered([run.verify(one) for one in unknown]) == {"token.key"}
        assert len(server_a.asked) == before
        run.world.now = 30
        provider_a.says("/keys", public(rotated("other")))
        assert await gathered([run.verify(one) for one in unknown]) == {"token.key"}
        assert len(server_a.asked) == before + 2
        # The key that is gone from the set counts no more.
        assert await run.verify(token({"iss": a}, key=key_a)) == "token.key"
        assert await run.verify(token({"iss": b}, key=key_b)) is None

    with serving(authority) as server_a, serving(authority) as server_b:
        provider_a = discovered(server_a, key_a)
        discovered(server_b, key_b)
        run(ca_file, script, jwt(server_a.url("")), jwt(server_b.url("")))


@pytest.mark.parametrize(
    ("jwks_uri", "why"),
    [
        ("file:///etc/passwd", "does not begin with https://"),
        ("http://localhost/keys", "does not begin with https://"),
        ("https://user@localhost/keys", "user or password"),
        ("https://169.254.169.254/keys", "not public"),
        ("https://127.0.0.1:PORT/keys", "not public"),
        ("https://[::1]/keys", "not public"),
        ("https://internal.test/keys", "not public"),
        ("https://localhost:PORT/redirect", "redirects"),
    ],
)
def test_key_url_is_configured(authority: trustme.CA, ca_file: Path, jwks_uri: str, why: str) -> None:
    """B-TOKEN-07: nothing in a token becomes a URL, and what an issuer tells is https, public or its own host's."""

    async def resolve(name: str, port: int) -> list[str]:
        return {"internal.test": ["10.0.0.1"]}.get(name, ["127.0.0.1"])

    async def script(run: Run) -> None:
        hostile: dict[str, Any] = {"kid": "https://evil.test/keys", "x": "../../../etc/passwd"}
        assert await run.verify(token({"iss": server.url("") + "/../evil"}, **hostile)) == "token.issuer"
        assert server.asked == []
        answer = await run.tokens.verify(token({"iss": server.url("")}, **hostile), NOW)
        assert isinstance(answer, Refusal)
        assert (answer.reason.code, answer.reason.status) == ("token.unavailable", 503)
        assert why in answer.detail
        assert targets(server) in ([WELL_KNOWN], [WELL_KNOWN, "/redirect"])

    with serving(authority, "localhost", "127.0.0.1") as server:
        provider = discovered(server, jwks_uri=jwks_uri.replace("PORT", str(server.port)))
        provider.answers["/redirect"] = Answer(302, {"Location": server.url("/keys")})
        world = run(ca_file, script, jwt(server.url("")), resolve=resolve)
    assert why in world.text


def test_a_host_that_was_learnt_may_be_listed(authority: trustme.CA, ca_file: Path) -> None:
    """B-TOKEN-07 beside: `outbound = ["127.0.0.0/8"]` lets the issuer's other host be called; the hint says so."""

    async def script(run: Run) -> None:
        assert await run.verify(of(server)) is None
        assert targets(server) == [WELL_KNOWN, "/keys"]

    with serving(authority, "localhost", "127.0.0.1") as server:
        discovered(server, jwks_uri=server.url("/keys", host="127.0.0.1"))
        run(ca_file, script, jwt(server.url("")), networks=["127.0.0.0/8"])
