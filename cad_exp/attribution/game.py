"""The game: J as a function of one gate per component. It is all that an estimator knows.

Components are players, an ablation pattern is the set of those that stay, J is what they achieve together; so every
rule that shares out a game's value (gradients, leave-one-out, Shapley, regression) is an attribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property

import torch
from torch import Tensor, nn

from cad_exp.attribution.objectives.build import Objective
from cad_exp.interventions.spaces import Granularity, Site
from cad_exp.interventions.text_encoders import is_text
from cad_exp.models.families.condition import Condition
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError


class Game:
    """J(gates) for the components of one cut of the sites; gates (n,): 1 intact, 0 ablated, anything between allowed.

    `n` is the number of components. Raises UserError if the cut has none in these sites.
    """

    def __init__(self, objective: Objective, cut: Granularity, sites: Sequence[Site]):
        self.objective, self.cut, self.sites = objective, cut, list(sites)
        self.n = cut.count(self.sites)
        if not self.n:
            here = ", ".join(dict.fromkeys(site.kind for site in self.sites))
            raise UserError(
                f"there is no {cut.name} among {', '.join(cut.kinds)} here: choose other granularity.kinds of {here}"
            )

    @cached_property
    def intact(self) -> float:
        """J of the intact model, evaluated once."""
        return self.objective.value({})

    def value(self, gates: Tensor | None = None) -> float:
        """J at gates (n,); None is the intact model."""
        return self.intact if gates is None else self.objective.value(self.split(gates))

    def values(self, gates: Tensor) -> Tensor:
        """J (A,) fp64 on the CPU of A ablations at once: gates (A, n). Several processes share the ablations.

        Columns (neuron, head, layer) go many to a forward pass; weights have no such short cut and go one by one.
        """
        if self.cut.unit != "column":
            return torch.tensor([self.value(row) for row in gates], dtype=torch.float64)
        if distributed.size() == 1:
            return self.objective.values(self.split(gates))
        rows = list(distributed.share(range(len(gates))))
        totals = torch.zeros(len(gates), dtype=torch.float64, device=self.objective.model.device)
        if rows:
            totals[rows] = self.objective.values(self.split(gates[rows])).to(totals)
        distributed.add_up([totals])
        return totals.cpu()

    def value_and_gradient(self, gates: Tensor | None = None) -> tuple[float, Tensor]:
        """J and dJ/dgates (n,) fp32 on the CPU at gates (n,); None is the intact model."""
        ones = torch.ones(()).expand(self.n)  # takes no memory
        value, gradients = self.objective.value_and_gradient(self.split(ones if gates is None else gates))
        if gates is None:
            self.intact = value
        return value, self.join(gradients)

    def deal(self, number: int, seed: int = 0) -> list[Game]:
        """This game on `number` shares of its probes, dealt at random; on fewer where there are fewer probes."""
        return [Game(objective, self.cut, self.sites) for objective in self.objective.deal(number, seed)]

    def weights(self) -> Tensor:
        """The L1 size (n,) of each component's weights."""
        return self.join({site.module: self.objective.weight(site.module).abs() for site in self.cut.sites(self.sites)})

    def split(self, gates: Tensor) -> dict[str, Tensor]:
        """(..., n) numbers, one per component, to (..., in) column gates per module; for weights (out, in) each.

        Columns of a module that are none of these sites' get 1.
        """
        chosen, found = self.cut.sites(self.sites), {}
        pieces = gates.split([self.cut.parts(site) for site in chosen], dim=-1)
        for site, piece in zip(chosen, pieces, strict=True):
            if self.cut.unit != "column":
                own = piece.view(site.shape)
            else:
                own = piece.repeat_interleave(site.shape[1] // self.cut.parts(site), -1)
            if site.width > site.shape[1]:  # the site has a part of the module's columns
                whole = found.get(site.module)
                whole = own.new_ones(*own.shape[:-1], site.width) if whole is None else whole
                whole[..., site.columns] = own
                own = whole
            found[site.module] = own
        return found

    def join(self, tensors: dict[str, Tensor]) -> Tensor:
        """Per module (in,) or (out, in) numbers to (n,) fp32: a component's is the sum over its columns or weights."""
        pieces = []
        for site in self.cut.sites(self.sites):
            tensor = tensors[site.module][..., site.columns].float()
            if self.cut.unit == "column" and tensor.ndim == 2:
                tensor = tensor.sum(0)
            pieces.append(tensor.reshape(self.cut.parts(site), -1).sum(1))
        return torch.cat(pieces)


@torch.no_grad()
def input_norms(game: Game, condition: Condition) -> dict[str, Tensor]:
    """||x_j||_2 (in,) fp32 of every column's input per module, over all tokens, root mean square over the probes.

    condition: one row, under which the intact network sees the probes (`objective.concept` or `.neutral`).
    """
    objective, model = game.objective, game.objective.model
    sites = game.cut.sites(game.sites)
    if any(is_text(site.module) for site in sites):
        raise UserError("activations of text encoders are not measured: choose other granularity.kinds")
    sums = {site.module: torch.zeros(site.width, device=model.device) for site in sites}

    def add(name: str, x: Tensor) -> None:
        sums[name] += x.float().square().flatten(0, -2).sum(0)

    with ExitStack() as hooks:
        for name in sums:
            module: nn.Module = model.denoiser.get_submodule(name)
            hook = module.register_forward_pre_hook(lambda _, args, name=name: add(name, args[0]))
            hooks.callback(hook.remove)
        for batch in distributed.share(list(objective.probes.batches(objective.batch_size))):
            model.predict(batch.x, batch.t, condition)
    distributed.add_up(list(sums.values()))
    return {name: (total / len(objective.probes)).sqrt().cpu() for name, total in sums.items()}
