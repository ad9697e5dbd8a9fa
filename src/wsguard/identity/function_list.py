"""A list that is an async function of the app: ``async def allowed(value: str) -> bool``."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import traceback
from collections import OrderedDict
from pathlib import PurePath
from typing import TYPE_CHECKING, cast

from wsguard.identity.open_list import Candidate, OpenList
from wsguard.identity.shared_calls import CallEnded, SharedCalls, TooManyCalls
from wsguard.vocabulary.errors import ConfigurationError, ListUnavailable
from wsguard.vocabulary.host import Host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wsguard.engine.ports import Clock
    from wsguard.vocabulary.bounds import Limits

_EXPECTED = "async def allowed(value: str) -> bool"


class FunctionList(OpenList[Candidate]):
    """
    Asks *function* whether a value is allowed: the serialised origin, or the host name without its port.

    Answers are remembered for a while, at most ``limits.lookups`` of them; failures are not. Those who ask for the
    same value at one time share one call, which takes at most ``limits.list_timeout`` seconds, and at most
    ``limits.lookups_pending`` different values are asked at one time. Anything but True and False refuses.

    Raises ConfigurationError for a function that is not async.
    """

    def __init__(self, key: str, function: Callable[[str], Awaitable[bool]], *, limits: Limits, clock: Clock) -> None:
        inner = _unwrapped(function)
        self.name = f"function {getattr(inner, '__name__', type(inner).__name__)}"
        # An object with `async def __call__` is as good as a function.
        if not any(inspect.iscoroutinefunction(one) for one in (inner, getattr(inner, "__call__", None))):  # noqa: B004
            raise ConfigurationError(key, f"{self.name}, which is not async", _EXPECTED)
        self._function = function
        self._limits = limits
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()
        self._calls: SharedCalls[bool] = SharedCalls(limits.lookups_pending)

    async def allows(self, candidate: Candidate) -> bool:
        """Tell what the function says of *candidate*, or said of it a short while ago."""
        value = candidate.name if isinstance(candidate, Host) else str(candidate)
        # Hashed: a stranger chooses the text, and its length must not be what this memory costs.
        value_hash = hashlib.sha256(value.encode()).digest()
        remembered = self._answers.get(value_hash)
        if remembered is not None and self._clock() < remembered[1]:
            self._answers.move_to_end(value_hash)
            return remembered[0]
        try:
            return await self._calls.join(value_hash, lambda: self._asked(value_hash, value))
        except TooManyCalls:
            why = f"asked about {len(self._calls)} values already (lookups_pending)"
            raise ListUnavailable(self.name, why) from None
        except CallEnded:
            raise ListUnavailable(self.name, "the call was ended from outside") from None

    async def _asked(self, value_hash: bytes, value: str) -> bool:
        answer = await self._answer(value)
        if answer is not True and answer is not False:
            raise ListUnavailable(self.name, f"answered {type(answer).__name__}, which is neither True nor False")
        self._remember(value_hash, allowed=answer)
        return answer

    async def _answer(self, value: str) -> object:
        seconds = self._limits.list_timeout
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                answering = cast("object", self._function(value))
                if not inspect.isawaitable(answering):
                    raise ListUnavailable(self.name, f"is not async: it must be {_EXPECTED}")
                return await answering
        except ListUnavailable:
            raise
        except Exception as error:
            # Its text may hold secrets of the app, and the log would show it: its type and place say enough.
            if bound.expired():
                raise ListUnavailable(self.name, f"no answer within {seconds:g} s") from error
            raise ListUnavailable(self.name, f"raised {type(error).__name__}{_place(error)}") from error

    def _remember(self, value_hash: bytes, *, allowed: bool) -> None:
        seconds = self._limits.lookup_allowed if allowed else self._limits.lookup_refused
        if seconds:
            self._answers[value_hash] = (allowed, self._clock() + seconds)
            self._answers.move_to_end(value_hash)
            if len(self._answers) > self._limits.lookups:
                self._answers.popitem(last=False)


def _unwrapped(function: Callable[..., object]) -> Callable[..., object]:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    return function


def _place(error: BaseException) -> str:
    """Say in which file and line an error of the app was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
