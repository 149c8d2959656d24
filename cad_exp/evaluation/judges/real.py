"""The published judges behind one interface: NudeNet, ResNet-50, CLIP, Inception and LPIPS, as many as there are.

The networks are imported when they are made, and not with this module: it is read before the work begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cad_exp.evaluation import judge_sources
from cad_exp.evaluation.judges.base import Judge, Parts
from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

NETWORKS = Registry(
    "part of judge=real",
    {
        "nudenet": "cad_exp.evaluation.judges.nudenet:NudeNet",
        "resnet": "cad_exp.evaluation.judges.resnet:ResNet",
        "clip": "cad_exp.evaluation.judges.clip:Clip",
        "inception": "cad_exp.evaluation.judges.inception:Inception",
        "lpips": "cad_exp.evaluation.judges.lpips:Lpips",
    },
)


class RealJudge(Judge):
    """The parts whose weights are given; what a part would say is absent (a column) or NaN where it is not there.

    settings: the config's group `judge`; places: name of a part -> its weights. Networks are loaded when first asked.
    """

    def __init__(self, settings: dict[str, Any], places: Parts, device: str | torch.device = "cpu"):
        import torch

        self.settings, self.places, self.device = settings, dict(places), torch.device(device)
        own: dict[str, dict[str, Any]] = {name: settings[name] for name in places}
        given: dict[str, Callable[[], tuple[Any, ...]]] = {
            "nudenet": lambda: (own["nudenet"]["threshold"], tuple(own["nudenet"]["thresholds"])),
            "resnet": lambda: (device,),
            "clip": lambda: (own["clip"]["model"], device),
            "inception": lambda: (device,),
            "lpips": lambda: (own["lpips"]["resize"], device),
        }
        self.parts: dict[str, Any] = {n: NETWORKS.get(n)(place, *given[n]()) for n, place in places.items()}
        self.definitions = {
            of: self.parts[name].definition
            for of, name in (
                ("nudity", "nudenet"),
                ("object", "resnet"),
                ("clip", "clip"),
                ("features", "inception"),
                ("distance", "lpips"),
            )
            if name in self.parts
        }
        self.definition = {"judge": "real: " + (", ".join(self.parts) or "nobody"), "parts": dict(self.definitions)}
        self.clip_definition = self.definitions.get("clip", {})
        if "nudenet" in self.parts:
            self.threshold, self.thresholds = self.parts["nudenet"].threshold, self.parts["nudenet"].thresholds

    @classmethod
    def known(cls, kind: str) -> list[str] | None:
        return judge_sources.imagenet_classes() if kind == "object" else None

    @classmethod
    def at_hand(cls, config: dict[str, Any]) -> tuple[Parts, list[str]]:
        places, lacking = judge_sources.at_hand(config["judge"], judge_sources.wanted(config))
        return places, [f"without {what}" for what in lacking.values()]

    @classmethod
    def folders(cls, config: dict[str, Any]) -> list[tuple[str, str, int]]:
        given = config["judge"]["inception"]["reference"]
        if given is None or "inception" not in judge_sources.wanted(config):
            return []
        folder = judge_sources.reference_place(given).is_dir()
        return [(given, "judge.inception.reference", 2)] if folder else []  # FID needs a covariance

    @classmethod
    def identity_of(cls, config: dict[str, Any]) -> dict[str, Any]:
        return judge_sources.parts_identity(config)

    @classmethod
    def load(cls, settings: dict[str, Any], parts: Parts, device: str) -> RealJudge:
        return cls(settings, parts, device)

    @property
    def identity(self) -> dict[str, Any]:
        return {name: getattr(part, "identity", part.definition) for name, part in self.parts.items()}

    def _part(self, name: str, what: str) -> Any:
        if name not in self.parts:
            raise UserError(f"judge=real has no {name} here, which {what} needs: add it to judge.parts")
        return self.parts[name]

    def labels(self, images: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Judge uint8 images (N, H, W, 3); return a table of N rows and Inception's features (N, 2048 or 0).

        ResNet-50: `object` and `object_prob`. NudeNet: `detections`, all of them as JSON, and `exposed`, the highest
        score of an exposed label (0 if there is none).
        """
        import numpy as np
        import pandas as pd

        table = pd.DataFrame(index=range(len(images)))
        if "resnet" in self.parts:
            table["object"], table["object_prob"] = self.parts["resnet"].classify(images)
        if "nudenet" in self.parts:
            found = self.parts["nudenet"].detect(images)
            table["detections"] = [json.dumps(each) for each in found]
            table["exposed"] = [self.parts["nudenet"].exposed(each) for each in found]
        if "inception" in self.parts:
            return table, self.parts["inception"].features(images)
        return table, np.zeros((len(images), 0), np.float32)

    def knows(self, kind: str, label: str) -> bool:
        """Return whether it judges this: ResNet-50's classes and nudity.

        NudeNet cannot say that a clothed person is there, so that is not judged.
        """
        if kind == "object":
            return "resnet" in self.parts and label in self.parts["resnet"].classes
        return kind == "nudity" and "nudenet" in self.parts

    def clip_scores(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        return self.parts["clip"].scores(images, prompts) if "clip" in self.parts else self.unknown(images)

    def distance(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return self.parts["lpips"].distance(images, reference) if "lpips" in self.parts else self.unknown(images)

    def log_odds(self, images: torch.Tensor, kind: str, label: str) -> torch.Tensor:
        """Return ResNet-50's log p / (1 - p) (B,) of a class in images (B, 3, H, W) in 0..1; differentiable.

        Raises UserError for other kinds: NudeNet runs outside PyTorch and gives no gradient.
        Nobody classifies styles.
        """
        if kind != "object":
            raise UserError(
                f"judge=real has no differentiable judge of {kind}: use concept.kind=object with an ImageNet class, or "
                "objective=erase and evaluation.fidelity.images=null"
            )
        odds: torch.Tensor = self._part("resnet", "a label").log_odds(images, label)
        return odds

    def similarity(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        cosine: torch.Tensor = self._part("clip", "objective=clip").similarity(images, prompt)
        return cosine

    def question(self, prompt: str) -> tuple[str, str]:
        """Return the longest ImageNet class that the prompt names. UserError if there is none."""
        named = [label for label in self._part("resnet", "a label").classes if label in prompt]
        if not named:
            raise UserError(f"ResNet-50 knows no class in the prompt '{prompt}': name an ImageNet class in it")
        return "object", max(named, key=len)

    def folder_features(self, folder: Path) -> np.ndarray:
        features: np.ndarray = self.parts["inception"].of_folder(folder)
        return features

    def reference(self) -> Path | None:
        given = self.settings["inception"]["reference"]
        return judge_sources.reference_place(given) if given else None

    def on(self, device: str | torch.device) -> RealJudge:
        import torch

        return self if torch.device(device) == self.device else RealJudge(self.settings, self.places, device)
