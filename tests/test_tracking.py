"""Weights & Biases offline, read back from the files that it leaves; no account, no network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cad_exp.errors import UserError
from cad_exp.figures import attribution_map, before_after
from cad_exp.tracking import track
from tests import offline
from tests.fakes import fake_attribution
from tests.test_results import metric

CONFIG = {"seed": 3, "concept": {"name": "church"}, "tracking": {"mode": "offline", "project": "cad_exp"}}
CONFIG |= {group: {"name": name} for group, name in {"model": "mini", "objective": "erase", "edit": "erase"}.items()}
CONFIG |= {"granularity": {"name": "head"}}
RUN = {"git": "abc-dirty", "versions": {"torch": "2.0"}, "seconds": {"images": 1.5}, "identity": "f00", "complete": 1}
VARIABLES = ("MODE", "PROJECT", "ENTITY", "NAME", "NOTES", "TAGS", "RUN_GROUP", "JOB_TYPE", "DIR", "RUN_ID", "DISABLED")


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without an account."""
    own = [f"WANDB_{name}" for name in VARIABLES]
    for name in (*own, "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    attribution = fake_attribution()
    picture = attribution_map(attribution, "head", folder / "attribution_map.png")
    grid = before_after({"unedited": {"a church": np.zeros((1, 8, 8, 3), np.uint8)}}, folder / "before_after.png")
    (folder / "edit.safetensors").write_bytes(b"edit")
    with track(CONFIG, folder) as tracker:
        tracker.log_metrics(
            [metric(), metric(variant="unedited", value=1.0), metric(name="fid", low=None, high=None, value=3.5)]
        )
        tracker.log_facts(RUN)
        saved = attribution.save(folder)
        tracker.log_attribution(folder)
        tracker.log_images({"attribution/map": picture, "before_after": grid})
        tracker.log_artifact(folder / "edit.safetensors", type="edit")
        tracker.log_artifact(saved, type="attribution")
    return folder


def test_config_is_logged(logged: Path):
    [run] = offline.of_kind(offline.records(logged), "run")
    config = offline.values(run.config.update)
    assert run.project == "cad_exp" and config["seed"] == 3 and config["concept"] == {"name": "church"}


def test_metrics_are_logged_with_their_intervals(logged: Path):
    found = offline.records(logged)
    history = {
        key: value for row in offline.of_kind(found, "history") for key, value in offline.values(row.item).items()
    }
    assert (
        history["concept_rate/edited"] == 0.05
        and history["concept_rate/unedited"] == 1.0
        and history["fid/edited"] == 3.5
    )
    summary = {
        key: value for row in offline.of_kind(found, "summary") for key, value in offline.values(row.update).items()
    }
    assert summary["concept_rate/edited/high"] == 0.1 and "fid/edited/low" not in summary


def test_pictures_and_tables_are_logged(logged: Path):
    history = {
        key: value
        for row in offline.of_kind(offline.records(logged), "history")
        for key, value in offline.values(row.item).items()
    }
    assert history["attribution/map"]["_type"] == history["before_after"]["_type"] == "image-file"
    [files] = logged.glob("wandb/offline-run-*/files")
    assert (files / history["attribution/map"]["path"]).read_bytes() == (logged / "attribution_map.png").read_bytes()
    table = json.loads((files / history["attribution/head"]["path"]).read_text())
    assert table["columns"] == ["name", "block", "kind", "score"] and len(table["data"]) == 48
    attribution = fake_attribution()
    assert [row[3] for row in table["data"]] == pytest.approx(attribution.scores["head"].tolist())
    assert table["data"][0][0] == attribution.tables["head"]["name"].iloc[0]
    weights = json.loads((files / history["attribution/weight"]["path"]).read_text())
    assert sum(row[3] for row in weights["data"]) == pytest.approx(float(attribution.scores["weight"].sum()), rel=1e-4)


def test_attribution_and_edit_are_artifacts(logged: Path):
    found = {artifact.type: artifact for artifact in offline.of_kind(offline.records(logged), "artifact")}
    for kind in ("edit", "attribution"):
        facts = json.loads(found[kind].metadata)
        assert found[kind].name == f"{kind}-mini-church-erase-head"
        assert facts["identity"] == "f00" and facts["git"] == "abc-dirty" and facts["concept"] == "church"
    assert list((logged / "wandb").rglob("artifacts")), "what waits to be sent lies in the run's folder"


def test_two_runs_in_one_process_are_two_runs(tmp_path: Path):
    for name in ("first", "second"):
        with track(CONFIG, tmp_path / name) as tracker:
            tracker.log_metrics([metric(value=len(name))])
    ids = {
        run.run_id for name in ("first", "second") for run in offline.of_kind(offline.records(tmp_path / name), "run")
    }
    assert len(ids) == 2


def test_an_exception_ends_the_run_and_goes_on(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), track(CONFIG, tmp_path / "run"):
        1 / 0  # noqa: B018
    assert [end.exit_code for end in offline.of_kind(offline.records(tmp_path / "run"), "exit")] == [1]


def test_disabled_does_not_import_wandb(tmp_path: Path):
    code = (
        "import sys\nfrom cad_exp.tracking import track\n"
        "with track({'tracking': {'mode': 'disabled'}}, '.') as tracker:\n"
        "    tracker.log_metrics([]); tracker.log_attribution('a')\n"
        "    tracker.log_images({}); tracker.log_artifact('a', 'b')\n"
        "sys.exit('wandb' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment).returncode == 0
    assert not list(tmp_path.iterdir())


def test_online_without_an_account_is_explained_and_never_asks(tmp_path: Path):
    with pytest.raises(UserError, match="wandb login"), track({"tracking": {"mode": "online"}}, tmp_path):
        pass


def test_an_unknown_mode_is_explained(tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'offline'"), track({"tracking": {"mode": "ofline"}}, tmp_path):
        pass
