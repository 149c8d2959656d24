"""Weights & Biases offline, read back from the files that it leaves; no account, no network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cad_exp.reporting.figures.attribution import attribution_map
from cad_exp.reporting.figures.before_after import before_after
from cad_exp.reporting.tracking.session import track
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.reporting.tracking.wandb_tracker import WandbTracker, artifact_name
from cad_exp.utils.errors import UserError
from tests import offline
from tests.fakes import fake_attribution
from tests.reporting.test_results import metric

CONFIG = {"seed": 3, "concept": {"name": "church"}, "tracking": {"mode": "offline", "project": "cad_exp"}}
CONFIG |= {group: {"name": name} for group, name in {"model": "mini", "objective": "erase", "edit": "erase"}.items()}
CONFIG |= {"granularity": {"name": "head"}}
SILENT = dict.fromkeys(("mode", "project", "entity", "group", "job_type", "name", "notes", "tags"))
RUN = {"git": "abc-dirty", "versions": {"torch": "2.0"}, "seconds": {"images": 1.5}, "identity": "f00", "complete": 1}
VARIABLES = ("MODE", "PROJECT", "ENTITY", "NAME", "NOTES", "TAGS", "RUN_GROUP", "JOB_TYPE", "DIR", "RUN_ID", "DISABLED")


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without an account. wandb reads the environment once for a process: never that of one test."""
    import wandb

    own = [f"WANDB_{name}" for name in VARIABLES]
    for name in (*own, "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.setup()


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
        (folder / "report.html").write_text("<p>a report")
        tracker.log_page("report", folder / "report.html")
        tracker.log_artifact(folder / "edit.safetensors", type="edit")
        tracker.log_artifact(saved, type="attribution")
    return folder


def test_the_report_is_logged_as_it_is(logged: Path):
    [page] = logged.glob("wandb/offline-run-*/files/media/html/report_*.html")
    assert page.read_text() == "<p>a report"


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
        "import sys\nfrom cad_exp.reporting.tracking.session import track\n"
        "with track({'tracking': {'mode': 'disabled'}}, '.') as tracker:\n"
        "    tracker.log_metrics([]); tracker.log_attribution('a')\n"
        "    tracker.log_images({}); tracker.log_artifact('a', 'b')\n"
        "sys.exit('wandb' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment).returncode == 0
    assert not list(tmp_path.iterdir())


def test_online_without_an_account_is_explained_and_never_asks(tmp_path: Path):
    with pytest.raises(UserError, match="wandb login"), track({"tracking": {"mode": "online"}}, tmp_path):
        pass


def test_an_unknown_mode_is_explained(tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'offline'"), track({"tracking": {"mode": "ofline"}}, tmp_path):
        pass


def started(folder: Path) -> Any:
    [run] = offline.of_kind(offline.records(folder), "run")
    return run


def test_what_the_config_leaves_open_the_environment_says(tmp_path: Path, monkeypatch):
    given = {"MODE": "offline", "PROJECT": "mine", "NAME": "first", "RUN_ID": "abc123", "ENTITY": "us", "TAGS": "a,b"}
    given |= {"RUN_GROUP": "group", "JOB_TYPE": "job", "NOTES": "why", "DIR": str(tmp_path / "elsewhere")}
    for name, value in given.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    with track(CONFIG | {"tracking": SILENT}, tmp_path / "run", lambda _: "key"):
        pass
    run = started(tmp_path / "elsewhere")
    assert (run.project, run.display_name, run.run_id, run.entity) == ("mine", "first", "abc123", "us")
    assert (run.run_group, run.job_type, run.notes, list(run.tags)) == ("group", "job", "why", ["a", "b"])
    assert not (tmp_path / "run").exists()


def test_the_config_wins_over_the_environment(tmp_path: Path, monkeypatch):
    for name, value in {"MODE": "disabled", "PROJECT": "mine", "NAME": "first", "RUN_GROUP": "group"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    own = {"mode": "offline", "project": "ours", "name": "second", "group": "our group"}
    with track(CONFIG | {"tracking": SILENT | own}, tmp_path):
        pass
    run = started(tmp_path)
    assert (run.project, run.display_name, run.run_group) == ("ours", "second", "our group")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({}, True),
        ({"WANDB_MODE": "disabled"}, False),
        ({"WANDB_MODE": "dryrun"}, True),
        ({"WANDB_DISABLED": "true"}, False),
    ],
)
def test_a_silent_config_is_offline_unless_the_environment_says_otherwise(given, written, tmp_path: Path, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with track(CONFIG | {"tracking": SILENT}, tmp_path / "run") as tracker:
        assert (type(tracker) is WandbTracker) == written
    assert (tmp_path / "run").exists() == written


def test_an_unknown_mode_of_the_environment_is_explained(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match="WANDB_MODE 'ofline': did you mean 'offline'"):
        track(CONFIG | {"tracking": SILENT}, tmp_path).__enter__()


def test_a_run_that_is_repeated_is_the_same_run(tmp_path: Path):
    for value in (0.1, 0.2):
        with track(CONFIG, tmp_path, lambda config: f"key{config['seed']}") as tracker:
            tracker.log_metrics([metric(value=value)])
    found = offline.records(tmp_path)  # of the only run that is left
    [run] = offline.of_kind(found, "run")
    assert (
        run.run_id == "key3" and offline.values(offline.of_kind(found, "history")[0].item)["concept_rate/edited"] == 0.2
    )


def test_an_earlier_run_of_another_id_stays(tmp_path: Path, monkeypatch):
    other = tmp_path / "wandb" / "offline-run-20200101_000000-a-b"
    other.mkdir(parents=True)
    monkeypatch.setenv("WANDB_RUN_ID", "b")
    with track(CONFIG, tmp_path):
        pass
    assert other.is_dir()


def test_a_sweep_is_one_group_with_job_types(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "one-for-all")
    for name in ("church", "tench"):
        config = CONFIG | {"concept": {"name": name}, "tracking": SILENT | {"mode": "offline", "sweep": "both-1234"}}
        with track(config, tmp_path / name, lambda config: config["concept"]["name"]):
            pass
        run = started(tmp_path / name)
        assert (run.run_group, run.job_type, run.run_id) == ("both-1234", f"{name}-head", name)


def test_code_versions_and_seconds_are_in_the_config(logged: Path):
    found = offline.records(logged)
    config = {
        key: value
        for record in offline.of_kind(found, "config")
        for key, value in offline.values(record.update).items()
    }
    assert config["git"] == "abc-dirty" and config["versions"] == {"torch": "2.0"}
    assert config["seconds"] == {"images": 1.5} and config["identity"] == "f00"


def test_images_can_be_browsed_with_what_the_judge_says(tmp_path: Path):
    rows = [{"variant": v, "prompt": "a church", "seed": 7, "object": "church"} for v in ("unedited", "edited")]
    pd.DataFrame(rows).to_parquet(tmp_path / "records.parquet")
    Image.new("RGB", (8, 8)).save(tmp_path / "there.png")
    with track(CONFIG, tmp_path) as tracker:
        places = {"unedited": [tmp_path / "there.png"], "edited": [tmp_path / "dropped.png"]}
        tracker.log_records(tmp_path / "records.parquet", places)
    [artifact] = offline.of_kind(offline.records(tmp_path), "artifact")  # of the table, with its images
    files = {item.path: Path(item.local_path) for item in artifact.manifest.contents}
    table = json.loads(files["images.table.json"].read_text())
    assert table["columns"] == ["image", "variant", "prompt", "seed", "object"]
    assert [row[1:] for row in table["data"]] == [list(row.values()) for row in rows]
    picture, nothing = (row[0] for row in table["data"])
    assert files[picture["path"]].read_bytes() == (tmp_path / "there.png").read_bytes() and nothing is None


def test_names_of_artifacts_are_allowed_and_differ():
    def named(concept: str) -> str:
        return artifact_name("edit", CONFIG | {"concept": {"name": concept}})

    names = [named(concept) for concept in ("church", "教会", "寺院", "a/b c", "x" * 300, "x" * 301)]
    assert names[0] == "edit-mini-church-erase-head" and len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name) for name in names)


@pytest.mark.parametrize("method", ["log", "log_artifact", "finish"])
def test_a_failing_wandb_costs_one_line(method, tmp_path: Path, monkeypatch, capsys):
    import wandb

    def fail(*_, **__):
        raise wandb.errors.CommError("no route")

    with track(CONFIG, tmp_path) as tracker:
        monkeypatch.setattr(tracker.run, method, fail)
        for _ in range(2):
            tracker.log_metrics([metric()])
            tracker.log_images({})
            tracker.log_artifact(Path(__file__), "edit")
    said = capsys.readouterr().err
    assert said.count("Weights & Biases") == 1 and "no route" in said
    monkeypatch.undo()
    tracker.run.finish()


def test_a_wandb_that_cannot_start_costs_one_line(tmp_path: Path, capsys):
    (tmp_path / "wandb").write_text("a file")
    with track(CONFIG, tmp_path) as tracker:
        tracker.log_metrics([metric()])
    assert type(tracker) is Tracker and "Weights & Biases is left out" in capsys.readouterr().err
    assert (tmp_path / "wandb").read_text() == "a file"
