"""
Allow-lists that are kept elsewhere: in a watched file, at a polled URL, or in an async function of the app.

A policy names one in ``origins`` or ``hosts``; the guard opens it. What cannot be had allows nobody (503), and what was
had once counts until something better can be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wsguard.engine.ports import KeptList
from wsguard.identity.file_list import WatchedList
from wsguard.identity.function_list import FunctionList
from wsguard.identity.open_list import Candidate, Entries, OpenList, under
from wsguard.identity.outbound import Destination, Outbound, shown_url
from wsguard.identity.url_list import PolledList
from wsguard.vocabulary.bounds import check_bound
from wsguard.vocabulary.errors import ConfigurationError, OutboundRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wsguard.engine.ports import Clock
    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits

__all__ = ["FileList", "OpenList", "URLList", "open_list"]


@dataclass(frozen=True)
class FileList(KeptList):
    """
    The entries in the file *path*: text lines with ``#`` comments, or a JSON array of strings.

    A change counts within a second, for the next handshake. A change to something that cannot be used does not count:
    the last good list does, and the log says why.
    """

    path: str | Path


@dataclass(frozen=True)
class URLList(KeptList):
    """
    The entries at the https URL *url*, in the form of a file's, fetched every *interval* seconds (default 60).

    *ca* is a file with a CA to trust besides the system's, in place of the guard's ``outbound_ca``. The URL's host may
    have a private address: writing it here lists it. Until the list was had for the first time nobody is allowed (503);
    afterwards the last good one counts.
    """

    url: str
    interval: float | None = None
    ca: str | Path | None = None

    def __repr__(self) -> str:
        """Show the URL without userinfo and query, which may be secrets."""
        return f"URLList({shown_url(self.url)!r}, interval={self.interval!r}, ca={self.ca!r})"


def open_list(
    key: str,
    written: object,
    *,
    read: Callable[[Sequence[str]], Callable[[Candidate], bool]],
    limits: Limits,
    clock: Clock,
    log: DecisionLog,
    authority: str | Path | None = None,
) -> OpenList[Candidate]:
    """
    Open the list that is *written* under *key* (``origins`` or ``hosts``): a FileList, a URLList or an async function.

    *read* turns entries into a predicate and raises ConfigurationError for a bad one. *authority* is the CA file of
    outgoing calls, for a URLList that has none of its own. Nothing is asked over the
    network here; `OpenList.start` does that. Raises ConfigurationError for a list that cannot work: a file that cannot
    be used, a URL that is not https, an interval out of range, a missing httpx2, a function that is not async.
    """
    if isinstance(written, FileList):
        entries = Entries(key, f"file:{written.path}", read=read, limits=limits, log=log)
        return WatchedList(written.path, entries, limits=limits, clock=clock)
    if isinstance(written, URLList):
        try:
            destination = Destination.parse(written.url)
        except OutboundRefused as error:
            raise ConfigurationError(key, shown_url(written.url), f"an https URL ({error.why})") from None
        entries = Entries(key, destination.shown, read=read, limits=limits, log=log)
        return _polled(written, entries, limits, clock, authority if written.ca is None else written.ca)
    if callable(written):
        function = cast("Callable[[str], Awaitable[bool]]", written)
        return FunctionList(key, function, limits=limits, clock=clock)
    raise ConfigurationError(key, type(written).__name__, "a list, a FileList, a URLList or an async function")


def _polled(
    written: URLList, entries: Entries[Candidate], limits: Limits, clock: Clock, authority: str | Path | None
) -> PolledList[Candidate]:
    key = entries.key
    interval = limits.list_interval if written.interval is None else written.interval
    try:
        check_bound("list_interval", interval)
    except ConfigurationError as error:
        raise under(f"{key}: interval", error) from None
    try:
        outbound = Outbound(limits, authority=None if authority is None else Path(authority), clock=clock)
    except ConfigurationError as error:
        raise under(f"{key}: {'ca' if error.key == 'upstream_ca' else 'URLList'}", error) from None
    return PolledList(written.url, entries, interval=interval, outbound=outbound, limits=limits)
