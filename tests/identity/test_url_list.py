"""A list at a URL: when it is fetched, what counts meanwhile, and what is never taken."""

from __future__ import annotations

import asyncio
import gzip
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.identity.open import A, B, Pauses, World, gathered
from tests.identity.tls_server import Answer, Asked, Server, serving
from wsguard.engine.policy import Policy
from wsguard.identity.allow_lists import OpenList, URLList
from wsguard.identity.url_list import PolledList
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import ConfigurationError, ListUnavailable
from wsguard.vocabulary.origin import Origin

ONLY_A = Answer(parts=(b"https://a.test\n",))
ONLY_B = Answer(parts=(b'["https://b.test"]',))


@pytest.fixture
def world() -> World:
    return World()


def polled(world: World, written: URLList) -> tuple[OpenList[Origin], Pauses]:
    """The opened list, and the pauses between its polls."""
    opened = world.origins(written)
    assert isinstance(opened, PolledList)
    pauses = Pauses()
    opened._pause = pauses
    return opened, pauses


def run(
    world: World,
    server: Server,
    ca: Path,
    script: Callable[[OpenList[Origin], Pauses], Awaitable[None]],
    *,
    host: str = "localhost",
    **more: Any,
) -> None:
    """Run *script* with the list at *server*, and end what runs behind it."""

    async def main() -> None:
        opened, pauses = polled(world, URLList(server.url(host=host), ca=ca, **more))
        try:
            await script(opened, pauses)
        finally:
            opened.stop()

    asyncio.run(main())


async def said(opened: OpenList[Origin]) -> tuple[bool, bool]:
    return await opened.allows(A), await opened.allows(B)


# --- What is had ---


