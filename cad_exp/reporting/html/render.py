"""From templates to one page: everything is escaped, and the page's policy lets it load nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from math import floor, log10
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cad_exp import __version__
from cad_exp.utils.text import safe

GENERATOR = "cad_exp report"  # in the head of every page: by it we know our own again


def page(template: str, **content: Any) -> str:
    """Return a whole page. content: what the template names; any text of it is shown as it is."""
    style, script = (_own(name) for name in ("style.css", "script.js"))
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'"
    fixed = {"style": Markup(style), "script": Markup(script), "policy": policy}
    made = environment().get_template(template).render(generator=GENERATOR, version=__version__, **fixed, **content)
    return made + "\n"


def part(template: str, **content: Any) -> Markup:
    """Return one part of a page, which the page shows as it is."""
    return Markup(environment().get_template(template).render(**content))


@cache
def environment() -> Environment:
    """Return the templates of this package, with everything escaped that is not markup already."""
    made = Environment(
        loader=PackageLoader("cad_exp.reporting.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    made.filters |= {"number": number, "signed": signed, "share": share, "superscript": superscript}
    made.globals |= {"places": places}
    return made


DIGITS = 3  # decimals of a number
MOST_DIGITS = 6  # what is smaller still stands in powers of ten


def number(value: float | None, digits: int = DIGITS) -> str:
    """Write a number with three decimals below 10, one from there on; a dash for nothing."""
    if value is None or value != value:
        return "–"
    if value and digits > MOST_DIGITS and abs(value) < 10**-MOST_DIGITS:
        return f"{value:.0e}".replace("-", "−")
    digits = min(digits, MOST_DIGITS)
    text = f"{value:z.{digits}f}" if abs(value) < 10 else f"{value:z,.1f}" if abs(value) < 1e6 else f"{value:.2e}"
    return text.replace("-", "−")


def signed(value: float | None, digits: int = DIGITS) -> str:
    """Write a number with its sign; a small one with as many decimals as it needs not to be 0."""
    if value is None or value != value:
        return "–"
    digits = max(digits, _needed(value))
    return (f"{value:+.0e}" if digits > MOST_DIGITS else f"{value:+z.{digits}f}").replace("-", "−")


def places(value: float | None, low: float | None, high: float | None, change: bool = False) -> int:
    """Return the decimals with which a value and its interval are written.

    Nothing is written as 0 of which the interval says that it is something else. change: nor is any change.
    """
    ends = [end for end in (low, high) if end is not None and end == end]
    apart = len(ends) == 2 and (ends[0] > 0 or ends[1] < 0)
    shown = [*ends, value] if apart else [value] if change or not ends else []
    return max([DIGITS, *(_needed(each) for each in shown if each is not None and each == each)])


def _needed(value: float) -> int:
    """Return the decimals that a number needs not to be written as 0."""
    return -floor(log10(abs(value))) if 0 < abs(value) < 0.5 * 10**-DIGITS else DIGITS


def share(value: float | None) -> str:
    """Write a share in percent, with one decimal below ten."""
    if value is None or value != value:
        return "–"
    return f"{100 * value:.{0 if abs(value) >= 0.1 or not value else 1}f} %"


def superscript(power: int) -> str:
    """Write a whole number in raised digits."""
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _harmless(value: Any) -> Any:
    """Write out control characters and marks of direction: whatever a prompt holds, it turns nothing around."""
    return safe(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _own(name: str) -> str:
    loader = environment().loader
    assert loader is not None
    return loader.get_source(environment(), name)[0]


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
