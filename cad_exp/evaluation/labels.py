"""Whether a judge knows a concept's label, asked before any judge or torch is loaded.

A label like a known one is a slip, which would silently cost the concept rate, and is refused. Any other label may be
meant: then the run says that nobody can judge it.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from cad_exp.evaluation.judge_sources import asked_of_judge
from cad_exp.evaluation.judges import judge_class
from cad_exp.utils import console
from cad_exp.utils.errors import UserError

KINDS = ("object", "style", "nudity", "clothed")  # what a label can be of
SHOWN = 20  # labels that a message lists
ALIKE = 0.8  # of difflib's ratio: "chruch" is a slip of "church", "teapot" is not one of "parachute"


def check_label(config: dict[str, Any]) -> None:
    """Raise UserError for a misspelt label; warn where the judge of a config does not know what is asked for."""
    concept, judge, cls = config["concept"], config["judge"]["name"], judge_class(config["judge"])
    label, kind = concept["label"], concept["kind"]
    if not label or cls is None or not _asked(config):
        return
    if kind not in KINDS:
        kinds = " or ".join(KINDS[:3])
        raise UserError(f"concept.label={label} needs concept.kind={kinds}, not {kind}: set it, or concept.label=null")
    known = cls.known(kind)
    if known and label not in known:
        what = ", ".join(known) if len(known) <= SHOWN else f"the {len(known):,} ImageNet classes of torchvision"
        told = f"judge={judge} knows no {kind} '{label}'"
        if like := _like(str(label), known):
            raise UserError(f"concept.label: {told}: did you mean '{like}'? It knows {what} (null: no label)")
        images = (config["evaluation"]["fidelity"] or {}).get("images")
        if images or "logits" in asked_of_judge(config):
            raise UserError(f"concept.label: {told}, and the run needs its answer: it knows {what}")
        console.say(f"  {told}, so there is no concept rate: it knows {what}", style="yellow")


def _like(label: str, known: list[str]) -> str | None:
    """Return the known label that this one is a slip of: other capitals, a letter or two."""
    lower = {name.lower(): name for name in known}
    close = get_close_matches(label.strip().lower().replace("_", " "), lower, n=1, cutoff=ALIKE)
    return lower[close[0]] if close else None


def _asked(config: dict[str, Any]) -> bool:
    """Return whether a metric, the objective or the study of images asks the judge for the label."""
    return bool({"label", "logits"} & asked_of_judge(config))
