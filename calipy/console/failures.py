"""How a failure is told to people: what object, which value, why, and what to do. The one place for all commands."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from typing import TextIO

from calipy.resources.metadata import Problem, Refused


class Failure(Exception):
    """A command can't do what it was asked: the object, the value in question if there is one, why, what to do."""

    def __init__(self, what: str, reason: str, remedy: str, *, value: object = None) -> None:
        self.what, self.reason, self.remedy, self.value = what, reason, remedy, value
        stands = "" if value is None else f" {value!r}"
        super().__init__(f"{what}{stands}: {reason}; {remedy}")


class Failures(Exception):
    """Several failures at once."""

    def __init__(self, failures: Iterable[Exception]) -> None:
        self.failures = tuple(failures)
        super().__init__("; ".join(map(str, self.failures)))


class Told(Exception):
    """Base of failures whose message says all by itself."""


def tell(error: BaseException, stream: TextIO, *, debug: bool = False) -> None:
    """Prints a failure, each of several; the traceback only with `debug`."""
    if debug:
        stream.writelines(traceback.format_exception(error))
    stream.writelines(f"{line}\n" for line in lines(error))
    stream.flush()


def lines(error: BaseException) -> Iterator[str]:
    """The lines of a failure, without a traceback."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from lines(part)
    elif isinstance(error, Failures):
        for failure in error.failures:
            yield from lines(failure)
    elif isinstance(error, Refused):
        yield from refusal(error.what, error.problems)
    elif type(error).__module__.startswith("calipy."):
        # Our own errors name object, reason and remedy by themselves.
        yield f"error: {error}"
    elif isinstance(error, OSError) and error.filename is not None:
        yield f"error: {error.filename}: {error.strerror}"
    else:
        # Not foreseen: a fault of ours, or one that nobody has put into words yet.
        yield f"error: {type(error).__name__}: {error} (--debug shows where)"


def refusal(what: str, problems: Iterable[Problem]) -> Iterator[str]:
    """A refused object and, a line each, its problems."""
    yield f"error: {what} is refused:"
    for problem in problems:
        value = "" if problem.value in ("", None) else f" {problem.value!r}"
        yield f"  {problem.field}{value}: {problem.reason}; {problem.remedy}"
