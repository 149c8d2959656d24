"""The table of nudity as the paper has it: its command is composed, its prompts planned, its columns laid out.

No model and no judge runs: the results are those that runs of the planned jobs would leave. See test_experiments.py for
the study in miniature, test_judges.py for where the numbers come from.
"""

import json
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cad_exp.cli.tables import main
from cad_exp.config.options import conf_folder
from cad_exp.config.resolve import resolve
from cad_exp.data.metric_registry import METRICS
from cad_exp.data.prompts import plan as requests_of
from cad_exp.data.prompts.sources import FOLDER
from cad_exp.evaluation.erasure import Records, tabulate
from cad_exp.evaluation.judges.nudenet import EXPOSED
from cad_exp.evaluation.variants import VARIANTS
from cad_exp.reporting.tables.collect import collect
from cad_exp.reporting.tables.layout import lay_out
from cad_exp.reporting.tables.plan import plan
from cad_exp.utils.errors import UserError
from tests.cli.test_cli import ROOT
from tests.cli.test_tables import leave, metric
from tests.data.test_prompts import written

FILE = ROOT / "conf" / "experiment" / "nudity_erase.yaml"
I2P = (
    ",prompt,categories,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height\n"
    '0,a portrait,"hate, sexual",7,7,512,768\n'
    "1,a statue,sexual,8,7.5,512,512\n"
    "2,a child on a street,violence,9,12,512,768\n"
)
COCO = "image_id,source,prompt,evaluation_seed\n000000000139,coco-30k,a room,5\n000000000285,coco-30k,a bear,6\n"
CHOOSING = ["erase", "random", "conceptprune", "magnitude", "salun_mask"]  # components, at one budget
METHODS = [*CHOOSING, "uce", "uce", "rece", "esd"]
LABELS = ["CAD", "random", "ConceptPrune", "magnitude", "SalUn mask", "UCE", "UCE", "RECE", "ESD"]


def the_papers_command() -> list[str]:
    """The arguments of the command that the study's own comment names, but for the folder of COCO's images."""
    comment = [line.removeprefix("#").strip() for line in FILE.read_text().splitlines() if line.startswith("#")]
    start = next(number for number, line in enumerate(comment) if line.startswith("python"))
    words = shlex.split(" ".join(comment[start : start + 2]).replace("\\", ""))
    assert words[:4] == ["python", "-m", "cad_exp", "-m"]
    return [word for word in words[4:] if not word.endswith("=FOLDER")]


def test_the_command_is_the_one_that_the_study_names():
    asked = ["experiment=nudity_erase", "model=sd14", "judge=real", "prompts=i2p", "retention_prompts=coco30k"]
    assert the_papers_command() == [*asked, "evaluation.metrics=[erasure,quality]"]


def test_the_papers_jobs_are_composed_and_their_prompts_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = plan(the_papers_command())
    assert [job.config["edit"]["name"] for job in made.jobs] == METHODS
    for job in made.jobs:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            composed = OmegaConf.to_container(compose("config", list(job.overrides)), resolve=True)
        assert resolve(composed) == job.config
        assert job.config["model"]["path"] == "CompVis/stable-diffusion-v1-4" and job.config["judge"]["name"] == "real"
        budget = (0.05, "weight") if job.config["edit"]["name"] in CHOOSING else (None, "none")
        assert (job.config["edit"]["ratio"], job.config["granularity"]["name"]) == budget
    monkeypatch.setenv(FOLDER, str(tmp_path))
    written(tmp_path, I2P, "i2p_benchmark.csv")
    written(tmp_path, COCO, "coco_30k.csv")
    requests = requests_of(made.jobs[0].config)
    assert Counter((request.purpose, request.kind) for request in requests) == {
        ("concept", "nudity"): 2,
        ("retention", "caption"): 2,
    }
    concept = [
        (request.prompt, request.seed, request.guidance, request.size)
        for request in requests
        if request.purpose == "concept"
    ]
    assert concept == [("a portrait", 7, 7.0, (768, 512)), ("a statue", 8, 7.5, (512, 512))]
    assert [(request.prompt, request.seed) for request in requests if request.kind == "caption"] == [
        ("a room", 5),
        ("a bear", 6),
    ]
    public = [*the_papers_command(), "prompts.public_code=true", "retention_prompts.public_code=true"]
    assert {(request.guidance, request.size) for request in requests_of(plan(public).jobs[0].config)} == {(None, None)}


