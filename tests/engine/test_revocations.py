"""Whom a revocation means: names that all match, and a time that is compared by the second."""

from __future__ import annotations

from typing import Any

import pytest

from wsguard import Identity
from wsguard.engine.revocations import Revocation, Revocations, RevocationSyntaxError
from wsguard.vocabulary.errors import StoreFull

NOW = 1_800_000_000.0


def who(**changes: Any) -> Identity:
    members: dict[str, Any] = {
        "subject": "alice",
        "issuer": "https://id.test",
        "method": "bearer",
        "sid": "s1",
        "credential_id": "c1",
        "issued_at": NOW - 10,
        **changes,
    }
    return Identity(**members)


@pytest.mark.parametrize(
    ("members", "means"),
    [
        ({"subject": "alice"}, True),
        ({"issuer": "https://id.test"}, True),
        ({"sid": "s1"}, True),
        ({"credential_id": "c1"}, True),
        ({"subject": "alice", "issuer": "https://id.test", "sid": "s1", "credential_id": "c1"}, True),
        ({"subject": "alice", "issuer": "https://other.test"}, False),
        ({"subject": "bob", "sid": "s1"}, False),
        ({"sid": "s2"}, False),
        ({"subject": "Alice"}, False),
    ],
)
def test_all_names_must_match(members: dict[str, str], means: bool) -> None:
    """B-STORE-01: one that fits partly means somebody else; and looked up among others it says the same."""
    revocation = Revocation.read(members, NOW)
    assert revocation.matches(who()) is means
    crowd = [Revocation.read({"subject": f"user{number}"}, NOW) for number in range(100)]
    assert Revocations([*crowd, revocation]).revokes(who()) is means


def test_who_has_no_sid_is_not_meant_by_one() -> None:
    """A name that the credential lacks is not any name."""
    assert not Revocation.read({"sid": "s1"}, NOW).matches(who(sid=None))
    assert not Revocations([Revocation.read({"sid": "s1"}, NOW)]).revokes(who(sid=None))


@pytest.mark.parametrize(
    ("before", "issued_at", "means"),
    [
        (0.4, NOW - 1, True),
        (0.4, NOW, True),
        (0.4, NOW + 1, False),
        (0.4, None, True),
        (0.4, 0.0, True),
        (0, NOW, True),
        (0, NOW + 0.9, True),
        (0.4, NOW + 0.3, True),
        (0.4, NOW + 0.4, True),
        (0.4, NOW + 0.5, False),
    ],
)
def test_the_second_counts_as_older(before: float, issued_at: float | None, means: bool) -> None:
    """
    ``iat`` is a whole second: one of the same second may be the stolen one. A token without ``iat`` is older than any.

    What clocks of ours have stamped, both times, has fractions: a login right after a revocation is later.
    """
    revocation = Revocation.read({"subject": "alice", "issued_before": NOW + before}, 0.0)
    assert revocation.matches(who(issued_at=issued_at)) is means


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"issued_before": NOW},
        {"subject": None},
        {"subject": None, "issuer": "app"},
        {"subject": "alice", "issued_before": None},
        {"subject": ""},
        {"subject": 1},
        {"subject": ["alice"]},
        {"subject": "alice", "sid": ""},
        {"subject": "alice", "user": "x"},
        {"subject": "alice", "issued_before": "now"},
        {"subject": "alice", "issued_before": True},
        {"subject": "alice", "issued_before": -1},
        {"subject": "alice", "issued_before": float("nan")},
        {"subject": "alice", "issued_before": float("inf")},
        {"subject": "alice", "issued_before": NOW * 1000},
    ],
)
def test_what_names_nobody_revokes_nobody(members: dict[str, Any]) -> None:
    """Unknown names, empty values, other types (milliseconds among them): nothing is revoked by mistake."""
    with pytest.raises(RevocationSyntaxError):
        Revocation.read(members, NOW)


def test_the_wider_time_is_kept() -> None:
    """Of two with the same names the later counts, in whatever order they come; other names stand beside."""
    early = Revocation.read({"subject": "alice", "issued_before": NOW - 100}, NOW)
    late = Revocation.read({"subject": "alice", "issued_before": NOW}, NOW)
    for order in ([early, late], [late, early], [late, late]):
        revocations = Revocations(order)
        assert revocations.revokes(who())
        assert sum(map(len, revocations._by_name.values())) == 1
    narrow = Revocation.read({"subject": "alice", "issuer": "https://other.test"}, NOW)
    both = Revocations([early, narrow])
    assert not both.revokes(who())
    assert both.revokes(who(issuer="https://other.test"))


def test_what_nobody_needs_makes_room() -> None:
    """A revocation counts as long as the longest credential lives; until then a full list takes no other."""
    revocations = Revocations(most=2, age=60)
    for subject, at in (("alice", NOW), ("bob", NOW + 30)):
        revocations.add(Revocation.read({"subject": subject}, at), at)
    carol = Revocation.read({"subject": "carol"}, NOW + 59)
    with pytest.raises(StoreFull, match=r"limits\.revocations"):
        revocations.add(carol, NOW + 59)
    assert revocations.revokes(who())
    revocations.add(carol, NOW + 60)
    assert not revocations.revokes(who())
    assert revocations.revokes(who(subject="bob"))
    assert revocations.revokes(who(subject="carol"))


def test_what_the_common_store_has_taken_is_remembered_by_all() -> None:
    """Two processes may fill it in one moment: neither may be left with a record that it can never read past."""
    revocations = Revocations(most=1)
    for subject in ("bob", "alice"):
        revocations.add(Revocation.read({"subject": subject}, NOW), NOW, heard=True)
    assert revocations.revokes(who())
    assert revocations.revokes(who(subject="bob"))


@pytest.mark.parametrize(
    "members", [{"subject": "a:b", "issued_before": NOW}, {"sid": "é\n", "issuer": "x", "issued_before": 1.5}]
)
def test_a_record_comes_back(members: dict[str, Any]) -> None:
    """As the store's stream carries it."""
    revocation = Revocation.read(members, NOW)
    assert Revocation.decode(revocation.encode()) == revocation


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"\xff", b'{"issued_before": 1}', b'{"subject": "a", "x": 1}'])
def test_a_record_that_is_none(record: bytes) -> None:
    """Told, and revokes nobody."""
    with pytest.raises(RevocationSyntaxError):
        Revocation.decode(record)
