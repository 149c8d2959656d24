"""Errors that are addressed to a person: one sentence that says what is wrong and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its message without a traceback."""


def choose(name: str, options: Iterable[str], what: str) -> str:
    """Return `name` if it is one of `options`; else raise a UserError with the closest option and the whole list."""
    options = [str(option) for option in options]
    if name in options:
        return name
    close = get_close_matches(str(name), options, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UserError(f"unknown {what} '{name}': {hint}There are: {', '.join(options)}")
