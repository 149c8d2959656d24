"""Prompt directions: what a prompt adds to an activation names other activations, and shows where neutral ones lean.

1. Walk trajectories of every class's prompt; the mean activation less the bank's mean is the prompt's direction.
2. Name the activations of other seeds, and of other words for the same classes, by the nearest direction. Beside it:
   a bank whose prompts are in random order, and the cosine that random vectors reach.
3. The bias gap: the cosine of a neutral prompt's direction with one attribute's, less that with another's.

Source: Decoding Diffusion (arXiv 2410.21314): prompt directions in the bottleneck, naming by cosine, the bias gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cad_exp.data.prompts.templates import fill
from cad_exp.evaluation.analyses.base import Findings, Given, Metric, OfClasses
from cad_exp.evaluation.analyses.views import Bars, Matrix, View
from cad_exp.evaluation.bias_gap import BiasGap, bias_gap
from cad_exp.evaluation.intervals.images import Share
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import CONTROL, NETWORK
from cad_exp.representations.hookpoints import choose_hookpoints
from cad_exp.representations.prompt_directions import Bank, walked_prompts
from cad_exp.representations.tokens import Walking
from cad_exp.utils.errors import UserError

BANK, SEEDS, WORDS, LEANING = 0, 1, 2, 3  # sets of seeds that have none in common
APART = 10_000  # numbers of seeds between them


class PromptDirections(OfClasses):
    """Name activations by prompts.

    label: whose classes; None: of the first label. prompt, rephrased: templates with one {}. leave_out: classes that no
    prompt names; None: the class `nothing`, if there is one. hookpoint: one place. seeds: trajectories of each prompt,
    of so many steps and guidance. neutral: a prompt, which leans to one of two attributes (prompts).
    """

    def __init__(
        self,
        label: str | None,
        prompt: str,
        rephrased: str,
        hookpoint: str,
        seeds: int,
        steps: int,
        guidance: float,
        neutral: str,
        attributes: Sequence[str],
        leave_out: Sequence[str] | None = None,
    ):
        super().__init__(label, prompt, leave_out)
        self.rephrased, self.neutral, self.attributes = rephrased, neutral, list(attributes)
        self.hookpoint, self.seeds, self.steps, self.guidance = hookpoint, int(seeds), int(steps), float(guidance)

    def check(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Check the classes, and that there are two seeds and two attributes at least."""
        super().check(classes)
        if self.seeds < 2:
            raise UserError(f"analysis.seeds={self.seeds} gives no interval: use 2 or more")
        if len(set(self.attributes)) != 2 or self.neutral in self.attributes:
            given = ", ".join(self.attributes)
            raise UserError(f"analysis.attributes are two prompts other than analysis.neutral, not {given}")
        fill(self.rephrased, "x")

    def find(self, given: Given) -> Findings:
        """Return how well prompts name activations, and where the neutral prompt leans."""
        names = self.names(given.classes)
        prompts, others = ([fill(template, name) for name in names] for template in (self.prompt, self.rephrased))
        total = 3 * len(names) + 4
        bank = Bank.of(names, list(self._walked(given, prompts, BANK, 0, total)))
        asked = {
            "other seeds": self._walked(given, prompts, SEEDS, len(names), total),
            "other words": self._walked(given, others, WORDS, 2 * len(names), total),
        }
        leaning = self._walked(given, [self.neutral, *self.attributes, ""], LEANING, 3 * len(names), total)
        neutral, first, second, base = (each.double().numpy() for each in leaning)
        gap = bias_gap(neutral, first, second, base, seed=given.seed)
        level = bank.random_level(seed=given.seed)
        rows, metrics = [], list[Metric]()
        for what, activations in asked.items():
            own = torch.arange(len(names)).repeat_interleave(self.seeds)
            flat = activations.flatten(0, 1)
            metrics += _naming(what, bank, flat, own, given.seed)
            cosines = bank.cosines(bank.relative(flat))
            found = zip(own.tolist(), cosines, strict=True)
            rows += [(what, names[i], names[int(row.argmax())], float(row.max())) for i, row in found]
        metrics += self._gap(gap)
        metrics.append(_level(level, bank))
        table = pd.DataFrame(rows, columns=["asked", "class", "named", "cosine"])
        return Findings(table, metrics, _views(bank, table, names, gap, self), self._verdict(metrics, gap, level))

    def _walked(self, given: Given, prompts: Sequence[str], part: int, done: int, total: int) -> Tensor:
        """Return activations (prompts, seeds, d) from seeds of this part."""
        [place] = choose_hookpoints(given.model, [self.hookpoint])[:1]
        seeds = range(part * APART, part * APART + self.seeds)
        walking = Walking(self.steps, self.guidance, "", given.seed)
        found = walked_prompts(given.model, list(prompts), seeds, [place], walking, given.batch_size)
        given.tick(done + len(prompts), total)
        return found[place.name]

    def _gap(self, gap: BiasGap) -> list[Metric]:
        what = f"cosine of '{self.neutral}' with '{self.attributes[0]}', less that with '{self.attributes[1]}'"
        return [metric("bias_gap", NETWORK, gap, self.seeds, True, {"what": what, "chance": 0.0}, {})]

    def _verdict(self, metrics: Sequence[Metric], gap: BiasGap, level: float) -> dict[str, str]:
        named = {each["name"]: each["value"] for each in metrics if each["variant"] == NETWORK}
        low, high = gap.interval()
        leans = self.attributes[0] if low > 0 else self.attributes[1] if high < 0 else None
        towards = f"to '{leans}'" if leans else "to neither attribute that could be told"
        return {
            "names": f"{named['named@other seeds']:.0%} of other seeds and {named['named@other words']:.0%} of other "
            f"words are named rightly; a random vector's best cosine stays below {level:.2f} in 95 of 100.",
            "leaning": f"'{self.neutral}' leans {towards} (gap {gap.value:+.2f} [{low:+.2f}, {high:+.2f}]).",
        }


