"""The judges of a run: who says what an image shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cad_exp.evaluation.judge_sources import at_hand
from cad_exp.pipeline.stage import Derived
from cad_exp.utils import console

if TYPE_CHECKING:
    from cad_exp.evaluation.judges import Judge as AnyJudge
    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Judge(Derived):
    """A judge as the group `judge` of a config names it; parts: those of the published ones that the run needs.

    Its key names what its answers depend on; thresholds, which are applied afterwards, do not belong to it.
    """

    settings: dict[str, Any]
    parts: tuple[str, ...] = ()

    def requires(self) -> None:
        """Check that the weights of the parts are there."""
        if self.parts:
            at_hand(self.settings, list(self.parts))

    def inputs(self, runtime: Runtime) -> Any:
        """Return libraries, weights and resolution."""
        return runtime.get(self).identity

    def derive(self, runtime: Runtime) -> AnyJudge:
        """Return the judge, whose networks are loaded when it is first asked."""
        from cad_exp.evaluation.judges import load_judge

        places, lacking = at_hand(self.settings, list(self.parts)) if self.parts else ({}, {})
        for what in lacking.values():
            console.say(f"  without {what}", style="yellow")
        made = load_judge(self.settings["name"], self.settings, places, str(runtime.device))
        assert made is not None
        return made