def judged(requests: list, found: dict[str, list[list[str]]]) -> Records:
    """Records in which NudeNet finds these labels, each with a score of 0.9, and CLIP gives every image 0.3."""
    said = {}
    for variant, images in found.items():
        every = [images[i] if i < len(images) else [] for i in range(len(requests))]
        detections = [json.dumps([{"label": f"{name}_EXPOSED", "score": 0.9} for name in each]) for each in every]
        exposed = [0.9 if each else 0.0 for each in every]
        said[variant] = pd.DataFrame({"detections": detections, "exposed": exposed})
        said[variant]["clip_score"], said[variant]["perceptual_distance"] = 0.3, np.nan
    features = np.random.default_rng(0).normal(size=(len(requests) * len(found), 3))
    who = {"judge": "a real one"}
    definitions = {"nudity": who, "clip": who, "features": who}
    return Records(tabulate(requests, said), features, definitions, thresholds=(0.3,))


def table(folder: Path, command: list[str], capsys: pytest.CaptureFixture) -> list[dict[str, str]]:
    """The study's table as the terminal shows it: one dict per row."""
    assert main([*command, "--from", str(folder / "runs"), "--to", str(folder / "table")]) == 0
    rows = [
        line.strip("| ").split(" | ")
        for line in capsys.readouterr().out.partition("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_real_judges_fill_the_papers_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    written(tmp_path, I2P, "i2p_benchmark.csv")
    written(tmp_path, COCO, "coco_30k.csv")
    made = plan(the_papers_command())
    for number, job in enumerate(made.jobs):
        requests, settings = requests_of(job.config), job.config["evaluation"] | {"fid_bootstrap": 2}
        images = [["BUTTOCKS", "FEMALE_BREAST", "FEMALE_BREAST"], ["FEET"]]
        found = dict.fromkeys(VARIANTS, images) | {"edited": images[:number]}
        records = judged(requests, found)
        found = (METRICS.get(name)().measure(records, settings) for name in settings["metrics"])
        leave(tmp_path / "runs", job, *(metric for metrics in found for metric in metrics))
    rows = table(tmp_path, the_papers_command(), capsys)
    heads = [
        "buttocks",
        "breast (f)",
        "genitalia (f)",
        "breast (m)",
        "genitalia (m)",
        "anus",
        "feet",
        "armpits",
        "belly",
    ]
    heads = [f"{head} ↓" for head in (*heads, "all parts")]
    assert list(rows[0]) == ["edit", "text positions", "concept rate ↓", *heads, "FID to unedited ↓", "CLIP score ↑"]
    assert len(heads) == len(EXPOSED) + 1
    plain = [
        [row[head].replace("*", "").replace("<u>", "").split(" ")[0].split("<")[0] for head in heads] for row in rows
    ]
    assert plain[:4] == [
        ["0"] * 10,
        ["1", "2", *["0"] * 7, "3"],
        ["1", "2", *["0"] * 4, "1", "0", "0", "4"],
        ["1", "2", *["0"] * 4, "1", "0", "0", "4"],
    ]
    assert rows[-1]["edit"] == "unedited" and plain[-1] == plain[3] and rows[-1]["FID to unedited ↓"] == ""
    assert [row["edit"] for row in rows[:-1]] == LABELS
    assert {row["text positions"] for row in rows if row["edit"] == "UCE"} == {"last word on", "all tokens"}


def test_the_embedded_judge_has_its_own_columns(tmp_path: Path, capsys):
    command = ["experiment=nudity_erase"]
    names = ("concept_rate", "retention_mean", "retention_worst", "fid", "clip_score")
    for job in plan(command).jobs:
        leave(tmp_path / "runs", job, *(metric(name, 0.5, variant) for name in names for variant in VARIANTS))
    [first, *_] = table(tmp_path, command, capsys)
    assert [head.rstrip(" ↓↑") for head in first] == [
        "edit",
        "text positions",
        "concept rate",
        "retention, mean",
        "retention, worst",
        "FID",
        "CLIP score",
    ]


def test_a_metric_that_has_to_be_there_is_still_missed(tmp_path: Path):
    command = ["experiment=nudity_erase"]
    for job in plan(command).jobs:
        leave(tmp_path / "runs", job, metric("fid", 4.0))
    with pytest.raises(UserError, match="unknown metric 'concept_rate'"):
        lay_out(plan(command), collect([tmp_path / "runs"]))
