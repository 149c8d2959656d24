"""Image-text score: does cross-attention know which of several prompts is true of an image?

The score of (image, prompt) is LogSumExp over the text's tokens of the cross-attention logits, averaged over heads,
positions, layers and timesteps (Discffusion, arXiv 2305.10722). Its rival needs no attention: the prompt under which
the model predicts the noise best (Diffusion Classifier, arXiv 2303.16203).

1. Noise the images, and run the network once under every class's prompt: scores and errors come from the same passes.
2. Match the test images as the score is, and less each prompt's mean over the training images (which needs no labels).
3. Tune: with k labelled images a class, learn how much each layer, head and timestep counts (a conditional logit).
4. Controls: labels in random order, a network with random weights, and the errors tuned alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cad_exp.data.prompts.templates import fill
from cad_exp.evaluation.analyses import choice
from cad_exp.evaluation.analyses.base import Findings, Given, Metric, OfClasses, label_of
from cad_exp.evaluation.analyses.views import Bars, Lines, View
from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.labels import Shares
from cad_exp.evaluation.intervals.resampled import Permuted
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.probing import shares
from cad_exp.evaluation.variants import CONTROL, ERROR, NETWORK, UNTRAINED
from cad_exp.representations.activations import noise_of
from cad_exp.representations.cross_attention import Attended, attend, attentions_to_text
from cad_exp.representations.probes.base import Split, split_images
from cad_exp.representations.untrained import untrained

WHAT = {
    "accuracy": "balanced accuracy of the true prompt among all: the largest {}",
    "centred": "balanced accuracy of the true prompt among all: the largest {}, less the prompt's mean over images",
    "tuned": "balanced accuracy of the true prompt among all: {} weighted by a conditional logit, {} images a class",
}
OF = {NETWORK: "score", UNTRAINED: "score, random weights", ERROR: "-error", CONTROL: "score, permuted labels"}
SHORT = {NETWORK: "score", UNTRAINED: "random weights", ERROR: "denoising error", CONTROL: "permuted labels"}
SPLIT = (0.4, 0.1)  # shares of training and validation images
ORDERS = 20  # random orders of the labels
Found = dict[tuple[str, str], Shares | Permuted]


@dataclass(frozen=True)
class Read:
    """What the passes gave. score: (N, C, F), F of (timestep, layer, head); error: (N, C, timesteps)."""

    score: np.ndarray
    error: np.ndarray


class ImageTextScore(OfClasses):
    """Match images to the prompts of classes by cross-attention.

    label: whose classes; None: of the first label. prompt: a template with one {}, for the name. images: how many are
    looked at. timesteps: of the noise; None: as `activations.timesteps` says. shots: labelled images a class, for each
    tuning. leave_out: classes that no prompt names; None: the class `nothing`, if there is one.
    """

    reads_attention = True

    def __init__(
        self,
        label: str | None,
        prompt: str,
        images: int,
        shots: Sequence[int],
        timesteps: Sequence[int] | None = None,
        leave_out: Sequence[str] | None = None,
    ):
        super().__init__(label, prompt, leave_out)
        self.images, self.shots, self.timesteps = images, sorted(set(shots)), timesteps

    def find(self, given: Given) -> Findings:
        """Return how often each way finds the true prompt."""
        label, names = label_of(self.label, given.classes), self.names(given.classes)
        number = {given.classes[label].index(name): place for place, name in enumerate(names)}
        known = [n for n, each in enumerate(given.images.labels[label]) if int(each) in number][: self.images]
        y = np.array([number[int(given.images.labels[label][n])] for n in known])
        split, times = split_images(len(y), given.seed, SPLIT), list(self.timesteps or given.timesteps)
        network = self._read(given, known, names, times, 0)
        with untrained(given.model, given.seed + 1):
            random = self._read(given, known, names, times, 1)
        sources = {NETWORK: network.score, UNTRAINED: random.score, ERROR: -network.error}
        found: Found = {("accuracy", source): _plain(each, y, split) for source, each in sources.items()}
        found |= {("centred", source): _centred(each, y, split) for source, each in sources.items()}
        orders = [np.random.default_rng([given.seed, 29, each]).permutation(len(y)) for each in range(ORDERS)]
        for k in self.shots:
            train = _few(y, split.train, k, given.seed)
            for source, each in sources.items():
                found[f"tuned@{k}", source] = _tuned(each, y, y, train, split)
            shuffled = [_tuned(network.score, y[order], y, train, split).value for order in orders]
            found[f"tuned@{k}", CONTROL] = Permuted(np.array(shuffled))
        return _findings(found, len(names), len(split.test), self.shots)

    @torch.no_grad()
    def _read(self, given: Given, known: Sequence[int], names: Sequence[str], times: Sequence[int], part: int) -> Read:
        """Run the network for every image, timestep and prompt."""
        conditions = given.model.encode([fill(self.prompt, name) for name in names])
        places, rows = attentions_to_text(given.model), max(1, given.batch_size // len(names))
        scores, errors, shape = [], [], given.latents.shape[1:]
        for start in range(0, len(known), rows):
            own = known[start : start + rows]
            latents, told = given.latents[own].cpu(), conditions[torch.arange(len(names)).repeat(len(own))]
            score, error = list[Tensor](), list[Tensor]()
            for t in times:
                noise = torch.stack([noise_of(shape, given.seed, int(given.numbers[n]), t, 0) for n in own])
                at = torch.full((len(own),), t)
                x = given.model.add_noise(latents, noise, at).repeat_interleave(len(names), 0)
                at = torch.full((len(x),), t)
                predicted, each = attend(given.model, x, at, told, image_text_score, places)
                target = given.model.target(latents, noise, torch.full((len(own),), t)).repeat_interleave(len(names), 0)
                error.append((predicted.cpu() - target).square().mean((1, 2, 3)))
                score.append(torch.cat(each, 1).cpu())
            scores.append(torch.cat(score, 1).unflatten(0, (len(own), len(names))))
            errors.append(torch.stack(error, 1).unflatten(0, (len(own), len(names))))
            given.tick(part * len(known) + start + len(own), 2 * len(known))
        return Read(torch.cat(scores).double().numpy(), torch.cat(errors).double().numpy())


def image_text_score(attended: Attended) -> Tensor:
    """Return (B, heads): LogSumExp over the tokens of the logits, the mean over positions (2305.10722)."""
    found: Tensor = attended.logits.logsumexp(-1).mean(-1)
    return found


def _plain(features: np.ndarray, y: np.ndarray, split: Split) -> Shares:
    """Match by the mean of all features."""
    return _right(features.mean(2), y, split)


def _centred(features: np.ndarray, y: np.ndarray, split: Split) -> Shares:
    """Match by the mean of all features, less what each prompt has on average over the training images."""
    values = features.mean(2)
    return _right(values - values[split.train].mean(0), y, split)


def _tuned(features: np.ndarray, told: np.ndarray, y: np.ndarray, train: np.ndarray, split: Split) -> Shares:
    """Match by a weighting that is learned from the labels `told` of some images."""
    return _right(choice.fit(features, told, train, split.validation).values(features), y, split)


def _right(values: np.ndarray, y: np.ndarray, split: Split) -> Shares:
    return shares(values[split.test].argmax(1) == y[split.test], y[split.test])


def _few(y: np.ndarray, train: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Return the numbers of k training images of every class, of a rare one all; a larger k adds to a smaller one's."""
    order = np.random.default_rng([seed, 23]).permutation(train)
    return np.sort(np.concatenate([order[y[order] == each][:k] for each in np.unique(y)]))


