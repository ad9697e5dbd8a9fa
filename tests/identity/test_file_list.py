"""A list in a watched file: what counts, from when on, and what never does."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.identity.open import A, B, World, gathered, origin
from wsguard.identity.allow_lists import FileList, OpenList, open_list
from wsguard.identity.open_list import read_entries
from wsguard.vocabulary.bounds import DEFAULTS, Limits
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.host import Host
from wsguard.vocabulary.origin import Origin


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "origins.txt"
    path.write_text("https://a.test\n")
    return path


def allows(opened: OpenList[Origin], candidate: Origin) -> bool:
    return asyncio.run(opened.allows(candidate))


@pytest.mark.parametrize("text", [
    "https://a.test", "# ours\n\n  https://a.test  # the app\r\nhttps://c.test\n", '["https://a.test"]',
    '\n [\n"https://c.test", "https://a.test"\n]\n', "\ufeffhttps://a.test\n", '\ufeff["https://a.test"]',
    "HTTPS://A.test:443",
])  # fmt: skip
def test_entries_are_lines_or_a_json_array(world: World, path: Path, text: str) -> None:
    """Both forms, comments, blanks, a BOM: each entry counts as if it were written in the policy."""
    path.write_text(text, encoding="utf-8")
    opened = world.origins(FileList(path))
    assert (allows(opened, A), allows(opened, B)) == (True, False)


@pytest.mark.parametrize("text", ["", "\n", "# nobody\n", "[]", " [ ] "])
def test_an_empty_file_allows_nobody(world: World, path: Path, text: str) -> None:
    """An empty list is a list, never "everybody"."""
    path.write_text(text)
    assert not allows(world.origins(FileList(path)), A)


def test_hosts_are_kept_in_files_too(world: World, path: Path) -> None:
    """The same file formats, read by the rules of hosts."""
    path.write_text("app.test\n*.b.test\n")
    opened = world.hosts(FileList(str(path)))
    assert [asyncio.run(opened.allows(Host(name))) for name in ("app.test", "x.b.test", "b.test")] == [
        True,
        True,
        False,
    ]
    assert opened.name == f"file:{path}"


@pytest.mark.parametrize("content", [
    b"https://a.test\n*\n", b"null", b"a.test", b"https://a.test/path", b"http://a.test", b'["https://a.test", 1]',
    b'["https://a.test"', b'["https://a.test"] x', b"[[[", b"\xff\xfe", b"https://a.test\0", b'{"a": 1}', b"[null]",
])  # fmt: skip
def test_a_bad_file_is_an_error_at_start(world: World, path: Path, content: bytes) -> None:
    """One bad entry makes the whole list none: the error names key, file, what is wrong and the way out."""
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^origins: found .*expected") as caught:
        world.origins(FileList(path))
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_error_at_start(world: World, tmp_path: Path) -> None:
    """Nobody finds out from refused users."""
    missing = tmp_path / "none.txt"
    with pytest.raises(ConfigurationError, match=rf"origins: found file:{missing} \(No such file"):
        world.origins(FileList(missing))


def test_what_is_no_regular_file_is_an_error_at_start(world: World, tmp_path: Path) -> None:
    """A FIFO would hold the reader for ever, a device has no end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for place in (fifo, Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigurationError, match=f"origins: found .*{place}"):
            world.origins(FileList(place))


def test_a_file_is_bounded(world: World, path: Path) -> None:
    """`list_bytes` and `list_entries` hold for a file."""
    world.limits = Limits(list_bytes=1024, list_entries=2)
    path.write_text("https://a.test\n" + "#" * 1009)
    assert allows(world.origins(FileList(path)), A)
    path.write_text("https://a.test\n" + "#" * 1010)
    with pytest.raises(ConfigurationError, match="list_bytes"):
        world.origins(FileList(path))
    path.write_text('["https://a.test", "https://b.test", "https://c.test"]')
    with pytest.raises(ConfigurationError, match="list_entries"):
        world.origins(FileList(path))


