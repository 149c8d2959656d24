"""task=analyse: to results.json, table and picture, on the embedded model; and what it answers to wrong settings."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cad_exp.config.options import conf_folder
from cad_exp.config.resolve import resolve
from cad_exp.pipeline import preflight
from cad_exp.pipeline.run import run
from cad_exp.utils.errors import UserError
from tests import warm
from tests.config.test_configs import composed

# what makes an analysis fast; its metrics keep their names
SMALL = ["task=analyse", "images.number=40", "activations.timesteps=[100]", "tracking=disabled", "runtime.device=cpu"]
SMALLER = {
    "prototypes": ["analysis.guided=2", "analysis.images=2", "analysis.steps=3"],
    "image_text_score": ["analysis.images=24", "analysis.timesteps=[300]", "analysis.shots=[1]"],
    "prompt_directions": ["analysis.seeds=2", "analysis.steps=2"],
    "segmentation": ["analysis.images=24", "analysis.hookpoints=[mid_block]"],
}
ANALYSES = sorted(path.stem for path in (conf_folder() / "analysis").glob("[!_]*.yaml"))


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_runs_to_its_table_and_picture(name: str, tmp_path: Path, stage_cache: Path):
    asked = [*SMALL, f"analysis={name}", *SMALLER.get(name, [])]
    found = run(composed(*asked, f"runtime.cache={stage_cache}"), tmp_path / "run")
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert content["metrics"] == found["metrics"] and all(each["definition"]["what"] for each in found["metrics"])
    assert content["run"]["analysis"] == name and content["run"]["left_out"] == {} and content["run"]["verdict"]
    assert len(pd.read_parquet(tmp_path / "run" / "analysis.parquet"))
    assert (tmp_path / "run" / "analysis.png").stat().st_size > 5000


def test_the_command_line(tmp_path: Path, stage_cache: Path):
    asked = [*SMALL, "analysis=class_overlap", f"runtime.cache={stage_cache}", "hydra.run.dir=run"]
    said = warm.run(asked, libraries="torch", cwd=tmp_path, timeout=300)
    assert said.returncode == 0 and "most alike" in said.stdout, said.stdout + said.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["analysis.label=objekt"], "did you mean 'object'"),
        (["analysis.leave_out=[churc]"], "did you mean 'church'"),
        (["analysis.rephrased='a photo of a {}'"], "say it in other words"),
    ],
)
def test_wrong_settings_are_answered_before_torch(asked: list[str], said: str):
    with pytest.raises(UserError, match=said):
        preflight.check(resolve(composed("task=analyse", *asked)))
