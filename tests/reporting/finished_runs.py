"""Folders as finished runs leave them, made by hand: no model, in a fraction of a second."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cad_exp.data.requests import ImageRequest
from cad_exp.reporting import contact_sheet, run_folder
from cad_exp.reporting.results import Results
from cad_exp.utils.io import write_json

VARIANTS = ("unedited", "edited", "random")
LAYERS = (("down_blocks.0.attentions.0", "cross-attention"), ("up_blocks.1.attentions.0", "feed-forward"))
PROMPTS = (("concept", "a photo of a church"), ("retention", "a photo of a tench"), ("retention", "a red ball"))


def metric(name: str, variant: str, value: float, **more: Any) -> dict[str, Any]:
    base = {"name": name, "variant": variant, "value": value, "low": value / 2, "high": value, "n": 8}
    return base | {"higher_is_better": False, "definition": {"what": f"the {name}"}, "changes": {}} | more


METRICS = [metric("concept_rate", variant, value) for variant, value in zip(VARIANTS, (1.0, 0.05, 1.0), strict=True)]
METRICS += [metric("retention_mean", variant, 0.95, higher_is_better=True) for variant in VARIANTS]
METRICS += [metric("stability_spearman", "attribution", 0.95), metric("fidelity_sign@0.05", "attribution", 0.2)]
RUN = {"task": "attribute", "model": "mini", "concept": "church", "granularity": "neuron", "objective": "erase"}
RUN |= {"estimator": "first_order", "edit": "erase", "seed": 0, "git": "abc", "config_hash": "h", "explicit": "kept"}
RUN |= {"versions": {"cad-exp": "0.1.0"}, "verdict": {"edit": "The concept is gone."}, "left_out": {}}
RUN |= {"config": {"concept": {"name": "church", "kind": "object", "prompt": "church"}, "granularity": {"kinds": None}}}


def components(number: int = 12, name: str = "neuron {}") -> pd.DataFrame:
    """Scores 1 to -1 in falling order, every second one in each of two layers."""
    scores = np.linspace(1, -1, number)
    rows = [
        {"index": i, "module": f"{LAYERS[i % 2][0]}.x", "block": LAYERS[i % 2][0], "kind": LAYERS[i % 2][1]}
        | {"name": f"{LAYERS[i % 2][0]} · {LAYERS[i % 2][1]} · {name.format(i)}", "score": scores[i]}
        | {"start": i // 2, "stop": i // 2 + 1}
        for i in range(number)
    ]
    signs = {"positive": scores.clip(min=0), "negative": scores.clip(max=0)}
    return pd.DataFrame(rows).assign(**signs, error=0.01, granularity="neuron")


def requests(
    prompts: tuple[tuple[str, str], ...] = PROMPTS, seeds: int = 3, kind: str = "object"
) -> list[ImageRequest]:
    return [ImageRequest(what, prompt, seed, kind, "x") for what, prompt in prompts for seed in range(seeds)]


def records(asked: list[ImageRequest]) -> pd.DataFrame:
    """Of the edited images the first is the most changed one."""
    rows = [
        vars(request) | {"variant": variant, "perceptual_distance": float(len(asked) - i) * (variant == "edited")}
        for variant in VARIANTS
        for i, request in enumerate(asked)
    ]
    return pd.DataFrame(rows)


def draw(folder: Path, asked: list[ImageRequest], side: int, seed: int = 0) -> None:
    """Images of noise, which no format makes small."""
    noise = np.random.default_rng(seed)
    for variant in VARIANTS:
        for request in asked:
            file = folder / "images" / variant / contact_sheet.file_name(request)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(file)


def attribute_run(
    folder: Path,
    asked: list[ImageRequest] | None = None,
    number: int = 12,
    side: int = 16,
    metrics: list[dict[str, Any]] | None = None,
    name: str = "neuron {}",
    **run: Any,
) -> Path:
    """A finished run of task=attribute in this folder."""
    asked = requests() if asked is None else asked
    (folder / run_folder.MARK).mkdir(parents=True)
    table = components(number, name)
    table.to_parquet(folder / "components.parquet")
    records(asked).to_parquet(folder / "records.parquet")
    draw(folder, asked, side)
    pairs = pd.DataFrame({"one": [0, 0, 1], "other": [1, 2, 2], "interaction": [0.5, -0.25, 0.1]})
    pairs.to_parquet(folder / "interactions.parquet")
    ablations = pd.DataFrame(
        {"rate": [0.05, 0.05, 0.2, 0.2] * 3, "predicted": np.arange(12.0), "true": np.arange(12.0)}
    )
    ablations.assign(study="ablations", kind="uniform", measure="J").to_parquet(folder / "fidelity.parquet")
    alone(folder, table, asked[:1])
    finished(folder, RUN | run, METRICS if metrics is None else metrics)
    return folder


def alone(folder: Path, table: pd.DataFrame, asked: list[ImageRequest]) -> None:
    """The first and the last component switched off alone."""
    rows = []
    for component in (0, len(table) - 1):
        file = folder / "counterfactuals" / f"{component}-0.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (200, 30, 30)).save(file)
        facts = {"component": component, "name": table["name"][component], "score": table["score"][component]}
        rows += [vars(each) | facts | {"file": f"counterfactuals/{file.name}"} for each in asked]
    pd.DataFrame(rows).to_parquet(folder / "counterfactuals.parquet")


def finished(folder: Path, run: dict[str, Any], metrics: list[dict[str, Any]]) -> None:
    """Complete results.json, and the list of what was published."""
    results = Results(folder, run)
    results.add(*metrics)
    results.finish()
    write_json(folder / run_folder.MARK / "published.json", {"files": results.run["files"], "config": run["config"]})
