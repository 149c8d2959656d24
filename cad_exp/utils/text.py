"""Text of users and of files, made harmless for the place where it is shown: terminal, Markdown, LaTeX, CSV, log.

A prompt or a results.json may hold anything: control characters that move a terminal's cursor, marks that turn the
reading direction around, HTML, formulas. Everything here is one pure function from text to text; nothing imports torch.
"""

import codecs
import os
import re
import unicodedata
from typing import Any, TextIO

_SPACE = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
# Controls (C0 but tab and line feed, C1), line separators, marks and overrides of direction, halves of a character.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)
_PLAIN = {
    "·": ".",
    "→": "->",
    "←": "<-",
    "↑": "(higher)",
    "↓": "(lower)",
    "▸": ">",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "×": "x",
    "≥": ">=",
    "≤": "<=",
    "\u00a0": " ",
    "\u202f": " ",
}
_ERRORS = "cad_exp.plain"


def escaped(char: str) -> str:
    r"""Return a character as Python writes it in ASCII: "\x1b", "\u202e", "\U0001f600"."""
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(text: Any) -> str:
    """Return the text with control characters and marks of direction written out; line breaks and tabs stay."""
    return _UNSAFE.sub(lambda found: escaped(found[0]), str(text))


def line(text: Any) -> str:
    """`safe` text on one line: breaks and tabs become one space."""
    return safe(_SPACE.sub(" ", str(text)))


def ascii_only(text: str) -> str:
    """Return the text in ASCII: an arrow as "->", other characters as `escaped` writes them."""
    return "".join(char if char < "\x80" else _PLAIN.get(char) or escaped(char) for char in text)


def markdown(text: Any) -> str:
    """Text of one line that Markdown shows as it is: no HTML, link, picture, code or emphasis."""
    return inert(re.sub(r"([\\`*])", r"\\\1", line(text)))


def inert(text: str) -> str:
    """Markdown whose HTML and links do nothing; the rest of its syntax stays."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("](", "]\\(")


def cell(value: Any) -> Any:
    """Return a value for CSV; text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    shown = safe(value)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@")) and not _number(shown) else shown


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def identifier(text: Any) -> str:
    """Letters, digits, ".", "-" and "_" of a text; accents are taken off, any other run of characters becomes "_"."""
    plain = unicodedata.normalize("NFKD", str(text)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", plain).strip("_") or "_"


def wants_ascii(stream: TextIO) -> bool:
    """Whether a stream should get ASCII: it can encode nothing else, or the user's locale is C, or its terminal dumb.

    Python writes UTF-8 in the C locale (PEP 538, 540), which such a terminal need not understand.
    """
    if not (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith(("utf", "cp65001")):
        return True
    if os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8"):
        return False
    asked = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return asked in ("C", "POSIX") or (os.environ.get("TERM") == "dumb" and stream.isatty())


def prepare(stream: TextIO) -> None:
    """From now on the stream shows a stand-in for what it cannot encode, instead of raising UnicodeEncodeError."""
    if not hasattr(stream, "reconfigure"):  # a notebook's, or a test's
        return
    if wants_ascii(stream) and stream.encoding.lower().startswith("utf"):
        stream.reconfigure(encoding="ascii", errors=_ERRORS)
    elif stream.errors != _ERRORS:
        stream.reconfigure(errors=_ERRORS)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ascii_only(error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _stand_in)
