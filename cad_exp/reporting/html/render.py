"""From templates to one page: everything is escaped, and the page's policy lets it load nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
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
    return made


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with three decimals below 10, one from there on; a dash for nothing."""
    if value is None or value != value:
        return "–"
    text = f"{value:z.{digits}f}" if abs(value) < 10 else f"{value:z,.1f}" if abs(value) < 1e6 else f"{value:.2e}"
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """Write a number with its sign, small ones in powers of ten."""
    if value is None or value != value:
        return "–"
    small = value and abs(value) < 0.5 * 10**-digits
    return (f"{value:+.1e}" if small else f"{value:+.{digits}f}").replace("-", "−")


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
