"""The second sentence of a verdict: is the concept gone, and at what cost."""

from __future__ import annotations

from collections.abc import Iterable

from cad_exp.evaluation.fidelity.thresholds import GONE, KEPT_MEAN, KEPT_WORST, SHOWN, SPOILT
from cad_exp.evaluation.verdict.found import Found, Metric, capital, end_of, lower, upper

IS_GONE, IS_MORE = "the concept is gone", "the concept is drawn more often"
IS_UNSEEN = "the concept is not seen any more"  # nor anything else, in some of its images
OF_CONCEPT, OF_OTHERS = "", "_retention"  # whose images: what names of metrics end in


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
    return f"{capital(sentence)}." if sentence else ""


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
    if said == IS_GONE and faults(edited, OF_CONCEPT):
        said = IS_UNSEEN
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
    if upper(after) <= GONE:
        return IS_GONE
    if after["value"] <= GONE:
        return "the concept is almost gone"
    return "the concept is weaker but not gone" if changed else "no erasure can be told from chance"


def differs(edited: Metric, other: Metric | None, variant: str, more: bool) -> bool:
    """Return whether the edited value is above (or below) another's: by the paired change, else by both intervals."""
    change = (edited.get("changes") or {}).get(variant) or {}
    low, high = end_of(change, "low"), end_of(change, "high")
    if low is not None and high is not None:
        return low > 0 if more else high < 0
    if not other:
        return False
    return lower(edited) > upper(other) if more else upper(edited) < lower(other)


def _reach(after: Metric, more: bool) -> str:
    """Say how high the rate can still be; for an amplified one how low."""
    end, words = ("low", "at least") if more else ("high", "at most")
    bound = end_of(after, end)
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
    of = {OF_CONCEPT: "the concept's", OF_OTHERS: "the other prompts'"}
    told = [
        f"{share:.0%} of {of[ending]} images are {fault}" for ending in of for share, fault in faults(edited, ending)
    ]
    return f"but {' and '.join(told)}: that is damage and no erasure" if told else ""


def faults(edited: Found, ending: str) -> list[tuple[float, str]]:
    """Return (share, fault) of damage that is too frequent, in images of the concept or of the others."""
    named = {"blank_images": "blank", "outside_world": "like nothing the model was made for"}
    shares = [(edited.value(name + ending), fault) for name, fault in named.items()]
    return [(share, fault) for share, fault in shares if share is not None and share >= SPOILT]


def _number(metric: Metric) -> str:
    return f"{metric['value']:.2f}"
