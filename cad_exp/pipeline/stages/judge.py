"""The judge of a run: who says what an image shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cad_exp.data import image_folder
from cad_exp.evaluation.judges import judge_class, load_judge
from cad_exp.evaluation.labels import check_label
from cad_exp.pipeline.stage import NO_KEY, Chosen, Derived
from cad_exp.utils import console

if TYPE_CHECKING:
    from cad_exp.evaluation.judges.base import Judge as AnyJudge
    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Judge(Derived["AnyJudge"]):
    """The judge that a config chooses.

    Its key names what its answers depend on; thresholds, which are applied afterwards, do not belong to it.
    config: of the run, which decides what the judge is asked, and so which of its parts are needed.
    """

    chosen: Chosen
    config: dict[str, Any] = field(metadata=NO_KEY)

    def requires(self) -> None:
        """Check that the judge knows the concept's label, and that the weights and images that it needs are there."""
        check_label(self.config)
        judge = self._class()
        judge.at_hand(self.config)
        for folder, key, least in judge.folders(self.config):
            image_folder.check_and_tell(folder, key, least)

    def inputs(self, runtime: Runtime) -> Any:
        """Return libraries, weights and resolution."""
        return runtime.get(self).identity

    def derive(self, runtime: Runtime) -> AnyJudge:
        """Return the judge, whose networks are loaded when it is first asked."""
        places, lacking = self._class().at_hand(self.config)
        for what in lacking:
            console.say(f"  {what}", style="yellow")
        settings = self.chosen.settings
        made = load_judge(settings["name"], settings, places, str(runtime.device))
        assert made is not None
        return made

    def _class(self) -> type[AnyJudge]:
        found = judge_class(self.chosen.settings)
        assert found is not None
        return found
