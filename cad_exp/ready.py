"""Whether what a run cannot do without is at hand: first its model, then its judges.

Asked before anything heavy is imported, so that a command that cannot work is answered within seconds.
"""

from __future__ import annotations

from typing import Any

from cad_exp.judge_files import at_hand, reference_place, wanted
from cad_exp.model_files import check_reachable


def check(config: dict[str, Any]) -> None:
    """UserError, of a settled config, for a model that cannot be had, or else for all judges that cannot."""
    check_reachable(config["model"]["path"], config["model"]["revision"])
    judge = config["judge"]
    if judge["name"] == "real":
        names = wanted(config)
        at_hand(judge, names)
        if "inception" in names and judge["inception"]["reference"] is not None:
            reference_place(judge["inception"]["reference"])
