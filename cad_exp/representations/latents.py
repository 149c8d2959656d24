"""Latents and principal components as granularities: the components are directions of activations.

An edit scales what a latent adds, and leaves in place what the autoencoder does not reconstruct: h becomes
h + sum_i (g_i - 1) z_i(h) d_i. A gate of 1 changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.spaces.base import ComponentSpace, Scale
from cad_exp.interventions.spaces.directions import Directions, Place
from cad_exp.interventions.spaces.granularities import Granularity
from cad_exp.interventions.spaces.sites import Site
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.hookpoints import Hookpoint, choose_hookpoints
from cad_exp.representations.sae.autoencoder import Autoencoder
from cad_exp.representations.sae.files import load
from cad_exp.representations.sae.moments import Moments
from cad_exp.representations.sae.selection import Threshold, TopK
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.io import atomic
from cad_exp.utils.paths import resolve

MOMENTS = "moments.safetensors"
FIRST = "0"  # of the autoencoders of a place


class _OfAutoencoders(Granularity):
    """Directions at the places of a folder that task=sae made.

    autoencoders: the folder, with one sub-folder for each hookpoint. hookpoints: those that are taken; None: all.
    """

    default_kinds = allowed_kinds = ("direction",)
    optional_kinds = ()
    scale, of_weights, has_values, from_sites, files = Scale.MANY, False, True, False, ("autoencoders",)

    def __init__(
        self, kinds: Iterable[str] | None = None, autoencoders: str = "", hookpoints: Sequence[str] | None = None
    ):
        super().__init__(kinds)
        self.folder, self.hookpoints = Path(resolve(autoencoders)), hookpoints

    def of_model(self, model: DiffusionModel, sites: Sequence[Site]) -> ComponentSpace:
        """Return the space of the directions in a model.

        Raises:
            UserError: no such folder or place, or a place that the model does not have.
        """
        places = [self._place(self.folder / each.name, each) for each in choose_hookpoints(model, self._names())]
        return Directions(places, self.name)

    def _names(self) -> list[str]:
        there = sorted(path.name for path in self.folder.glob("*") if (path / FIRST).is_dir())
        if not there:
            raise UserError(f"granularity.autoencoders: '{self.folder}' holds no autoencoders: task=sae makes them")
        return [choose(name, there, "hookpoint of granularity.hookpoints") for name in self.hookpoints or there]

    def _place(self, folder: Path, hookpoint: Hookpoint) -> Place:
        raise NotImplementedError


class Latent(_OfAutoencoders):
    """One latent of a sparse autoencoder, the first that was trained at each place."""

    name = "latent"

    def _place(self, folder: Path, hookpoint: Hookpoint) -> Place:
        autoencoder = load(folder / FIRST)[0]
        assert hookpoint.tap is not None
        return Place(hookpoint.tap, autoencoder.W_dec, encoder_of(autoencoder))


class Principal(_OfAutoencoders):
    """One principal component of the tokens from which the autoencoders of a place learned."""

    name = "principal"

    def _place(self, folder: Path, hookpoint: Hookpoint) -> Place:
        try:
            found = load_file(folder / MOMENTS)
            mean, directions = found["mean"], found["directions"]
        except (SafetensorError, OSError, KeyError) as error:
            raise UserError(f"'{folder / MOMENTS}' is missing or damaged: make it again with task=sae") from error
        assert hookpoint.tap is not None
        reader = Encoder(directions, torch.zeros(len(directions)), mean, signed=True)
        return Place(hookpoint.tap, directions, reader)


def encoder_of(autoencoder: Autoencoder) -> Encoder:
    """Return what reads an autoencoder's latents in a network."""
    parts = autoencoder.W_enc, autoencoder.b_enc, autoencoder.b_dec
    if isinstance(autoencoder.selects, TopK):
        return Encoder(*parts, k=autoencoder.selects.k)
    assert isinstance(autoencoder.selects, Threshold)
    return Encoder(*parts, threshold=autoencoder.selects.threshold)


def save_moments(folder: Path, moments: Moments) -> None:
    """Write mean and principal components, the largest variance first, beside a place's autoencoders."""
    tensors = {"mean": moments.mean, "directions": moments.directions, "variances": moments.variances}
    with atomic(folder / MOMENTS) as draft:
        save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, draft)
