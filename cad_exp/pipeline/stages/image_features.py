"""Features of labelled images by the image tower of a CLIP, beside which a diffusion model's are held."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.models import image_encoders
from cad_exp.pipeline.stage import NO_KEY, Stage, Tick
from cad_exp.pipeline.stages.labelled_images import LabelledImages

if TYPE_CHECKING:
    import torch

    from cad_exp.pipeline.runtime import Runtime

FILE = "features.safetensors"


@dataclass(frozen=True, eq=False)
class ImageFeatures(Stage["torch.Tensor"]):
    """Features (images, ...) fp32 of a batch of images. encoder: folder or hub id. pooling: mean, or grid."""

    folder: ClassVar[str] = "image_features"
    images: LabelledImages
    pooling: str
    encoder: str = field(metadata=NO_KEY)

    @property
    def what(self) -> str:
        """How the terminal calls it."""
        return "image encoder"

    @property
    def work(self) -> int:
        """Number of images."""
        return self.images.count

    def requires(self) -> None:
        """Check that the encoder can be had."""
        image_encoders.check(self.encoder)

    def inputs(self, runtime: Runtime) -> Any:
        """Return the fields, and the encoder's content in place of its name."""
        return super().inputs(runtime) | {"encoder": image_encoders.content(self.encoder)}

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Show the images to the encoder."""
        from safetensors.torch import save_file

        from cad_exp.representations.image_encoder import ImageEncoder

        place = image_encoders.folder(self.encoder) or self.encoder
        made = ImageEncoder(place, runtime.device).features(
            runtime.get(self.images).images, self.pooling, progress=tick
        )
        save_file({"features": made.contiguous()}, folder / FILE)

    def load(self, runtime: Runtime, folder: Path) -> torch.Tensor:
        """Read the features."""
        from safetensors.torch import load_file

        return load_file(folder / FILE)["features"]
