"""Judges: networks that say what an image shows. They see images only, never the model that made them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cad_exp.utils.errors import choose
from cad_exp.utils.registry import Registry, chosen

if TYPE_CHECKING:
    from cad_exp.evaluation.judges.base import Judge

NOBODY = "none"  # the option of the group `judge` without a judge
JUDGES = Registry("judge", {"real": "cad_exp.evaluation.judges.real:RealJudge"})


def judge_class(settings: dict[str, Any]) -> type[Judge] | None:
    """Return the class that the group `judge` of a config chooses; None for nobody. UserError for an unknown one."""
    if settings["name"] in (None, NOBODY):
        return None
    if chosen(settings) not in JUDGES and "." not in chosen(settings):
        choose(settings["name"], [*JUDGES, NOBODY], "judge")
    found: type[Judge] = JUDGES.of(settings)
    return found


def load_judge(
    name: str | None, settings: dict[str, Any] | None = None, parts: dict[str, Path] | None = None, device: str = "cpu"
) -> Judge | None:
    """Load a judge by name; None for none. UserError for an unknown name or missing weights.

    settings: the config's group `judge`; parts: where the weights of its parts are (`Judge.at_hand`).
    """
    whole = {**(settings or {}), "name": name}
    cls = judge_class(whole)
    return None if cls is None else cls.load(whole, parts or {}, device)
