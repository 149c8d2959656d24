"""Text in pictures: never read as mathematics, in fonts that have its characters, or with stand-ins for these.

matplotlib takes `$...$` for a formula, draws a box for what its font lacks, and warns. `letter` mends a whole figure;
`wrapped` breaks text of any script into lines.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.cells import cell_len, chop_cells

from cad_exp.utils import text

BASE = "DejaVu Sans"  # comes with matplotlib
PREFERRED = (
    "Noto Sans CJK",
    "Noto Sans",
    "Source Han Sans",
    "Hiragino Sans",
    "PingFang",
    "Microsoft YaHei",
    "Noto Emoji",
)
_INVISIBLE = ("Mn", "Cf")  # joiners and variants of a character that is not drawn either


def letter(figure: Figure) -> None:
    """Let every text of a figure be plain text in fonts that hold its characters; others get a stand-in."""
    found = figure.findobj(Text)
    families = fonts("".join(each.get_text() for each in found))
    for each in found:
        each.set_parse_math(False)
        each.set_fontfamily(families)
        if each.get_text() and (shown := readable(each.get_text())) != each.get_text():
            each.set_text(shown)


def readable(words: str) -> str:
    r"""Write text as pictures show it: what no font here holds as ":church:" (signs) or "\u4e2d" (letters)."""
    words = text.safe(words)
    missing = set(words) - {"\n", "\t"} - _held(fonts(words))
    return "".join(_stand_in(char) if char in missing else char for char in words)


def wrapped(words: str, width: int, lines: int) -> str:
    """Break the text into at most `lines` lines of `width` columns (a Chinese character takes two).

    It ends in "..." where it is cut.

    Words longer than a line are broken; of nothing at all it says so.
    """
    rows: list[str] = []
    for word in readable(text.line(words)).split() or ["(no", "words)"]:
        for part in chop_cells(word, width // 2) if cell_len(word) > width else [word]:  # capitals are wide
            if rows and cell_len(rows[-1]) + 1 + cell_len(part) <= width:
                rows[-1] += f" {part}"
            else:
                rows.append(part)
    if len(rows) > lines:
        rows = [*rows[: lines - 1], chop_cells(rows[lines - 1], width - 4)[0].rstrip() + " ..."]
    return "\n".join(rows)


def fonts(words: str) -> list[str]:
    """Return the families in which to look for the text's characters, one after the other."""
    missing, chosen = set(words) - _characters(BASE), [BASE]
    for family in _installed() if missing else ():
        if missing & _characters(family):
            chosen.append(family)
            missing -= _characters(family)
        if not missing:
            break
    return chosen


def _held(families: list[str]) -> set[str]:
    return set().union(*(_characters(family) for family in families))


@cache
def _installed() -> dict[str, str]:
    """Families of outline fonts on this machine and their files, those for many scripts first; none for formulas."""
    own = Path(matplotlib.get_data_path())
    found: dict[str, str] = {}
    for font in font_manager.fontManager.ttflist:
        upright = font.style == "normal" and font.weight in ("normal", "regular", 400)
        drawable = "Last Resort" not in font.name and "Color" not in font.name
        if upright and drawable and (font.name == BASE or own not in Path(font.fname).parents):
            found.setdefault(font.name, font.fname)
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith(PREFERRED)))


@cache
def _characters(family: str) -> frozenset[str]:
    """Return the characters of a family; none of a font that cannot be read."""
    try:
        return frozenset(map(chr, font_manager.get_font(_installed()[family]).get_charmap()))
    except (OSError, RuntimeError, ValueError, KeyError):
        return frozenset()


def _stand_in(char: str) -> str:
    category = unicodedata.category(char)
    if category in _INVISIBLE or 0xFE00 <= ord(char) <= 0xFE0F:
        return ""
    name = unicodedata.name(char, "") if category in ("So", "Sk", "Sm") else ""
    return f":{name.lower().replace(' ', '_')}:" if name else text.escaped(char)
