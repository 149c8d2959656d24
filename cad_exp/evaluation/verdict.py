"""The verdict of a run: two plain sentences that a reader needs no statistics for.

`scores` says whether the scores may be trusted, and as what; `edit` whether the concept is gone, and at what cost.
Both read nothing but the metrics of results.json, cope with any of them missing, and are "" where there is nothing to
say. An interval counts and not its middle: "gone" is said where even the upper end is low.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cad_exp.evaluation.fidelity.thresholds import (
    COIN,
    GONE,
    KEPT_MEAN,
    KEPT_WORST,
    POOR,
    RELATED,
    SHOWN,
    SIGN_RIGHT,
    SIZE_RIGHT,
    SPOILT,
    STABLE_OVERLAP,
    STABLE_SPEARMAN,
)

Metric = dict[str, Any]
IS_GONE, IS_MORE = "the concept is gone", "the concept is drawn more often"
_STUDY = re.compile(r"(?:pearson|sign|r2)(_top|_single)?(?:@([\d.e-]+))?$")
SUMS, INTERACTIONS = "fidelity_", "second_order_"  # what metrics of both predictions of ablations begin with
_KINDS = {"": "", "_top": " of the top-scored", "_single": "single components"}


def of(metrics: Iterable[Metric]) -> dict[str, str]:
    """Return both sentences, as `run.verdict` of results.json holds them."""
    metrics = list(metrics)
    return {"scores": scores(metrics), "edit": edit(metrics)}


# The scores


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
    first = joint.join(part for part in (ranking, told) if part) if ranking and told else ranking or _capital(told)
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
    """Map where predictions were held against ablations ("5 %") to right, sign, order, against, unsure.

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
    """Return right (sign and size), sign, order (rise and fall with the truth), against (the wrong way) or unsure."""
    sign, r2, pearson = (found.get(f"{by}{name}{ending}") for name in ("sign", "r2", "pearson"))
    if not (sign or r2 or pearson):
        return None
    if sign and _high(sign) < COIN:
        return "against"
    if sign and sign["value"] >= SIGN_RIGHT and _low(sign) > COIN:
        return "right" if r2 and r2["value"] >= SIZE_RIGHT else "sign"
    return "order" if pearson and pearson["value"] >= POOR and _low(pearson) > 0 else "unsure"


