"""Where a page may be written: into a folder of ours, or over an earlier page of ours; whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from cad_exp.reporting.html.render import GENERATOR
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import atomic

MARK = f'<meta name="generator" content="{GENERATOR}">'
HEAD = 4_000  # bytes in which the mark stands


def check(path: Path) -> None:
    """Raise UserError where something lies at the path that is no page of ours."""
    if not os.path.lexists(path):
        return
    try:
        with open(path, "rb") as file:
            ours = not path.is_symlink() and MARK.encode() in file.read(HEAD)
    except OSError:
        ours = False
    if not ours:
        raise UserError(
            f"'{path}' is no report of cad_exp and would be overwritten: move it, or give another file (--to)"
        )


def save(text: str, path: Path) -> Path:
    """Write a page. UserError where another file would be lost, or the folder cannot be written."""
    check(path)
    try:
        with atomic(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"'{path}' cannot be written ({error.strerror}): give another file (--to)") from None
    return path
