"""Class overlap: how alike a model's predictions are under the names of two classes.

O_ij(t) = E || eps(x_t, t, c_i) - eps(x_t, t, c_j) ||^2, the mean over noisy images and elements of the prediction
(DiffROP, arXiv 2402.10821, which calls classes overlapping where this is small). Beside it stands what a mere change of
words does: the same distance between two prompts for one class. Where two classes are no further apart than that, the
model does not tell them apart at t.

1. Noise images of all classes to every t, each with its own seed.
2. Predict under every class's prompt, and under its second phrasing.
3. Compare all pairs on the same noisy images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cad_exp.data.prompts.templates import fill
from cad_exp.evaluation.analyses.base import Findings, Given, Metric, OfClasses
from cad_exp.evaluation.analyses.views import Lines, Matrix, View
from cad_exp.evaluation.intervals.images import Mean
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import CONTROL, NETWORK
from cad_exp.representations.activations import noise_of
from cad_exp.utils.errors import UserError

WHAT = "mean squared difference of the predictions under two prompts, on the same noisy images"


class ClassOverlap(OfClasses):
    """Compare predictions under the names of classes.

    label: whose classes; None: of the first label. prompt, rephrased: templates with one {}, for the name. images: how
    many are looked at, at most. leave_out: classes that no prompt names; None: the class `nothing`, if there is one.
    """

    def __init__(
        self, label: str | None, prompt: str, rephrased: str, images: int, leave_out: Sequence[str] | None = None
    ):
        super().__init__(label, prompt, leave_out)
        self.rephrased, self.images = rephrased, int(images)

    def check(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Check the classes, and that the templates differ."""
        super().check(classes)
        if fill(self.prompt, "x") == fill(self.rephrased, "x"):
            raise UserError("analysis.rephrased is the same as analysis.prompt: say it in other words")

    def find(self, given: Given) -> Findings:
        """Return the overlap of every pair of classes at every timestep."""
        names = self.names(given.classes)
        distances = self._distances(given, names)  # (timesteps, images, classes, classes + 1)
        apart, reworded = distances[..., : len(names)], distances[..., len(names)]
        table = _table(apart.mean(1), reworded.mean(1), names, given.timesteps)
        metrics = list(_metrics(apart, reworded, given.timesteps))
        metrics.append(_reliability(apart))
        return Findings(table, metrics, _views(apart, reworded, names, given.timesteps), _verdict(apart, names))

    @torch.no_grad()
    def _distances(self, given: Given, names: Sequence[str]) -> np.ndarray:
        """Return (timesteps, images, C, C + 1): between classes, and last between the two phrasings of each."""
        prompts = [fill(template, name) for template in (self.prompt, self.rephrased) for name in names]
        conditions, rows = given.model.encode(prompts), max(1, given.batch_size // len(prompts))
        shape, count = given.latents.shape[1:], min(self.images, len(given.latents))
        found = []
        for number, t in enumerate(given.timesteps):
            parts = []
            for start in range(0, count, rows):
                end = min(start + rows, count)
                latents, images = given.latents[start:end], given.numbers[start:end]
                noise = torch.stack([noise_of(shape, given.seed, int(image), t, 0) for image in images])
                noisy = given.model.add_noise(latents.cpu(), noise, torch.full((len(latents),), t))
                x = noisy.repeat_interleave(len(prompts), 0)
                told = conditions[torch.arange(len(prompts)).repeat(len(latents))]
                predicted = given.model.predict(x, torch.full((len(x),), t), told)
                parts.append(pairwise(predicted.unflatten(0, (len(latents), len(prompts))), len(names)))
                given.tick(number * count + start + len(latents), len(given.timesteps) * count)
            found.append(torch.cat(parts))
        return torch.stack(found).numpy()


def pairwise(predicted: Tensor, classes: int) -> Tensor:
    """Return (images, C, C + 1) mean squared differences: of all pairs of classes, and of each from its rephrasing.

    predicted: (images, 2 C, ...), the second half under the second phrasing of the same classes.
    """
    flat = predicted.flatten(2).double().cpu()
    first, second = flat[:, :classes], flat[:, classes:]
    pairs = torch.stack([((first - first[:, i : i + 1]) ** 2).mean(2) for i in range(classes)], 1)
    return torch.cat([pairs, ((first - second) ** 2).mean(2, keepdim=True).reshape(len(flat), classes, 1)], 2)


def between(apart: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of different classes: (..., C, C) becomes (...)."""
    size = apart.shape[-1]
    pairs: np.ndarray = apart[..., ~np.eye(size, dtype=bool)].mean(-1)
    return pairs


def _metrics(apart: np.ndarray, reworded: np.ndarray, timesteps: Sequence[int]) -> list[Metric]:
    made = []
    for number, t in enumerate(timesteps):
        classes, words = Mean(between(apart[number])), Mean(reworded[number].mean(-1))
        told = {"what": f"{WHAT}, over pairs of classes", "t": int(t)}
        made.append(metric(f"distance@{t}", NETWORK, classes, len(classes.values), True, told, {CONTROL: words}))
        told = {"what": f"{WHAT}, two phrasings of one class", "t": int(t)}
        made.append(metric(f"distance@{t}", CONTROL, words, len(words.values), False, told, {}))
    return made


def _reliability(apart: np.ndarray) -> Metric:
    """Return how alike the order of pairs is on two halves of the images: Spearman's rank correlation."""
    from scipy import stats

    upper = np.triu_indices(apart.shape[-1], 1)
    halves = [apart[:, start::2].mean((0, 1))[upper] for start in (0, 1)]
    value = float(stats.spearmanr(*halves).statistic) if len(upper[0]) > 2 else 1.0
    return {
        "name": "reliability",
        "variant": NETWORK,
        "value": value,
        "low": None,
        "high": None,
        "n": len(upper[0]),
        "higher_is_better": True,
        "definition": {"what": "Spearman's rank correlation of pairs' distances between two halves of the images"},
        "changes": {},
    }


def _table(apart: np.ndarray, reworded: np.ndarray, names: Sequence[str], timesteps: Sequence[int]) -> pd.DataFrame:
    rows = [
        (int(t), first, second, float(apart[k, i, j] if i != j else reworded[k, i]), "pair" if i != j else "rephrased")
        for k, t in enumerate(timesteps)
        for i, first in enumerate(names)
        for j, second in enumerate(names)
    ]
    return pd.DataFrame(rows, columns=["t", "first", "second", "distance", "kind"])


def _views(apart: np.ndarray, reworded: np.ndarray, names: Sequence[str], timesteps: Sequence[int]) -> list[View]:
    mean = apart.mean((0, 1))
    np.fill_diagonal(mean, np.nan)
    note = f"mean over timesteps; dark: told apart well; two phrasings of one class: {float(reworded.mean()):.2g}"
    matrix = Matrix("Distance of the predictions under two classes", names, names, mean, note=note)
    series = {"two classes": between(apart), "two phrasings of one class": reworded.mean(-1)}
    bands = [[Mean(each[number]) for number in range(len(timesteps))] for each in series.values()]
    low, high = (
        np.array([[(band.interval() or (np.nan, np.nan))[end] for band in row] for row in bands]) for end in (0, 1)
    )
    values = np.array([[band.value for band in row] for row in bands])
    title = "When classes are told apart"
    return [matrix, Lines(title, "timestep", [int(t) for t in timesteps], list(series), values, low, high)]


def _verdict(apart: np.ndarray, names: Sequence[str]) -> dict[str, str]:
    mean = apart.mean((0, 1))
    np.fill_diagonal(mean, np.inf)
    i, j = map(int, np.unravel_index(int(mean.argmin()), mean.shape))
    np.fill_diagonal(mean, -np.inf)
    k, m = map(int, np.unravel_index(int(mean.argmax()), mean.shape))
    return {
        "most alike": f"{names[i]} and {names[j]}: the model's predictions differ least under these names.",
        "least alike": f"{names[k]} and {names[m]}.",
    }
