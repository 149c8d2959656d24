"""What an analysis is: a class that looks at a model and labelled images, and says what it found.

Each is one file, one class and one YAML of `conf/analysis`. It gets what is there, and returns a table, metrics with
intervals beside their controls, what to draw, and a verdict in words. Files, caches, pictures and tracking are not its
concern.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cad_exp.data.labelled import Labelled
from cad_exp.data.prompts.templates import fill
from cad_exp.evaluation.analyses.views import View
from cad_exp.utils.errors import UserError, choose

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from cad_exp.models.pipeline import DiffusionModel
    from cad_exp.representations.image_encoder import ImageEncoder

Metric = dict[str, Any]
NOTHING = "nothing"  # the class of images without an object, which no prompt can name


@dataclass(frozen=True)
class Given:
    """What an analysis has to look at.

    model: loaded. images: labelled (N). classes: the names of each label's classes. numbers: (N,) of the images, from
    which noise is seeded. latents: clean latents (N, C, h, w) fp32. timesteps: at which to look. activations:
    (N, timesteps, draws, ...) fp32 by hookpoint, in network order; empty unless the analysis `reads_activations`.
    untrained: the same of the network with random weights; empty unless it `reads_untrained`. encoder: the image tower
    of a CLIP; None without one. seed: of everything random. batch_size: rows of a forward pass. tick: called with
    (done, of).
    """

    model: DiffusionModel
    images: Labelled
    classes: Mapping[str, Sequence[str]]
    numbers: Sequence[int]
    latents: Tensor
    timesteps: Sequence[int]
    activations: Mapping[str, Tensor]
    untrained: Mapping[str, Tensor]
    encoder: ImageEncoder | None
    seed: int
    batch_size: int
    tick: Callable[[int, int], Any]


@dataclass(frozen=True)
class Findings:
    """What an analysis found.

    table: everything, in rows. metrics: as `measured.metric` makes them. views: what to draw. verdict: sentences by
    what they are about.
    """

    table: pd.DataFrame
    metrics: list[Metric]
    views: Sequence[View]
    verdict: dict[str, str] = field(default_factory=dict)


class Analysis(ABC):
    """One analysis; the arguments of its constructor are its settings.

    reads_activations: the pooling of the activations that it asks for (`mean`, `grid` or `map`); None: it takes none.
    reads_untrained: whether it asks for those of a network with random weights as well. needs_masks: whether it looks
    at where the images' objects are. reads_attention: whether it looks at where the image attends to the text.
    """

    reads_activations: ClassVar[str | None] = None
    reads_untrained: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = False
    reads_attention: ClassVar[bool] = False

    def check(self, classes: Mapping[str, Sequence[str]]) -> None:  # noqa: B027  # most have nothing to check
        """Check the settings against the labels of the images, before torch loads.

        Raises:
            UserError: a label, class or value that does not exist, with what there is.
        """

    @abstractmethod
    def find(self, given: Given) -> Findings:
        """Return what the model shows."""


class OfClasses(Analysis):
    """An analysis of the classes of one label, which a prompt names.

    label: whose classes; None: of the first label. prompt: a template with one {}, for the name. leave_out: classes
    that take no part; None: the class `nothing`, if there is one.
    """

    def __init__(self, label: str | None, prompt: str, leave_out: Sequence[str] | None = None):
        self.label, self.prompt, self.leave_out = label, prompt, leave_out

    def check(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Check that there are two classes at least, and a place for their names."""
        label = label_of(self.label, classes)
        for name in self.leave_out or ():
            choose(name, classes[label], "class of analysis.leave_out")
        if len(self.names(classes)) < 2:
            raise UserError(f"analysis.leave_out leaves less than two classes of '{label}' to tell apart")
        fill(self.prompt, "x")

    def names(self, classes: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the classes that take part, in the label's order."""
        left_out = [NOTHING] if self.leave_out is None else self.leave_out
        return [name for name in classes[label_of(self.label, classes)] if name not in left_out]


def label_of(asked: str | None, classes: Mapping[str, Sequence[str]]) -> str:
    """Return the label that is asked for, or for None the first of the images. UserError for one that is not there."""
    return choose(asked, list(classes), "label of analysis.label") if asked else next(iter(classes))


def classes_of(labels: Mapping[str, np.ndarray], label: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the numbers (n,) of the images of every class of a label, by the name of the class."""
    return {name: np.flatnonzero(labels[label] == number) for number, name in enumerate(names)}
