"""What an analysis found: its table, its metrics, what to draw, and its verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.evaluation.analyses import ANALYSES
from cad_exp.models import image_encoders
from cad_exp.models.model_folder import read_index
from cad_exp.models.sources import locate
from cad_exp.pipeline.stage import NO_KEY, Chosen, Stage, Tick
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
    from cad_exp.representations.image_encoder import ImageEncoder

TABLE, TOLD, ARRAYS = "analysis.parquet", "findings.json", "views.npz"
ENCODER_KEY = "analysis.image_encoder"


@dataclass(frozen=True, eq=False)
class Analysis(Stage["Findings"]):
    """One analysis of a model over labelled images.

    timesteps: at which it looks. activations: of the images in parts; empty where it asks for none. untrained: the same
    of a network with random weights. seed: of everything random in it. batch_size: rows of a forward pass. encoder:
    folder or hub id of a CLIP whose image tower it asks; None: it asks none.
    """

    folder: ClassVar[str] = "analysis"
    model: Model
    images: tuple[LabelledImages, ...]
    activations: tuple[Activations, ...]
    untrained: tuple[Activations, ...]
    analysis: Chosen
    timesteps: tuple[int, ...]
    seed: int
    batch_size: int
    encoder: str | None = field(default=None, metadata=NO_KEY)

    def requires(self) -> None:
        """Check the settings against the labels of the images, and that all that is needed can be had."""
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
        if self.encoder is not None:
            image_encoders.check(self.encoder, ENCODER_KEY)

    def inputs(self, runtime: Runtime) -> Any:
        """Return the fields, and the image encoder's content in place of its name."""
        content = None if self.encoder is None else image_encoders.content(self.encoder)
        return super().inputs(runtime) | {"encoder": content}

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Look, and write down what is found."""
        import torch

        from cad_exp.evaluation.analyses import views
        from cad_exp.evaluation.analyses.base import Given

        analysis = ANALYSES.make(self.analysis.settings)
        latents = torch.cat(runtime.all([Encoded(self.model, part) for part in self.images], "encoded images"))
        numbers = [number for part in self.images for number in range(part.first, part.first + part.count)]
        found = analysis.find(
            Given(
                model=runtime.get(self.model),
                images=self._labelled(runtime),
                classes=self.images[0].given().classes(),
                numbers=numbers,
                latents=latents,
                timesteps=self.timesteps,
                activations=_joined(runtime, self.activations),
                untrained=_joined(runtime, self.untrained),
                encoder=self._encoder(runtime),
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

    def _encoder(self, runtime: Runtime) -> ImageEncoder | None:
        """Return the image tower of the CLIP that is asked."""
        from cad_exp.representations.image_encoder import ImageEncoder

        if self.encoder is None:
            return None
        return ImageEncoder(image_encoders.folder(self.encoder, ENCODER_KEY) or self.encoder, runtime.device)


def _joined(runtime: Runtime, parts: tuple[Activations, ...]) -> dict[str, torch.Tensor]:
    """Return activations (images, timesteps, draws, ...) by hookpoint; nothing where none are asked for."""
    import torch

    if not parts:
        return {}
    found = runtime.all(parts, parts[0].what)
    return {name: torch.cat([part.tensor(name) for part in found]) for name in found[0].hookpoints}
