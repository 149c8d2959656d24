"""The whole line on the embedded model: what a user runs, in a fast mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cad_exp.attribution.attribute import Attribution
from cad_exp.config.options import options
from cad_exp.config.resolve import resolve
from cad_exp.data.requests import ImageRequest
from cad_exp.interventions.edit import Edit
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.pipeline.run import run
from cad_exp.reporting.contact_sheet import file_name
from cad_exp.utils.errors import UserError
from tests import offline
from tests.cli.test_cli import ROOT, cad
from tests.config.test_configs import FOLDER, MANDATORY, composed
from tests.pictures import undrawn

FAST = [
    "edit=erase",  # by the scores, at once; a later edit= wins
    "noisy_latents.samples=2",
    "noisy_latents.steps=4",
    "evaluation.samples=4",
    "evaluation.retention_samples=1",
    "model.steps=2",
    "evaluation.fid_bootstrap=40",
    "evaluation.reference_samples=2",
    "tracking.mode=disabled",
    "evaluation.fidelity=null",
    "evaluation.counterfactuals=0",
]
# Four prompts in place of the world's sixteen, where these are none of the test's business.
FEW_OTHERS = ["retention_prompts=templates", "retention_prompts.limit=4", "retention_prompts.per_prompt=2"]
FIDELITY = ["evaluation.fidelity.number=3", "evaluation.fidelity.rates=[0.2]", "evaluation.fidelity.noisy_latents=4"]
NAMES = {"concept_rate", "retention_mean", "retention_worst", "fid", "kid", "clip_score", "perceptual_distance"}
NAMES |= {"blank_images", "blank_images_retention", "outside_world", "outside_world_retention"}


def fast(folder: Path, *overrides: str, pictures: bool = False) -> dict:
    """One run in a fast mode; what other tests' runs have made already comes from the cache of the session."""
    with undrawn(not pictures):
        return run(composed(*FAST, f"runtime.cache={os.environ['CAD_EXP_TESTS_CACHE']}", *overrides), folder)


