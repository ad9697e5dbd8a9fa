"""The key file: what it may hold, what counts when it changes under a guard that runs, and how it is written."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tomllib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.identity.open import DEADLINE, Pauses, World
from wsguard import Identity
from wsguard.engine.authenticators.api_key import KeyEntry, KeyTable, key_hash
from wsguard.identity import key_writer
from wsguard.identity.key_file import KeyFile, parse_keys
from wsguard.identity.key_writer import add_key, read_keys, render_keys, revoke_key
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import ConfigurationError

A, B = key_hash(b"a").hex(), key_hash(b"b").hex()
ADDED = "added = 2026-11-25T08:00:00Z\n"
ROBOT = f'[robot]\nhash = "{A}"\nscopes = ["chat"]\n{ADDED}'
OTHER = f'[other]\nhash = "{B}"\n{ADDED}'


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    write(path, ROBOT)
    return path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """As an editor does that truncates and writes, or makes the file."""
    path.write_text(text)
    path.chmod(mode)


def opened(world: World, path: Path, told: list[frozenset[str]] | None = None, **more: Any) -> KeyFile:
    on_withdrawn = None if told is None else told.append
    return KeyFile(path, limits=world.limits, clock=world.clock, log=world.log(), on_withdrawn=on_withdrawn, **more)


def names(table: KeyTable | None) -> list[str] | None:
    return None if table is None else [entry.name for entry in table.entries]


def asked(world: World, file: KeyFile, *, after: float = 1) -> list[str] | None:
    """The names that count for who asks *after* some seconds; None where nobody can say."""
    world.now += after
    return names(asyncio.run(file.current()))


# --- what may stand there ---------------------------------------------------------------------------------------------


def test_a_table_is_a_key(path: Path) -> None:
    """Name, hash, scopes, times, read once; scopes and end may be left out. Names with dots stand in quotes."""
    write(path, f'# ours\n{ROBOT}expires = 2026-11-25T10:00:00+01:00\n["ci.deploy@host"]\nhash = "{B}"\n{ADDED}')
    assert read_keys(path, DEFAULTS) == (
        KeyEntry("robot", key_hash(b"a"), frozenset({"chat"}), 1795593600.0, 1795597200.0),
        KeyEntry("ci.deploy@host", key_hash(b"b"), frozenset(), 1795593600.0, None),
    )


@pytest.mark.parametrize("text", ["", "\n", "# none\n"])
def test_an_empty_file_is_no_key(world: World, path: Path, text: str) -> None:
    """Nobody, and not an error: the last key was revoked."""
    write(path, text)
    assert asked(world, opened(world, path)) == []


@pytest.mark.parametrize(("text", "complaint"), [
    ("[robot\n", "no TOML"),
    (ROBOT + ROBOT, "no TOML"),
    ("x = " + "[" * 5000, "no TOML"),
    ("robot = 1\n", "robot: found int"),
    ("[robot]\n", "robot.hash: found nothing"),
    (f'[robot]\nhash = "{A}"\n', "robot.added: found nothing"),
    (f"[robot]\nhash = 5\n{ADDED}", "robot.hash: found int"),
    (f'[robot]\nhash = "{A.upper()}"\n{ADDED}', "robot.hash: found str"),
    (f'[robot]\nhash = "{A[:-1]}"\n{ADDED}', "robot.hash: found str"),
    (f'[robot]\nhash = "wsg_{A[:43]}"\n{ADDED}', "robot.hash: found str, expected its SHA-256, not the key itself"),
    (f'[robot]\nhash = "{A}"\nadded = 1795593600\n', "robot.added: found int"),
    (f'[robot]\nhash = "{A}"\nadded = 2026-11-25T08:00:00\n', "robot.added: found datetime"),
    (f'[robot]\nhash = "{A}"\nadded = 2026-11-25\n', "robot.added: found date"),
    (f'{ROBOT}expires = "90d"\n', "robot.expires: found str"),
    (f"{ROBOT}expires = 2027-02-23T08:00:00\n", "robot.expires: found datetime"),
    (f'[robot]\nhash = "{A}"\nscopes = "chat"\n{ADDED}', "robot.scopes: found str"),
    (f'[robot]\nhash = "{A}"\nscopes = ["chat", 5]\n{ADDED}', "robot.scopes: found list"),
    (f'[robot]\nhash = "{A}"\nscopes = ["chat admin"]\n{ADDED}', "robot.scopes: found list"),
    (f'[robot]\nhash = "{A}"\nscopes = [""]\n{ADDED}', "robot.scopes: found list"),
    (f"{ROBOT}expire = 2027-02-23T08:00:00Z\n", r"robot.expire: found an unknown member.*did you mean 'expires'"),
    (f'[ci.deploy]\nhash = "{A}"\n{ADDED}', r'ci.deploy: found an unknown member, expected \["ci.deploy"\] in quotes'),
    (f'["a b"]\nhash = "{A}"\n{ADDED}', r"\['a b'\]: found no name of a key"),
    (f'[{"n" * 65}]\nhash = "{A}"\n{ADDED}', "no name of a key"),
    (f'[-x]\nhash = "{A}"\n{ADDED}', "no name of a key"),
    (f'{ROBOT}[other]\nhash = "{A}"\n{ADDED}', "other.hash: found the hash of robot"),
])  # fmt: skip
def test_what_may_not_stand_there(world: World, path: Path, text: str, complaint: str) -> None:
    """The start ends with file, table and member; what stood there is not shown, it might be a key."""
    write(path, text)
    with pytest.raises(ConfigurationError, match=complaint) as told:
        opened(world, path)
    assert str(path) in str(told.value)
    assert A not in str(told.value)
    assert A[:43] not in str(told.value)


def test_bytes_that_are_no_text(world: World, path: Path) -> None:
    """UTF-8 is what TOML is made of."""
    path.write_bytes(ROBOT.encode() + b"# \xff\n")
    with pytest.raises(ConfigurationError, match="no UTF-8"):
        opened(world, path)


def test_all_errors_are_told_at_once(path: Path) -> None:
    """One start, one list of what to repair."""
    write(path, "[a]\n[b]\nhash = 1\n")
    with pytest.raises(ConfigurationError) as told:
        read_keys(path, DEFAULTS)
    assert [line.partition(": found")[0].rpartition(" ")[2] for line in str(told.value).splitlines()] == [
        "a.hash",
        "a.added",
        "b.hash",
        "b.added",
    ]


def test_the_file_is_bounded(world: World, path: Path) -> None:
    """Bytes and keys; what is larger is refused, not read for ever."""
    write(path, ROBOT + OTHER)
    world.limits = replace(DEFAULTS, api_keys=1)
    with pytest.raises(ConfigurationError, match="2 keys, expected at most 1"):
        opened(world, path)
    world.limits = replace(DEFAULTS, key_file_bytes=1024)
    write(path, ROBOT + "#" * 1024)
    with pytest.raises(ConfigurationError, match="more than 1024 bytes"):
        opened(world, path)
    write(path, (ROBOT + "#" * 1024)[:1024])
    assert asked(world, opened(world, path)) == ["robot"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o620, 0o602, 0o666])
def test_a_file_that_others_get_at_does_not_start(world: World, path: Path, mode: int) -> None:
    """Who writes it makes keys; the error says what to type."""
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode 0{mode:o}.*chmod 600 {path}"):
        opened(world, path)


def test_a_file_that_is_none_does_not_start(world: World, tmp_path: Path) -> None:
    """Missing, a folder, a FIFO that nobody writes to: said at once, and nothing hangs."""
    with pytest.raises(ConfigurationError, match="No such file"):
        opened(world, tmp_path / "keys.toml")
    (tmp_path / "folder").mkdir(0o700)
    with pytest.raises(ConfigurationError, match="no regular file"):
        opened(world, tmp_path / "folder")
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ConfigurationError, match="no regular file"):
        opened(world, tmp_path / "fifo")


# --- under a guard that runs ------------------------------------------------------------------------------------------


def test_who_asks_has_the_file_read(world: World, path: Path) -> None:
    """At most once a second, also where nothing watches in the background."""
    file = opened(world, path)
    write(path, ROBOT + OTHER)
    assert asked(world, file, after=0.9) == ["robot"]
    assert asked(world, file, after=0.1) == ["robot", "other"]
    assert "key.added credential_id=other" in world.text


def test_a_key_gone_is_told(world: World, path: Path) -> None:
    """It opens nothing more, its name goes to whoever closes sockets, and the log has a line for it."""
    told: list[frozenset[str]] = []
    write(path, ROBOT + OTHER)
    file = opened(world, path, told)
    write(path, OTHER)
    assert asked(world, file) == ["other"]
    assert told == [{"robot"}]
    assert world.text == "key.revoked credential_id=robot"
    assert asked(world, file) == ["other"]
    assert len(told) == 1


def test_two_changes_within_one_tick_of_the_clock_are_two(world: World, path: Path) -> None:
    """As many bytes, the same inode, the same times: what counts is what stands there."""
    file = opened(world, path)
    state = path.stat()
    write(path, ROBOT.replace(A, B))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    world.now += 1
    table = asyncio.run(file.current())
    assert table is not None
    assert [entry.hash.hex() for entry in table.entries] == [B]


def test_an_identity_is_held_while_its_key_is_there(world: World, path: Path) -> None:
    """The question of a handshake under way, once its session is registered: did its key go meanwhile?"""
    write(path, ROBOT + OTHER)
    file = opened(world, path)
    identity = Identity("robot", "api_key", "api_key", credential_id="robot", issued_at=1795593600.0)
    assert file.holds(identity)
    write(path, OTHER)
    asked(world, file)
    assert not file.holds(identity)


@pytest.mark.parametrize("bad", ["[robot", "", None])
def test_bad_content_leaves_the_last_good_keys(world: World, path: Path, bad: str | None) -> None:
    """Half a file, or one with another mode, is an editor's or an operator's slip: one line, and no socket ends."""
    told: list[frozenset[str]] = []
    file = opened(world, path, told)
    if bad == "":
        write(path, ROBOT + OTHER, 0o644)
    elif bad is None:
        path.unlink()
        path.mkdir(0o700)
    else:
        write(path, bad)
    for _ in range(3):
        assert asked(world, file) == ["robot"]
    assert world.events == ["keys.failed"]
    assert "the last good keys count for 3600 s at most" in world.text
    if bad is None:
        path.rmdir()
    write(path, OTHER)
    assert asked(world, file) == ["other"]
    assert world.events == ["keys.failed", "keys.recovered", "key.revoked", "key.added"]
    assert told == [{"robot"}]


def test_bad_content_does_not_last_for_ever(world: World, path: Path) -> None:
    """Fail closed: nobody knows what the operator meant to take back. After `key_file_age` nobody is let in (503)."""
    file = opened(world, path)
    write(path, "[robot")
    assert asked(world, file, after=3600) == ["robot"]
    assert asked(world, file, after=1) is None
    write(path, ROBOT)
    assert asked(world, file) == ["robot"]


def test_a_file_that_is_away_opens_nothing(world: World, path: Path) -> None:
    """At once for who asks; its sockets end at the second look, so that an editor's rename ends none."""
    told: list[frozenset[str]] = []
    file = opened(world, path, told)
    path.unlink()
    assert asked(world, file) is None
    assert told == []
    write(path, ROBOT)
    assert asked(world, file) == ["robot"]
    assert world.events == ["keys.failed", "keys.recovered"]
    path.unlink()
    assert asked(world, file) is None
    assert asked(world, file) is None
    assert told == [{"robot"}]
    write(path, "[robot")
    assert asked(world, file) is None, "a bad file brings back what a missing one took"
    write(path, ROBOT)
    assert asked(world, file) == ["robot"]
    assert asked(world, file) == ["robot"]


