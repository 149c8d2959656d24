"""Train many autoencoders from one stream of tokens; a training that was killed continues to the same bytes.

1. Tokens are centred by their mean and divided by their scale; what was learned is told in their own units.
2. Every batch goes through every member: gradient, AuxK of those latents that have not acted for long, one step.
3. Where an architecture selects by batch, its threshold is found at the end: the mean over batches of the smallest
   value selected there, with the weights that were learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cad_exp.representations.sae.architectures import Architecture, make_architecture
from cad_exp.representations.sae.autoencoder import Autoencoder, balanced, initial
from cad_exp.representations.sae.gradients import Aux, gradients
from cad_exp.representations.sae.moments import Moments
from cad_exp.representations.sae.optimisers import Optimiser, make_optimiser
from cad_exp.representations.sae.selection import BatchTopK
from cad_exp.representations.sae.stream import Stream
from cad_exp.utils.tensors import resumed, save_tensors

KIND, EVERY = "sae_training", 20.0  # seconds between checkpoints
CALIBRATED = 32  # batches by which thresholds are found


@dataclass(frozen=True)
class Member:
    """One autoencoder to train. architecture, optimiser: as configs choose them. frozen: the decoder stays random.

    aux: weight of AuxK, 0 for none; dead_after: tokens without acting that make a latent dead.
    """

    architecture: dict[str, Any]
    width: int
    seed: int
    optimiser: dict[str, Any] = field(default_factory=lambda: {"name": "annealed"})
    aux: float = 1 / 4
    dead_after: int = 2_000
    frozen: bool = False


class _Training:
    """One member on its way."""

    def __init__(self, member: Member, first: Tensor, steps: int):
        """first: a batch by which the encoder is scaled; steps: of the whole training."""
        self.member, self.steps = member, steps
        self.architecture: Architecture = make_architecture(member.architecture)
        start = initial(first.shape[1], member.width, self.architecture.training(), member.seed)
        start = start.with_tensors({name: tensor.to(first.device) for name, tensor in start.tensors.items()})
        self.shape = balanced(start, first)
        self.optimiser: Optimiser = make_optimiser(self.shape.tensors, member.optimiser)
        self.idle = torch.zeros(member.width, dtype=torch.long, device=first.device)  # tokens since a latent acted
        self.prefixes = self.architecture.prefixes(member.width)
        self.loss = float("nan")

    def step(self, x: Tensor) -> None:
        member, current = self.member, self.shape.with_tensors(self.optimiser.point())
        dead = self.idle > member.dead_after
        aux = Aux(member.aux, max(1, x.shape[1] // 2), dead) if member.aux and bool(dead.any()) else None
        outcome = gradients(current, x, self.prefixes, aux)
        if member.frozen:
            outcome.gradients.pop("W_dec")
        self.optimiser.step(outcome.gradients, (self.optimiser.steps + 0.5) / self.steps)
        self.idle = torch.where(outcome.acted, 0, self.idle + len(x))
        self.loss = outcome.loss

    def result(self, batches: Sequence[Tensor]) -> Autoencoder:
        """Return what was learned, in the units of training."""
        learned = {name: tensor.clone() for name, tensor in self.optimiser.result().items()}
        lengths = learned["W_dec"].norm(dim=1).clamp_min(1e-12)  # of averages below 1: latents' values take them
        learned["W_dec"] /= lengths[:, None]
        learned["W_enc"], learned["b_enc"] = learned["W_enc"] * lengths[:, None], learned["b_enc"] * lengths
        found = self.shape.with_tensors(learned)
        threshold = 0.0
        if self.architecture.threshold:
            smallest = [max(0.0, BatchTopK(self.architecture.k).smallest(found.pre(x))) for x in batches]
            threshold = sum(smallest) / len(smallest)
        return found.with_tensors(learned, selects=self.architecture.trained(threshold))


@torch.no_grad()
def train(
    stream: Stream,
    members: Sequence[Member],
    moments: Moments,
    tokens: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], Any] | None = None,
    device: torch.device | str = "cpu",
) -> list[Autoencoder]:
    """Return the members' autoencoders, trained on `tokens` tokens of the stream, in the tokens' own units.

    Args:
        stream: of tokens in their own units.
        members: what to train; all see the same batches.
        moments: of the training tokens.
        tokens: that each member sees, rounded to whole batches.
        checkpoint: file in which an unfinished training is kept, and from which one is continued.
        progress: called with (tokens seen, tokens in all).
        device: where to compute.
    """
    place = torch.device(device)
    mean, scale = moments.mean.float().to(place), moments.scale
    steps = max(1, tokens // stream.batch_size)
    first = (next(stream.batches()).to(place) - mean) / scale
    trainings = [_Training(member, first, steps) for member in members]
    done = _resume(checkpoint, trainings)
    saved = time.monotonic()
    for x in islice(stream.batches(done), steps - done):
        x = (x.to(place) - mean) / scale
        for training in trainings:
            training.step(x)
        done += 1
        if progress:
            progress(done * stream.batch_size, steps * stream.batch_size)
        if checkpoint is not None and done < steps and time.monotonic() - saved > EVERY:
            _save(checkpoint, trainings, done)
            saved = time.monotonic()
    calibrated = min(CALIBRATED, stream.per_epoch) if any(each.architecture.threshold for each in trainings) else 0
    last = [(x.to(place) - mean) / scale for x in islice(stream.batches(), calibrated)]
    return [training.result(last).rescaled(mean, scale) for training in trainings]


def _save(file: Path, trainings: Sequence[_Training], done: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{number}.{name}": tensor
        for number, training in enumerate(trainings)
        for name, tensor in {**training.optimiser.state(), "idle": training.idle}.items()
    }
    save_tensors(file, KIND, tensors, {"steps": done})


def _resume(file: Path | None, trainings: Sequence[_Training]) -> int:
    found = resumed(file, KIND) if file is not None and file.exists() else None
    if found is None:
        return 0
    tensors, steps = found[0], int(found[1]["steps"])
    for number, training in enumerate(trainings):
        head = f"{number}."
        own = {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
        training.idle = own.pop("idle").to(training.idle.device)
        training.optimiser.restore(own, steps)
    return steps
