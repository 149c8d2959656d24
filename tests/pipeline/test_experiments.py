"""Every experiment of conf/experiment/, executed in a fast mode: the first job of its sweep, from config to table."""

from pathlib import Path

import pandas as pd
import pytest

from cad_exp.cli.tables import main
from cad_exp.pipeline.run import run
from cad_exp.reporting.tables.plan import plan
from tests.cli.test_cli import ROOT
from tests.config.test_configs import composed
from tests.pictures import undrawn

STUDIES = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
SMALL = ["noisy_latents.samples=2", "noisy_latents.steps=4", "model.steps=2"]
IMAGES = ["evaluation.samples=2", "evaluation.retention_samples=1"]
IMAGES += ["evaluation.reference_samples=2", "evaluation.fid_bootstrap=40"]
# Four prompts in place of the world's sixteen; test_experiment.py runs all of them.
OTHERS = ["retention_prompts=templates", "retention_prompts.limit=4", "retention_prompts.per_prompt=1"]
PROBE = ["images.number=600"]  # so many that each part of the split has naked persons
SHALLOW = "activations.hookpoints=[noisy_latent,embedding]"  # unless the study sweeps over places
SAE = ["images.number=60", "tokens.steps=2", "sae.tokens=4096", "sae.width=64", "sae.seeds=1"]
ANALYSE = ["images.number=40", "activations.timesteps=[100]"]
CHOSEN = [
    "edit.strengths=[0.1]",
    "edit.samples=2",
    "edit.confirm=1",
    "edit.retention_samples=1",
]  # of edits whose strength is chosen
TRAINED = ["edit.steps=2", "edit.trajectories=1", "edit.landing=2"]
FIDELITY = [f"evaluation.fidelity.{item}" for item in ("noisy_latents=4", "bootstrap=40")]
SEEN = [f"evaluation.fidelity.images.{item}" for item in ("samples=1", "number=3", "repeats=1", "draws=1")]
# first_order and erase have no such settings; one image of a rate of 1 does not vary
# the first prompt is the empty one
KNOWN = {"prompt", "passes", "text positions", "J and rate, 20 %"}
SEEN += ["evaluation.fidelity.images.fractions=[0.5,1.0]"]


def small(name: str) -> list[str]:
    """What makes the experiment's jobs fast and leaves its metrics their names."""
    config = composed(f"experiment={name}")
    if config["task"]["name"] == "probe":
        return PROBE + ([] if "activations.hookpoints:" in sweep(name) else [SHALLOW])
    if config["task"]["name"] == "sae":  # a study of widths keeps its own, by which its cells are named
        return [each for each in SAE if len(config["sae"]["width"]) == 1 or not each.startswith("sae.width")]
    if config["task"]["name"] == "analyse":
        return ANALYSE
    settings = config["evaluation"]
    asked = SMALL + (IMAGES if settings["metrics"] else [])
    asked += ["prompts.per_prompt=1"] if config["prompts"]["name"] == "templates" else []
    asked += ["noisy_latents.steps=2"] if config["estimator"]["name"] == "leave_one_out" else []
    asked += OTHERS if {"retention", "quality"} & set(settings["metrics"]) else []
    asked += ["evaluation.timesteps=2"] if settings["timesteps"] else []
    if config["edit"].get("strength") == "auto":
        asked += CHOSEN
    if settings["fidelity"]:
        asked += FIDELITY
        asked += ["evaluation.fidelity.number=3"] if settings["fidelity"]["number"] else []
        asked += SEEN if settings["fidelity"]["images"] else []
    return asked


def sweep(name: str) -> str:
    return (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STUDIES)
def test_every_experiment_runs_to_its_table(name: str, tmp_path: Path, stage_cache: Path, capsys):
    asked = [f"experiment={name}", *small(name)]
    job = plan(asked, most=1).jobs[0]
    if "patterns" in job.config.get("estimator", {}):
        asked.append("estimator.patterns=4")
    asked += TRAINED if "beyond" in job.config.get("edit", {}) else []
    if job.config.get("concept", {}).get("kind") == "style" and OTHERS[0] in asked:
        asked += [f"retention_prompts.{item}" for item in ("groups=[artists]", "per_label=1", "limit=5")]
    with undrawn():
        done = run(composed(*asked, *job.overrides, f"runtime.cache={stage_cache}"), tmp_path / "runs" / "one")
    assert done["run"]["complete"]
    code = main([*asked, *job.overrides, "--from", str(tmp_path / "runs"), "--to", str(tmp_path / "table")])
    said = capsys.readouterr().out
    assert code == 0, said
    assert (tmp_path / "table" / f"{name}.md").read_text(encoding="utf-8") in said
    assert ("- Images: 600 of world." if job.config["task"]["name"] == "probe" else "- Noisy latents: ") in said
    page = said.partition("\n## ")[0]  # the tables of changes come after it
    head, _, *rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    empty = {title for row in rows for title, cell in zip(head, row, strict=True) if set(cell) <= set("- ·")}
    assert rows and empty <= KNOWN, said
    table = pd.read_csv(tmp_path / "table" / f"{name}.csv")
    assert table["value" if "value" in table else "effect"].notna().any()