def test_the_first_who_ask_wait_for_the_first_answer(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """A handshake right after the start is answered by the list, and two hundred of them cost one call."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert await gathered([opened.allows(A) for _ in range(200)]) == [True] * 200
        assert await said(opened) == (True, False)
        await pauses.reached()
        assert len(server.asked) == 1
        assert (server.asked[0].method, server.asked[0].target) == ("GET", "/list")

    with serving(authority, answer=ONLY_A) as server:
        run(world, server, ca_file, script)
    assert world.events == []


def test_a_changed_list_counts_after_the_next_poll(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """Text and JSON, added and removed: the new list replaces the old one whole; the log says so."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert await said(opened) == (True, False)
        server.says(ONLY_B)
        await pauses.next()
        assert await said(opened) == (False, True)
        await pauses.next()
        assert pauses.seconds == [7, 7, 7]

    with serving(authority, answer=ONLY_A) as server:
        run(world, server, ca_file, script, interval=7)
    assert world.events == ["list.changed"]


def test_the_interval_is_the_bounds_unless_it_is_written(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """`list_interval` is the default."""
    world.limits = Limits(list_interval=33)

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert await opened.allows(A)
        await pauses.reached()
        assert pauses.seconds == [33]

    with serving(authority, answer=ONLY_A) as server:
        run(world, server, ca_file, script)


@pytest.mark.parametrize("tag", ['"v1"', 'W/"v1"'])
def test_an_unchanged_list_costs_a_304(world: World, authority: trustme.CA, ca_file: Path, tag: str) -> None:
    """The ETag is sent back (RFC 9110 §13.1.2); 304 means that the last list counts on."""

    def answer(asked: Asked) -> Answer:
        if asked.headers.get("if-none-match") == tag:
            return Answer(304, {"ETag": tag})
        return Answer(200, {"ETag": tag}, ONLY_A.parts)

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert await said(opened) == (True, False)
        await pauses.next()
        await pauses.next()
        assert await said(opened) == (True, False)
        server.says(Answer(200, {"ETag": '"v2"'}, ONLY_B.parts))
        await pauses.next()
        assert await said(opened) == (False, True)
        await pauses.next()

    with serving(authority) as server:
        server.answer = answer
        run(world, server, ca_file, script)
    assert [asked.headers.get("if-none-match") for asked in server.asked] == [None, tag, tag, tag, '"v2"']
    assert world.events == ["list.changed"]


@pytest.mark.parametrize("tag", ["v1", '"v1', "", '"\xe9"', '"a" "b"', "W/v1"])
def test_what_is_no_entity_tag_is_not_sent_back(world: World, authority: trustme.CA, ca_file: Path, tag: str) -> None:
    """A server's odd ETag must not end the polls: the list is fetched whole each time."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert await opened.allows(A)
        await pauses.next()

    with serving(authority, answer=Answer(200, {"ETag": tag}, ONLY_A.parts)) as server:
        run(world, server, ca_file, script)
    assert [asked.headers.get("if-none-match") for asked in server.asked] == [None, None]
    assert world.events == []


def test_a_304_that_was_not_asked_for_is_a_failure(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """There is no last list that it could mean."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        with pytest.raises(ListUnavailable, match="304"):
            await opened.allows(A)

    with serving(authority, answer=Answer(304)) as server:
        run(world, server, ca_file, script)


# --- What is not had ---


BAD = {
    "status": Answer(500, parts=ONLY_B.parts),
    "not found": Answer(404),
    "redirect": Answer(302, {"Location": "https://localhost/"}),
    "gzip": Answer(200, {"Content-Encoding": "gzip"}, (gzip.compress(ONLY_B.parts[0]),)),
    "oversize": Answer(parts=(b"https://b.test\n" + b"#" * 1024,)),
    "bad entry": Answer(parts=(b"https://b.test\n*\n",)),
    "no list": Answer(parts=(b'[{"origin": "https://b.test"}]',)),
    "a page": Answer(200, {"Content-Type": "text/html"}, (b"<!doctype html><title>Log in</title>",)),
    "cut short": Answer(200, {"Transfer-Encoding": "chunked"}, (b"f\r\nhttps://b.test\n\r\n", b"no chunk\r\n")),
    "slow": Answer(parts=(b"https://b.test\n", b"https://b.test\n"), wait=60),
}


@pytest.mark.parametrize("bad", BAD)
def test_nobody_is_allowed_before_the_list_was_had(
    world: World, authority: trustme.CA, ca_file: Path, bad: str
) -> None:
    """Closed at the first failure, and at once for those who ask later; then the list is had, and counts."""
    world.limits = Limits(list_bytes=1024, list_timeout=0.5 if bad == "slow" else 20)

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        for _ in range(2):
            with pytest.raises(ListUnavailable, match=r"https://localhost:\d+/list: "):
                await opened.allows(B)
        server.says(ONLY_B)
        await pauses.next()
        assert await said(opened) == (False, True)

    with serving(authority, answer=BAD[bad]) as server:
        run(world, server, ca_file, script)
    assert world.events == ["list.failed", "list.recovered"]
    assert "nobody is allowed meanwhile" in world.text


@pytest.mark.parametrize("bad", BAD)
def test_the_last_good_list_is_kept(world: World, authority: trustme.CA, ca_file: Path, bad: str) -> None:
    """A list service that is down, or says nonsense, locks nobody out and lets nobody in; told once, and its end too."""
    world.limits = Limits(list_bytes=1024, list_timeout=0.5 if bad == "slow" else 20)

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert await said(opened) == (True, False)
        server.says(BAD[bad])
        for _ in range(2):
            await pauses.next()
            assert await said(opened) == (True, False)
        server.says(ONLY_A)
        await pauses.next()

    with serving(authority, answer=ONLY_A) as server:
        run(world, server, ca_file, script)
    assert world.events == ["list.failed", "list.recovered"]
    assert "the last good list counts" in world.text


def test_a_failed_poll_is_tried_again_with_growing_pauses(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """1 s, 2 s, 4 s … and never slower than the interval; after a success the interval again."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        opened.start()
        for _ in range(5):
            await pauses.next()
        server.says(ONLY_A)
        await pauses.next()
        server.says(Answer(500))
        await pauses.next()
        assert pauses.seconds == [1, 2, 4, 8, 10, 10, 10, 1]

    with serving(authority, answer=Answer(500)) as server:
        run(world, server, ca_file, script, interval=10)


def test_years_of_failures_do_not_overflow(world: World, ca_file: Path) -> None:
    """The delay is bounded, whatever the count of failures."""

    async def main() -> None:
        opened, _ = polled(world, URLList("https://nobody.invalid/list", ca=ca_file))
        assert isinstance(opened, PolledList)
        opened._failures = 1_000_000
        opened._outbound.fetch = None  # type: ignore[assignment] # fails without a network
        assert await opened._poll_once() == 60
        assert "TypeError" in world.text

    asyncio.run(main())


def test_a_first_answer_is_waited_for_within_the_bound(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """`list_timeout` bounds the asker too: a 503 in time, not a browser that waits."""
    world.limits = Limits(list_timeout=0.2)

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert isinstance(opened, PolledList)

        async def hangs(*arguments: object, **more: object) -> None:
            await asyncio.Event().wait()

        opened._outbound.fetch = hangs  # type: ignore[assignment] # longer than its own deadline
        with pytest.raises(ListUnavailable, match="no answer yet"):
            await opened.allows(A)

    with serving(authority) as server:
        run(world, server, ca_file, script)


def test_a_wrong_certificate_is_not_believed(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """Another host at that address, and another CA: nothing is fetched, and nobody is allowed."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        with pytest.raises(ListUnavailable, match="certificate"):
            await opened.allows(A)

    for server_of in (serving(authority, "other.test", answer=ONLY_A), serving(trustme.CA(), answer=ONLY_A)):
        with server_of as server:
            run(World(), server, ca_file, script)
            assert server.asked == []


# --- The task ---


def test_start_is_idempotent_and_stop_ends_it(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """One task, however often a decision starts it; after `stop` none, and the next decision begins anew."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        before = asyncio.all_tasks()
        for _ in range(100):
            opened.start()
        (task,) = asyncio.all_tasks() - before
        assert await opened.allows(A)
        await pauses.reached()
        opened.stop()
        opened.stop()
        await asyncio.wait((task,), timeout=20)
        assert task.cancelled()
        assert await said(opened) == (True, False)
        opened.start()
        assert len(asyncio.all_tasks() - before) == 1

    with serving(authority, answer=ONLY_A) as server:
        run(world, server, ca_file, script)


def test_who_waits_when_it_is_stopped_is_refused_at_once(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """A shutdown does not wait for a slow list."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        asking = asyncio.create_task(opened.allows(A))
        await asyncio.to_thread(server.arrived.acquire)
        opened.stop()
        assert [type(answer) for answer in await gathered([asking])] == [ListUnavailable]

    with serving(authority, answer=Answer(parts=(b"a", b"b"), wait=60)) as server:
        run(world, server, ca_file, script)


def test_a_list_that_is_stopped_and_started_at_once_goes_on(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """The end of the old task does not close the new one's connection: no failure, no second without the list."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        opened.start()
        await asyncio.to_thread(server.arrived.acquire)
        opened.stop()
        opened.start()
        server.says(ONLY_A)
        assert await said(opened) == (True, False)

    # By address: the new call begins at once, before the old one has ended.
    with serving(authority, "127.0.0.1", answer=Answer(parts=(b"a", b"b"), wait=60)) as server:
        run(world, server, ca_file, script, host="127.0.0.1")
    assert world.events == []


def test_an_asker_who_leaves_does_not_end_the_poll(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """The first client goes away while the first answer comes: the others are answered by it."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        first, second = (asyncio.create_task(opened.allows(A)) for _ in range(2))
        await asyncio.to_thread(server.arrived.acquire)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second

    with serving(authority, answer=Answer(parts=ONLY_A.parts, wait=0.1)) as server:
        run(world, server, ca_file, script)
    assert len(server.asked) == 1


def test_a_list_outlives_its_loop(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """Two `asyncio.run` in a test: the second polls anew, and what was had counts on; closed loops are forgotten."""
    with serving(authority, answer=ONLY_A) as server:
        opened = world.origins(URLList(server.url(), ca=ca_file))
        assert isinstance(opened, PolledList)
        assert asyncio.run(said(opened)) == (True, False)
        server.says(ONLY_B)

        async def again() -> None:
            opened._pause = pauses = Pauses()
            opened.start()
            await pauses.reached()
            assert await said(opened) == (False, True)
            assert list(opened._polls) == [asyncio.get_running_loop()]

        asyncio.run(again())
        opened.stop()
        assert opened._polls == {}


def test_a_poll_closes_its_connection(world: World, authority: trustme.CA, ca_file: Path) -> None:
    """Polls share a connection that is still open; none is left behind at the end."""

    async def script(opened: OpenList[Origin], pauses: Pauses) -> None:
        assert await opened.allows(A)
        await pauses.next()
        assert isinstance(opened, PolledList)
        (task,) = [poll.task for poll in opened._polls.values()]
        opened.stop()
        await asyncio.wait((task,), timeout=20)
        assert opened._outbound._pools == {}

    with serving(authority, answer=ONLY_A) as server:
        run(world, server, ca_file, script)
    assert len({asked.connection for asked in server.asked}) == 1


# --- Construction, and what is shown ---


@pytest.mark.parametrize("url", [
    "http://lists.test/origins", "file:///etc/passwd", "lists.test", "https://user:s3cret@lists.test/",
    "https://lists.test/#s3cret", "https:///x",
])  # fmt: skip
def test_a_url_that_cannot_be_fetched_is_an_error_at_start(world: World, url: str) -> None:
    """https only, no userinfo; the error shows no secret of the URL."""
    with pytest.raises(ConfigurationError, match=r"origins: found .* expected an https URL") as caught:
        world.origins(URLList(url))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("interval", [0, 0.5, -1, 86401, True, "60s", float("nan"), float("inf")])
def test_an_interval_out_of_range_is_an_error_at_start(world: World, interval: Any) -> None:
    """Between a second and a day."""
    with pytest.raises(ConfigurationError, match=r"origins: interval: found .*expected between 1 and 86400 seconds"):
        world.origins(URLList("https://lists.test/", interval))


def test_a_ca_that_cannot_be_used_is_an_error_at_start(world: World, tmp_path: Path) -> None:
    """Missing, or no PEM."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("x")
    for path in (tmp_path / "none.pem", nonsense):
        with pytest.raises(ConfigurationError, match=f"origins: ca: found {path}"):
            world.origins(URLList("https://lists.test/", ca=path))


def test_without_httpx2_a_url_list_is_an_error_at_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named before the first handshake."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigurationError, match=r"origins: URLList: found no httpx2, .*wsguard\[oauth\]"):
        world.origins(URLList("https://lists.test/"))


def test_no_query_is_shown(world: World) -> None:
    """A key in the query stays out of the decision log's source, of reprs and of the policy's."""
    written = URLList("https://lists.test:8443/origins?key=s3cret", 60, "ca.pem")
    assert repr(written) == "URLList('https://lists.test:8443/origins', interval=60, ca='ca.pem')"
    assert "s3cret" not in repr(Policy(origins=written, hosts=["app.test"]))
    opened = world.origins(URLList("https://lists.test:8443/origins?key=s3cret"))
    assert opened.name == "https://lists.test:8443/origins"
    assert "s3cret" not in repr(opened)