def test_a_change_counts_after_a_second(world: World, path: Path) -> None:
    """Added origins are let in and removed ones refused, without a restart; the log says that it changed."""
    opened = world.origins(FileList(path))
    path.write_text("https://b.test\nhttps://c.test\n")
    world.now = 0.9
    assert (allows(opened, A), allows(opened, B)) == (True, False)
    world.now = 1.0
    assert (allows(opened, A), allows(opened, B)) == (False, True)
    assert world.events == ["list.changed"]
    assert f"list=file:{path} entries=2" in world.text


def test_a_replaced_file_counts(world: World, path: Path) -> None:
    """Editors and deployments rename a new file over the old one; its time may be older, its size the same."""
    opened = world.origins(FileList(path))
    new = path.with_suffix(".new")
    new.write_text("https://b.test\n")
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.replace(path)
    world.now = 1
    assert (allows(opened, A), allows(opened, B)) == (False, True)


def test_a_touched_file_is_no_change(world: World, path: Path) -> None:
    """The same bytes at a new time: the log stays quiet."""
    opened = world.origins(FileList(path))
    os.utime(path, ns=(1, 1))
    world.now = 1
    assert allows(opened, A)
    assert world.events == []


def test_an_unchanged_file_is_looked_at_once_a_second(
    world: World, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand handshakes a second must not be a thousand looks, and none of them reads."""
    opened = world.origins(FileList(path))
    looks: list[Path] = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self: (looks.append(self), stat(self))[1])
    monkeypatch.setattr(os, "open", None)

    async def main() -> None:
        for now in (0.5, 1.0, 1.5, 1.999, 2.0):
            world.now = now
            for _ in range(100):
                assert await opened.allows(A)

    asyncio.run(main())
    assert looks == [path, path]


@pytest.mark.parametrize("spoil", [
    lambda path: path.unlink(), lambda path: path.write_text("https://b.test\n*\n"),
    lambda path: path.write_bytes(b"\xff"), lambda path: path.write_text("[1]"),
    lambda path: (path.unlink(), path.mkdir()), lambda path: (path.unlink(), os.mkfifo(path)),
    lambda path: path.write_text("#" * 2000),
], ids=["removed", "bad entry", "no UTF-8", "no strings", "a folder", "a FIFO", "too large"])  # fmt: skip
def test_the_last_good_list_is_kept(world: World, path: Path, spoil: Callable[[Path], object]) -> None:
    """A mistake while editing locks nobody out and lets nobody in; it is told once, and so is its end."""
    world.limits = Limits(list_bytes=1024)
    opened = world.origins(FileList(path))
    spoil(path)
    for world.now in (1, 2, 90):  # the log forgets a hint after a minute; this one is told once
        assert (allows(opened, A), allows(opened, B)) == (True, False)
    assert world.events == ["list.failed"]
    assert f"file:{path}" in world.text
    assert "the last good list counts" in world.text
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_text("https://b.test\n")
    world.now = 91
    assert (allows(opened, A), allows(opened, B)) == (False, True)
    assert world.events == ["list.failed", "list.changed", "list.recovered"]


def test_a_file_that_is_put_back_as_it_was_is_good_again(world: World, path: Path) -> None:
    """Renamed away and back: nothing has changed, and the log says that it can be had again."""
    opened = world.origins(FileList(path))
    path.rename(path.with_suffix(".away"))
    world.now = 1
    assert allows(opened, A)
    path.with_suffix(".away").rename(path)
    world.now = 2
    assert allows(opened, A)
    assert world.events == ["list.failed", "list.recovered"]


def test_a_fault_of_ours_keeps_the_last_good_list(world: World, path: Path) -> None:
    """Whatever reading raises, nobody is let in by it and nobody is locked out."""

    def read(entries: Sequence[str]) -> Callable[[Origin], bool]:
        if len(entries) > 1:
            raise ZeroDivisionError
        return lambda candidate: str(candidate) in entries

    opened = open_list("origins", FileList(path), read=read, limits=world.limits, clock=world.clock, log=world.log())
    path.write_text("https://a.test\nhttps://b.test\n")
    world.now = 1
    assert (allows(opened, A), allows(opened, B)) == (True, False)
    assert "ZeroDivisionError" in world.text


def test_a_slow_disk_holds_nobody_but_one(world: World, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader at a time, in a thread: the others are answered by the last good list, and the loop goes on."""
    world.limits = Limits(list_timeout=20)
    opened = world.origins(FileList(path))
    path.write_text("https://a.test\nhttps://b.test\n")
    go, reads = threading.Event(), []
    open_file = os.open

    def slow(*arguments: object) -> int:
        reads.append(arguments)
        assert go.wait(20)
        return open_file(path, os.O_RDONLY)

    monkeypatch.setattr(os, "open", slow)

    async def main() -> None:
        world.now = 1
        first = asyncio.create_task(opened.allows(B))
        await asyncio.to_thread(lambda: None)
        for world.now in (1.5, 2.5, 3.5):
            assert await gathered([opened.allows(B) for _ in range(100)]) == [False] * 100
        go.set()
        assert await first
        assert len(reads) == 1

    asyncio.run(main())


def test_a_disk_that_hangs_is_not_waited_for_longer_than_the_bound(
    world: World, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`list_timeout` bounds the one who waits, too: he gets the last good list."""
    world.limits = Limits(list_timeout=0.1)
    opened = world.origins(FileList(path))
    path.write_text("https://b.test\n")
    go = threading.Event()
    open_file = os.open
    monkeypatch.setattr(os, "open", lambda *arguments: (go.wait(20), open_file(path, os.O_RDONLY))[1])

    async def main() -> None:
        world.now = 1
        assert await opened.allows(A)
        go.set()

    asyncio.run(main())


def test_an_asker_who_leaves_does_not_end_the_look(world: World, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that goes away while the file is read: the change counts all the same."""
    opened = world.origins(FileList(path))
    path.write_text("https://b.test\n")
    begun, go = threading.Event(), threading.Event()
    open_file = os.open

    def slow(*arguments: object) -> int:
        begun.set()
        assert go.wait(20)
        return open_file(path, os.O_RDONLY)

    monkeypatch.setattr(os, "open", slow)

    async def main() -> None:
        world.now = 1
        asker = asyncio.create_task(opened.allows(B))
        assert await asyncio.to_thread(begun.wait, 20)
        asker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asker
        go.set()
        looking = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(looking, timeout=20)
        assert await opened.allows(B)

    asyncio.run(main())


def test_a_look_of_a_loop_that_is_gone_is_not_waited_for(world: World, path: Path) -> None:
    """A loop that was closed under a running look must not end the watch."""
    opened = world.origins(FileList(path))
    loop = asyncio.new_event_loop()
    world.now = 1
    asker = loop.create_task(opened.allows(A))
    loop.run_until_complete(asyncio.wait((asker,), timeout=0))
    left = asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    path.write_text("https://b.test\n")
    world.now = 2
    assert allows(opened, B)
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # left behind on purpose


def test_start_and_stop_are_nothing(world: World, path: Path) -> None:
    """A file is looked at when it is asked for: nothing runs in the background."""

    async def main() -> None:
        opened = world.origins(FileList(path))
        opened.start()
        assert len(asyncio.all_tasks()) == 1
        opened.stop()
        assert await opened.allows(A)

    asyncio.run(main())


def test_reading_entries_takes_a_hundred_thousand() -> None:
    """The default bound is a number that is really served."""
    text = "\n".join(f"https://customer-{number}.test" for number in range(100_000))
    assert len(read_entries("origins", text.encode(), DEFAULTS)) == 100_000
    assert origin("https://customer-1.test").host == "customer-1.test"
