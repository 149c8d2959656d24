"""The peers of the sparse autoencoders: sparsify's and dictionary_learning's own training steps, around one stream.

Their loops read a language model; what a step does is taken from them and nothing else, so that neither a model nor
logging slows them down. The results are told as our `Autoencoder`: all three have the same forward pass (tested).
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cad_exp.representations.sae.autoencoder import Autoencoder
from cad_exp.representations.sae.selection import TopK

INSTALL = {
    "sparsify": "pip install eai-sparsify",
    "dictionary_learning": "pip install einops, and pip install --no-deps dictionary-learning",
}
WARMUP, DECAY = 0.05, 0.8  # shares of the steps at which a rate has risen, and from which it falls to 0


def missing(library: str) -> str:
    """How to install a peer that is missing; empty where it is there."""
    return "" if importlib.util.find_spec(library) else INSTALL[library]


class Sparsify:
    """Schedule-free sign descent, its default, or Adam, whose rate rises and then falls linearly to 0."""

    def __init__(self, optimiser: str):
        self.optimiser = optimiser

    def __call__(self, batches: Iterator[Tensor], steps: int, d: int, width: int, k: int, seed: int, lr: float) -> Any:
        coder = self.coder(d, width, k, seed)
        optimiser, after = getattr(self, self.optimiser)(coder, lr, steps)
        for number, x in zip(range(steps), batches, strict=False):
            if number == 0:
                coder.b_dec.data = x.mean(0)
            coder.set_decoder_norm_to_unit_norm()
            coder(x).fvu.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            optimiser.step()
            optimiser.zero_grad()
            after()
        if self.optimiser == "signum":
            optimiser.eval()
        return self.told(coder, k)

    @staticmethod
    def coder(d: int, width: int, k: int, seed: int) -> Any:
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its kernels are for GPUs
        from sparsify import SparseCoder, SparseCoderConfig

        torch.manual_seed(seed)
        return SparseCoder(d, SparseCoderConfig(num_latents=width, k=k))

    @staticmethod
    def signum(coder: Any, lr: float, steps: int) -> Any:
        from schedulefree import ScheduleFreeWrapper
        from sparsify.sign_sgd import SignSGD

        optimiser = ScheduleFreeWrapper(SignSGD(coder.parameters(), lr=lr), momentum=0.95)
        optimiser.train()
        return optimiser, lambda: None

    @staticmethod
    def adam(coder: Any, lr: float, steps: int) -> Any:
        from transformers import get_linear_schedule_with_warmup

        optimiser = torch.optim.Adam(coder.parameters(), lr=lr)
        return optimiser, get_linear_schedule_with_warmup(optimiser, int(WARMUP * steps), steps).step

    @staticmethod
    def told(coder: Any, k: int) -> Autoencoder:
        return _told(coder.encoder.weight, coder.encoder.bias, coder.W_dec, coder.b_dec, k)


class DictionaryLearning:
    """dictionary_learning's TopKTrainer, on tokens whose mean square norm is 1: its `normalize_activations`."""

    def __call__(self, batches: Iterator[Tensor], steps: int, d: int, width: int, k: int, seed: int, lr: float) -> Any:
        trainer = self.trainer(steps, d, width, k, seed, lr)
        for number, x in zip(range(steps), batches, strict=False):
            trainer.update(number, x / d**0.5)
        return self.told(trainer.ae, k).rescaled(torch.zeros(d), d**0.5)

    @staticmethod
    def trainer(steps: int, d: int, width: int, k: int, seed: int, lr: float) -> Any:
        # it imports an old nnsight for language models; the trainers do without
        if "nnsight" not in sys.modules and not importlib.util.find_spec("nnsight"):
            stand_in = ModuleType("nnsight")
            stand_in.LanguageModel = object
            sys.modules["nnsight"] = stand_in
        from dictionary_learning.trainers.top_k import TopKTrainer

        return TopKTrainer(
            steps=steps,
            activation_dim=d,
            dict_size=width,
            k=k,
            layer=0,
            lm_name="none",
            lr=lr,
            warmup_steps=int(WARMUP * steps),
            decay_start=int(DECAY * steps),
            threshold_start_step=steps,
            seed=seed,
            device="cpu",
        )

    @staticmethod
    def told(ae: Any, k: int) -> Autoencoder:
        return _told(ae.encoder.weight, ae.encoder.bias, ae.decoder.weight.T, ae.b_dec, k)


def _told(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, k: int) -> Autoencoder:
    parts = (each.detach().clone().contiguous() for each in (W_enc, b_enc, W_dec, b_dec))
    return Autoencoder(*parts, TopK(k))
