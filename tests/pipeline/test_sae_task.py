"""task=sae: from the command line to results.json, table, pictures and files, on the embedded model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cad_exp.cli.latents import main as latents
from cad_exp.cli.tables import main as tables
from cad_exp.config.resolve import resolve
from cad_exp.evaluation.variants import AUTOENCODER, DICTIONARIES, FROZEN, PRINCIPAL, RANDOM
from cad_exp.pipeline.held_out import HeldOut
from cad_exp.pipeline.latent_pages import default_latents, pages
from cad_exp.pipeline.run import run
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.tasks.sae import Sae, build
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
    pages = list((folder / "latents").glob("*.png"))
    assert len(pages) == 3 and all(page.stat().st_size > 20_000 for page in pages)
    assert {f"latents/{page.name}" for page in pages} <= set(results["run"]["files"])
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


def _graph(folder: Path, results: dict) -> tuple[Runtime, Sae]:
    config = resolve(results["run"]["config"])
    return Runtime(config["runtime"], folder / ".cache"), build(config)


def _test_tokens(folder: Path, results: dict) -> list[torch.Tensor]:
    runtime, graph = _graph(folder, results)
    return [part.tensor(SITE) for part in runtime.all(graph.features.test, "tokens")]


def test_what_it_finds_is_true_of_the_embedded_model(made):
    """A trained dictionary explains more than its rivals with as many numbers, and names objects better."""
    fvu = {name: by_name(made[1], name)["fvu"]["value"] for name in DICTIONARIES}
    assert fvu[AUTOENCODER] < min(fvu[name] for name in DICTIONARIES if name != AUTOENCODER)
    assert by_name(made[1])["fvu"]["changes"][PRINCIPAL]["high"] < 0
    f1 = {name: by_name(made[1], name)["f1@object"]["value"] for name in (AUTOENCODER, RANDOM, FROZEN)}
    assert f1[AUTOENCODER] > f1[RANDOM]
    assert "less than 16 principal components leave" in made[1]["run"]["verdict"]["reconstruction"]


def test_any_other_latent_gets_a_page(made, tmp_path: Path, capsys):
    """Of a finished run, from the cache; a name that the run has not is answered in a sentence."""
    folder, _ = made
    assert latents([str(folder), "5", "6", "--to", str(tmp_path / "pages"), "--k", "16", "--hookpoint", SITE]) == 0
    said = capsys.readouterr()
    assert sorted(page.name for page in (tmp_path / "pages").iterdir()) == ["5.png", "6.png"]
    assert "6.png" in said.out and "made again" not in said.out
    for asked, sentence in (
        ([str(folder), "256"], "there is no latent 256: this dictionary has 0 to 255"),
        ([str(folder), "1", "--hookpoint", "mid_block"], "unknown --hookpoint 'mid_block'"),
        ([str(folder), "1", "--k", "8"], "no autoencoder of this run fits the flags: there are --k 16 --width 256"),
        ([str(tmp_path), "1"], "holds no results.json: give that of a finished run of task=sae"),
        ([str(tmp_path / "absent"), "1"], "there is no folder"),
        ([str(folder / "results.json"), "1"], "is a file and no folder"),
        ([str(folder), "1", "--to", str(folder / "results.json" / "x")], "nothing can be written into"),
    ):
        assert latents(asked) == 1
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize("asked", [["256"], ["5", "-1"], ["1", "--hookpoint", "mid_block"], ["1", "--k", "8"]])
def test_a_latent_that_is_not_there_leaves_no_folder(made, asked: list[str], tmp_path: Path, capsys):
    to = tmp_path / "deep" / "pages"
    assert latents([str(made[0]), *asked, "--to", str(to)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "deep").exists()


def test_a_page_shows_what_a_latent_does(made):
    """Recomputed by hand from the tokens: its images, when it acts, and what its images say of the labels."""
    folder, results = made
    runtime, graph = _graph(folder, results)
    held = HeldOut(runtime, graph.features)
    latent = default_latents(held, 1)[0]
    [page] = pages(held, [latent])
    tokens = torch.cat([each.tensor(SITE) for each in runtime.all([*graph.features.choice, *graph.features.test], "")])
    acts = held.autoencoder.encode(tokens.flatten(0, 1)).matrix(256)[:, latent].toarray().reshape(30, 6, 16)
    order = np.argsort(-acts.mean((1, 2)), kind="stable")[:8]
    assert np.allclose(page.mean, acts.mean((0, 2)), atol=1e-5) and len(page.times) == 6
    assert np.allclose(page.top, acts[order].mean((0, 2)), atol=1e-5) and page.times == sorted(page.times, reverse=True)
    assert page.frequency == pytest.approx((acts.max((1, 2)) > 0).mean())
    classes = np.concatenate([runtime.get(each.images).labels["object"] for each in held.stages])
    told = page.labels[0]
    assert told.label == "object" and told.share == np.bincount(classes[order]).max() / 8
    number = held.names["object"].index(told.name)
    assert told.base == pytest.approx((classes == number).mean()) and told.chance < told.quantile <= 1
    assert len(page.prompts.names) == 5 and 0 < page.prompts.alike < page.prompts.spread < 1
    cosines = [value for _, value in page.prompts.names]
    assert cosines == sorted(cosines, reverse=True)
    assert {name for name, _ in page.prompts.names} <= set(held.training()[0])


def test_tokens_have_an_index(made):
    folder, results = made
    runtime, graph = _graph(folder, results)
    stage = graph.features.test[0]
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


def test_widths_are_compared_with_the_next_narrower_one(tmp_path: Path, stage_cache):
    """Splitting, absorption and shared latents, each width and control; the change is against the narrower width."""
    asked = [*SMALL, "sae.width=[32,128]", "sae.seeds=1", "sae.pages=0"]
    done = run(composed(*asked, f"runtime.cache={stage_cache}"), tmp_path / "run")
    assert not (tmp_path / "run" / "latents").exists()
    for variant in (AUTOENCODER, FROZEN, RANDOM):
        found = by_name(done, variant)
        for name in ("split_latents@object", "absorption@object", "silence@object"):
            narrow, wide = found[f"{name}@width=32"], found[f"{name}@width=128"]
            assert narrow["changes"] == {} and set(wide["changes"]) == {"width 32"}
            change = wide["changes"]["width 32"]["value"]
            assert change == pytest.approx(wide["value"] - narrow["value"], abs=1e-6), name
            assert wide["definition"]["width"] == 128 and wide["definition"]["hookpoint"] == SITE
        assert found["split_latents@object@width=128"]["value"] > 0
        assert found["absorption@object@width=32"]["value"] <= found["silence@object@width=32"]["value"]
    shared = by_name(done)["shared_latents@the next width@width=32"]
    assert shared["definition"]["other"] == 128 and 0 <= shared["value"] <= 1
    assert not any(name.startswith("split_latents") for name in by_name(done, PRINCIPAL))


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
