"""How a run shows its images to people: their file names, and which of them stand on the sheet of before and after."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

import numpy as np

from cad_exp.data.requests import Shot

PER_PROMPT = 4  # pictures of each prompt on the sheet
PROMPTS = 8  # of the retention prompts on the sheet


def file_name(shot: Shot) -> str:
    """`concept/a_photo_of_a_church-0000100000.png`, and with the row of a prompt set `concept/...-17-0000001174.png`.

    The same image of two variants has the same name; two shots of a run never have.
    """
    words = "_".join("".join(c if c.isalnum() else " " for c in shot.prompt).split())[:60]
    words = words.encode()[:90].decode(errors="ignore")  # file systems count 255 bytes, not characters
    row = quote(shot.row, safe="")
    if len(row) > 60:
        row = f"{row[:40]}-{sha256(row.encode()).hexdigest()[:16]}"
    return f"{shot.purpose}/{words}{row and f'-{row}'}-{shot.seed:010d}.png"


def choice(shots: list[Shot]) -> dict[str, list[int]]:
    """Choose a few shots of one size, as prompt -> numbers: the concept's prompts and an even choice of the others."""
    rows: dict[str, list[int]] = {}
    for index, shot in enumerate(shots):
        same = rows.setdefault(shot.prompt, [])
        if not same or shots[same[0]].size == shot.size:
            same.append(index)
    concept = list(dict.fromkeys(s.prompt for s in shots if s.purpose == "concept"))
    mine = set(concept)
    others = [prompt for prompt in rows if prompt not in mine]
    even = np.linspace(0, len(others) - 1, min(PROMPTS, len(others))).round().astype(int)
    return {prompt: rows[prompt][:PER_PROMPT] for prompt in [*concept[:3], *(others[index] for index in even)]}
