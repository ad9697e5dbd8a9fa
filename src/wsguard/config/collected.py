"""All errors of a configuration at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class CollectedErrors:
    """Collects errors, so that a person fixes them in one go."""

    def __init__(self) -> None:
        self.all: list[ConfigurationError] = []

    def attempt(self, make: Callable[[], T]) -> T | None:
        """Return what *make* makes, or keep its error and return None."""
        try:
            return make()
        except ConfigurationErrors as errors:
            self.all.extend(errors.errors)
        except ConfigurationError as error:
            self.all.append(error)
        return None

    def tell(self) -> None:
        """Raise ConfigurationErrors if there are any."""
        if self.all:
            raise ConfigurationErrors(self.all)
