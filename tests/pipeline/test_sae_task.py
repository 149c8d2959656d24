"""task=sae: from the command line to results.json, table, pictures and files, on the embedded model."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from cad_exp.cli.tables import main as tables
from cad_exp.config.resolve import resolve
from cad_exp.evaluation.variants import AUTOENCODER, DICTIONARIES, FROZEN, PRINCIPAL, RANDOM
from cad_exp.pipeline.run import run
from cad_exp.representations.sae.files import load
from cad_exp.utils.errors import UserError
from tests import warm
from tests.config.test_configs import composed

SITE = "up_blocks.0.attentions.1"
SMALL = ["task=sae", "images.number=100", "tokens.steps=6", "sae.tokens=40_000", "sae.width=256", "sae.seeds=2"]
SMALL += ["tracking=disabled", "runtime.device=cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, stage_cache) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("sae")
    return folder, run(composed(*SMALL, f"runtime.cache={stage_cache}"), folder)


def by_name(results: dict, variant: str = AUTOENCODER) -> dict[str, dict]:
    return {metric["name"]: metric for metric in results["metrics"] if metric["variant"] == variant}


def test_a_run_leaves_results_pictures_and_autoencoders(made):
    folder, results = made
    assert results["run"]["complete"] and results["run"]["left_out"] == {}
    for picture in ("features.png", "latents.png"):
        assert (folder / picture).stat().st_size > 20_000
    for variant in DICTIONARIES:
        found = by_name(results, variant)
        assert {"fvu", "l0", "dead", "cosine", "loss_recovered", "f1@object", "sparse_probe@style@4"} <= set(found)
    own = by_name(results)
    assert {"purity@object", "shared_latents@another seed", "fvu_seeds"} <= set(own)
    assert own["fvu"]["definition"]["hookpoint"] == SITE and own["fvu"]["definition"]["width"] == 256
    assert set(own["fvu"]["changes"]) == set(DICTIONARIES) - {AUTOENCODER}
    assert json.loads((folder / "results.json").read_text())["metrics"] == results["metrics"]


def test_the_files_hold_the_autoencoders_that_were_measured(made):
    """The first one's FVU, from its file and the tokens on disk, is the one in results.json."""
    folder, results = made
    autoencoder, facts = load(folder / "autoencoders" / SITE / "0")
    assert facts["hookpoint"] == SITE and facts["k"] == 16 and not facts["frozen"]
    errors, tokens = [], []
    for part in _test_tokens(folder, results):
        x = part.flatten(0, 1)
        errors.append((autoencoder.decode(autoencoder.encode(x)) - x).double())
        tokens.append(x.double())
    whole = torch.cat(tokens)
    fvu = torch.cat(errors).square().sum() / (whole - whole.mean(0)).square().sum()
    assert by_name(results)["fvu"]["value"] == pytest.approx(float(fvu), rel=1e-5)


def _test_tokens(folder: Path, results: dict) -> list[torch.Tensor]:
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.pipeline.tasks.sae import build

    config = resolve(results["run"]["config"])
    runtime, graph = Runtime(config["runtime"], folder / ".cache"), build(config)
    return [part.tensor(SITE) for part in runtime.all(graph.features.test, "tokens")]


def test_what_it_finds_is_true_of_the_embedded_model(made):
    """A trained dictionary explains more than its rivals with as many numbers, and names objects better."""
    fvu = {name: by_name(made[1], name)["fvu"]["value"] for name in DICTIONARIES}
    assert fvu[AUTOENCODER] < min(fvu[name] for name in DICTIONARIES if name != AUTOENCODER)
    assert by_name(made[1])["fvu"]["changes"][PRINCIPAL]["high"] < 0
    f1 = {name: by_name(made[1], name)["f1@object"]["value"] for name in (AUTOENCODER, RANDOM, FROZEN)}
    assert f1[AUTOENCODER] > f1[RANDOM]
    assert "less than 16 principal components leave" in made[1]["run"]["verdict"]["reconstruction"]


