"""The whole path: a policy names a list that is kept elsewhere, and a guard decides by it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import trustme

from tests.engine.make import handshake, page
from tests.identity.open import Kept, World
from tests.identity.tls_server import Answer, serving
from wsguard.engine.policy import Policy
from wsguard.guard.guard import Guard
from wsguard.identity.allow_lists import FileList, URLList
from wsguard.vocabulary.decision import Accept, Decision, OriginProof
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.handshake import Handshake

APP = Answer(parts=(b"https://app.test\n",))


def guarded(policy: Policy, *subjects: Handshake, world: World | None = None) -> list[Decision]:
    """The decisions of one guard over *subjects*, one after the other on one loop."""
    world = World() if world is None else world

    async def main() -> list[Decision]:
        guard = Guard(policy, log=world.log(), limits=world.limits, clock=world.clock)
        try:
            return [await guard.decide(subject, guard.client_of(subject)) for subject in subjects]
        finally:
            guard.stop()

    return asyncio.run(main())


def told(decision: Decision) -> str | tuple[int, str]:
    """The source of an acceptance, or status and reason of a refusal."""
    return decision.source if isinstance(decision, Accept) else (decision.status, decision.reason.code)


def test_origins_at_a_url(authority: trustme.CA, ca_file: Path) -> None:
    """The list decides, and the session's log line can name it: without its query."""
    with serving(authority, answer=APP) as server:
        policy = Policy(origins=URLList(server.url("/origins?key=s3cret"), ca=ca_file), hosts=["app.test"])
        decisions = guarded(policy, handshake(), handshake({"Origin": "https://evil.test"}), page())
        source = server.url("/origins")
    assert [told(decision) for decision in decisions] == [source, (403, "origin.not_allowed"), ""]
    assert isinstance(decisions[0], Accept)
    assert decisions[0].origin is OriginProof.LISTED


def test_a_url_list_that_cannot_be_had_refuses(authority: trustme.CA, ca_file: Path) -> None:
    """503, never an acceptance; the detail for the log holds no query."""
    with serving(authority, answer=Answer(500)) as server:
        policy = Policy(origins=URLList(server.url("/origins?key=s3cret"), ca=ca_file), hosts=["app.test"])
        (decision,) = guarded(policy, handshake())
    assert told(decision) == (503, "policy.source_unavailable")
    assert "s3cret" not in repr(decision)
    assert "status 500" in repr(decision)


def test_origins_and_hosts_by_functions() -> None:
    """Each list has its own function; the origin's is the source."""

    async def is_customer(origin: str) -> bool:
        return origin == "https://app.test"

    async def is_served(host: str) -> bool:
        return host == "app.test"

    decisions = guarded(
        Policy(origins=is_customer, hosts=is_served),
        handshake(),
        handshake({"Origin": "https://evil.test"}),
        handshake({"Host": "evil.test"}),
        handshake({"Host": "app.test:8443"}),
        handshake({"Origin": "null"}),
        handshake({"Origin": None}),
    )
    assert [told(decision) for decision in decisions] == [
        "function is_customer",
        (403, "origin.not_allowed"),
        (421, "host.not_allowed"),
        "function is_customer",
        (403, "origin.null"),
        (403, "origin.missing"),
    ]


def test_a_function_that_fails_refuses() -> None:
    """503, and the text of the app's error, which may hold its secrets, is not in the log."""

    async def broken(origin: str) -> bool:
        raise RuntimeError("password=s3cret")

    (decision,) = guarded(Policy(origins=broken, hosts=["app.test"]), handshake())
    assert told(decision) == (503, "policy.source_unavailable")
    assert "s3cret" not in repr(decision)
    assert "function broken: raised RuntimeError" in repr(decision)


def test_origins_in_a_file(tmp_path: Path) -> None:
    """The file is the source; hosts can stand in one, too."""
    origins, hosts = tmp_path / "origins.json", tmp_path / "hosts.txt"
    origins.write_text(json.dumps(["https://app.test"]))
    hosts.write_text("app.test # ours\n")
    policy = Policy(origins=FileList(origins), hosts=FileList(hosts))
    decisions = guarded(
        policy, handshake(), handshake({"Origin": "https://evil.test"}), handshake({"Host": "evil.test"})
    )
    assert [told(decision) for decision in decisions] == [
        f"file:{origins}",
        (403, "origin.not_allowed"),
        (421, "host.not_allowed"),
    ]


def test_an_http_origin_in_a_list_is_as_bad_as_one_written_out(tmp_path: Path) -> None:
    """The rules of the policy's own entries hold for entries kept elsewhere."""
    path = tmp_path / "origins.txt"
    path.write_text("http://app.test\n")
    with pytest.raises(ConfigurationErrors, match="allow_http_loopback_origins") as caught:
        Guard(Policy(origins=FileList(path), hosts=["app.test"]), log=World().log())
    assert str(path) in str(caught.value)


def test_all_that_is_wrong_with_lists_is_told_at_once(tmp_path: Path) -> None:
    """Two routes, two mistakes, one start."""
    routes = {
        "/a": Policy(origins=FileList(tmp_path / "none"), hosts=["app.test"]),
        "/b": Policy(origins=URLList("http://lists.test"), hosts=["app.test"]),
    }
    with pytest.raises(ConfigurationError) as caught:
        Guard(routes=routes, log=World().log())
    assert isinstance(caught.value, ConfigurationErrors)
    assert [error.key for error in caught.value.errors] == ["origins", "origins"]


def test_a_guard_decides_on_two_loops(authority: trustme.CA, ca_file: Path) -> None:
    """An app's tests run a loop each, with one guard made at import."""
    with serving(authority, answer=APP) as server:
        guard = Guard(Policy(origins=URLList(server.url(), ca=ca_file), hosts=["app.test"]), log=World().log())
        subject = handshake()
        for _ in range(2):
            decision = asyncio.run(guard.decide(subject, guard.client_of(subject)))
            assert told(decision) == server.url()
        guard.stop()


def test_a_change_of_a_list_is_logged_by_the_guards_log(tmp_path: Path) -> None:
    """One log for decisions and what they rest on."""
    path = tmp_path / "origins.txt"
    path.write_text("https://app.test\n")
    world = World(kept=Kept())
    subject = handshake()
    guard = Guard(Policy(origins=FileList(path), hosts=["app.test"]), log=world.log(), clock=world.clock)

    async def main() -> Decision:
        return await guard.decide(subject, guard.client_of(subject))

    assert told(asyncio.run(main())) == f"file:{path}"
    path.write_text("")
    world.now = 1
    assert told(asyncio.run(main())) == (403, "origin.not_allowed")
    assert world.events == ["list.changed"]
