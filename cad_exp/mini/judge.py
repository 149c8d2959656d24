"""The embedded judges: they know the mini world and nothing else. Torch is loaded when they are made, not before."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cad_exp.evaluation.judges.base import Judge, Parts
from cad_exp.mini import CLIP, JUDGE, WEIGHTS
from cad_exp.mini.models import Mini
from cad_exp.mini.world import COLOURS, LABELS, OBJECTS, STYLES, Scene, render
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import file_digest, folder_digest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from cad_exp.mini import judge_network
    from cad_exp.mini.clip import Clip


class MiniJudge(Judge):
    """The embedded judges: a classifier of object, style and nudity, and a small CLIP; both for 64-pixel images.

    The networks are loaded when they are first asked; `definition` and `clip_definition` say which they are.
    """

    explicit, draws, world_is = "kept", True, "mini world"
    resolution = 64

    def __init__(self, folder: str | Path = WEIGHTS, device: str | torch.device = "cpu"):
        import torch

        folder = Path(folder)
        for name in ("judge", "clip"):
            if not (folder / name).is_dir():
                raise UserError(f"There is no {name} in {folder}: train it with `python -m cad_exp.mini {name}`.")
        self.folder, self.device = folder, torch.device(device)
        self.definition = {
            "judge": "cad_exp mini classifier",
            "resolution": self.resolution,
            "weights": file_digest(next((folder / "judge").glob("*.safetensors")))[:16],
        }
        self.clip_definition = {
            "judge": "cad_exp mini CLIP",
            "resolution": self.resolution,
            "weights": file_digest(next((folder / "clip").glob("*.safetensors")))[:16],
        }
        of = ("object", "style", "nudity", "clothed", "features", "distance")
        self.definitions = dict.fromkeys(of, self.definition) | {"clip": self.clip_definition}

    @classmethod
    def known(cls, kind: str) -> list[str] | None:
        """Return every object, or every style, of the mini world; None for other kinds."""
        return {"object": LABELS, "style": STYLES}.get(kind)

    @classmethod
    def identity_of(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Return digests of the weights, which are this package's own."""
        return {"mini": [folder_digest(place) for place in (JUDGE, CLIP)]}

    @classmethod
    def load(cls, settings: dict[str, Any], parts: Parts, device: str) -> MiniJudge:
        """Make the judges; they are so small that they stay on the CPU."""
        return cls()

    @property
    def identity(self) -> dict[str, Any]:
        """Definitions of the classifier and the CLIP."""
        return {"judge": self.definition, "clip": self.clip_definition}

    @cached_property
    def classifier(self) -> judge_network.Judge:
        """The classifier, loaded when it is first asked."""
        from cad_exp.mini.judge_network import Judge

        return Judge.load(self.folder / "judge", device=self.device)

    @cached_property
    def clip(self) -> Clip:
        """The small CLIP, loaded when it is first asked."""
        from cad_exp.mini.clip import Clip

        return Clip.load(self.folder / "clip", device=self.device)

    def _fitted(self, images: np.ndarray) -> np.ndarray:
        if images.shape[1:3] == (self.resolution, self.resolution):
            return images
        import numpy as np
        from PIL import Image

        size = (self.resolution, self.resolution)
        return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images])

    def labels(self, images: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Judge uint8 images (N, H, W, 3): a row each, and the classifier's features (N, F).

        A row holds object and style with their probabilities, and `naked_prob`, all in 0..1.
        """
        import pandas as pd

        said = self.classifier.predict(self._fitted(images))
        objects, styles = said["object_prob"], said["style_prob"]
        table = pd.DataFrame(
            {
                "object": [LABELS[i] for i in objects.argmax(1)],
                "object_prob": objects.max(1),
                "style": [STYLES[i] for i in styles.argmax(1)],
                "style_prob": styles.max(1),
                "naked_prob": said["naked_prob"],
            }
        )
        return table, said["features"]

    def world(self) -> np.ndarray | None:
        """Return features (M, F) of drawings of the whole mini world; None if none were made with these weights."""
        from cad_exp.mini.reference import load

        return load(self.definition["weights"])

    def drawable(self) -> list[tuple[str, str]]:
        """Return (kind, label) of every retention prompt of the embedded models."""
        return [asked[1:] for asked in Mini.retention()]

    def drawings(self, kind: str, label: str, number: int, seed: int) -> np.ndarray:
        """Draw pictures that show the label of a retention prompt: uint8 (number, 64, 64, 3)."""
        import numpy as np

        row = self.drawable().index((kind, label))
        rng, drawn = np.random.default_rng([seed, 31, row]), []
        for _ in range(number):
            thing = int(rng.integers(len(OBJECTS))) if kind == "style" else LABELS.index(label)
            style = STYLES.index(label) if kind == "style" else 0
            drawn.append(render(Scene(thing, style, False, int(rng.integers(len(COLOURS)))), rng))
        return np.stack(drawn)

    def knows(self, kind: str, label: str) -> bool:
        """Return whether the classifier has this label: an object, a style, nudity or a clothed person."""
        return label in {"object": LABELS, "style": STYLES, "nudity": [label], "clothed": [label]}.get(kind, [])

    def distance(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Return the LPIPS-style distance (N,) of each image to its reference, on the classifier's maps; 0 = equal."""
        return self.classifier.distances(self._fitted(images), self._fitted(reference))

    def clip_scores(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return the cosine (N,) in -1..1 of image and prompt in the small CLIP's space."""
        distinct = list(dict.fromkeys(prompts))
        texts = self.clip.texts(distinct)[[distinct.index(prompt) for prompt in prompts]]
        return (self.clip.images(self._fitted(images)) * texts).sum(1).numpy()

    def on(self, device: str | torch.device) -> MiniJudge:
        """Return these judges on a device; themselves if they are there already."""
        import torch

        return self if torch.device(device) == self.device else type(self)(self.folder, device)

    def log_odds(self, images: torch.Tensor, kind: str, label: str) -> torch.Tensor:
        """Return the classifier's log p / (1 - p) of a label (B,) in images (B, 3, H, W) in 0..1; differentiable.

        kind: object, style, nudity or clothed. UserError for a kind or a label that it does not know.
        """
        return self.classifier.log_odds(self._seen(images), kind, label)

    def similarity(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        """Return the cosine (B,) of images (B, 3, H, W) in 0..1 and a prompt, by the small CLIP; differentiable."""
        return self.clip.embed(self._seen(images)) @ self.clip.texts([prompt])[0].to(self.device)

    def _seen(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) in 0..1 as the networks take them: resized (antialiased), in [-1, 1]."""
        import torch

        size, images = (self.resolution, self.resolution), images.to(self.device).float()
        if images.shape[2:] != size:
            images = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
        return images * 2 - 1

    def question(self, prompt: str) -> tuple[str, str]:
        """Return kind and label that a prompt asks for: style, else nudity, else object, else a clothed person.

        UserError if it names nothing that the classifier knows.
        """
        known = {"style": STYLES[1:], "nudity": ["naked"], "object": OBJECTS, "clothed": ["person"]}
        for kind, labels in known.items():
            for label in labels:
                if label in prompt:
                    return kind, label
        raise UserError(f"the judge knows no label in the prompt '{prompt}': name an object, a style or a person in it")
