"""The layers of an attribution as pictures show them: in the order of the signal, with their names and shares."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

PARTS = ("down", "mid", "up")
STRIP = 200  # cells of a heat strip
SORTED_EXACTLY = 1_000_000  # longer layers are thinned out before they are sorted for the strip


@dataclass(frozen=True)
class Layer:
    """One module with its scores (float64). helps, suppresses: shares of all absolute scores, in percent.

    part: down, mid, up, or "" in a network without such sides. name: for people.
    """

    module: str
    block: str
    kind: str
    part: str
    name: str
    scores: np.ndarray
    helps: float = 0.0
    suppresses: float = 0.0


def layers_of(table: pd.DataFrame, scores: np.ndarray) -> list[Layer]:
    """Group scores by layer, in network order. table: a row per component, or per matrix with its range of scores."""
    found = []
    for module, rows in table.groupby("module", sort=False):
        if len(table) == len(scores):
            own = scores[rows["index"].to_numpy()]
        else:  # weights: one table row per matrix, a range of the score vector
            own = np.concatenate([scores[a:b] for a, b in zip(rows["start"], rows["stop"], strict=True)])
        block, kind = str(rows["block"].iloc[0]), str(rows["kind"].iloc[0])
        part = next((part for part in PARTS if block.startswith(part)), "")
        found.append(Layer(str(module), block, kind, part, short_name(str(module), block), own))
    # A UNet lists its middle after both sides; the signal passes down, mid, up.
    found.sort(key=lambda layer: PARTS.index(layer.part) if layer.part else -1)
    total = sum(np.abs(layer.scores).sum() for layer in found) or 1.0
    return [_with_shares(layer, total) for layer in found]


def _with_shares(layer: Layer, total: float) -> Layer:
    helps = 100 * np.clip(layer.scores, 0, None).sum() / total
    return replace(layer, helps=helps, suppresses=100 * np.clip(layer.scores, None, 0).sum() / total)


def short_name(module: str, block: str) -> str:
    """Name "up_blocks.1.attentions.0" as "up 1, transformer 0"; its second inner block adds ".1"."""
    inner = re.search(r"transformer_blocks\.(\d+)", module)
    inner_number = f".{inner[1]}" if inner and inner[1] != "0" else ""
    sides = re.match(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", block)
    if sides:
        return f"{sides[1]} {sides[2]}, transformer {sides[3]}{inner_number}"
    middle = re.match(r"mid_block\.attentions\.(\d+)", block)
    if middle:
        return f"mid, transformer {middle[1]}{inner_number}"
    return re.sub(r"[_.]", " ", block)


def strip(scores: np.ndarray) -> np.ndarray:
    """Return the scores in falling order; of more than 200, those at 200 evenly spaced ranks, both ends included."""
    if len(scores) > SORTED_EXACTLY:
        scores = np.concatenate([scores[:: len(scores) // SORTED_EXACTLY + 1], [scores.max(), scores.min()]])
    falling = np.sort(scores)[::-1]
    return falling if len(falling) <= STRIP else falling[np.linspace(0, len(falling) - 1, STRIP).round().astype(int)]
