"""The first sentence of a verdict: may the scores be trusted, and as what."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cad_exp.evaluation.fidelity.thresholds import (
    COIN,
    POOR,
    RELATED,
    SIGN_RIGHT,
    SIZE_RIGHT,
    STABLE_OVERLAP,
    STABLE_SPEARMAN,
)
from cad_exp.evaluation.verdict.found import Found, Metric, capital, lower, upper

_STUDY = re.compile(r"(?:pearson|sign|r2)(_top|_single)?(?:@([\d.e-]+))?$")
SUMS, INTERACTIONS = "fidelity_", "second_order_"  # what metrics of both predictions of ablations begin with
_KINDS = {"": "", "_top": " of the top-scored", "_single": "single components"}


def scores(metrics: Iterable[Metric]) -> str:
    """Say in one sentence: is the ranking stable, are predictions right, so what may one do with the scores.

    "" where nothing was asked of them.
    """
    found = Found(metrics, "attribution")
    steady, judged = _stable(found), predictions(found)
    if what := blind_to(found):
        return f"The scores hardly change with {what}: they show the network and not the concept, so do not use them."
    if steady is None and not judged:
        return ""
    ranking = {True: "The ranking is stable", False: "The ranking is not stable", None: ""}[steady]
    told = _told(judged)
    joint = ", and " if steady == (all(state == "right" for state in judged.values())) else ", but "
    first = joint.join(part for part in (ranking, told) if part) if ranking and told else ranking or capital(told)
    return f"{first}: {_advice(steady, judged, found)}.{_with_interactions(found)}"


def _with_interactions(found: Found) -> str:
    """Say whether predictions are right that count interactions as well; "" where that was not asked."""
    counted = predictions(found, INTERACTIONS)
    return f" With interactions counted, {_told(counted)}." if counted else ""


def blind_to(found: Found) -> str:
    """Return what the scores should depend on and do not; "" where nothing is wrong, or nothing was asked."""
    controls = {"random_weights": "shuffled weights", "other_concept": "another concept"}
    return next((what for name, what in controls.items() if abs(found.value(f"sanity_{name}") or 0) > RELATED), "")


def stable(metrics: Iterable[Metric]) -> bool | None:
    """Return whether the ranking of components is stable (agreement.stability); None where that was not asked."""
    return _stable(Found(metrics, "attribution"))


def _stable(found: Found) -> bool | None:
    spearman, overlap = found.value("stability_spearman"), found.value("stability_overlap@0.05")
    if "stability_spearman" not in found.named and overlap is None:
        return None
    # Scores that do not vary have no rank correlation, and no ranking either.
    return (spearman or 0) >= STABLE_SPEARMAN and (overlap is None or overlap >= STABLE_OVERLAP)


def predictions(found: Found, by: str = SUMS) -> dict[str, str]:
    """Map where predictions were held against ablations ("5 %") to right, sign, order, turned, against, unsure.

    by: how effects are predicted, by SUMS of scores or with INTERACTIONS. Of random ablations; where there are none, of
    those among the top-scored, else of single components.
    """
    studied = [name.removeprefix(by) for name in found.named if name.startswith(by)]
    asked = [match for name in studied if (match := _STUDY.match(name))]
    kind = next((kind for kind in _KINDS if any((match[1] or "") == kind for match in asked)), "")
    rates = dict.fromkeys(match[2] for match in asked if (match[1] or "") == kind)
    where = {rate: f"{kind}@{rate}" if rate else kind for rate in rates}
    states = {_rate(rate, kind): _state(found, by, ending) for rate, ending in where.items()}
    return {rate: state for rate, state in states.items() if state}


def _rate(rate: str | None, kind: str) -> str:
    return f"{100 * float(rate):.3g} %{_KINDS[kind]}" if rate else "one at a time"


def _state(found: Found, by: str, ending: str) -> str | None:
    """Return how predictions do: right (sign and size), sign, or order (they rise and fall with the truth).

    turned: the order is right and the sign wrong. against: neither. unsure: no better than a guess.
    """
    sign, r2, pearson = (found.get(f"{by}{name}{ending}") for name in ("sign", "r2", "pearson"))
    if not (sign or r2 or pearson):
        return None
    ordered = pearson is not None and _rises(pearson)
    if sign and upper(sign) < COIN:
        return "turned" if ordered else "against"
    if sign and sign["value"] >= SIGN_RIGHT and lower(sign) > COIN:
        return "right" if r2 and r2["value"] >= SIZE_RIGHT else "sign"
    return "order" if ordered else "unsure"


def _rises(pearson: Metric) -> bool:
    """Return whether predictions rise and fall with the truth, however wrong they are."""
    return bool(pearson["value"] >= POOR and lower(pearson) > 0)


_STATES = {
    "right": "predicted effects are right in sign and size",
    "sign": "predicted effects are right in sign but not in size",
    "order": "predicted effects are in the right order but wrong in sign or size",
    "turned": "predicted effects are in the right order with the wrong sign",
    "against": "predicted effects point the wrong way",
    "unsure": "predicted effects are no better than a guess",
}


def _told(judged: dict[str, str]) -> str:
    """Write "at 5 % predicted effects are right in sign and size, at 20 % they point the wrong way"."""
    parts: list[str] = []
    for state in dict.fromkeys(judged.values()):
        rates = [rate for rate, each in judged.items() if each == state]
        words = _STATES[state].replace("predicted effects", "they") if parts else _STATES[state]
        parts.append(f"{_at(rates)} {words}")
    return ", ".join(parts)


def _at(rates: list[str]) -> str:
    whole = " and ".join(rates) if len(rates) < 3 else f"{', '.join(rates[:-1])} and {rates[-1]}"
    return whole if whole == "one at a time" else f"at {whole}"


def _advice(steady: bool | None, judged: dict[str, str], found: Found) -> str:
    states = set(judged.values())
    if steady is False:
        if states == {"right"}:
            return (
                "trust the effect of many components together, and no single one before noisy_latents.samples is larger"
            )
        return "do not build on them before noisy_latents.samples is larger"
    if states == {"right"}:
        return "use the scores as effects" + ("" if steady else ", though whether their ranking is stable is not known")
    if not states:
        return "use the scores as a ranking, and not as effects, which were not checked"
    if states <= {"against", "unsure"}:
        return "do not use the scores for what ablations do"
    return "use the scores as a ranking, not as effects"
