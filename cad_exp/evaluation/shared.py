"""Which components several concepts share: do an edit of one concept and an edit of another go for the same ones?

Of each concept the strongest components are taken, a share of all. Two concepts share those that both have. Two
controls stand beside that number:

- **by chance**: as many components drawn at random share k k' / n of n;
- **by their layers**: as many drawn at random from each layer. Concepts that use the same layers share more than by
  chance, though none of their components need be the same.

A component may also make one concept and suppress the other: it is counted as opposed.
Source of the spread: the hypergeometric distribution, added up over layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from cad_exp.evaluation.fidelity.statistics import top


def strongest(scores: np.ndarray, share: float) -> np.ndarray:
    """Return which of the components (n,) are the strongest: at most this share of all, only scores above 0."""
    taken = np.zeros(len(scores), dtype=bool)
    taken[top(scores, share)] = True
    return taken & (scores > 0)


def pairs_of_concepts(scores: Mapping[str, np.ndarray], layers: np.ndarray, share: float = 0.05) -> pd.DataFrame:
    """Return a row for each pair of concepts, those first that share most beyond their layers.

    Args:
        scores: of each concept, signed (n,), of the same components in the same order.
        layers: (n,) the number of each component's layer, from 0 on.
        share: of the components that count as the strongest, above 0 and at most 1.

    Returns:
        one, other: concepts; correlation: of the ranks of all scores, -1 to 1 (Spearman); of, of_other: how many are
        the strongest; shared: how many of them both have; chance, by_layers: as many as random components of all, and
        of the same layers, would share on average; deviations: how many standard deviations `shared` lies above
        `by_layers`, NaN where it cannot vary; opposed: how many of the strongest of either suppress the other as
        strongly.
    """
    from scipy.stats import spearmanr

    made = {name: strongest(values, share) for name, values in scores.items()}
    unmade = {name: strongest(-values, share) for name, values in scores.items()}
    rows = []
    for one, other in combinations(scores, 2):
        a, b, n = made[one], made[other], len(layers)
        mean, spread = _by_layers(a, b, layers)
        both = int((a & b).sum())
        rows.append(
            {
                "one": one,
                "other": other,
                "correlation": float(spearmanr(scores[one], scores[other]).statistic),
                "of": int(a.sum()),
                "of_other": int(b.sum()),
                "shared": both,
                "chance": float(a.sum() * b.sum() / n),
                "by_layers": mean,
                "deviations": (both - mean) / spread if spread else float("nan"),
                "opposed": int((a & unmade[other]).sum() + (unmade[one] & b).sum()),
            }
        )
    found = pd.DataFrame(rows)
    order = (found["shared"] - found["by_layers"]).sort_values(ascending=False, kind="stable").index
    return found.loc[order].reset_index(drop=True)


def components_of_several(
    scores: Mapping[str, np.ndarray], names: Sequence[str] | None = None, share: float = 0.05
) -> pd.DataFrame:
    """Return the components that are among the strongest of two concepts or more, those of most concepts first.

    Columns: component, its number; name, where there are names; number, of concepts; concepts; suppresses: concepts
    that it suppresses as strongly.
    """
    made = {name: strongest(values, share) for name, values in scores.items()}
    unmade = {name: strongest(-values, share) for name, values in scores.items()}
    counts = np.sum(list(made.values()), axis=0)
    order = np.argsort(-counts, kind="stable")
    found = pd.DataFrame({"component": order[counts[order] > 1]})
    if names is not None:
        found["name"] = [names[i] for i in found["component"]]
    found["number"] = counts[found["component"]]
    for column, each in (("concepts", made), ("suppresses", unmade)):
        found[column] = [", ".join(name for name, taken in each.items() if taken[i]) for i in found["component"]]
    return found


def told(pairs: pd.DataFrame, several: pd.DataFrame, concepts: int, share: float) -> str:
    """Return which concepts share most and least, and how many components serve most concepts, in sentences."""
    said = [f"Compared are the strongest {100 * share:.3g} % of the components."]
    for word, row in (("most", pairs.iloc[0]), ("least", pairs.iloc[-1]))[: len(pairs)]:
        said.append(
            f"{row['one']} and {row['other']} share {word}: {row['shared']} of {row['of']} components, "
            f"{row['by_layers']:.1f} by their layers alone, {row['chance']:.1f} by chance."
        )
    half = several[several["number"] > concepts / 2]
    if concepts > 2:
        said.append(f"Among the strongest of more than half of the {concepts} concepts: {len(half)} components.")
    return " ".join(said)


def _by_layers(a: np.ndarray, b: np.ndarray, layers: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of what two sets share whose members are drawn anew within their layers."""
    n, x, y = (np.bincount(layers, weights=each).astype(float) for each in (np.ones(len(layers)), a, b))
    mean = np.divide(x * y, n, out=np.zeros_like(n), where=n > 0)
    variance = mean * (n - x) * (n - y)
    variance = np.divide(variance, n * (n - 1), out=np.zeros_like(n), where=n > 1)
    return float(mean.sum()), float(np.sqrt(variance.sum()))
