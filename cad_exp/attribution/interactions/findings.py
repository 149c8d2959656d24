"""What the interactions of all pairs say: which components back each other up, which overlap, which act as one.

With two components gone, J falls by the sum of both scores less their interaction H_ij. So where H_ij is

- above 0, they **overlap**: both do the same, and once one is gone the other's loss costs less;
- below 0, they **back up** each other: each makes up for the other, and only both together are missed.

Components whose interactions with all others are alike belong to one cluster: the rows of H correlate, average linkage.
Sources: interaction as the second difference of a game (Grabisch and Roubens, Int. J. Game Theory 28, 1999); average
linkage (Sokal and Michener 1958).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage

OVERLAP, BACKUP = "overlap", "back up"
APART = 0.5  # of clusters: 1 less the correlation of their rows


def pairs_of(pairs: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Return a row for each pair of components, the strongest interaction first.

    Args:
        pairs: H (n, n), symmetric.
        scores: of the single components (n,), in units of J.
        names: of the components.

    Returns:
        one, other: numbers; one_name, other_name; interaction; alone: what both scores say the pair does; kind.
    """
    one, other = np.triu_indices(len(scores), 1)
    found = pd.DataFrame({"one": one, "other": other})
    found["one_name"], found["other_name"] = (np.array(names, dtype=object)[rows] for rows in (one, other))
    found["interaction"] = pairs[one, other]
    found["alone"] = scores[one] + scores[other]
    found["kind"] = np.where(found["interaction"] > 0, OVERLAP, BACKUP)
    order = found["interaction"].abs().sort_values(ascending=False, kind="stable").index
    return found.loc[order].reset_index(drop=True)


def clusters_of(pairs: np.ndarray, apart: float = APART) -> np.ndarray:
    """Return the number of each component's cluster (n,), from 0 on in the order of the components.

    pairs: H (n, n); what a component does to itself does not count. apart: 1 less the correlation at which clusters
    are no longer joined. A component without any interaction is alone.
    """
    n = len(pairs)
    if n < 2:
        return np.zeros(n, dtype=int)
    distances = []
    for one in range(n):
        for other in range(one + 1, n):
            kept = np.delete(np.arange(n), (one, other))
            rows = pairs[one, kept], pairs[other, kept]
            varied = len(kept) > 1 and all(row.std() > 0 for row in rows)
            distances.append(1 - float(np.corrcoef(*rows)[0, 1]) if varied else 2.0)
    found = fcluster(linkage(np.array(distances), "average"), apart, "distance")
    first = {cluster: number for number, cluster in enumerate(dict.fromkeys(found.tolist()))}
    return np.array([first[cluster] for cluster in found.tolist()])


def told(table: pd.DataFrame, clusters: np.ndarray, names: Sequence[str], number: int = 3) -> str:
    """Return how strong overlaps and backups are in all, and the largest cluster, in sentences."""
    sums = table["interaction"].abs().groupby(table["kind"]).sum()
    backup, every = sums.get(BACKUP, 0.0), sums.sum()
    said = (
        [f"Of all interactions {backup / every:.0%} back up, the rest overlap."] if every else ["They do not interact."]
    )
    sizes = np.bincount(clusters)
    if len(sizes) and sizes.max() > 1:
        own = [names[i] for i in np.flatnonzero(clusters == sizes.argmax()).tolist()]
        more = f" and {len(own) - number} more" if len(own) > number else ""
        said.append(f"Act as one: {'; '.join(own[:number])}{more}.")
    return " ".join(said)
