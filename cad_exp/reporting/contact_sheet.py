"""How a run shows its images to people: their file names, and which of them stand on the sheet of before and after."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

import numpy as np

from cad_exp.data.requests import ImageRequest

PER_PROMPT = 4  # pictures of each prompt on the sheet
PROMPTS = 8  # of the retention prompts on the sheet


def file_name(request: ImageRequest) -> str:
    """`concept/a_photo_of_a_church-0000100000.png`, and with the row of a prompt set `concept/...-17-0000001174.png`.

    The same image of two variants has the same name; two requests of a run never have.
    """
    words = "_".join("".join(c if c.isalnum() else " " for c in request.prompt).split())[:60]
    words = words.encode()[:90].decode(errors="ignore")  # file systems count 255 bytes, not characters
    row = quote(request.row, safe="")
    if len(row) > 60:
        row = f"{row[:40]}-{sha256(row.encode()).hexdigest()[:16]}"
    return f"{request.purpose}/{words}{row and f'-{row}'}-{request.seed:010d}.png"


def choice(requests: list[ImageRequest]) -> dict[str, list[int]]:
    """Choose a few requests of one size, as prompt -> numbers: the concept's and an even choice of the others."""
    rows: dict[str, list[int]] = {}
    for index, request in enumerate(requests):
        same = rows.setdefault(request.prompt, [])
        if not same or requests[same[0]].size == request.size:
            same.append(index)
    concept = list(dict.fromkeys(s.prompt for s in requests if s.purpose == "concept"))
    mine = set(concept)
    others = [prompt for prompt in rows if prompt not in mine]
    even = np.linspace(0, len(others) - 1, min(PROMPTS, len(others))).round().astype(int)
    return {prompt: rows[prompt][:PER_PROMPT] for prompt in [*concept[:3], *(others[index] for index in even)]}
