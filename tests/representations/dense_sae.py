"""A sparse autoencoder as it is usually written: dense codes, and autograd for the gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cad_exp.representations.sae.autoencoder import Autoencoder
from cad_exp.representations.sae.gradients import AUX_PART, Aux
from cad_exp.representations.sae.selection import BatchTopK, TopK


def doubled(autoencoder: Autoencoder) -> Autoencoder:
    """The same autoencoder in double precision."""
    return autoencoder.with_tensors({name: tensor.double() for name, tensor in autoencoder.tensors.items()})


def mask(autoencoder: Autoencoder, pre: Tensor) -> Tensor:
    """Which entries of the pre-activations are selected, (tokens, width) bool."""
    selects, flat = autoencoder.selects, pre.detach()
    if isinstance(selects, TopK):
        return torch.zeros_like(flat).scatter_(1, flat.topk(selects.k).indices, 1.0).bool()
    assert isinstance(selects, BatchTopK)
    best = flat.flatten().topk(selects.k * len(flat)).indices
    return torch.zeros(flat.numel()).index_fill_(0, best, 1.0).view(flat.shape).bool()


def dense_loss(autoencoder: Autoencoder, x: Tensor, prefixes: list[int], aux: Aux | None = None) -> Tensor:
    """The loss that `gradients` differentiates by hand."""
    variance = (x - x.mean(0)).square().sum()
    pre = F.linear(x - autoencoder.b_dec, autoencoder.W_enc, autoencoder.b_enc)
    z = pre.relu() * mask(autoencoder, pre)
    made = [z[:, :m] @ autoencoder.W_dec[:m] + autoencoder.b_dec for m in prefixes]
    loss = sum((each - x).square().sum() for each in made) / variance / len(prefixes)
    if aux is None or not aux.dead.any():
        return loss
    k = min(aux.k, int(aux.dead.sum()))
    part = len(x) // AUX_PART
    spare = torch.where(aux.dead, pre[:part], -torch.inf)
    chosen = torch.zeros_like(spare).scatter_(1, spare.topk(k).indices, 1.0).bool()
    error = (pre[:part].relu() * chosen) @ autoencoder.W_dec - (x - made[-1])[:part].detach()
    share = error.square().sum() / (variance * part / len(x))
    return loss + aux.weight * min(1.0, float(aux.dead.sum()) / aux.k) * share


def dense_gradients(
    autoencoder: Autoencoder, x: Tensor, prefixes: list[int], aux: Aux | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and what autograd says of it."""
    tensors = {name: tensor.clone().requires_grad_() for name, tensor in autoencoder.tensors.items()}
    loss = dense_loss(autoencoder.with_tensors(tensors), x, prefixes, aux)
    found = torch.autograd.grad(loss, list(tensors.values()))
    return loss.detach(), dict(zip(tensors, found, strict=True))
