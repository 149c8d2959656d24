"""task=probe: from the command line to results.json, table and picture, on the embedded model."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from cad_exp.cli.tables import main as tables
from cad_exp.evaluation.variants import COMPONENTS, ENCODER, FUSED, LATENT, NETWORK, PIXELS, SOURCES, UNTRAINED
from cad_exp.models import image_encoders
from cad_exp.pipeline.run import run
from cad_exp.utils.errors import UserError
from tests import warm
from tests.config.test_configs import composed

SMALL = ["task=probe", "images.number=120", "activations.timesteps=[1,500]", "tracking=disabled", "runtime.device=cpu"]
SMALL += ["activations.hookpoints=[embedding,up_blocks.0.attentions.1]", "probe.fused=2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, stage_cache) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("probe")
    return folder, run(composed(*SMALL, f"runtime.cache={stage_cache}"), folder)


def test_a_run_leaves_table_picture_and_results(made):
    folder, results = made
    table = pd.read_parquet(folder / "probes.parquet")
    assert set(table["source"]) == set(SOURCES) and set(table["label"]) >= {"object", "style", "colour"}
    assert (folder / "probes.png").stat().st_size > 20_000
    assert results["run"]["complete"] and results["run"]["left_out"] == {}
    names = {(metric["name"], metric["variant"]) for metric in results["metrics"]}
    assert {("accuracy@object", source) for source in SOURCES} <= names
    assert {("gain@object", NETWORK), ("gain@object@500", NETWORK), ("accuracy@style@1", LATENT)} <= names
    for metric in results["metrics"]:
        assert metric["low"] <= metric["value"] <= metric["high"] and metric["n"] > 0
    assert json.loads((folder / "results.json").read_text())["metrics"] == results["metrics"]


def test_a_table_of_the_folder_names_every_source(made, capsys):
    """One column a label: single timesteps are left to --csv."""
    assert tables([str(made[0])]) == 0
    head, _, row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert "accuracy@object |" in head and "@500" not in head and "(noisy latent)" in row and "(random weights)" in row


def test_what_it_finds_is_true_of_the_embedded_model(made):
    """A trained layer names objects under noise better than its input and than random weights; all beat chance."""
    table = pd.read_parquet(made[0] / "probes.parquet")
    noisy = table[(table["label"] == "object") & (table["t"] == 500)].set_index(["source", "hookpoint"])["accuracy"]
    best = noisy[NETWORK, "up_blocks.0.attentions.1"]
    assert best > noisy[LATENT, "noisy_latent"] > 1 / 12 and best > noisy[UNTRAINED, "up_blocks.0.attentions.1"]
    assert best > noisy[NETWORK, "conv_in"]
    assert table[table["source"] == PIXELS]["t"].eq(-1).all()


def test_the_best_places_are_read_together(made):
    """Two of the places and timesteps with the best validation accuracy; of equals the first in the network."""
    table = pd.read_parquet(made[0] / "probes.parquet")
    for label, own in table.groupby("label"):
        network = own[own["source"] == NETWORK].sort_values("validation", ascending=False, kind="stable")
        expected = ", ".join(f"{row.hookpoint} at t = {row.t}" for row in network.head(2).itertuples())
        [fused] = own[own["source"] == FUSED].to_dict("records")
        assert fused["hookpoint"] == expected and fused["t"] == -1, label
    metric = next(each for each in made[1]["metrics"] if each["variant"] == FUSED)
    assert metric["definition"]["hookpoint"].count(" at t = ") == 2 and metric["definition"]["t"] is None


def test_the_image_encoder_of_the_models_world_reads_clean_images(made):
    table = pd.read_parquet(made[0] / "probes.parquet").set_index(["label", "source"])
    assert table.loc[("object", ENCODER), "accuracy"] > table.loc[("object", PIXELS), "accuracy"]
    assert table.loc[("object", ENCODER), "t"] == -1


@pytest.mark.parametrize("name", ["attention", "mlp", "diffc"])
def test_every_head_runs_to_its_table(name: str, made, tmp_path: Path, stage_cache):
    asked = [*SMALL, f"probe={name}", "probe.epochs=4", "probe.decays=[0.01]", "probe.fused=2"]
    results = run(composed(*asked, "activations.timesteps=[1]", f"runtime.cache={stage_cache}"), tmp_path / "run")
    table = pd.read_parquet(tmp_path / "run" / "probes.parquet")
    maps = name != "mlp"
    assert set(table["source"]) == set(SOURCES) - ({COMPONENTS} if maps else set())
    best = table[table["source"] == NETWORK].groupby("label")["accuracy"].max()
    assert best["style"] > 0.4 and (table["strength"][~table["source"].isin([FUSED, LATENT, PIXELS])] == 0.01).all()
    # the input is no weaker a rival than for a linear probe: by validation images the better of both reads it
    plain = pd.read_parquet(made[0] / "probes.parquet")
    inputs = [each[(each["source"] == LATENT) & (each["t"] == 1)].set_index("label") for each in (table, plain)]
    assert (inputs[0]["validation"] >= inputs[1]["validation"]).all()
    words = {each["variant"]: each["definition"]["what"] for each in results["metrics"]}
    assert f"{name} probe on" in words[NETWORK] and "a linear probe" in words[FUSED]
    assert f"the better of {'an' if name[0] == 'a' else 'a'} {name} probe and a linear one" in words[LATENT]


def test_what_is_thinned_is_told_apart(tmp_path: Path, stage_cache):
    """Half of the classes with an eighth of their training images: other probes, on the same test images."""
    asked = [*SMALL, "probe.imbalance=8", "probe.untrained=false", "probe.image_encoder=null"]
    run(composed(*asked, f"runtime.cache={stage_cache}"), tmp_path / "run")
    table = pd.read_parquet(tmp_path / "run" / "probes.parquet")
    assert set(table["source"]) == set(SOURCES) - {UNTRAINED, ENCODER}


def test_an_encoder_is_a_folder_or_a_hub_id(tmp_path: Path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="probe.image_encoder: .*empty' is neither a folder of a transformers CLIP"):
        run(composed(*SMALL, f"probe.image_encoder={tmp_path / 'empty'}"), tmp_path / "run")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="nobody/clip' is not on this machine.*give a folder as probe.image_encoder"):
        run(composed(*SMALL, "probe.image_encoder=nobody/clip"), tmp_path / "run")
    assert image_encoders.chosen("auto", "nobody/model") is None and image_encoders.chosen(None, "mini") is None


def test_the_same_command_gives_the_same_numbers(made, tmp_path: Path):
    """Without any cache, in other batches: every number again."""
    again = run(composed(*SMALL, "runtime.cache=null"), tmp_path / "again")
    assert again["metrics"] == made[1]["metrics"]


def test_the_command_line(tmp_path: Path, stage_cache):
    asked = [*SMALL, f"runtime.cache={stage_cache}"]
    first = warm.run(asked, libraries="torch", cwd=tmp_path, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "mini · world · linear probe" in first.stdout and "Read best at t = " in first.stdout
    shown = {line.split("  ")[0]: re.findall(r"[01][.]\d{3}", line) for line in first.stdout.splitlines()}
    sizes = [len(shown[source]) for source in (NETWORK, FUSED, LATENT, ENCODER, "gain of the network")]
    assert sizes[0] >= 3 and set(sizes) == {sizes[0]}  # a value for each label
    [folder] = (tmp_path / "outputs").glob("probe-mini-*")
    assert (folder / "results.json").is_file()
    second = warm.run(asked, libraries="torch", cwd=tmp_path, timeout=300)
    assert second.returncode == 0 and "finished before" in second.stdout
    assert "mini · world · linear probe" in second.stdout


def test_settings_of_other_tasks_rename_no_folder(tmp_path: Path, stage_cache):
    """The concept is none of a probe's business, and probes are none of an attribution's."""
    from cad_exp.config.resolve import resolve

    probe = [resolve(composed("task=probe", *more)) for more in ([], ["concept=church"])]
    assert probe[0] == probe[1] and "concept" not in probe[0] and "edit" not in probe[0]
    plain = [resolve(composed(*more)) for more in ([], ["images.number=50"])]
    assert plain[0] == plain[1] and "images" not in plain[0]


def test_what_cannot_be_asked_is_said_first(tmp_path: Path, tiny_folder, stage_cache):
    with pytest.raises(
        UserError, match="task=probe erases nothing itself: give the edit of another run as model.edits"
    ):
        run(composed("task=probe", "model.erased=['edit=uce']"), tmp_path / "run")
    with pytest.raises(UserError, match="activations.timesteps.*1000"):
        run(composed("task=probe", "activations.timesteps=[1,1000]"), tmp_path / "run")
    with pytest.raises(UserError, match="10 images are too few"):
        few = ["images.number=10", "activations.hookpoints=[embedding]", "activations.timesteps=[1]"]
        run(composed(*SMALL[:1], *few, "tracking=disabled", f"runtime.cache={stage_cache}"), tmp_path / "few")
    with pytest.raises(UserError, match="images=world needs a model that describes its own world"):
        run(composed("task=probe", "model=local", f"model.path={tiny_folder}"), tmp_path / "run")
