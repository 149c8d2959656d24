"""An autoencoder's files, in the layout of SAELens: `cfg.json` and `sae_weights.safetensors`.

SAELens reads them with `SAE.load_from_disk(folder)`: architecture `topk`, or `jumprelu` for a threshold. Its encoder is
a matrix (features, latents), its decoder (latents, features).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cad_exp.representations.sae.autoencoder import NAMES, Autoencoder, Selects
from cad_exp.representations.sae.selection import Threshold, TopK
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import atomic

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def save(folder: Path, autoencoder: Autoencoder, facts: dict[str, Any]) -> None:
    """Write an autoencoder. facts: JSON-able, of its training; they stand under `metadata`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu() for name, tensor in autoencoder.tensors.items()}
    tensors["W_enc"] = tensors["W_enc"].T
    config = {
        "sae_lens_version": "6.0.0",  # without it, SAELens takes the file for an older one and drops the facts
        "d_in": autoencoder.W_dec.shape[1],
        "d_sae": autoencoder.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": facts,
    }
    if isinstance(autoencoder.selects, TopK):
        config |= {"architecture": "topk", "k": autoencoder.selects.k}
    elif isinstance(autoencoder.selects, Threshold):
        config["architecture"] = "jumprelu"
        # ours acts from the threshold on, theirs above it
        just_below = torch.nextafter(torch.tensor(autoencoder.selects.threshold), torch.tensor(-1.0))
        tensors["threshold"] = just_below.expand(autoencoder.width)
    else:
        raise UserError("this autoencoder is still in training: save the trained one")
    with atomic(folder / CONFIG) as draft:
        draft.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    with atomic(folder / WEIGHTS) as draft:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft)


def load(folder: Path) -> tuple[Autoencoder, dict[str, Any]]:
    """Return an autoencoder and the facts of its training.

    Raises:
        UserError: a file that is missing, damaged, of another architecture, or whose shapes do not fit.
    """
    config, tensors = _read(folder)
    if lacking := [name for name in NAMES if name not in tensors]:
        raise UserError(
            f"'{folder / WEIGHTS}' has no {lacking[0]}: give the folder of an autoencoder in SAELens' layout"
        )
    own = {name: tensors[name].float() for name in NAMES}
    own["W_enc"] = own["W_enc"].T.contiguous()
    width, d = own["W_dec"].shape if own["W_dec"].ndim == 2 else (0, 0)
    shapes = {"W_enc": (width, d), "b_enc": (width,), "b_dec": (d,), "threshold": (width,)}
    if not width or any(tensor.shape != shapes[name] for name, tensor in (tensors | own).items() if name in shapes):
        raise UserError(f"the matrices in '{folder / WEIGHTS}' do not fit one another: write it again")
    if config.get("normalize_activations", "none") != "none" or not config.get("apply_b_dec_to_input", True):
        raise UserError(f"'{folder / CONFIG}': only normalize_activations=none with apply_b_dec_to_input=true is read")
    if config.get("rescale_acts_by_decoder_norm"):  # SAELens then selects by how far a latent moves a token
        lengths = own["W_dec"].norm(dim=1)
        own |= {"W_enc": own["W_enc"] * lengths[:, None], "b_enc": own["b_enc"] * lengths}
        own["W_dec"] = own["W_dec"] / lengths[:, None]
    facts = config.get("metadata")
    return Autoencoder(**own, selects=_selects(folder, config, tensors)), facts if isinstance(facts, dict) else {}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"there is no '{folder / name}': give the folder of an autoencoder (task=sae makes one)")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"the autoencoder in '{folder}' is damaged ({error}): write it again") from error
    if not isinstance(config, dict):
        raise UserError(f"'{folder / CONFIG}' holds no settings: write it again")
    return config, tensors


def _selects(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Selects:
    kind = config.get("architecture")
    if kind == "topk" and isinstance(config.get("k"), int) and config["k"] > 0:
        return TopK(config["k"])
    if kind == "jumprelu" and "threshold" in tensors:
        lowest = tensors["threshold"].float()
        if bool((lowest != lowest[0]).any()):
            raise UserError(f"'{folder}' has a threshold for each latent: only one for all is read")
        return Threshold(float(torch.nextafter(lowest[0], torch.tensor(torch.inf))))
    raise UserError(f"'{folder / CONFIG}' has architecture '{kind}': topk (with its k) and jumprelu are read")
