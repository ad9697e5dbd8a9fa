"""Caps by address: one client is one bucket, every count is given back, the table is bounded."""

from __future__ import annotations

import pytest

from wsguard.engine.limits import AddressLimits, address_key
from wsguard.vocabulary.bounds import Limits


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_one_client_one_bucket(address: str, key: str) -> None:
    """B-PROXY-09's counting part: a mapped address is its IPv4 address, IPv6 counts by /64."""
    assert address_key(address) == key


def test_waiting_connections_are_capped_and_given_back() -> None:
    """A process and an address have their cap; leaving makes room, and counts once."""
    limits = AddressLimits(Limits(preauth=16, preauth_address=10), Clock())
    places = [limits.enter("a") for _ in range(10)]
    assert all(places)
    assert limits.enter("a") is None
    assert all(limits.enter("b") for _ in range(6))
    assert limits.enter("c") is None
    assert places[0] is not None
    places[0].release()
    places[0].release()
    assert limits.enter("c") is not None
    assert limits.enter("d") is None


def test_admitted_connections_are_capped_and_given_back() -> None:
    """An admitted one makes room among those that wait, and stands among the open ones until it ends."""
    limits = AddressLimits(Limits(open_address=2, preauth=16, preauth_address=3), Clock())
    places = [limits.enter("a") for _ in range(3)]
    assert [place.admit() for place in places if place] == [True, True, False]
    assert all(place.admit() for place in places[:2] if place)
    other = limits.enter("b")
    assert other is not None
    assert other.admit()
    for place in places[:1]:
        assert place is not None
        place.release()
    assert places[2] is not None
    assert places[2].admit()
    assert limits.enter("a") is not None


def test_attempts_are_a_bucket_that_fills_by_time() -> None:
    """Over the rate the answer says how long to wait."""
    clock = Clock()
    limits = AddressLimits(Limits(attempts_address=60), clock)
    assert [limits.attempt("a") for _ in range(60)] == [None] * 60
    assert limits.attempt("a") == 1
    clock.now = 2.0
    assert limits.attempt("a") is None
    assert limits.attempt("a") is None
    assert limits.attempt("a") == 1
    clock.now = 1000.0
    assert [limits.attempt("a") for _ in range(60)] == [None] * 60
    assert limits.attempt("a") == 1


def test_the_table_of_addresses_is_bounded() -> None:
    """Old addresses without a connection make room; a table of live ones lets nobody new in."""
    limits = AddressLimits(Limits(addresses=100, preauth=200), Clock())
    for number in range(300):
        assert limits.attempt(f"idle-{number}") is None
    for number in range(100):
        assert limits.enter(f"live-{number}")
    assert limits.enter("new") is None
    assert limits.attempt("new") == 60
