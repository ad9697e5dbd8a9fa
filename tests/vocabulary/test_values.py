"""The small words: fields, bounds, reasons, close codes, peers."""

from __future__ import annotations

import dataclasses
import re

import pytest

from wsguard.vocabulary import close_codes
from wsguard.vocabulary.bounds import BOUNDS, DEFAULTS, MAX_MESSAGE, Limits
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, nearest_name
from wsguard.vocabulary.fields import Fields
from wsguard.vocabulary.handshake import Peer, asks_for_upgrade
from wsguard.vocabulary.reasons import all_reasons


def test_repeated_fields_stay_repeated() -> None:
    """Nobody can take the last of two for the only one."""
    fields = Fields([(b"Origin", b"a"), (b"X", b"1"), (b"ORIGIN", b"b")])
    assert fields.values(b"origin") == [b"a", b"b"]
    assert fields.first(b"origin") == b"a"
    assert fields.first(b"none") is None
    assert len(fields) == 3
    assert fields == Fields(list(fields))
    assert hash(fields) == hash(Fields(list(fields)))
    assert fields != 1


def test_fields_show_no_values() -> None:
    """A repr in a traceback must not hold a cookie."""
    assert "secret" not in repr(Fields([(b"Cookie", b"secret")]))


def test_list_members_are_split_over_lines() -> None:
    """RFC 9110 §5.6.1: empty members are dropped, blanks stripped."""
    assert Fields([(b"A", b"x, ,y"), (b"a", b"\tz ")]).list_members(b"a") == [b"x", b"y", b"z"]


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ([(b"Upgrade", b"h2c")], True),
        ([(b"Sec-WebSocket-Foo", b"")], True),
        ([(b"Connection", b"upgrade")], False),
        ([], False),
    ],
)
def test_what_is_judged_as_a_handshake(fields: list[tuple[bytes, bytes]], asks: bool) -> None:
    """RULES §1: an Upgrade or any Sec-WebSocket-* field makes a handshake; a lone Connection does not."""
    assert asks_for_upgrade(Fields(fields)) is asks


def test_every_bound_is_inside_its_range_and_outside_is_refused() -> None:
    """A bound has a unit, a range and a precedent, and its range is enforced."""
    for bound in BOUNDS:
        assert bound.default is None or bound.minimum <= bound.default <= bound.maximum, bound.key
        assert bound.precedent
        assert bound.unit in {"bytes", "count", "seconds"}
    with pytest.raises(ValueError, match="head: 1 is not between"):
        Limits(head=1)
    assert DEFAULTS.head == 16384


def test_the_table_and_the_limits_tell_the_same() -> None:
    """A default is written twice, for readers and for types: the two may not drift."""
    assert dataclasses.asdict(DEFAULTS) == {bound.key: bound.default for bound in BOUNDS if bound.table == "limits"}
    assert {bound.key: bound.default for bound in BOUNDS if bound.table == "policy"} == {
        "max_message": MAX_MESSAGE,
        "messages_per_second": None,
        "idle": None,
        "max_lifetime": None,
    }


def test_reason_codes_are_stable_words() -> None:
    """Codes are ``<check>.<what>`` in lower case, with a status that exists."""
    for reason in all_reasons():
        assert re.fullmatch(r"[a-z_]+\.[a-z0-9_]+", reason.code)
        assert 400 <= reason.status < 600 or 1000 <= reason.status < 1016 or reason.status == 3000
        assert reason.meaning.endswith(".")


@pytest.mark.parametrize(
    ("code", "may"),
    [
        (1000, True),
        (1004, False),
        (1005, False),
        (1006, False),
        (1015, False),
        (999, False),
        (2999, False),
        (3000, True),
        (4999, True),
        (5000, False),
        (1014, True),
    ],
)
def test_close_codes_on_the_wire(code: int, may: bool) -> None:
    """RFC 6455 §7.4: some codes are never sent."""
    assert close_codes.may_be_sent(code) is may


def test_errors_name_key_value_and_way_out() -> None:
    """A person can act on a configuration error."""
    one = ConfigurationError("limits.head", "'1B'", "between 1 and 2", "head")
    assert str(one) == "limits.head: found '1B', expected between 1 and 2 (did you mean 'head'?)"
    both = ConfigurationErrors([one, ConfigurationError("a", "b", "c")])
    assert str(both).count("\n") == 1
    assert nearest_name("max_mesage", ["max_message", "origins"]) == "max_message"
    assert nearest_name("zzz", ["origins"]) is None


def test_peers_are_written_for_people() -> None:
    """IPv6 in brackets, unknown said so."""
    assert str(Peer("::1", 1)) == "[::1]:1"
    assert str(Peer("1.2.3.4")) == "1.2.3.4"
    assert str(Peer(None)) == "unknown"
