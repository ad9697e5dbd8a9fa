"""An allow-list that is kept elsewhere, open: what every kind has in common, and how its entries are read."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from wsguard.vocabulary.errors import ConfigurationError, ListUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits

Candidate = TypeVar("Candidate")


class OpenList(ABC, Generic[Candidate]):
    """One list of a policy. *name* is what the decision log calls it: ``file:PATH``, a URL, ``function NAME``."""

    name: str

    @abstractmethod
    async def allows(self, candidate: Candidate) -> bool:
        """Tell whether *candidate* is on the list. Raises ListUnavailable where nobody can say; that refuses (503)."""

    def start(self) -> None:
        """Begin what has to run in the background, on the running loop. Called for every decision; cheap if it runs."""

    def stop(self) -> None:
        """End what runs in the background; `start` begins it anew."""


@dataclass(frozen=True, slots=True)
class Understood(Generic[Candidate]):
    """One state of a list, read: the predicate, how many entries it has, and the SHA-256 of its bytes."""

    lists: Callable[[Candidate], bool]
    count: int
    digest: bytes


class Entries(Generic[Candidate]):
    """
    The entries of one list, which come again and again: the last good ones count, as the predicate `lists`.

    *key* is ``origins`` or ``hosts``, *read* turns entries into a predicate and raises ConfigurationError for a bad
    one. The log is told when they cannot be had, when they can again, and when they have changed; not each time.
    """

    def __init__(
        self,
        key: str,
        name: str,
        *,
        read: Callable[[Sequence[str]], Callable[[Candidate], bool]],
        limits: Limits,
        log: DecisionLog,
    ) -> None:
        self.key = key
        self.name = name
        self.why = ""
        self.lists: Callable[[Candidate], bool] | None = None
        self._read = read
        self._limits = limits
        self._log = log
        self._digest = b""

    def understood(self, data: bytes) -> Understood[Candidate] | None:
        """Read *data*; None if it is what counts already. Raises ConfigurationError for a bad entry. Any thread."""
        digest = hashlib.sha256(data).digest()
        if digest == self._digest:
            return None
        entries = read_entries(self.key, data, self._limits)
        return Understood(self._read(entries), len(entries), digest)

    def keep(self, understood: Understood[Candidate] | None) -> None:
        """Let what was understood count from now on; None is what counts already."""
        if understood is not None:
            if self.lists is not None:
                self._log.event("list.changed", key=self.key, list=self.name, entries=understood.count)
            self.lists, self._digest = understood.lists, understood.digest
        self.succeeded()

    def allow(self, candidate: Candidate) -> bool:
        """Tell whether *candidate* is on the last good list. Raises ListUnavailable if there was none yet."""
        if self.lists is None:
            raise ListUnavailable(self.name, self.why or "no answer yet")
        return self.lists(candidate)

    def succeeded(self) -> None:
        """Note that the list can be had; the log hears of it if it could not before."""
        if self.why:
            self._log.event("list.recovered", key=self.key, list=self.name)
        self.why = ""

    def failed(self, why: str) -> None:
        """Note that the list cannot be had, and *why*; the log hears of it unless it knows."""
        if why != self.why:
            meanwhile = "nobody is allowed meanwhile" if self.lists is None else "the last good list counts meanwhile"
            text = f"{self.name}: {why}; {meanwhile}"
            self._log.hint("list.failed", text, key=self.key, list=self.name)
        self.why = why


def read_entries(key: str, data: bytes, limits: Limits) -> list[str]:
    """
    Read the entries of a list: a JSON array of strings if ``[`` is the first character, else lines of UTF-8 text.

    Blank lines, and what stands behind ``#``, are no entries. Raises ConfigurationError for more bytes than
    ``limits.list_bytes``, more entries than ``limits.list_entries``, and for what is neither.
    """
    if len(data) > limits.list_bytes:
        raise ConfigurationError(key, "more bytes", f"at most {limits.list_bytes} (limits: list_bytes)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(key, "bytes that are no UTF-8", "text lines or a JSON array of strings") from None
    if text.lstrip().startswith("["):
        entries = _json_entries(key, text)
    else:
        entries = [entry for line in text.splitlines() if (entry := line.partition("#")[0].strip())]
    if len(entries) > limits.list_entries:
        found = f"{len(entries)} entries"
        raise ConfigurationError(key, found, f"at most {limits.list_entries} (limits: list_entries)")
    return entries


def _json_entries(key: str, text: str) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(key, f"no such JSON ({error})", "an array of strings") from None


def under(key: str, error: ConfigurationError, where: str = "") -> ConfigurationError:
    """Return *error* under *key*, its find told as standing *where*."""
    found = f"{error.found} in {where}" if where else error.found
    return ConfigurationError(key, found, error.expected, error.nearest)
