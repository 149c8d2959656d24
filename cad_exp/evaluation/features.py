"""What a run says of its sparse features in words: do they stand up to their controls?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cad_exp.evaluation.variants import AUTOENCODER, FROZEN, PRINCIPAL, RANDOM


def verdict(metrics: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return two sentences for each place: on the reconstruction, and on what latents say of labels."""
    told = {}
    for metric in metrics:
        kind, _, rest = metric["name"].partition("@")
        if metric["variant"] != AUTOENCODER or kind not in ("fvu", "purity"):
            continue
        told[_where(kind, rest)] = _reconstruction(metric) if kind == "fvu" else _purity(metric)
    return told


def _where(kind: str, rest: str) -> str:
    what = {"fvu": "reconstruction", "purity": "purity"}[kind]
    return f"{what}, {rest.replace('@', ', ')}" if rest else what


def _reconstruction(metric: dict[str, Any]) -> str:
    left = f"{100 * metric['value']:.0f} % of the variance is left"
    rival = metric["changes"].get(PRINCIPAL)
    if rival is None:
        return f"{left}; no controls were asked for."
    k = metric["definition"]["k"]
    if _sure(rival, below=True):
        return f"{left}, less than {k} principal components leave."
    if _sure(rival, below=False):
        return f"{left}, more than {k} principal components leave: sparse features are no better here."
    return f"{left}, about as much as {k} principal components leave."


def _purity(metric: dict[str, Any]) -> str:
    chance = metric["definition"].get("chance")
    head = f"Mean purity {metric['value']:.2f}" + (f" (permuted labels {chance:.2f})" if chance is not None else "")
    rivals = {name: metric["changes"][name] for name in (RANDOM, FROZEN) if name in metric["changes"]}
    if not rivals:
        return f"{head}; no controls were asked for."
    above = [name for name, change in rivals.items() if _sure(change, below=False)]
    if len(above) == len(rivals):
        gains = " and ".join(f"{rivals[name]['value']:+.2f} over the {name}" for name in above)
        return f"{head}: {gains}."
    beaten = ", ".join(f"the {name} ({rivals[name]['value']:+.2f})" for name in rivals if name not in above)
    return f"{head}, which is not surely above {beaten}: training did not make its latents purer."


def _sure(change: dict[str, Any], below: bool) -> bool:
    if change["low"] is None:
        return False
    return bool(change["high"] < 0) if below else bool(change["low"] > 0)
