"""A page for a single latent: what it acts on, when, which labels it tells, and which prompts it resembles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cad_exp.evaluation.monosemanticity.purity import Purity, purity
from cad_exp.pipeline.gallery import chosen
from cad_exp.pipeline.held_out import TOP, HeldOut
from cad_exp.reporting.figures.latent_page import Named, Page, Told, latent_page

if TYPE_CHECKING:
    from cad_exp.representations.prompt_directions import Bank

NAMES = 5  # prompts of a page


def default_latents(held: HeldOut, number: int) -> list[int]:
    """Return `number` distinct latents, taking turns: a pure one, one of median purity, one at random."""
    kinds = chosen(held, number).values()
    turns = (latent for turn in zip_longest(*kinds) for latent in turn if latent is not None)
    return list(islice(dict.fromkeys(turns), number))


def pages(held: HeldOut, latents: Sequence[int]) -> Iterator[Page]:
    """Yield the page of each latent."""
    times, acts = held.over_time(latents)
    bank = _bank(held)
    found = {label: purity(held.codes[:, latents], classes, TOP) for label, classes in held.labels.items()}
    for number, latent in enumerate(latents):
        top = held.top(latent)
        yield Page(
            latent,
            held.hookpoint,
            [held.picture(image) for image in top],
            [held.map(image, latent) for image in top],
            held.frequency(latent),
            times,
            acts[:, :, number].mean(0),
            acts[top, :, number].mean(0),
            [told for label in found if (told := _told(held, label, found, number)) is not None],
            _named(held, bank, latent),
        )


def write(held: HeldOut, latents: Sequence[int], folder: Path, model: str) -> list[Path]:
    """Draw the page of each latent into a folder; returns the files, named by latent and, of several, by cell."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = zip(latents, pages(held, latents), strict=True)
    return [latent_page(page, folder / f"{latent}{held.cell.suffix}.png", model) for latent, page in drawn]


def _told(held: HeldOut, label: str, found: dict[str, Purity], number: int) -> Told | None:
    """Return what the top images with a class say of a label; None where the latent acts in too few of them."""
    measured = found[label]
    rows = np.flatnonzero(measured.latents == number)
    if not len(rows) or measured.null is None:
        return None
    classes = held.labels[label]
    counts = np.bincount(classes[measured.images[rows[0]]])
    common = int(counts.argmax())
    share, base = counts[common] / TOP, float((classes[classes >= 0] == common).mean())
    return Told(label, held.names[label][common], float(share), base, measured.null.purity, measured.null.quantile)


def _bank(held: HeldOut) -> tuple[Bank, float, float, float, int] | None:
    """Return the bank of the training captions, None for fewer than two that two images have.

    With it: the two levels of random vectors, and how often, of how many, held-out images name their own caption.
    """
    import torch

    from cad_exp.representations.prompt_directions import Bank, by_prompt

    prompts, activations = by_prompt(*held.training())
    if len(prompts) < 2:
        return None
    bank, seed = Bank.of(prompts, activations), held.features.seed
    levels = bank.random_level(seed=seed), bank.random_level(held.cell.own.moments(held.runtime).covariance, seed=seed)
    known = {prompt: number for number, prompt in enumerate(prompts)}
    rows = [row for row, caption in enumerate(held.captions) if caption in known]
    own = torch.tensor([known[held.captions[row]] for row in rows], dtype=torch.long)
    first = float((bank.ranks(held.means()[rows], own) == 0).float().mean()) if rows else float("nan")
    return bank, *levels, first, len(rows)


def _named(held: HeldOut, made: tuple[Bank, float, float, float, int] | None, latent: int) -> Named | None:
    if made is None:
        return None
    bank, alike, spread, first, number = made
    names = bank.names(held.autoencoder.W_dec[latent], NAMES)
    return Named(names, alike, spread, len(bank.prompts), first, number)