def test_tokens_have_an_index(made):
    folder, results = made
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.pipeline.tasks.sae import build

    config = resolve(results["run"]["config"])
    runtime, stage = Runtime(config["runtime"], folder / ".cache"), build(config).features.test[0]
    [shards] = runtime.all([stage], "tokens")
    index = pd.read_parquet(runtime.place(stage) / "index.parquet")
    images, tokens, _ = shards.tensor(SITE).shape
    assert len(index) == images * tokens == 20 * 6 * 16
    assert list(index["image"].unique()) == list(range(80, 100)) and index["t"].nunique() == 6
    assert set(index["position"]) == set(range(16)) and {"object", "style", "nudity", "colour"} <= set(index)


def test_the_same_command_gives_the_same_numbers(made, tmp_path: Path):
    """Without any cache: every number again."""
    again = run(composed(*SMALL, "runtime.cache=null"), tmp_path / "again")
    assert again["metrics"] == made[1]["metrics"]


def test_several_places_and_ks_have_names_of_their_own(tmp_path: Path, stage_cache):
    """On noised images, without controls."""
    asked = ["task=sae", "tokens=noised", "tokens.timesteps=[1,500]", "images.number=60", "sae.tokens=8192"]
    asked += ["tokens.hookpoints=[mid_block.attentions.0,up_blocks.0.attentions.1]", "sae.k=[4,8]", "sae.seeds=1"]
    asked += ["sae.width=64", "sae=batchtopk", "sae.controls=false", "tracking=disabled"]
    done = run(composed(*asked, f"runtime.cache={stage_cache}"), tmp_path / "run")
    found = by_name(done)
    assert {f"fvu@{place}@k={k}" for place in ("mid_block.attentions.0", SITE) for k in (4, 8)} <= set(found)
    assert {metric["variant"] for metric in done["metrics"]} == {AUTOENCODER}
    assert found[f"l0@{SITE}@k=8"]["value"] > found[f"l0@{SITE}@k=4"]["value"]
    assert "no controls were asked for" in done["run"]["verdict"][f"reconstruction, {SITE}, k=8"]


def test_a_table_of_the_folder_names_every_dictionary(made, capsys):
    assert tables([str(made[0])]) == 0
    head, _, row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert "fvu" in head and "(random dictionary)" in row and "(frozen decoder)" in row


def test_the_command_line(tmp_path: Path, stage_cache):
    asked = [*SMALL, f"runtime.cache={stage_cache}"]
    first = warm.run(asked, libraries="torch", cwd=tmp_path, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "mini · trajectories · topk" in first.stdout and "variance left (FVU)" in first.stdout
    [folder] = (tmp_path / "outputs").glob("sae-mini-*")
    assert (folder / "results.json").is_file()
    second = warm.run(asked, libraries="torch", cwd=tmp_path, timeout=300)
    assert second.returncode == 0 and "finished before" in second.stdout


@pytest.mark.parametrize(
    "asked, said",
    [
        (["sae.width=wide"], "sae.width"),
        (["sae=matryoshka", "sae.shares=[0.5,0.25]"], "rise to 1"),
        (["tokens.positions=some"], "tokens.positions"),
    ],
)
def test_wrong_settings_are_refused_before_torch(asked, said):
    with pytest.raises(UserError, match=said):
        resolve(composed("task=sae", *asked))


def test_too_few_tokens_and_places_of_words_are_answered(tmp_path: Path, stage_cache):
    small = ["task=sae", "images.number=10", "tokens.steps=1", f"runtime.cache={stage_cache}"]
    with pytest.raises(UserError, match="do not fill a batch of 1024"):
        run(composed(*small), tmp_path / "few")
    with pytest.raises(UserError, match="text encoder, whose tokens are words"):
        run(composed(*small, "tokens.hookpoints=[text]"), tmp_path / "words")
