"""Names that become part of a path: of concepts and granularities, which name the folder of a run."""

from __future__ import annotations

import unicodedata

from cad_exp.utils.errors import UserError

LONGEST = 100  # bytes: file systems take 255 for a name, and a folder's has more parts
FORBIDDEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, half characters, line and paragraph separators


def check_name(name: object, key: str) -> str:
    """Return the name if it can stand in a path as it is; raise UserError, which names the key, otherwise."""
    text = "" if name is None else str(name)
    if not text.strip():
        raise UserError(f"{key} is empty: give it a name, for it names the run's folder")
    reason = None
    if "/" in text or "\\" in text:
        reason = "slashes and backslashes are not for names"
    elif text.startswith("."):
        reason = "it begins with a dot"
    elif any(unicodedata.category(letter) in FORBIDDEN for letter in text):
        reason = "it holds a control character"
    elif text != text.strip():
        reason = "it begins or ends with a space"
    elif len(text.encode()) > LONGEST:
        reason = f"it is longer than {LONGEST} bytes"
    if reason:
        raise UserError(
            f"{key}={ascii(text[:40])} cannot name the run's folder ({reason}): use letters, digits, - and _"
        )
    return text
