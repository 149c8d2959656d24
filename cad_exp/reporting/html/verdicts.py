"""The verdict in plain words, with its lights: a colour, a sign and a word, so that any of them is enough."""

from __future__ import annotations

from dataclasses import dataclass

from cad_exp.evaluation import lights
from cad_exp.evaluation.lights import Light
from cad_exp.reporting.html.source import Source

SIGNS = {lights.GOOD: "✓", lights.FAIR: "~", lights.POOR: "✕", lights.UNKNOWN: "?"}
WORDS = {lights.GOOD: "good", lights.FAIR: "with care", lights.POOR: "bad", lights.UNKNOWN: "not known"}


@dataclass(frozen=True)
class Verdict:
    """lights: of a run that edits a concept; sentences: what is judged -> the judgement in words."""

    lights: list[Light]
    sentences: dict[str, str]
    signs: dict[str, str]
    words: dict[str, str]


def verdicts(source: Source) -> Verdict | None:
    """Return the verdict of results.json; None where the run has none."""
    told = source.run.get("verdict") or {}
    sentences = {str(what): said for what, said in told.items() if isinstance(said, str) and said}
    shown = lights.of(source.metrics) if source.task == "attribute" and source.metrics else []
    return Verdict(shown, sentences, SIGNS, WORDS) if shown or sentences else None