@pytest.fixture(scope="module")
def nudity(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nudity")
    fast(folder, "concept=nudity", "granularity=neuron", "tracking.mode=offline", pictures=True)
    return folder


def test_the_report_of_a_run_can_be_made_from_its_folder_alone(nudity: Path, tmp_path: Path):
    from cad_exp.reporting.html.run_page import remake

    page = (nudity / "report.html").read_bytes()
    assert remake(nudity, tmp_path / "again.html").read_bytes() == page and b"What is not shown" not in page
    assert b"python -m cad_exp" not in page  # it was started as a library


def test_single_components_are_switched_off(tmp_path: Path):
    """Two components with the largest scores, one with the smallest; each in two images that differ from before."""
    asked = ["concept=church", "granularity=layer", "evaluation=erasure", "evaluation.counterfactuals=3"]
    fast(tmp_path, *asked, "objective=projection", "retention_prompts=none", pictures=True)
    table = pd.read_parquet(tmp_path / "counterfactuals.parquet")
    scores = pd.read_parquet(tmp_path / "components.parquet").query("granularity == 'layer'").reset_index()["score"]
    order = scores.sort_values(ascending=False, kind="stable").index
    assert table["component"].tolist() == [i for i in (*order[:2], order[-1]) for _ in range(2)]
    assert np.allclose(table["score"], scores[table["component"]]) and (table["purpose"] == "concept").all()
    assert table["seed"].tolist()[:2] == table["seed"].tolist()[2:4] and table["seed"].nunique() == 2
    for row in table.to_dict("records"):
        asked_for = ImageRequest("concept", row["prompt"], row["seed"], row["kind"], row["label"])
        before = tmp_path / "images" / "unedited" / file_name(asked_for)
        assert before.is_file() and (tmp_path / row["file"]).read_bytes() != before.read_bytes()
    assert "One component switched off" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_leaves_what_the_readme_promises(nudity: Path):
    files = {
        "results.json",
        "attribution.safetensors",
        "components.parquet",
        "edit.safetensors",
        "edit_random.safetensors",
        "records.parquet",
        "attribution.png",
        "before_after.png",
        "noisy_latents.safetensors",
    }
    assert files <= {path.name for path in nudity.iterdir()}
    results = json.loads((nudity / "results.json").read_text())
    assert results["schema_version"] == 2
    assert {"config_hash", "seed", "git", "versions", "device", "seconds"} <= set(results["run"])
    every = {(name, variant) for name in NAMES for variant in ("unedited", "edited", "random")}
    every |= {("perceptual_distance_worst", variant) for variant in ("edited", "random")}
    named = [m for m in results["metrics"] if not m["name"].startswith("drawn@")]
    assert {(m["name"], m["variant"]) for m in named} == every
    assert sum(m["value"] for m in results["metrics"] if (m["name"][:6], m["variant"]) == ("drawn@", "edited")) == 1
    for metric in results["metrics"]:
        assert metric["low"] is None or metric["low"] <= metric["value"] <= metric["high"]
        against = {"edited": {"unedited", "random"}, "random": {"unedited"}}.get(metric["variant"], set())
        assert set(metric["changes"]) == against - ({"unedited"} if metric["name"].endswith("_worst") else set()) or (
            metric["name"] == "retention_worst" and set(metric["changes"]) == against
        )
        who = {"judge"} if metric["name"].startswith("blank") else {"judge", "weights", "resolution"}
        assert who | {"prompts", "seeds", "what"} <= set(metric["definition"])


def test_a_picture_that_cannot_be_made_costs_one_line(tmp_path: Path, monkeypatch, capsys):
    """The results are complete before the first picture; what failed is named, and the rest is made."""

    def fail(*_, **__):
        assert json.loads((tmp_path / "results.json").read_text())["run"]["complete"]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cad_exp.reporting.figures.attribution.attribution_map", fail)
    monkeypatch.setattr("cad_exp.pipeline.show.images", fail)
    monkeypatch.setattr("cad_exp.reporting.summary.show_run", fail)
    asked = ["concept=church", "granularity=head", "evaluation=erasure", "noisy_latents.samples=1"]
    results = fast(tmp_path, *asked, pictures=True)
    said = [line for line in capsys.readouterr().err.splitlines() if " is left out" in line]
    assert [line.split(" is left out")[0].strip() for line in said] == ["images", "attribution.png", "the table"]
    assert "No space left" in said[0] and set(results["run"]["left_out"]) == {"images", "attribution.png"}
    assert results["run"]["complete"] and "before_after.png" in results["run"]["files"]
    assert json.loads((tmp_path / "results.json").read_text())["run"]["left_out"] == results["run"]["left_out"]


def test_metrics_can_be_recomputed_from_the_records(nudity: Path):
    table = pd.read_parquet(nudity / "records.parquet")
    metrics = {(m["name"], m["variant"]): m for m in json.loads((nudity / "results.json").read_text())["metrics"]}
    for variant, rows in table.groupby("variant"):
        concept, rest = rows[rows.purpose == "concept"], rows[rows.purpose == "retention"]
        assert metrics["concept_rate", variant]["value"] == pytest.approx((concept.naked_prob > 0.5).mean())
        assert metrics["clip_score", variant]["value"] == pytest.approx(rest.clip_score.mean())
        assert metrics["retention_mean", variant]["value"] == pytest.approx(
            rest.groupby("prompt").shows_label.mean().mean()
        )
    assert metrics["perceptual_distance", "unedited"]["value"] == 0
    assert len(list((nudity / "images").rglob("*.png"))) == len(table)


def test_the_offline_run_can_be_read_back(nudity: Path):
    records = offline.records(nudity)
    text = b"".join(record.SerializeToString() for record in records)
    for part in (b"concept_rate/edited", b"attribution/map", b"before_after", b"attribution/neuron", b"naked person"):
        assert part in text
    [run] = offline.of_kind(records, "run")
    names = {artifact.name for artifact in offline.of_kind(records, "artifact")}
    assert {f"{kind}-mini-nudity-erase-neuron" for kind in ("attribution", "edit", "results")} <= names
    assert f"run-{run.run_id}-images" in names and b"seconds/images" in text
    assert run.run_id == json.loads((nudity / "results.json").read_text())["run"]["identity"]
    assert sum(record.WhichOneof("record_type") == "artifact" for record in records) >= 2


def test_the_same_command_gives_the_same_scores_bit_for_bit(tmp_path: Path):
    asked = ["concept=nudity", "granularity=neuron"]
    fast(tmp_path / "first", *asked, *FEW_OTHERS)
    fast(tmp_path / "again", *asked, *FEW_OTHERS, "runtime.cache=null")
    fast(tmp_path / "other", *asked, "seed=1", "evaluation=none")
    first, again, other = (
        load_file(tmp_path / name / "attribution.safetensors") for name in ("first", "again", "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["neuron"], other["neuron"])
    images = [sorted((folder / "images").rglob("*.png")) for folder in (tmp_path / "first", tmp_path / "again")]
    assert images[0] and all(a.read_bytes() == b.read_bytes() for a, b in zip(*images, strict=True))


@pytest.mark.parametrize("granularity", ["weight", "neuron", "head", "layer"])
def test_one_backward_pass_serves_every_granularity(granularity: str, nudity: Path):
    """A coarse component's score is the sum of its weights' scores: all add up to their layers' sum."""
    attribution = Attribution.load(nudity)
    layers, kinds = attribution.tables["layer"], attribution.spaces[granularity].kinds
    expected = float(layers.score[layers.kind.isin(kinds)].astype("float64").sum())
    assert float(attribution.scores[granularity].double().sum()) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert torch.isfinite(attribution.scores[granularity]).all() and (attribution.scores[granularity] != 0).any()


@pytest.mark.parametrize("edit", ["erase", "amplify", "random", "none"])
def test_every_edit_runs(edit: str, tmp_path: Path):
    results = fast(tmp_path, "concept=church", "granularity=head", f"edit={edit}", "evaluation=erasure")
    variants = {metric["variant"] for metric in results["metrics"]}
    assert variants == ({"unedited"} if edit == "none" else {"unedited", "edited", "random"})
    rates = [metric for metric in results["metrics"] if metric["name"] == "concept_rate"]
    assert rates and all(metric["higher_is_better"] == (edit == "amplify") for metric in rates)


@pytest.mark.parametrize(
    "objective",
    ["erase", "amplify", "projection", "guidance_norm", "clip", "judge", "contrast objective.ablation=mean"],
)
@pytest.mark.parametrize("granularity", ["weight", "layer"])
def test_every_objective_runs_at_every_granularity(objective: str, granularity: str, tmp_path: Path):
    name, *more = objective.split()
    more += ["objective.retain=[a photo of a person]"] if name == "contrast" else []
    more += ["estimator=ablated_gradients", "estimator.patterns=4"]
    fast(tmp_path, "concept=van_gogh", f"objective={name}", f"granularity={granularity}", "evaluation=none", *more)
    edit = Edit.load(tmp_path / "edit.safetensors")
    assert edit.meta["objective"] == name and edit.meta["achieved"] >= 1


@pytest.mark.parametrize("edit", ["erase", "amplify"])
def test_a_count_takes_the_place_of_the_ratio(edit: str, tmp_path: Path):
    fast(tmp_path, f"edit={edit}", "edit.count=3", "evaluation=none")
    assert Edit.load(tmp_path / "edit.safetensors").meta["achieved"] == 3


@pytest.mark.parametrize("concept", options("concept", [FOLDER]))
def test_every_concept_resolves(concept: str):
    config = resolve(composed("edit=erase", f"concept={concept}", *MANDATORY.get(concept, [])))
    assert config["edit"]["ratio"] > 0 and config["objective"]["name"] != "auto"


def test_a_custom_concept_without_a_label_is_measured_for_quality(tmp_path: Path):
    results = fast(tmp_path, "concept=custom", "concept.prompt=a red background", *FEW_OTHERS)
    assert "concept_rate" not in {m["name"] for m in results["metrics"]} >= {"fid", "retention_mean"}


def test_the_scores_fidelity_is_part_of_a_run(tmp_path: Path):
    """What every run measures in short: predicted against true effect, and whether the ranking is stable."""
    asked = [item for item in FAST if "fidelity" not in item] + ["evaluation.metrics=[]", "granularity=head"]
    results = run(composed(*asked, *FIDELITY, f"runtime.cache={os.environ['CAD_EXP_TESTS_CACHE']}"), tmp_path)
    metrics = {metric["name"]: metric for metric in results["metrics"]}
    assert {"fidelity_pearson@0.2", "fidelity_spearman@0.2", "fidelity_slope@0.2", "stability_spearman"} <= set(metrics)
    assert all(metric["variant"] == "attribution" for metric in results["metrics"])
    assert metrics["stability_spearman"]["definition"]["verdict"].startswith("the ranking is")
    assert len(pd.read_parquet(tmp_path / "fidelity.parquet")) == 3 and (tmp_path / "fidelity.png").exists()


@pytest.mark.parametrize("estimator", options("estimator", [FOLDER]))
def test_every_estimator_runs(estimator: str, tmp_path: Path):
    small = {"coar": ["estimator.patterns=16"], "shapley": ["estimator.permutations=2"]}
    small |= {name: ["estimator.patterns=4"] for name in ("ablated_gradients", "ablated_gradients_full")}
    one_by_one = ("shapley", "leave_one_out", "activation_patching")
    cut = "granularity=layer" if estimator in one_by_one else "granularity=head"
    cut = "granularity=mean_difference" if estimator == "activation_difference" else cut
    fast(tmp_path, f"estimator={estimator}", "evaluation=none", cut, *small.get(estimator, []))
    used = Attribution.load(tmp_path).meta["estimator"]
    assert estimator.startswith(used) or (estimator, used) == ("auto", "first_order")  # nudity's; a preset adds a word


def test_scores_by_timestep(tmp_path: Path):
    fast(tmp_path, "granularity=head", "evaluation=none", "evaluation.timesteps=2", pictures=True)
    assert (tmp_path / "timesteps.png").exists() and len(pd.read_parquet(tmp_path / "timesteps.parquet")) == 2 * 56


def test_a_run_can_start_from_an_edited_model(nudity: Path, tmp_path: Path):
    given = ["concept=nudity", "edit=amplify", "evaluation=erasure", "runtime.cache=null"]
    results = fast(tmp_path, *given, f"model.edits=[{nudity / 'edit.safetensors'}]")
    before = json.loads((nudity / "results.json").read_text())["metrics"]
    rate = {(m["name"], m["variant"]): m["value"] for m in before}
    again = {(m["name"], m["variant"]): m["value"] for m in results["metrics"]}
    assert again["concept_rate", "unedited"] == rate["concept_rate", "edited"]


def test_a_local_folder_without_a_judge_is_attributed_but_not_measured(tmp_path: Path, tiny_folder, capsys):
    given = ["model=local", f"model.path={tiny_folder}", "concept=church", "judge=none", "evaluation=erasure"]
    results = fast(tmp_path, *given)
    assert results["metrics"] == [] and (tmp_path / "edit.safetensors").exists()
    assert "no judge" in capsys.readouterr().out


def test_a_hub_that_cannot_be_reached_gets_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="'CompVis/stable-diffusion-v1-4' is not on this machine.*model=local"):
        fast(tmp_path, "model=sd14")


def test_the_command_line_runs_a_sweep_into_four_folders(tmp_path: Path):
    answer = cad(
        "-m",
        "concept=church,tench",
        "granularity=head,neuron",
        *FAST,
        "evaluation=erasure",
        "evaluation.samples=2",
        "estimator.patterns=4",
        "hydra.sweep.dir=sweep",
        f"runtime.cache={os.environ['CAD_EXP_TESTS_CACHE']}",
        folder=tmp_path,
        timeout=400,
        libraries="torch",
        pictures=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert sorted(path.parent.name.rpartition("-")[0] for path in (tmp_path / "sweep").glob("*/results.json")) == [
        "church-head",
        "church-neuron",
        "tench-head",
        "tench-neuron",
    ]
    assert answer.stdout.count("\nconcept rate") == 4


PLAIN = {
    "pipeline": ("", ""),
    "pipeline_dit": (", text_encoder_3=None, tokenizer_3=None", ", max_sequence_length=0"),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> str:
    """The names of the embedded models that plain diffusers has run, in one process without this package."""
    code = "import sys; from diffusers import DiffusionPipeline\n"
    for folder, (loading, call) in PLAIN.items():
        code += (
            f"pipe = DiffusionPipeline.from_pretrained(r'{ROOT / 'cad_exp/mini/weights' / folder}'{loading})\n"
            f"image = pipe('a photo of a church', num_inference_steps=2{call}).images[0]\n"
            f"assert image.size == (64, 64) and 'cad_exp' not in sys.modules; print('{folder}', flush=True)\n"
        )
    place = tmp_path_factory.mktemp("plain")
    return subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, timeout=200).stdout


@pytest.mark.parametrize("folder", PLAIN)
def test_plain_diffusers_loads_an_embedded_model_without_cad_exp(folder: str, loaded: str):
    assert folder in loaded.splitlines()


def test_the_weights_fit_in_40_megabytes():
    weights = ROOT / "cad_exp" / "mini" / "weights"
    assert sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()) < 40e6


@pytest.mark.parametrize("name", ["mini", "mini_dit"])
def test_the_embedded_models_know_their_concepts(name):
    """A quick look (8 images each); the full measurement is `python -m cad_exp.mini card`."""
    from cad_exp.evaluation.judges import load_judge

    model, judge = DiffusionModel.load(name, steps=12, guidance=4.0), load_judge("mini")
    prompts = [
        "a photo of a church",
        "a photo of a naked person",
        "a photo of a person",
        "a photo in the style of Van Gogh",
    ]
    images = model.generate([p for p in prompts for _ in range(8)], range(32))
    table, _ = judge.labels(images)
    assert (table["object"][:8] == "church").mean() >= 0.75
    assert (table["naked_prob"][8:16] > 0.5).mean() >= 0.75 and (table["naked_prob"][16:24] > 0.5).mean() <= 0.25
    assert (table["style"][24:] == "Van Gogh").mean() >= 0.75
