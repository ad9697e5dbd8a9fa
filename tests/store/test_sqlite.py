"""The SQLite store through all that may happen to its file: it answers StoreError in time, and is back afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.store.opening import END, NOW, ROOT, SECONDS, SPACE, Hanging, Process, in_thread, process, run, sqlite_store
from wsguard.engine.ports import Taken
from wsguard.engine.store_keys import hashed_key
from wsguard.store import local
from wsguard.store.local import SQLiteStore
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import ConfigurationError, StoreError, StoreFull

KEY = hashed_key("a ticket")
IMPATIENT = Limits(store_command=0.4)


async def put(store: SQLiteStore, key: bytes = KEY, value: bytes = b"value") -> None:
    await store.put(SPACE, key, value, expires_at=END, now=NOW)


async def take(store: SQLiteStore, key: bytes = KEY) -> Taken:
    return await store.take(SPACE, key, mark=b"m", now=NOW)


async def append(store: SQLiteStore, value: bytes = b"record") -> int:
    return await store.append("revocations", value, expires_at=END, now=NOW)


async def read(store: SQLiteStore, after: int = 0) -> list[tuple[int, bytes]]:
    return list(await store.read("revocations", after=after, now=NOW))


async def refused(command: Coroutine[Any, Any, object], seconds: float = 5.0) -> str:
    """Return what the StoreError says that *command* must raise in time."""
    began = time.monotonic()
    with pytest.raises(StoreError) as raised:
        await command
    assert time.monotonic() - began < seconds
    assert type(raised.value) is StoreError
    return str(raised.value)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """It says who is let in, whatever the umask."""
    before = os.umask(0)
    try:

        async def scenario() -> None:
            store = sqlite_store(tmp_path)
            await put(store)
            names = modes(tmp_path)
            await store.aclose()
            assert names == {"wsguard.db": 0o600, "wsguard.db-wal": 0o600, "wsguard.db-shm": 0o600}

        run(scenario)
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def link_elsewhere(path: Path) -> None:
    target = path.with_name("elsewhere.db")
    path.rename(target)
    path.symlink_to(target)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_other_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    path.chmod(0o600)


def set_pragma(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA {text}")

    return change


def run_sql(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(text)

    return change


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        pytest.param(lambda path: path.chmod(0o644), "mode 0644", "chmod 600", id="everybody reads"),
        pytest.param(lambda path: path.chmod(0o622), "mode 0622", "chmod 600", id="everybody writes"),
        pytest.param(lambda path: path.chmod(0o660), "mode 0660", "chmod 600", id="a group writes"),
        pytest.param(link_elsewhere, "a symbolic link", "elsewhere.db", id="link"),
        pytest.param(make_folder, "no file", "a file", id="folder"),
        pytest.param(lambda path: os.truncate(path, 0), "no store of wsguard", "not there yet", id="empty"),
        pytest.param(lambda path: path.write_bytes(b"text" * 2000), "not a database", "move it away", id="text"),
        pytest.param(make_other_database, "no store of wsguard", "not there yet", id="other database"),
        pytest.param(set_pragma("user_version = 3"), "version 3", "version 2", id="newer"),
        pytest.param(set_pragma("journal_mode = DELETE"), "not in WAL mode", "local disk", id="no WAL"),
        pytest.param(run_sql("DROP TABLE store"), "no such table", "move it away", id="no table"),
        pytest.param(run_sql("DELETE FROM store"), "without a name", "move it away", id="no name"),
        pytest.param(
            lambda path: path.parent.chmod(0o1777), "everybody may write", "chmod o-w", id="folder of everybody"
        ),
    ],
)
def test_a_file_that_cannot_be_trusted_stops_the_start(
    change: Callable[[Path], None], found: str, expected: str, tmp_path: Path
) -> None:
    """Another user who can write it lets himself in; and the message says what to do."""
    path = tmp_path / "wsguard.db"
    sqlite_store(tmp_path)
    change(path)
    with pytest.raises(ConfigurationError) as raised:
        sqlite_store(tmp_path)
    assert raised.value.key == "store"
    assert str(tmp_path) in raised.value.found
    assert found in raised.value.found
    assert expected in raised.value.expected


def test_another_users_file_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner may change it."""
    sqlite_store(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="12345"):
        sqlite_store(tmp_path)


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    """The store would be made where somebody else wants it."""
    (tmp_path / "wsguard.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        sqlite_store(tmp_path)
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It is not made: a typing error would begin an empty store."""
    with pytest.raises(ConfigurationError, match="no folder"):
        sqlite_store(tmp_path / "missing")


def test_workers_that_start_at_once_make_one_store(tmp_path: Path) -> None:
    """Each finds the same one, whole, and no leftovers stay."""
    start = threading.Barrier(8)
    names: list[str] = []

    def open_one() -> None:
        start.wait()
        names.append(sqlite_store(tmp_path).name)

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len(set(names)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["wsguard.db"]


def test_a_deleted_files_journal_stops_the_start(tmp_path: Path) -> None:
    """SQLite would write what stands in it into the new file: an old store's tickets, or nonsense."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store)
        (tmp_path / "wsguard.db").unlink()
        with pytest.raises(ConfigurationError, match=r"wsguard\.db-wal") as raised:
            sqlite_store(tmp_path)
        assert "delete it too" in raised.value.expected
        await store.aclose()

    run(scenario)


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_a_restart_keeps_marks_and_streams(tmp_path: Path) -> None:
    """A used ticket stays used, a revoked credential revoked; and numbers go on where they were."""

    async def before() -> None:
        store = sqlite_store(tmp_path)
        await put(store)
        await take(store)
        numbers.extend([await append(store), await append(store)])
        await store.aclose()

    async def after() -> None:
        store = sqlite_store(tmp_path)
        assert await take(store) == Taken(mark=b"m")
        assert await read(store) == [(numbers[0], b"record"), (numbers[1], b"record")]
        # All have expired and are deleted; the next number is a new one all the same.
        for _ in range(20):
            await store.append("revocations", b"late", expires_at=END + 200, now=END + 100)
        assert [number for number, _ in await store.read("revocations", after=0, now=END + 100)] == list(
            range(numbers[1] + 1, numbers[1] + 21)
        )
        await store.aclose()

    numbers: list[int] = []
    run(before)
    run(after)


def test_what_was_answered_outlives_a_kill(tmp_path: Path) -> None:
    """A worker that dies at any moment has lost nothing that it said was done."""
    for _ in range(3):
        writer = Process("tests.store.appending_process", str(tmp_path / "wsguard.db"))
        answered = [writer.hear() for _ in range(40)]
        writer.kill()
        writer.end()

        async def scenario(answered: list[list[int]] = answered) -> None:
            store = sqlite_store(tmp_path)
            kept = dict(await store.read("revocations", after=0, now=0))
            for turn, number in answered:
                assert kept[number] == b"%d" % turn
                spent = await store.take("tickets", hashed_key(str(turn)), mark=b"again", now=0)
                assert spent == Taken(mark=b"spent")
            await store.aclose()

        run(scenario)


# --- two processes ----------------------------------------------------------------------------------------------------


def test_two_processes_take_once(tmp_path: Path) -> None:
    """One ticket opens one socket, whichever worker is asked: 200 takes of each key, half in each process."""
    keys = 20

    async def prepare() -> None:
        store = sqlite_store(tmp_path)
        for number in range(keys):
            await store.put("race", hashed_key(str(number)), b"ticket", expires_at=END, now=NOW)
        await store.aclose()

    run(prepare)
    path = str(tmp_path / "wsguard.db")
    with process("racing_process", path, str(keys)) as one, process("racing_process", path, str(keys)) as other:
        pids = {one.hear(), other.hear()}
        assert len(pids) == 2
        winners: list[int] = []
        overlaps = 0
        for number in range(keys):
            one.say("go")
            other.say("go")
            told = [one.hear(), other.hear()]
            assert {each["pid"] for each in told} == pids
            assert [each["answered"] for each in told] == [100, 100]
            assert sum(each["won"] for each in told) == 1
            (winner,) = (each["pid"] for each in told if each["won"])
            assert {mark for each in told for mark in each["marks"]} == {str(winner)}
            winners.append(winner)
            overlaps += max(each["span"][0] for each in told) < min(each["span"][1] for each in told)
            print(f"key {number}: {told[0]['pid']} and {told[1]['pid']} answered 100 each, {winner} got it")
    print(f"they took at one time for {overlaps} of {keys} keys")
    assert overlaps >= 3, "the processes did not take at one time"


def test_what_is_put_anew_between_two_looks_is_taken_and_not_only_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A taker that finds nothing to take looks why; a value that another process puts meanwhile goes to one alone."""
    found, puts = local._found, iter([True])

    def after_a_put(connection: sqlite3.Connection, space: str, key: bytes, now: float) -> Taken:
        if next(puts, False):
            row = (space, key, b"anew", END)
            connection.execute("INSERT INTO entries (space, key, value, expires_at) VALUES (?, ?, ?, ?)", row)
        return found(connection, space, key, now)

    monkeypatch.setattr(local, "_found", after_a_put)

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        assert await take(store) == Taken(b"anew")
        assert await take(store) == Taken(None, b"m")
        await store.aclose()

    run(scenario)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "reads"), [("writing", True), ("file", False)])
def test_a_lock_is_waited_for_in_time(what: str, reads: bool, tmp_path: Path) -> None:
    """B-STORE-03: while another process holds the store nobody is let in, and when it lets go they are again."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path, IMPATIENT)
        if what == "writing":
            await put(store)
        with process("holding_process", str(tmp_path / "wsguard.db"), what) as holder:
            assert holder.hear() == "locked"
            for command in (put(store), take(store), append(store)):
                assert "locked" in await refused(command, 1.0)
            if reads:
                assert await store.peek(SPACE, KEY, now=NOW) == Taken(b"value")
                assert await read(store) == []
            else:
                await refused(read(store), 1.0)
                with pytest.raises(StoreError, match="locked"):
                    sqlite_store(tmp_path, IMPATIENT)
            # Many who wait at once are all told in time, though the thread waits for one after the other.
            began = time.monotonic()
            found = await asyncio.gather(*(take(store) for _ in range(100)), return_exceptions=True)
            assert {type(each) for each in found} == {StoreError}
            assert time.monotonic() - began < 2.0
            holder.say("let go")
            assert holder.hear() == "free"
        await put(store)
        assert await take(store) == Taken(b"value")
        await store.aclose()

    run(scenario)


def test_a_lock_that_ends_in_time_is_not_noticed(tmp_path: Path) -> None:
    """A backup or a checkpoint takes the lock for a moment."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store)
        with process("holding_process", str(tmp_path / "wsguard.db"), "writing") as holder:
            assert holder.hear() == "locked"
            waiting = asyncio.ensure_future(take(store))
            await asyncio.sleep(0)
            holder.say("let go")
            assert await waiting == Taken(b"value")
        await store.aclose()

    run(scenario)


async def set_most_pages(store: SQLiteStore, spare: int) -> None:
    def command(connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {count + spare}")

    await in_thread(store, command)


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """Nothing is kept by half; what is there can still be taken; and with room again it goes on."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store)
        await set_most_pages(store, 4)
        kept: list[bytes] = []
        told: StoreError | None = None
        while told is None:
            key = hashed_key(str(len(kept)))
            try:
                await put(store, key, b"v" * 4000)
                kept.append(key)
            except StoreError as error:
                told = error
        assert type(told) is StoreError  # it is not the store's own bound
        assert "full" in str(told)
        assert kept
        assert "full" in await refused(append(store, b"v" * 16_000))
        assert await take(store) == Taken(b"value")
        assert await store.peek(SPACE, hashed_key(str(len(kept))), now=NOW) == Taken()
        await set_most_pages(store, 100)
        await put(store, hashed_key(str(len(kept))), b"v" * 4000)
        assert await append(store) > 0
        for key in kept:
            assert await take(store, key) == Taken(b"v" * 4000)
        await store.aclose()

    run(scenario)


def test_files_that_must_not_grow_refuse_and_recover(tmp_path: Path) -> None:
    """The system's own error, in the middle of a write, as a quota gives it."""
    command = [sys.executable, "-m", "tests.store.filling_process", str(tmp_path / "wsguard.db")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    told = json.loads(done.stdout)
    print(told)
    assert [kind for _, kind in told["told"]] == ["StoreError"] * 3
    lost = {number for number, _ in told["told"]}
    assert told["kept"] == [number for number in range(told["after"] + 1) if number not in lost]


def test_a_corrupt_file_refuses_and_recovers(tmp_path: Path) -> None:
    """Whatever it says, it is not believed; the good copy back in its place, it is."""

    async def scenario() -> None:
        path, good = tmp_path / "wsguard.db", tmp_path / "good.db"
        store = sqlite_store(tmp_path)
        await put(store)
        await store.aclose()
        shutil.copy(path, good)
        for begin, garbage in ((0, b"\xff" * 16), (0, os.urandom(path.stat().st_size)), (4096, b"\xff" * 60_000)):
            store = sqlite_store(tmp_path)
            with path.open("r+b") as file:
                file.seek(begin)
                file.write(garbage)
            for command in (put(store), take(store), read(store), append(store), take(store)):
                await refused(command)
            shutil.copyfile(good, path)
            assert await take(store, hashed_key("unknown")) == Taken()
            assert await store.peek(SPACE, KEY, now=NOW) == Taken(b"value")
            await store.aclose()

    run(scenario)


def test_a_file_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """An empty one in its place would know of no revocation: it is for the operator to begin a new one."""

    async def scenario() -> None:
        path = tmp_path / "wsguard.db"
        store = sqlite_store(tmp_path)
        await put(store)
        path.rename(tmp_path / "aside.db")
        (tmp_path / "wsguard.db-wal").rename(tmp_path / "aside.db-wal")
        assert str(path) in await refused(take(store))
        assert not path.exists()
        other = sqlite_store(tmp_path)  # somebody begins a new one under the same name
        assert other.name != store.name
        assert "another store" in await refused(take(store))
        path.unlink()
        (tmp_path / "aside.db").rename(path)
        (tmp_path / "aside.db-wal").rename(tmp_path / "wsguard.db-wal")
        assert await take(store) == Taken(b"value")
        path.chmod(0o666)
        await in_thread(store, lambda _: store._drop())
        assert "chmod 600" in await refused(take(store))
        path.chmod(0o600)
        assert await take(store) == Taken(mark=b"m")
        await store.aclose()

    run(scenario)


def test_an_older_copy_is_not_believed(tmp_path: Path) -> None:
    """Who reads a stream has gone past the numbers it would give: its revocations would not be heard."""

    async def scenario() -> None:
        path = tmp_path / "wsguard.db"
        store = sqlite_store(tmp_path)
        await store.aclose()
        shutil.copy(path, tmp_path / "old.db")
        store = sqlite_store(tmp_path)
        await append(store)
        (tmp_path / "wsguard.db-wal").unlink()
        (tmp_path / "wsguard.db-shm").unlink()
        (tmp_path / "old.db").replace(path)
        assert "older copy" in await refused(append(store))
        assert "older copy" in await refused(read(store, 1))
        await store.aclose()

    run(scenario)


def test_the_thread_answers_in_time_or_not_at_all(tmp_path: Path) -> None:
    """A disk that hangs holds nobody longer than his deadline; what was not begun by then is never done."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path, IMPATIENT)
        hanging = Hanging(store)
        await hanging.started()
        assert "no answer in 0.4 s" in await refused(put(store), 2.0)
        await refused(asyncio.wait_for(hanging.task, 10), 2.0)
        assert "no answer" in await refused(store.aclose(), 2.0)
        hanging.go_on()
        await store.aclose()
        store = sqlite_store(tmp_path)
        assert await take(store) == Taken()
        await store.aclose()

    run(scenario)


def test_as_many_wait_as_the_bound_says(tmp_path: Path) -> None:
    """A flood is told at once that it is too much, and what waits is not lost."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path, Limits(store_pending=16, store_command=20))
        hanging = Hanging(store)
        await hanging.started()
        waiting = [asyncio.ensure_future(append(store)) for _ in range(16)]
        await asyncio.sleep(0)
        assert "store_pending" in await refused(append(store))
        hanging.go_on()
        await hanging.task
        assert await asyncio.gather(*waiting) == list(range(1, 17))
        await store.aclose()

    run(scenario)


def test_closing_tells_those_who_wait(tmp_path: Path) -> None:
    """They refuse; none of them hangs, and the thread and the file are let go."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        hanging = Hanging(store)
        await hanging.started()
        waiting = [asyncio.ensure_future(append(store)) for _ in range(5)]
        await asyncio.sleep(0)
        closing_all = [asyncio.ensure_future(store.aclose()) for _ in range(3)]
        await asyncio.sleep(0)
        hanging.go_on()
        await hanging.task
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(each) for each in found} == {"the store is closed"}
        await asyncio.gather(*closing_all)
        assert store._connection is None
        for thread in threading.enumerate():
            if thread.name == "wsguard-store":
                thread.join(SECONDS)
                assert not thread.is_alive()

    run(scenario)


def test_a_close_that_is_cancelled_closes(tmp_path: Path) -> None:
    """The file is let go, whoever waits for it."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store)
        task = asyncio.ensure_future(store.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        await store.aclose()
        assert store._connection is None
        assert modes(tmp_path).keys() == {"wsguard.db"}

    run(scenario)


def test_several_loops_use_one_store(tmp_path: Path) -> None:
    """Each command belongs to the loop that gave it."""
    store = sqlite_store(tmp_path)
    asyncio.run(put(store))
    assert asyncio.run(take(store)) == Taken(b"value")
    assert asyncio.run(take(store)) == Taken(mark=b"m")
    asyncio.run(store.aclose())


def test_after_a_fork_a_used_store_raises(tmp_path: Path) -> None:
    """SQLite's connections do not outlive a fork, nor do threads; one that was not used before works in the child."""

    def told(how: str) -> tuple[list[Any], list[Any]]:
        text = f"sqlite:{tmp_path}/{how}.db"
        printed = subprocess.run(
            [sys.executable, "-m", "tests.store.forking_process", text, how],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
        child, parent = (json.loads(line) for line in printed.splitlines())
        return child, parent

    child, parent = told("used")
    assert "fork" in child[2]
    assert parent[2:] == [True, 1]
    child, parent = told("new")
    assert child[1] == parent[1]
    assert child[2:] == parent[2:] == [False, 0]


def test_what_waits_is_done_together(tmp_path: Path) -> None:
    """Under load a command costs a fraction: the writes that wait are one transaction, answered when it is committed."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        statements: list[str] = []
        await in_thread(store, lambda connection: connection.set_trace_callback(statements.append))
        hanging = Hanging(store)
        await hanging.started()
        writes = [asyncio.ensure_future(put(store, b"%d" % number, b"%d" % number)) for number in range(20)]
        takes = [asyncio.ensure_future(take(store, b"%d" % (number // 2))) for number in range(40)]
        peeks = [asyncio.ensure_future(store.peek(SPACE, b"%d" % number, now=NOW)) for number in range(20)]
        numbers = [asyncio.ensure_future(append(store)) for _ in range(20)]
        await asyncio.sleep(0)
        hanging.go_on()
        await asyncio.gather(*writes)
        found = [(await task, await next_task) for task, next_task in zip(takes[::2], takes[1::2], strict=True)]
        assert found == [(Taken(b"%d" % number), Taken(mark=b"m")) for number in range(20)]
        assert await asyncio.gather(*peeks) == [Taken(mark=b"m")] * 20
        assert await asyncio.gather(*numbers) == list(range(1, 21))
        assert statements.count("COMMIT") <= 4  # 100 commands, 64 at most together, reads between
        await store.aclose()

    run(scenario)


def test_what_is_done_together_fails_each_for_itself(tmp_path: Path) -> None:
    """One that finds the store full hinders none of the others; what the disk refuses, it refuses all of them."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path, Limits(store_values=16))
        hanging = Hanging(store)
        await hanging.started()
        waiting = [asyncio.ensure_future(put(store, b"%d" % number)) for number in range(20)]
        recorded = asyncio.ensure_future(append(store))
        await asyncio.sleep(0)
        hanging.go_on()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 16 + [StoreFull] * 4
        assert await recorded == 1
        await set_most_pages(store, 1)
        hanging = Hanging(store)
        await hanging.started()
        large = [asyncio.ensure_future(append(store, b"v" * 16_000)) for _ in range(3)]
        small = asyncio.ensure_future(take(store, b"0"))
        await asyncio.sleep(0)
        hanging.go_on()
        errors = [await _error_of(task) for task in (*large, small)]
        assert {type(error) for error in errors} == {StoreError}
        assert len({id(error) for error in errors}) == 4  # each caller raises his own
        assert await take(store, b"0") == Taken(b"value")  # nothing of it was done
        assert [number for number, _ in await read(store)] == [1]
        await store.aclose()

    run(scenario)


async def _error_of(task: asyncio.Future[Any]) -> BaseException | None:
    await asyncio.wait((task,))
    return task.exception()


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_bounds_hold_across_processes(tmp_path: Path) -> None:
    """They are counted in the file: two workers together keep no more than one."""

    async def scenario() -> None:
        limits = Limits(store_values=16, store_bytes=64 * 1024, store_value=1024)
        stores = [sqlite_store(tmp_path, limits) for _ in range(2)]
        for number in range(16):
            await put(stores[number % 2], b"%d" % number)
        for store in stores:
            with pytest.raises(StoreFull):
                await put(store, b"one more")
            assert await append(store)
        with pytest.raises(StoreError):
            await put(stores[0], b"0", b"v" * 1025)
        await stores[0].put(SPACE, b"one more", b"v", expires_at=END + 60, now=END)
        for store in stores:
            await store.aclose()

    run(scenario)


def test_what_has_expired_makes_room_in_small_steps(tmp_path: Path) -> None:
    """The file stays as large as what lives in it, and no command pays for all the others."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        most = 0
        for number in range(3000):
            now = NOW + number / 100
            await store.put(SPACE, hashed_key(str(number)), b"v" * 400, expires_at=now + 1, now=now)
            if number % 100 == 0:
                most = max(most, await in_thread(store, count_rows))
        assert most < 150
        with closing(sqlite3.connect(tmp_path / "wsguard.db")) as connection:
            (entries, size, records, record_bytes) = connection.execute("SELECT * FROM totals").fetchone()
            assert (entries, size) == connection.execute("SELECT count(*), sum(length(value)) FROM entries").fetchone()
            assert (records, record_bytes) == (0, 0)
            assert connection.execute("PRAGMA page_count").fetchone()[0] < 150
        await store.aclose()

    def count_rows(connection: sqlite3.Connection) -> int:
        return connection.execute("SELECT count(*) FROM entries").fetchone()[0]

    run(scenario)


def test_no_command_looks_at_all_rows(tmp_path: Path) -> None:
    """Each statement finds its rows by an index."""
    import wsguard.store.local as module

    sqlite_store(tmp_path)
    statements = [module._FIND, module._PUT, module._TAKE, module._APPEND, module._ABOVE, module._READ]
    statements += [text for kind in (module._ENTRIES, module._RECORDS) for text in kind]
    with closing(sqlite3.connect(tmp_path / "wsguard.db")) as connection:
        for statement in statements:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?")).fetchall()
            scanned = [row[3] for row in plan if row[3].startswith("SCAN") and row[3] != "SCAN totals"]
            assert scanned == [], statement


def test_a_revocation_is_on_the_disk_when_it_is_told(tmp_path: Path) -> None:
    """A power cut may cost the last tickets, never a revocation: its transaction is synced, and only its."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store)
        statements: list[str] = []
        await in_thread(store, lambda connection: connection.set_trace_callback(statements.append))
        await append(store)
        await put(store)
        await asyncio.gather(put(store), append(store), put(store), append(store))  # one by one, or together
        await put(store)
        await store.aclose()
        level, levels = "none", list[tuple[str, str]]()
        for statement in map(str.strip, statements):
            if statement.startswith("PRAGMA synchronous"):
                level = statement.rpartition(" ")[2]
            elif statement.startswith("INSERT INTO"):
                levels.append((statement.split()[2], level))
        assert {each for table, each in levels if table == "records"} == {"FULL"}
        alone = [each for each, _ in groupby(levels)][:2]  # a statement that fires triggers is traced again for each
        assert alone == [("records", "FULL"), ("entries", "NORMAL")]
        assert levels[-1] == ("entries", "NORMAL")

    run(scenario)


def test_the_journal_is_written_into_the_file_seldom(tmp_path: Path) -> None:
    """Each time costs nearly all pages of the index, and it stays bounded: sixteen mebibytes."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        most = 0
        for number in range(1500):
            await put(store, hashed_key(str(number)), b"v" * 1000)
            most = max(most, (tmp_path / "wsguard.db-wal").stat().st_size)
        assert 8 * 1024 * 1024 < most < 20 * 1024 * 1024
        await store.aclose()

    run(scenario)