_STATES = {
    "right": "predicted effects are right in sign and size",
    "sign": "predicted effects are right in sign but not in size",
    "order": "predicted effects are in the right order but wrong in sign or size",
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
    if states <= {"against", "unsure"} and not any(_ordered(found, name) for name in found.named):
        return "do not use the scores for what ablations do"
    return "use the scores as a ranking, not as effects"


def _ordered(found: Found, name: str) -> bool:
    """Return whether predictions rise and fall with the truth in this study, however wrong they are."""
    metric = found.get(name)
    return name.startswith(f"{SUMS}pearson") and metric is not None and metric["value"] >= POOR and _low(metric) > 0


# The edit


def edit(metrics: Iterable[Metric]) -> str:
    """Say in one sentence: is the concept gone (or amplified), more than by a random edit, and at what cost.

    "" where no edit was evaluated.
    """
    metrics = list(metrics)
    edited, unedited, random = (Found(metrics, variant) for variant in ("edited", "unedited", "random"))
    if not edited.named:
        return ""
    parts = [_concept(edited, unedited, random), _kept(edited), _moved(edited, unedited, random), spoilt(edited)]
    sentence = "; ".join(part for part in parts if part)
    return f"{_capital(sentence)}." if sentence else ""


def _concept(edited: Found, unedited: Found, random: Found) -> str:
    after, before, control = (found.get("concept_rate") for found in (edited, unedited, random))
    if not after:
        return "whether the concept is gone was not measured"
    more = bool(after.get("higher_is_better"))
    if before and idle(before, more):
        few = "hardly showed the concept before" if not more else "always showed the concept before"
        return f"the model {few} (rate {_number(before)}), so the edit proves little (now {_number(after)})"
    change = f"rate from {_number(before)} to {_number(after)}" if before else f"rate {_number(after)}"
    said = word(after, before, more)
    beside = "" if said.startswith("no ") else _beside(after, control, more)
    return f"{said} ({change}{_reach(after, more)}){beside}"


def idle(before: Metric, more: bool) -> bool:
    """Return whether the model left the edit nothing to do: the concept was rare already, or always drawn."""
    return bool(before["value"] >= 1 - GONE if more else before["value"] < SHOWN)


def word(after: Metric, before: Metric | None, more: bool) -> str:
    """Say what happened to the concept, by the ends of the intervals."""
    changed = differs(after, before, "unedited", more)
    if more:
        return IS_MORE if changed else "no amplification can be told from chance"
    if _high(after) <= GONE:
        return IS_GONE
    if after["value"] <= GONE:
        return "the concept is almost gone"
    return "the concept is weaker but not gone" if changed else "no erasure can be told from chance"


def differs(edited: Metric, other: Metric | None, variant: str, more: bool) -> bool:
    """Return whether the edited value is above (or below) another's: by the paired change, else by both intervals."""
    change = (edited.get("changes") or {}).get(variant) or {}
    low, high = _bound(change, "low"), _bound(change, "high")
    if low is not None and high is not None:
        return low > 0 if more else high < 0
    if not other:
        return False
    return _low(edited) > _high(other) if more else _high(edited) < _low(other)


def _reach(after: Metric, more: bool) -> str:
    """Say how high the rate can still be; for an amplified one how low."""
    end, words = ("low", "at least") if more else ("high", "at most")
    bound = _bound(after, end)
    return "" if bound is None or abs(bound - after["value"]) < 0.005 else f", {words} {bound:.2f}"


def _beside(after: Metric, control: Metric | None, more: bool) -> str:
    if not control:
        return ""
    better = differs(after, control, "random", more)
    words = "unlike by a random edit" if better else "but not certainly more so than by a random edit"
    return f", {words} ({_number(control)})"


def kept(edited: Found) -> bool | None:
    """Return whether the other prompts still show what they name; None where that was not asked."""
    mean, worst = edited.get("retention_mean"), edited.get("retention_worst")
    if not mean:
        return None
    return bool(mean["value"] >= KEPT_MEAN and (not worst or worst["value"] >= KEPT_WORST))


def _kept(edited: Found) -> str:
    mean, worst = edited.get("retention_mean"), edited.get("retention_worst")
    if not mean:
        return ""
    shares = f"{_number(mean)} on average" + (f", {_number(worst)} at worst" if worst else "")
    words = "other prompts still show what they name" if kept(edited) else "other prompts suffer"
    return f"{words} ({shares})"


def _moved(edited: Found, unedited: Found, random: Found) -> str:
    """Say how far the other prompts' images moved, beside a random edit and what another seed alone does."""
    moved, control = edited.get("perceptual_distance"), random.get("perceptual_distance")
    seed = unedited.get("perceptual_distance_other_seed")
    if not moved:
        return ""
    beside = [f"random edit {_number(control)}"] if control else []
    beside += [f"another seed {_number(seed)}"] if seed else []
    told = f" ({_number(moved)}{', ' * bool(beside)}{', '.join(beside)})"
    than = moved_beyond(edited, unedited, random)
    return f"but their images change {than}{told}" if than else f"their images change{told}"


def moved_beyond(edited: Found, unedited: Found, random: Found) -> str:
    """Return which of both comparisons the other prompts' images fail, in words; "" for none."""
    moved, control = edited.get("perceptual_distance"), random.get("perceptual_distance")
    seed = unedited.get("perceptual_distance_other_seed")
    if moved and seed and moved["value"] >= seed["value"]:
        return "as much as with another seed"
    if moved and differs(moved, control, "random", more=True):
        return "more than by a random edit"
    return ""


def spoilt(edited: Found) -> str:
    """Return whether the images, of the concept or of the others, are blank or like nothing of this world."""
    faults = []
    for ending, whose in (("", "the concept's"), ("_retention", "the other prompts'")):
        for name, fault in (("blank_images", "blank"), ("outside_world", "like nothing the model was made for")):
            share = edited.value(name + ending)
            if share is not None and share >= SPOILT:
                faults.append(f"{share:.0%} of {whose} images are {fault}")
    return f"but {' and '.join(faults)}: that is damage and no erasure" if faults else ""


# Reading metrics


class Found:
    """The metrics of one variant by name."""

    def __init__(self, metrics: Iterable[Metric], variant: str):
        self.named = {metric["name"]: metric for metric in metrics if metric.get("variant") == variant}

    def get(self, name: str) -> Metric | None:
        """Return the metric of this name; None where it is missing or has no number as its value."""
        metric = self.named.get(name)
        value = metric.get("value") if metric else None
        return metric if isinstance(value, (int, float)) and value == value else None

    def value(self, name: str) -> float | None:
        """Return the value of the metric of this name; None where there is none."""
        metric = self.get(name)
        return metric["value"] if metric else None


def _low(metric: Metric) -> float:
    low = _bound(metric, "low")
    return float(metric["value"]) if low is None else low


def _high(metric: Metric) -> float:
    high = _bound(metric, "high")
    return float(metric["value"]) if high is None else high


def _bound(metric: Metric, end: str) -> float | None:
    """Return an end of the interval; None where there is none, or no number."""
    value: float | None = metric.get(end)
    return None if value is None or value != value else value


def _number(metric: Metric) -> str:
    return f"{metric['value']:.2f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
