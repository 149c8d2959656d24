"""Edits of methods that give whole weights new values, and a random change of the same size beside each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Chosen, Derived, Stage, Tick
from cad_exp.pipeline.stages.model import Model
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import file_digest
from cad_exp.utils.paths import find_file

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.runtime import Runtime

VARIANTS = ("edited", "random")


@dataclass(frozen=True, eq=False)
class GivenFile(Derived[Path]):
    """A file that a config's key names; its content counts."""

    path: str
    named_by: str

    def requires(self) -> None:
        """Check that the file is there."""
        find_file(self.path, self.named_by)

    def inputs(self, runtime: Runtime) -> str:
        """Return the digest of the content."""
        return file_digest(find_file(self.path, self.named_by))

    def derive(self, runtime: Runtime) -> Path:
        """Return the path."""
        return find_file(self.path, self.named_by)


@dataclass(frozen=True, eq=False)
class Replacement(Stage["dict[str, Edit]"]):
    """The edit of a method that needs no scores, and a random change of equal size, drawn with `seed`.

    file: published weights, for the method that reads them.
    """

    folder: ClassVar[str] = "replacements"
    model: Model
    method: Chosen
    seed: int
    file: GivenFile | None = None

    @property
    def what(self) -> str:
        """The method's name."""
        return self.method.name

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Run the method, and write both edits."""
        from cad_exp.interventions.methods import replace_weights
        from cad_exp.interventions.methods.control import perturbation

        model = runtime.get(self.model)
        edit = replace_weights(self.method.settings, model, runtime.unfinished(self), tick)
        edit.save(folder / "edited.safetensors")
        perturbation(edit, model, self.seed).save(folder / "random.safetensors")

    def load(self, runtime: Runtime, folder: Path) -> dict[str, Edit]:
        """Read both edits. UserError where the method changes nothing."""
        from cad_exp.interventions.edit import Edit

        edits = {variant: Edit.load(folder / f"{variant}.safetensors") for variant in VARIANTS}
        if not (edits["edited"].meta["changed"] or edits["edited"].steering):
            raise UserError(f"edit={self.method.name} changes no weight of this model: there is nothing to evaluate")
        return edits


@dataclass(frozen=True, eq=False)
class ReplacedWeights(Derived["Edit"]):
    """One of the two edits of a replacement: `edited` or `random`."""

    replacement: Replacement
    variant: str

    def derive(self, runtime: Runtime) -> Edit:
        """Return the edit."""
        return runtime.get(self.replacement)[self.variant]
