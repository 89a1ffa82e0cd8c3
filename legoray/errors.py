"""Errors that a user can act on.

An `InputError` is the user's mistake (a file, a key, a value): the command line prints it without
a traceback and exits with code 2. Everything else that is raised is a defect of LegoRay.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what is wrong, and what to do about it."""

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text


class InputError(Exception):
    """A mistake of the user's, or several of them that were found together."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems: list[Problem] = [
            Problem("", p) if isinstance(p, str) else p for p in problems
        ]
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[Problem, ...]]:
        return type(self), tuple(self.problems)


class DamagedError(InputError):
    """A file that LegoRay wrote is damaged: going on would only repeat it, a person has to look."""


class InfeasibleError(Exception):
    """A trial that cannot be finished as configured (out of memory, NaN loss), with its reason."""


def nearest(name: object, options: Iterable[str]) -> str | None:
    """The valid name closest to a mistyped one, or None where none is close."""
    found = difflib.get_close_matches(str(name), list(options), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(kind: str, name: object, options: Sequence[str], where: str = "") -> Problem:
    """The problem 'there is no such <kind>', with the nearest valid name or all of them."""
    close = nearest(name, options)
    hint = f"did you mean '{close}'?" if close else f"known: {', '.join(sorted(options))}"
    return Problem(where, f"there is no {kind} '{name}'", hint)
