"""The verdict of a run as a few lights: a question, a word, and whether that is good, middling or bad.

Nothing is judged here a second time: every light reads the same findings as the sentences of `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cad_exp.evaluation.verdict import of_edit, of_scores
from cad_exp.evaluation.verdict.found import Found, Metric

GOOD, FAIR, POOR, UNKNOWN = "good", "fair", "poor", "unknown"


@dataclass(frozen=True)
class Light:
    """question: what is asked; word: the answer in a few words; level: good, fair, poor or unknown."""

    question: str
    word: str
    level: str


def of(metrics: Iterable[Metric]) -> list[Light]:
    """Return the lights of a run that edits a concept: its ranking, its predictions, the concept, the cost."""
    metrics = list(metrics)
    scores = Found(metrics, "attribution")
    edited, unedited, random = (Found(metrics, variant) for variant in ("edited", "unedited", "random"))
    return [
        _ranking(scores, of_scores.stable(metrics)),
        _predictions(scores),
        _concept(edited, unedited, random),
        _cost(edited, unedited, random),
    ]


def _ranking(scores: Found, steady: bool | None) -> Light:
    question = "Is the ranking of components stable?"
    if blind := of_scores.blind_to(scores):
        return Light(question, f"the same with {blind}", POOR)
    if steady is None:
        return Light(question, "not asked", UNKNOWN)
    return Light(question, "stable", GOOD) if steady else Light(question, "not stable", POOR)


def _predictions(scores: Found) -> Light:
    question, states = "Are predicted effects right?", of_scores.predictions(scores)
    if not states:
        return Light(question, "not asked", UNKNOWN)
    words = {"right": "right", "sign": "right in sign, not in size", "order": "in the right order only"}
    words |= {"turned": "in the right order with the wrong sign", "against": "the wrong way"}
    words |= {"unsure": "no better than a guess"}
    counted = of_scores.predictions(scores, of_scores.INTERACTIONS)
    if set(states.values()) != {"right"} and set(counted.values()) == {"right"}:
        return Light(question, "with interactions yes, by sums of scores no", FAIR)
    kinds = list(dict.fromkeys(states.values()))
    told = (
        ", ".join(f"{words[kind]} at {_rates(states, kind)}" for kind in kinds) if len(kinds) > 1 else words[kinds[0]]
    )
    if kinds == ["right"]:
        return Light(question, told, GOOD)
    return Light(question, told, POOR if set(kinds) <= {"against", "unsure"} else FAIR)


def _rates(states: dict[str, str], kind: str) -> str:
    return " and ".join(rate for rate, state in states.items() if state == kind)


def _concept(edited: Found, unedited: Found, random: Found) -> Light:
    after, before, control = (found.get("concept_rate") for found in (edited, unedited, random))
    if not after:
        return Light("Is the concept erased?", "not measured", UNKNOWN)
    more = bool(after.get("higher_is_better"))
    question = "Is the concept amplified?" if more else "Is the concept erased?"
    if before and of_edit.idle(before, more):
        return Light(question, "little to change, so little is proved", UNKNOWN)
    word = of_edit.word(after, before, more)
    if word.startswith("no "):
        return Light(question, word, POOR)
    if word == of_edit.IS_GONE and of_edit.faults(edited, of_edit.OF_CONCEPT):
        return Light(question, f"{of_edit.IS_UNSEEN}, in damaged images", FAIR)
    if control and not of_edit.differs(after, control, "random", more):
        return Light(question, f"{word}, but a random edit may do as much", FAIR)
    return Light(question, word, GOOD if word in (of_edit.IS_GONE, of_edit.IS_MORE) else FAIR)


def _cost(edited: Found, unedited: Found, random: Found) -> Light:
    question, kept = "What did it cost?", of_edit.kept(edited)
    if of_edit.spoilt(edited):
        return Light(question, "images are damaged", POOR)
    if kept is None:
        return Light(question, "not measured", UNKNOWN)
    if not kept:
        return Light(question, "other prompts suffer", POOR)
    than = of_edit.moved_beyond(edited, unedited, random)
    return Light(question, f"other images change {than}", FAIR) if than else Light(question, "others are kept", GOOD)
