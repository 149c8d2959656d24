"""Whether a judge knows a concept's label, asked before any judge or torch is loaded.

A label like a known one is a slip, which would silently cost the concept rate, and is refused. Any other label may be
meant: then the run says that nobody can judge it.
"""

from __future__ import annotations

import ast
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cad_exp.utils import console
from cad_exp.utils.errors import UserError

KINDS = ("object", "style", "nudity", "clothed")  # what a label can be of
SHOWN = 20  # labels that a message lists
ALIKE = 0.8  # of difflib's ratio: "chruch" is a slip of "church", "teapot" is not one of "parachute"


def check_label(config: dict[str, Any]) -> None:
    """UserError, of a settled config, for a misspelt label; says so where its judge does not know what is asked for."""
    concept, judge = config["concept"], config["judge"]["name"]
    label, kind = concept["label"], concept["kind"]
    if not label or judge is None or not _asked(config):
        return
    if kind not in KINDS:
        kinds = " or ".join(KINDS[:3])
        raise UserError(f"concept.label={label} needs concept.kind={kinds}, not {kind}: set it, or concept.label=null")
    known = _mini(kind) if judge == "mini" else _imagenet() if kind == "object" else None
    if known and label not in known:
        what = ", ".join(known) if len(known) <= SHOWN else f"the {len(known):,} ImageNet classes of torchvision"
        told = f"judge={judge} knows no {kind} '{label}'"
        if like := _like(str(label), known):
            raise UserError(f"concept.label: {told}: did you mean '{like}'? It knows {what} (null: no label)")
        if config["objective"]["name"] == "judge" or (config["evaluation"]["fidelity"] or {}).get("images"):
            raise UserError(f"concept.label: {told}, and the run needs its answer: it knows {what}")
        console.say(f"  {told}, so there is no concept rate: it knows {what}", style="yellow")


def _like(label: str, known: list[str]) -> str | None:
    """The known label that this one is a slip of: other capitals, a letter or two."""
    lower = {name.lower(): name for name in known}
    close = get_close_matches(label.strip().lower().replace("_", " "), lower, n=1, cutoff=ALIKE)
    return lower[close[0]] if close else None


def _asked(config: dict[str, Any]) -> bool:
    """Whether a metric, the objective or the study of images asks the judge for the label."""
    images = (config["evaluation"]["fidelity"] or {}).get("images")
    return "erasure" in config["evaluation"]["metrics"] or config["objective"]["name"] == "judge" or bool(images)


def _mini(kind: str) -> list[str] | None:
    from cad_exp.mini.world import LABELS, STYLES

    return {"object": LABELS, "style": STYLES}.get(kind)


def _imagenet() -> list[str] | None:
    """torchvision's names of the 1,000 classes, read from its source; None where they are not found there."""
    package = find_spec("torchvision")
    place = Path(package.origin).parent / "models" / "_meta.py" if package and package.origin else None
    if place is None or not place.is_file():
        return None
    for node in ast.parse(place.read_text(encoding="utf-8")).body:
        targets = [getattr(target, "id", "") for target in getattr(node, "targets", [])]
        if "_IMAGENET_CATEGORIES" in targets:
            return list(ast.literal_eval(node.value))
    return None
