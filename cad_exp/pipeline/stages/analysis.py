"""What an analysis found: its table, its metrics, what to draw, and its verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.evaluation.analyses import ANALYSES
from cad_exp.models.model_folder import read_index
from cad_exp.models.sources import locate
from cad_exp.pipeline.stage import Chosen, Stage, Tick
from cad_exp.pipeline.stages.activations import Activations, Encoded
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.pipeline.stages.model import Model
from cad_exp.representations import UNREAD, unread
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from cad_exp.data.labelled import Labelled
    from cad_exp.evaluation.analyses.base import Findings
    from cad_exp.pipeline.runtime import Runtime

TABLE, TOLD, ARRAYS = "analysis.parquet", "findings.json", "views.npz"


@dataclass(frozen=True, eq=False)
class Analysis(Stage["Findings"]):
    """One analysis of a model over labelled images.

    timesteps: at which it looks. activations: of the images in parts; empty where it asks for none. seed: of everything
    random in it. batch_size: rows of a forward pass.
    """

    folder: ClassVar[str] = "analysis"
    model: Model
    images: tuple[LabelledImages, ...]
    activations: tuple[Activations, ...]
    analysis: Chosen
    timesteps: tuple[int, ...]
    seed: int
    batch_size: int

    def requires(self) -> None:
        """Check the settings against the labels of the images, and that these have what is needed."""
        made = ANALYSES.make(self.analysis.settings)
        folder = locate(self.model.path)
        denoiser = read_index(folder).get("transformer") if folder and made.reads_attention else None
        if denoiser and denoiser[1] in UNREAD:
            raise UserError(unread(self.model.name))
        given = self.images[0].given()
        if made.needs_masks and not given.masked:
            raise UserError(
                f"analysis={self.analysis.name} needs images whose objects' masks are known, and this source has "
                "none: take images=world"
            )
        made.check(given.classes())

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Look, and write down what is found."""
        import torch

        from cad_exp.evaluation.analyses import views
        from cad_exp.evaluation.analyses.base import Given

        analysis = ANALYSES.make(self.analysis.settings)
        latents = torch.cat([runtime.get(Encoded(self.model, part)) for part in self.images])
        numbers = [number for part in self.images for number in range(part.first, part.first + part.count)]
        found = analysis.find(
            Given(
                model=runtime.get(self.model),
                images=self._labelled(runtime),
                classes=self.images[0].given().classes(),
                numbers=numbers,
                latents=latents,
                timesteps=self.timesteps,
                activations=self._joined(runtime),
                seed=self.seed,
                batch_size=self.batch_size,
                tick=tick,
            )
        )
        found.table.to_parquet(folder / TABLE)
        told = {"metrics": found.metrics, "views": views.save(found.views, folder / ARRAYS), "verdict": found.verdict}
        (folder / TOLD).write_text(json.dumps(told), encoding="utf-8")

    def load(self, runtime: Runtime, folder: Path) -> Findings:
        """Read what was found."""
        import pandas as pd

        from cad_exp.evaluation.analyses import views
        from cad_exp.evaluation.analyses.base import Findings

        told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
        drawn = views.load(told["views"], folder / ARRAYS)
        return Findings(pd.read_parquet(folder / TABLE), told["metrics"], drawn, told["verdict"])

    def _labelled(self, runtime: Runtime) -> Labelled:
        """Return the images of all parts as one."""
        import numpy as np

        from cad_exp.data.labelled import Labelled

        parts = runtime.all(self.images, "images")
        labels = {name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels}
        captions = [caption for part in parts for caption in part.captions]
        masks = [part.masks for part in parts if part.masks is not None]
        found = np.concatenate(masks) if len(masks) == len(parts) else None
        return Labelled(np.concatenate([part.images for part in parts]), labels, captions, found)

    def _joined(self, runtime: Runtime) -> dict[str, torch.Tensor]:
        """Return activations (images, timesteps, draws, ...) by hookpoint; nothing where none are asked for."""
        import torch

        if not self.activations:
            return {}
        parts = runtime.all(self.activations, self.activations[0].what)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
