"""What the image tower of a CLIP makes of images: the rival of a diffusion model as a reader of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cad_exp.representations.activations import gridded
from cad_exp.utils.errors import UserError


class ImageEncoder:
    """The image tower of a CLIP with the preprocessing that belongs to it.

    place: a folder of transformers, or a hub id.
    """

    def __init__(self, place: str | Path, device: str | torch.device = "cpu"):
        from transformers import CLIPImageProcessor, CLIPVisionModel
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # the folder also holds the text tower, each of whose weights would be listed
        try:
            self.tower = CLIPVisionModel.from_pretrained(str(place)).eval().requires_grad_(False).to(device)
            self.prepare = CLIPImageProcessor.from_pretrained(str(place))
        except (OSError, ValueError, TypeError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(f"probe.image_encoder: '{place}' holds no CLIP of transformers ({said})") from error
        finally:
            logging.set_verbosity(verbosity)

    @torch.no_grad()
    def features(
        self, images: np.ndarray, pooling: str, batch_size: int = 64, progress: Callable[[int, int], Any] | None = None
    ) -> Tensor:
        """Return features of uint8 images (N, H, W, 3), fp32 on the CPU.

        Args:
            images: of any size.
            pooling: `mean` gives what the tower says of the whole image (N, F), before the projection to the text's
                space, as Radford et al. read it by linear probes (arXiv 2103.00020, appendix A). `grid` gives its
                last layer on at most 8 x 8 positions (N, positions, F).
            batch_size: images of one forward pass.
            progress: called with (images done, images in all).
        """
        found = []
        for start in range(0, len(images), batch_size):
            part = list(images[start : start + batch_size])
            pixels = self.prepare(part, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
            said = self.tower(pixel_values=pixels.to(self.tower.device))
            kept = said.pooler_output if pooling == "mean" else gridded(said.last_hidden_state[:, 1:])
            found.append(kept.float().cpu())
            if progress:
                progress(min(start + batch_size, len(images)), len(images))
        return torch.cat(found)