def test_a_lost_disk_does_not_hold_who_asks(world: World, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading hangs: who asks waits `list_timeout` at most, the next not at all, and the last good keys count."""
    world.limits = replace(DEFAULTS, list_timeout=0.1)
    file = opened(world, path)

    async def ask() -> None:
        reads = 0
        back = asyncio.Event()

        async def hanging(function: Callable[[], object]) -> object:
            nonlocal reads
            reads += 1
            await back.wait()
            return function()

        monkeypatch.setattr(asyncio, "to_thread", hanging)
        async with asyncio.timeout(DEADLINE):
            for _ in range(3):
                world.now += 1
                assert names(await file.current()) == ["robot"]
            assert reads == 1
            world.now += 3600
            assert await file.current() is None
            back.set()
            file.stop()

    asyncio.run(ask())


@asynccontextmanager
async def watching(file: KeyFile) -> AsyncGenerator[None]:
    async with asyncio.timeout(DEADLINE):
        file.start()
        try:
            yield
        finally:
            file.stop()


def test_it_is_watched_in_the_background(world: World, path: Path) -> None:
    """Twice a second, though nobody asks: a socket that is open asks nothing."""
    told: list[frozenset[str]] = []
    pauses = Pauses()
    file = opened(world, path, told, pause=pauses)

    async def watch() -> None:
        async with watching(file):
            file.start()  # called for every decision: one task all the same
            await pauses.reached()
            write(path, OTHER)
            await pauses.next()
            assert told == [{"robot"}]
            os.unlink(path)  # noqa: PTH108 - a blocking call in a loop that has nothing else to do
            await pauses.next()
            await pauses.next()
            assert told == [{"robot"}, {"other"}]
        assert set(pauses.seconds) == {0.5}

    asyncio.run(watch())


def test_a_closer_that_fails_does_not_end_the_watching(world: World, path: Path) -> None:
    """The next key that goes is told too."""
    told: list[frozenset[str]] = []
    pauses = Pauses()

    def on_withdrawn(gone: frozenset[str]) -> None:
        told.append(gone)
        raise ZeroDivisionError

    file = KeyFile(path, limits=DEFAULTS, clock=world.clock, log=world.log(), on_withdrawn=on_withdrawn, pause=pauses)
    raised: list[Any] = []

    async def watch() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
        async with watching(file):
            for text in (OTHER, ROBOT):
                await pauses.reached()
                write(path, text)
                await pauses.next()

    asyncio.run(watch())
    assert told == [{"robot"}, {"other"}]
    assert all(isinstance(error, ZeroDivisionError) for error in raised)


def test_it_is_watched_on_a_second_loop_too(world: World, path: Path) -> None:
    """A test client runs an app on one loop after another; none leaves a task behind."""
    file = opened(world, path)

    async def watch() -> int:
        async with watching(file):
            running = len(asyncio.all_tasks())
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        return running

    assert [asyncio.run(watch()), asyncio.run(watch())] == [2, 2]


def test_a_change_counts_within_two_seconds(path: Path) -> None:
    """RULES §13, with the real clock and the real pause."""
    file: KeyFile

    async def watch() -> float:
        nonlocal file
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()
        world = World()
        file = KeyFile(path, limits=DEFAULTS, clock=loop.time, log=world.log(), on_withdrawn=lambda _: seen.set())
        async with watching(file):
            started = loop.time()
            revoke_key(path, "robot", limits=DEFAULTS)
            await seen.wait()
            return loop.time() - started

    assert asyncio.run(watch()) < 2


# --- writing ----------------------------------------------------------------------------------------------------------


def add(path: Path, name: str, **more: Any) -> tuple[str, KeyEntry]:
    return add_key(path, name, now=1795593600.7, randomness=os.urandom, limits=DEFAULTS, **more)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """The file is made, for its user alone; names that need quotes have them."""
    path = tmp_path / "keys.toml"
    key, entry = add(path, "ci.deploy@host", scopes=["chat:write", "a"], lifetime=3600.5)
    assert entry == KeyEntry(
        "ci.deploy@host", key_hash(key.encode()), frozenset({"a", "chat:write"}), 1795593600, 1795597200
    )
    add(path, "robot")
    assert [one.name for one in read_keys(path, DEFAULTS)] == ["ci.deploy@host", "robot"]
    assert read_keys(path, DEFAULTS)[0] == entry
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert key not in path.read_text()
    assert key.removeprefix("wsg_") not in path.read_text()
    assert tomllib.loads(path.read_text())["robot"].keys() == {"hash", "scopes", "added"}


def test_only_that_key_goes(path: Path) -> None:
    """And an unknown name says what it may have meant."""
    add(path, "second")
    assert revoke_key(path, "robot", limits=DEFAULTS).hash.hex() == A
    assert [one.name for one in read_keys(path, DEFAULTS)] == ["second"]
    with pytest.raises(ConfigurationError, match="did you mean 'second'"):
        revoke_key(path, "secnd", limits=DEFAULTS)
    with pytest.raises(ConfigurationError, match="No such file"):
        revoke_key(path.with_name("none.toml"), "robot", limits=DEFAULTS)
    assert not path.with_name("none.toml").exists()


@pytest.mark.parametrize(("name", "more", "complaint"), [
    ("robot", {}, "wsguard keys revoke robot"),
    ("", {}, "NAME"),
    ("a b", {}, "NAME"),
    ('a"b', {}, "NAME"),
    ("a\nb", {}, "NAME"),
    ("n" * 65, {}, "NAME"),
    ("x", {"scopes": ["a b"]}, "--scope"),
    ("x", {"scopes": ['"']}, "--scope"),
    ("x", {"scopes": ["a\\b"]}, "--scope"),
    ("x", {"scopes": [""]}, "--scope"),
    ("x", {"lifetime": 0}, "--expires"),
    ("x", {"lifetime": 1e12}, "--expires"),
])  # fmt: skip
def test_what_cannot_be_added_changes_nothing(path: Path, name: str, more: dict[str, Any], complaint: str) -> None:
    """A taken name too: another key under it would let sockets of the first live on under a wrong name."""
    with pytest.raises(ConfigurationError, match=complaint):
        add(path, name, **more)
    assert path.read_text() == ROBOT


def test_a_bad_file_is_not_written_over(path: Path) -> None:
    """What stands there may be the only copy of something."""
    for text, mode in (("[robot", 0o600), (ROBOT, 0o644)):
        write(path, text, mode)
        with pytest.raises(ConfigurationError):
            add(path, "x")
        with pytest.raises(ConfigurationError):
            revoke_key(path, "robot", limits=DEFAULTS)
        assert path.read_text() == text


def test_a_file_beyond_its_bound_is_not_written(path: Path) -> None:
    """A guard would refuse it whole: the last key that fits is the last that is added."""
    with pytest.raises(ConfigurationError, match="2 keys, expected at most 1"):
        add_key(path, "x", now=0, randomness=os.urandom, limits=replace(DEFAULTS, api_keys=1))
    scopes = [f"{number:04}" + "s" * 100 for number in range(20)]
    with pytest.raises(ConfigurationError, match="more than 1024 bytes"):
        add_key(path, "x", scopes=scopes, now=0, randomness=os.urandom, limits=replace(DEFAULTS, key_file_bytes=1024))
    assert path.read_text() == ROBOT


def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the old keys are there, whole, and nothing lies beside them."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        add(path, "x")
    assert path.read_text() == ROBOT
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link(path: Path) -> None:
    """The file behind it is replaced, not the link. A loop of links is told, not followed."""
    link = path.with_name("link.toml")
    link.symlink_to(path)
    add(link, "x")
    assert link.is_symlink()
    assert [one.name for one in read_keys(path, DEFAULTS)] == ["robot", "x"]
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(ConfigurationError, match="symbolic links"):
        add(link, "y")


def test_the_owner_stays(path: Path) -> None:
    """Root adds a key to the service's file: the service still can read it."""
    if os.geteuid() != 0:
        assert path.stat().st_uid == os.geteuid()  # nobody else's file can be made here
        return
    os.chown(path, 12345, 12346)
    add(path, "x")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
    assert path.stat().st_mode & 0o777 == 0o600


def test_who_waits_for_the_lock_writes_into_the_new_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was replaced while one waited: the lock on the old one is worth nothing, so it is taken anew."""
    flock = fcntl.flock
    descriptors: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        descriptors.append(descriptor)
        if len(descriptors) == 1:
            newer = path.with_name("new.toml")
            write(newer, ROBOT + OTHER)
            newer.replace(path)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    add(path, "x")
    assert len(descriptors) == 2
    assert [one.name for one in read_keys(path, DEFAULTS)] == ["robot", "other", "x"]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    """Keys are added and taken back by eight at once, from no file at all; what is left is what should be."""
    path = tmp_path / "keys.toml"

    def work(number: int) -> tuple[str, bytes]:
        key, entry = add(path, f"k{number}")
        if number % 3:
            revoke_key(path, entry.name, limits=DEFAULTS)
        return entry.name, key_hash(key.encode())

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(48)))
    assert {entry.name: entry.hash for entry in read_keys(path, DEFAULTS)} == dict(made[::3])
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_that_is_never_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends, and says why."""
    monkeypatch.setattr(key_writer, "_LOCK_SECONDS", 0.05)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="locked by another process"):
            add(path, "x")
    assert path.read_text() == ROBOT


def test_ten_thousand_keys(path: Path) -> None:
    """As many as the bound allows can be written and read."""
    entries = [KeyEntry(f"k{number}", key_hash(b"%d" % number), frozenset(), 0.0) for number in range(10_000)]
    data = render_keys(entries).encode()
    assert len(data) < DEFAULTS.key_file_bytes
    assert list(parse_keys(data, path, DEFAULTS)) == entries
