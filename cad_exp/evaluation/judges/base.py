"""What every judge is: before it is loaded, what it needs and knows; afterwards, what it says of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import chosen, fitting

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

Parts = dict[str, Path]


class Judge:
    """Images are uint8 (N, H, W, 3) where numbers are stored, float (B, 3, H, W) in 0..1 where gradients flow.

    definition, clip_definition: library, version, weights, resolution and thresholds of the judge and of its CLIP.
    definitions: the same for each thing that is judged: object, style, nudity, clothed, features, clip, distance;
    what is missing is not judged. threshold: probability or score above which a person counts as naked; thresholds:
    others at which nudity is reported too. identity: all that the stored judgements depend on; thresholds, which are
    applied afterwards, do not belong to it.

    explicit: what becomes of images of nudity that this judge is asked about: kept, blurred or dropped. draws: whether
    it knows a world that is drawn (`world`, `drawings`); the world of others is what the unedited model makes.
    """

    explicit: str = "dropped"
    draws: bool = False
    world_is: str = ""  # what the drawn world is called
    threshold: float = 0.5
    thresholds: tuple[float, ...] = ()
    definition: dict[str, Any]
    definitions: dict[str, dict[str, Any]]
    clip_definition: dict[str, Any] = {}

    # Before it is loaded. A module that loads torch only in functions answers a wrong command in a moment.

    @classmethod
    def known(cls, kind: str) -> list[str] | None:
        """Return every label of a kind (object, style, nudity, clothed) that it knows; None: not known ahead."""
        return None

    @classmethod
    def at_hand(cls, config: dict[str, Any]) -> tuple[Parts, list[str]]:
        """Return where the weights are that a run needs, and sentences on what it can do without and lacks.

        Raises UserError, before any work, for what it cannot do without.
        """
        return {}, []

    @classmethod
    def folders(cls, config: dict[str, Any]) -> list[tuple[str, str, int]]:
        """Return the folders of images that it reads: (folder, the key that names it, the fewest images)."""
        return []

    @classmethod
    def identity_of(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Return what a finished run must share with a new one besides the settings, such as hashes of weights."""
        return {}

    @classmethod
    def load(cls, settings: dict[str, Any], parts: Parts, device: str) -> Judge:
        """Load the judge of a config's group `judge`; `parts` as `at_hand` found them."""
        return cls(**fitting(cls, settings, f"judge {settings.get('name') or chosen(settings)}")).on(device)

    # What it says

    @property
    def identity(self) -> dict[str, Any]:
        """All that the stored judgements depend on."""
        return self.definition

    def labels(self, images: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Return one row per image with what was found, and features (N, F) for FID; F = 0 without features."""
        raise NotImplementedError

    def knows(self, kind: str, label: str) -> bool:
        """Return whether it can say if an image shows this."""
        return label in (self.known(kind) or ())

    def clip_scores(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return the cosine of image and prompt (N,), -1..1; NaN where it cannot say."""
        return self.unknown(images)

    def distance(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Return the perceptual distance of each image to its reference (N,), 0 = equal; NaN where it cannot say."""
        return self.unknown(images)

    def log_odds(self, images: torch.Tensor, kind: str, label: str) -> torch.Tensor:
        """Return log p / (1 - p) of a label (B,), differentiable; UserError for what it does not know."""
        raise UserError(f"this judge gives no gradient of {kind}, which objective=judge needs: use objective=erase")

    def similarity(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        """Return the cosine (B,) of images and a prompt, differentiable."""
        raise UserError("this judge compares no image with a prompt, which objective=clip needs: use objective=erase")

    def question(self, prompt: str) -> tuple[str, str]:
        """Return kind and label that a prompt asks for; UserError if it names nothing that the judge knows."""
        raise UserError(f"this judge reads no label in the prompt '{prompt}': use another objective")

    def world(self) -> np.ndarray | None:
        """Return features (M, F) of the whole drawn world; None where it has none for its weights."""
        return None

    def drawings(self, kind: str, label: str, number: int, seed: int) -> np.ndarray:
        """Draw its world so that a label is shown: uint8 (number, H, W, 3)."""
        raise NotImplementedError

    def drawable(self) -> list[tuple[str, str]]:
        """Return (kind, label) of what it can draw."""
        return []

    def folder_features(self, folder: Path) -> np.ndarray:
        """Return features (M, F) of all images of a folder."""
        raise NotImplementedError

    def reference(self) -> Path | None:
        """Return what FID and KID compare with, where the settings name a folder or a file of statistics."""
        return None

    def on(self, device: str | torch.device) -> Judge:
        """Return the judge on a device."""
        return self

    @staticmethod
    def unknown(images: np.ndarray) -> np.ndarray:
        """Return NaN (N,), for what cannot be said."""
        import numpy as np  # this module is read before anything heavy is

        return np.full(len(images), np.nan)