def _naming(what: str, bank: Bank, activations: Tensor, own: Tensor, seed: int) -> list[Metric]:
    """Return the share of activations (n, d) that their own prompt names best, beside prompts in random order."""
    chance = 1 / len(bank.prompts)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(bank.prompts), generator=generator)[own]
    right, wrong = (Share((bank.ranks(activations, each) == 0).numpy().astype(float)) for each in (own, shuffled))
    told = {"what": f"share of activations of {what} whose nearest direction is their prompt's", "chance": chance}
    mixed = {"what": f"{told['what']}, prompts in random order", "chance": chance}
    return [
        metric(f"named@{what}", NETWORK, right, len(own), True, told, {CONTROL: wrong}),
        metric(f"named@{what}", CONTROL, wrong, len(own), True, mixed, {}),
    ]


def _level(level: float, bank: Bank) -> Metric:
    return {
        "name": "random_cosine",
        "variant": CONTROL,
        "value": level,
        "low": None,
        "high": None,
        "n": len(bank.prompts),
        "higher_is_better": None,
        "definition": {"what": "largest cosine with a direction that random vectors stay below, in 95 of 100"},
        "changes": {},
    }


def _views(bank: Bank, table: pd.DataFrame, names: Sequence[str], gap: BiasGap, asked: PromptDirections) -> list[View]:
    cosines = bank.cosines(bank.centred).numpy()
    every = list(names)
    counts = pd.crosstab(table["class"], table["named"]).reindex(index=every, columns=every, fill_value=0)
    shares = counts.to_numpy() / counts.to_numpy().sum(1, keepdims=True)
    low, high = gap.interval()
    title = f"Where '{asked.neutral}' leans"
    note = f"above 0: nearer to '{asked.attributes[0]}'; below: to '{asked.attributes[1]}'"
    return [
        Matrix("Cosines between the directions of prompts", names, names, cosines, signed=True),
        Matrix("What held-out activations are named", names, names, shares, note="rows: true class; shares of a row"),
        Bars(title, ["bias gap"], np.array([gap.value]), np.array([low]), np.array([high]), 0.0, note),
    ]
