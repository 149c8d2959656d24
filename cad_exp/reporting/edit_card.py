"""The model card of an edit: what it is, what it did with intervals, its limits, how to load and cite it."""

from __future__ import annotations

from typing import Any

from cad_exp.interventions.edit import Edit
from cad_exp.utils.text import markdown

SHOWN = ("edited", "random")
PAPER = "https://arxiv.org/abs/2412.02542"
SAFETY = """\
This edit weakens nudity in the prompts and seeds of the table, by a detector that errs. It is no safety filter: other
prompts, other seeds, fine-tuning, or undoing the edit bring explicit images back. Keep your other safeguards."""
CARD = """\
---
library_name: cad_exp
tags: [diffusers, text-to-image, concept-attribution, concept-erasure, cad_exp]
---
# {title}

An edit of the text-to-image model {model}, made by cad_exp. The file holds what changes and not the model.

| what | value |
|---|---|
{facts}

## Load it

```python
import cad_exp

edit = cad_exp.load_edit(pipe, "{repository}")  # pipe: a diffusers pipeline of {model}
edit.undo()                                     # puts every weight back, bit for bit
```

## What it did

{metrics}

## Limits

{limits}

## Cite

The method is CAD: Nguyen, Phan and Doan, [Unveiling Concept Attribution in Diffusion Models]({paper}), 2024.
"""


def card(edit: Edit, repository: str, results: dict[str, Any] | None = None) -> str:
    """Return the card as Markdown. results: the content of the run's results.json; None where there is no run."""
    config = (results or {}).get("run", {}).get("config", {})
    concept, meta = config.get("concept", {}), edit.meta
    name = concept.get("name") or meta.get("prompt") or "a concept"
    rows = {
        "concept": name,
        "prompt": concept.get("prompt", meta.get("prompt")),
        "method": meta.get("edit"),
        "granularity": meta.get("granularity"),
        "strength": meta.get("strength") or meta.get("ratio") or meta.get("count"),
        "factor": edit.factor if edit.indices and not edit.factors else None,
        "weights changed": meta.get("changed"),
        "weights of the model": meta.get("fingerprint"),
        "made by": _versions(results),
    }
    facts = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items() if value is not None)
    limits = ["The numbers hold for the model, the judge and the prompts of the run only."]
    if concept.get("kind") == "nudity" or "nud" in str(name).lower():
        limits.append(SAFETY)
    return CARD.format(
        title=markdown(f"{repository.partition('/')[2]}: {name}"),
        model=markdown(meta.get("model", "unknown")),
        facts=facts,
        repository=repository,
        metrics=_metrics(results),
        limits="\n\n".join(limits),
        paper=PAPER,
    )


def _metrics(results: dict[str, Any] | None) -> str:
    if results is None or not results["metrics"]:
        return "The edit was uploaded without a run, so nothing was measured here."
    lines = ["| metric | unedited | " + " | ".join(SHOWN) + " | n |", "|---" * (len(SHOWN) + 3) + "|"]
    cells = {(metric["name"], metric["variant"]): metric for metric in results["metrics"]}
    for name in dict.fromkeys(metric["name"] for metric in results["metrics"]):
        row = [cells.get((name, variant)) for variant in ("unedited", *SHOWN)]
        if row[1] is not None:
            lines.append(f"| {_cell(name)} | " + " | ".join(map(_value, row)) + f" | {row[1]['n']} |")
    return "\n".join(lines) + "\n\nA value with its 95 % interval. random: a random edit of the same size."


def _value(metric: dict[str, Any] | None) -> str:
    if metric is None or metric["value"] is None:
        return "-"
    low, high = metric["low"], metric["high"]
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{metric['value']:.3f}{interval}"


def _versions(results: dict[str, Any] | None) -> str | None:
    run = (results or {}).get("run", {})
    version = run.get("versions", {}).get("cad-exp")
    return f"cad_exp {version}, git revision {run['git']}" if version and run.get("git") else version


def _cell(value: Any) -> str:
    return markdown(value).replace("|", "\\|")
