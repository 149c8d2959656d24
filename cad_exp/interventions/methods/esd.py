"""Erased Stable Diffusion (Gandikota et al., arXiv 2303.07345): fine-tune away from the concept's own guidance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods.projections import cross_attentions
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.tensors import resumed, save_tensors

METHODS = ("esd-x", "esd-x-strict", "esd-u", "esd-all")
AHEAD = 8  # training steps whose latents are sampled together
KIND = "training"  # of the file of an unfinished training


def esd(
    model: DiffusionModel,
    prompt: str,
    guide: str = "",
    method: str = "esd-x",
    steps: int = 1000,
    lr: float = 1e-5,
    negative_guidance: float = 1.0,
    batch_size: int = 1,
    sampling_steps: int = 50,
    sampling_guidance: float = 3.0,
    checkpoint_every: int = 100,
    seed: int = 0,
    draft: Path | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Minimise || eps_w(x_t, c) - [eps(x_t, base) - eta (eps(x_t, c) - eps(x_t, base))] ||^2 by Adam (section 4).

    eps is the intact model, c the prompt, base the guide (the paper: the empty prompt), eta = negative_guidance. Each
    step sees batch_size latents x_t of new trajectories of the intact model, guided to the concept and stopped at a
    random time (the authors' present code; their first let the model in training walk). Models that predict v or a
    velocity are trained on it: both are affine in eps. method: esd-x cross-attention, esd-x-strict its keys and values,
    esd-u all other linear and convolutional layers, esd-all all of them; in fp32, whatever the model's precision. A
    training that was stopped goes on from `draft`, written every checkpoint_every steps, and ends with the same bytes.
    """
    if steps < 1 or batch_size < 1 or checkpoint_every < 1 or not lr > 0:
        raise UserError("edit.steps, edit.batch_size, edit.checkpoint_every and edit.lr have to be positive")
    names = trained(model.denoiser, method)
    device = model.device
    values = [model.denoiser.get_parameter(name).detach().float().clone().requires_grad_() for name in names]
    optimizer = torch.optim.Adam(values, lr=lr)
    done = _resume(draft, names, values, optimizer)
    condition, loss = model.encode([prompt]), torch.zeros(())
    for first in range(done, steps, AHEAD):
        sampled = latents(model, prompt, guide, first, batch_size, sampling_steps, sampling_guidance, seed)
        for x, t, cond, base in list(sampled)[: steps - first]:
            target = base - negative_guidance * (cond - base)
            loss = _step(model, optimizer, dict(zip(names, values, strict=True)), x, t, condition, target.to(device))
        done = min(first + AHEAD, steps)
        if progress:
            progress(done, steps)
        if draft and done < steps and done // checkpoint_every > first // checkpoint_every:
            _keep(draft, names, values, optimizer, done)
    new = {
        name: value.detach().to(model.denoiser.get_parameter(name).dtype).cpu()
        for name, value in zip(names, values, strict=True)
    }
    return Edit({}, meta={"last_loss": float(loss)}, replaced=new)


def trained(denoiser: nn.Module, method: str) -> list[str]:
    """Return the names of the parameters that a method trains, found by class. UserError if there are none."""
    choose(method, METHODS, "edit.method")
    if method in ("esd-x", "esd-x-strict"):
        cross_attentions(denoiser)  # says what to do where there is none
    modules = dict(denoiser.named_modules())
    crossing = [n for n, m in modules.items() if isinstance(m, Attention) and m.is_cross_attention]
    names = []
    for name, module in modules.items():
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        owner = next((other for other in crossing if name.startswith(f"{other}.")), None)
        strict = owner is not None and name[len(owner) + 1 :] in ("to_k", "to_v")
        wanted = {"esd-x": owner is not None, "esd-x-strict": strict, "esd-u": owner is None, "esd-all": True}
        names += [f"{name}.{part}" for part, _ in module.named_parameters(recurse=False) if wanted[method]]
    return names


def latents(
    model: DiffusionModel, prompt: str, guide: str, first: int, size: int, steps: int, guidance: float, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield x_t, t and the intact predictions (under prompt and guide) for AHEAD training steps, `size` of each.

    What step number `first` sees depends on the seed and the number alone: a training can go on where it stopped.
    """
    dice = torch.Generator().manual_seed(1_000_003 * seed + first)
    seeds = torch.randint(2**31 - 1, (AHEAD * size,), generator=dice).tolist()
    stops = torch.randint(steps, (AHEAD * size,), generator=dice)
    found: list[Any] = [None] * (AHEAD * size)
    for number, point in enumerate(model.trajectory(prompt, guide, seeds, steps, guidance)):
        for row in (stops == number).nonzero().flatten().tolist():
            # The sampler's step writes new tensors, but a slice would keep the whole batch alive.
            found[row] = (point.x[row].clone(), point.t, point.cond[row].clone(), point.base[row].clone())
        if number == int(stops.max()):
            break
    for start in range(0, len(found), size):
        x, t, cond, base = zip(*found[start : start + size], strict=True)
        yield torch.stack(x), torch.tensor(t), torch.stack(cond), torch.stack(base)


@torch.enable_grad()
def _step(
    model: DiffusionModel,
    optimizer: torch.optim.Optimizer,
    values: dict[str, Tensor],
    x: Tensor,
    t: Tensor,
    condition: Condition,
    target: Tensor,
) -> Tensor:
    """Take one step of Adam; return the loss before it."""
    optimizer.zero_grad(set_to_none=True)
    weights = {name: value.to(model.denoiser.get_parameter(name).dtype) for name, value in values.items()}
    loss = (model.predict(x, t, condition, weights) - target).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def _keep(draft: Path, names: list[str], values: list[Tensor], optimizer: torch.optim.Adam, done: int) -> None:
    """Write everything that the next step depends on, in one file."""
    tensors = {f"value:{name}": value for name, value in zip(names, values, strict=True)}
    for name, value in zip(names, values, strict=True):
        tensors |= {f"{key}:{name}": part for key, part in optimizer.state.get(value, {}).items()}
    save_tensors(draft, KIND, tensors, {"done": done})


def _resume(draft: Path | None, names: list[str], values: list[Tensor], optimizer: torch.optim.Adam) -> int:
    """How many steps are done, by the file of a training that was stopped; its state is put in place. 0 without one."""
    if draft is None or not draft.is_file():
        return 0
    found = resumed(draft, KIND)
    if found is None:
        return 0
    tensors, meta = found
    for name, value in zip(names, values, strict=True):
        value.data.copy_(tensors[f"value:{name}"])
        state = {
            key: tensors[f"{key}:{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}:{name}" in tensors
        }
        moved = {key: part if key == "step" else part.to(value.device) for key, part in state.items()}
        if moved:
            optimizer.state[value] = moved
    return int(meta["done"])