def _findings(found: Found, classes: int, n: int, shots: Sequence[int]) -> Findings:
    metrics, rows = list[Metric](), []
    for (name, source), estimate in found.items():
        what, _, k = name.partition("@")
        told = {"what": WHAT[what].format(OF[source], k), "chance": 1 / classes, "prompts": classes}
        others = {other: found[name, other] for other in (UNTRAINED, ERROR) if (name, other) in found}
        count = len(estimate.values) if isinstance(estimate, Permuted) else n
        metrics.append(metric(name, source, estimate, count, True, told, others if source == NETWORK else {}))
        rows.append((name, source, int(k) if k else 0, *estimated(estimate), count))
    table = pd.DataFrame(rows, columns=["way", "source", "shots", "accuracy", "low", "high", "n"])
    return Findings(table, metrics, _views(found, classes, shots), _verdict(found, classes, shots))


def _views(found: Found, classes: int, shots: Sequence[int]) -> list[View]:
    plain = [key for key in found if "@" not in key[0]]
    value, low, high = np.array([estimated(found[key]) for key in plain], float).T
    words = {"accuracy": "as it is", "centred": "less mean"}
    rows = [f"{SHORT[source]}, {words[way]}" for way, source in plain]
    note = (
        f"balanced accuracy over test images, 95 %; line: chance, 1 of {classes}; less mean: of the prompt over images"
    )
    views: list[View] = [Bars("Which prompt is true, without labels", rows, value, low, high, 1 / classes, note)]
    if shots:
        sources = [source for way, source in found if way == f"tuned@{shots[0]}"]
        bands = [[estimated(found[f"tuned@{k}", source]) for k in shots] for source in sources]
        value, low, high = np.moveaxis(np.array(bands, float), 2, 0)
        title, names = "After tuning with k labelled images a class", [SHORT[source] for source in sources]
        note = "weights of layers, heads and timesteps, by a conditional logit; the same test images"
        views.append(Lines(title, "images a class", [str(k) for k in shots], names, value, low, high, note))
    return views


def _verdict(found: Found, classes: int, shots: Sequence[int]) -> dict[str, str]:
    chance = 1 / classes
    low = {way: (found[way, NETWORK].interval() or (0.0, 0.0))[0] for way in ("accuracy", "centred")}
    knows = [way for way, least in low.items() if least > chance]
    score, error = found["accuracy", NETWORK].value, found["accuracy", ERROR].value
    said = {
        "without labels": f"the score finds {score:.2f} of the true prompts, and {found['centred', NETWORK].value:.2f} "
        f"less the prompt's mean; chance is {chance:.2f}: {'more than' if knows else 'not told from'} chance.",
        "the rival": f"the denoising error finds {error:.2f}, without labels too.",
    }
    if shots:
        way = f"tuned@{shots[-1]}"
        tuned, permuted = found[way, NETWORK], found[way, CONTROL]
        said["tuned"] = (
            f"with {shots[-1]} images a class the score finds {tuned.value:.2f}; {permuted.value:.2f} with permuted "
            f"labels, {found[way, UNTRAINED].value:.2f} with random weights, {found[way, ERROR].value:.2f} by errors."
        )
    return said
