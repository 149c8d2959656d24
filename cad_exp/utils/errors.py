"""Errors that are addressed to a person: one sentence that says what is wrong and what to do."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

# words that YAML and Hydra read as no text
NOTHING = ("null", "none", "~", "false", "off", "no", "n")
OTHER = ("nan", ".nan", "inf", ".inf", "-inf", "-.inf", "true", "on", "yes", "y")
LONGEST = 100  # characters of a name that are compared: more would take minutes


class UserError(Exception):
    """A mistake that the user can mend: its message is a sentence that says what is wrong and what to do.

    The command line prints the message without a traceback.

    Examples:
        >>> try:
        ...     cad_exp.compose(["concept=chruch"])
        ... except cad_exp.UserError as error:
        ...     print("church" in str(error))
        True
    """


def reason_of(error: BaseException, most: int = 150) -> str:
    """Return what another library's error says, in one line and without the names of its classes."""
    said = " ".join(str(error).split())
    if isinstance(error, KeyError):
        said = f"{said} is missing"
    # torch's, before what does not fit
    said = re.sub(r"^Error\(s\) in loading state_dict for \w+: ?", "", said)
    return said[:most].strip() or "it gives no reason"


def choose(name: str, options: Iterable[str], what: str) -> str:
    """Return `name` if it is one of `options`; else raise a UserError with the closest option and the whole list."""
    options = [str(option) for option in options]
    if name in options:
        return name
    close = closest(name, options)
    hint = f"did you mean '{close}'? " if close else ""
    raise UserError(f"unknown {what} '{name}': {hint}There are: {', '.join(options)}")


def closest(name: object, options: Iterable[str]) -> str | None:
    """Return the option that a misspelt name may mean; None where no option is near.

    A number is no slip of a name. A word for nothing means the option for nothing, not one with like letters.
    """
    word, options = str(name).strip().lower(), list(options)
    if word in NOTHING:
        return next((option for option in ("none", "disabled") if option in options), None)
    if word in OTHER or re.fullmatch(r"[-+\d.,:e_]*", word):  # also 2024-01-01
        return None
    close = get_close_matches(str(name)[:LONGEST], options, n=1, cutoff=0.5)
    return close[0] if close else None


def not_finite(what: str, precision: str | None, cause: str = "") -> UserError:
    """Return an error for numbers that are NaN or infinite: `what` they are, and what helps.

    precision: of the run, fp32, bf16 or fp16; None where it is not known. cause: what is at fault, where that is known.
    """
    if cause:
        return UserError(f"{what}: {cause}")
    if precision != "fp32":
        return UserError(f"{what}: half precision overflows, use runtime.precision=fp32")
    return UserError(f"{what}, in fp32: numbers grow without bound, use a smaller edit.factor or other weights")


def out_of_memory(error: Exception, config: dict[str, Any]) -> str | None:
    """Return what to do when it says that a GPU's memory does not suffice for a run of this config.

    None for another error.
    """
    if type(error).__name__ != "OutOfMemoryError":  # torch's; to name its class would load torch
        return None
    runtime, images = config["runtime"], config["evaluation"]
    return (
        "the GPU's memory does not suffice: choose a smaller "
        f"runtime.batch_size (noisy latents, now {runtime['batch_size']}) or evaluation.batch_size (images, now "
        f"{images['batch_size']}) and give the same command again, it continues; "
        f"python -m cad_exp memory model={config['model']['name']} says what attribution needs"
    )
