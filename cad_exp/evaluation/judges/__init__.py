"""Judges: networks that say what an image shows. They see images only, never the model that made them.

`MiniJudge` is the embedded one, `RealJudge` a composite of the published ones; `Judge` is what both offer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cad_exp.evaluation.judges.base import Judge
from cad_exp.evaluation.judges.mini import MiniJudge
from cad_exp.evaluation.judges.real import RealJudge
from cad_exp.utils.errors import choose

__all__ = ["Judge", "MiniJudge", "RealJudge", "load_judge"]
NAMES = ("mini", "real", "none")


def load_judge(
    name: str | None, settings: dict[str, Any] | None = None, parts: dict[str, Path] | None = None, device: str = "cpu"
) -> Judge | None:
    """A judge by name, or None for none. UserError for an unknown name or missing weights.

    settings: the config's group `judge`, and parts: where the weights of the parts are (judge_files.at_hand), of real.
    """
    if name is None or choose(name, NAMES, "judge") == "none":
        return None
    return MiniJudge() if name == "mini" else RealJudge(settings or {}, parts or {}, device)
