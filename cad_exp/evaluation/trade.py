"""Which of several edits is strong enough, and harms least: what `edit.strength=auto` goes by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

Row = dict[str, Any]
SURE = 0.8  # how likely a wish must be fulfilled: four times as likely as not


def rates(concept: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Return the share of the concept's images that show it, and of the others those that still show what they name.

    Args:
        concept: (N,) bool, which images are of the concept.
        before: (N,) 1, 0 or NaN, whether the intact model's image shows what was asked for; NaN: nobody can say.
        after: (N,) the same of the edited model's.

    Returns:
        `rate` and `kept` in 0..1, and `images`, of how many the rate is; kept counts those that showed it before.
        Empty where nobody can say.
    """
    asked = concept & ~np.isnan(after)
    others = ~concept & (before == 1) & ~np.isnan(after)
    if not asked.any():
        return {}
    kept = float(after[others].mean()) if others.any() else 1.0
    return {"rate": float(after[asked].mean()), "images": int(asked.sum()), "kept": kept}


def reached(row: Row, erase: float) -> bool:
    """Return whether an edit leaves the concept in at most this share of all images: see `excess`."""
    return "rate" in row and not excess(row, erase)


def excess(row: Row, erase: float) -> float:
    """Return by how much the share of images that show the concept may exceed a wish; 0: it is fulfilled.

    One of 96 images is a hundredth, but the next 64 may show three. So the share counts that is not exceeded with a
    chance of 0.8, given the images seen: a quantile of Beta(1 + shown, 1 + not shown), the posterior under a uniform
    prior (Gelman et al., Bayesian Data Analysis, section 2.4).
    Where no image shows the concept, no more can be asked: 0.
    """
    shown = round(row["rate"] * row["images"])
    if not shown:
        return 0.0
    return max(0.0, float(beta.ppf(SURE, 1 + shown, 1 + row["images"] - shown)) - erase)


def chosen(tried: Sequence[Row], erase: float, keep: float) -> tuple[int, str]:
    """Return the number of the best edit, and why in words.

    Args:
        tried: of each edit, weakest first: `strength`, `left`, `moved`; where images were judged what `rates` returns.
        erase: wished for `rate`, at most.
        keep: wished for `kept`, at least.

    The weakest that fulfils both wishes; else the one that misses them least, both added up. Without images the one
    with the least sum of what is left and what moved.
    """
    if "rate" not in tried[0]:
        best = min(range(len(tried)), key=lambda i: tried[i]["left"] + tried[i]["moved"])
        return best, "no judge looks at images: least of what is left and what moved, at noisy latents"
    missed = [excess(row, erase) + max(0.0, keep - row["kept"]) for row in tried]
    best = int(np.argmin(missed))
    if not missed[best]:
        return best, f"the weakest that leaves at most {erase:g} and keeps at least {keep:g}"
    row, wished = tried[best], f"at most {erase:g} and keeps at least {keep:g}"
    left = f"leaves {row['rate']:.3f} of {row['images']} images"
    return best, f"none surely leaves {wished}: this {left}, keeps {row['kept']:.3f}"
