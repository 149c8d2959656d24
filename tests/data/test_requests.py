"""Requests: what is the concept's and what is to stay, in which batches, under which names; a run of a set."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cad_exp.config.options import options
from cad_exp.config.resolve import resolve
from cad_exp.data.prompts import plan
from cad_exp.data.requests import ImageRequest, batches
from cad_exp.pipeline.run import run
from cad_exp.reporting import contact_sheet
from cad_exp.utils import images
from cad_exp.utils.errors import UserError
from tests.config.test_configs import FOLDER, MANDATORY, composed
from tests.data.test_prompts import HEAD, I2P, IMAGENETTE, written
from tests.graphs import graph_of, unedited
from tests.pictures import undrawn
from tests.pipeline.test_experiment import FAST

REQUESTS = st.builds(
    ImageRequest,
    st.sampled_from(["concept", "retention"]),
    st.sampled_from(["a", "a!", "b c"]),
    st.integers(0, 3),
    st.just("object"),
    st.sampled_from(["church", "tench"]),
    st.sampled_from([None, 7.0]),
    st.sampled_from([None, (8, 16)]),
    st.sampled_from(["", "1", "a/b", "x" * 200]),
)


def asked(*overrides: str) -> list[ImageRequest]:
    return plan(resolve(composed(*overrides)))


def of(folder: Path, name: str, text: str) -> str:
    return f"'{written(folder, text, f'{name}.csv')}'"


@given(st.lists(REQUESTS), st.integers(1, 5))
def test_batches_hold_equal_settings_and_lose_nothing(requests: list[ImageRequest], size: int):
    parts = batches(requests, size)
    assert [request for part in parts for request in part] == requests and all(0 < len(part) <= size for part in parts)
    assert all(len({(s.purpose, s.kind, s.label, s.guidance, s.size) for s in part}) == 1 for part in parts)


def test_only_images_that_a_metric_looks_at_are_planned():
    looked = {"[erasure]": {"concept"}, "[retention,erasure]": {"concept", "retention"}, "[]": set()}
    looked["[quality]"] = {"concept", "retention"}
    for metrics, purposes in looked.items():
        found = asked("concept=church", f"evaluation.metrics={metrics}")
        assert {request.purpose for request in found} == purposes


def test_a_concept_of_ones_own_is_not_among_what_is_to_stay():
    """It has no label, but it says what it is; what only sounds like it stays."""
    for prompt, kept in {"a golf ball": 15, "A photo of a  Golf Ball": 15, "a golf ball on a lawn": 16}.items():
        found = {
            request.prompt
            for request in asked("concept=custom", f"concept.prompt='{prompt}'")
            if request.purpose == "retention"
        }
        assert len(found) == kept and ("a photo of a golf ball" in found) == (kept == 16)
    nameless = asked("concept=van_gogh", "concept.label=null")
    assert not [each for each in nameless if each.purpose == "retention" and "Van Gogh" in each.prompt]


def test_imagenette_rows_of_the_concept_and_the_rest(tmp_path: Path):
    set_ = f"prompts.path={of(tmp_path, 'set', IMAGENETTE)}"
    requests = asked("concept=church", "prompts=imagenette", set_)
    assert [(s.purpose, s.prompt, s.seed, s.label, s.row) for s in requests] == [
        ("concept", "an image of a church", 11, "church", "0"),
        ("concept", "a church", 13, "church", "2"),
        ("retention", "an image of a tench", 12, "tench", "1"),
    ]
    assert {(s.guidance, s.size) for s in requests} == {(None, None)}
    requests = asked("concept=church", "prompts=imagenette", set_, "evaluation.metrics=[erasure]")
    assert [request.row for request in requests] == ["0", "2"]


def test_i2p_keeps_its_settings_and_the_public_code_ignores_them(tmp_path: Path):
    file = of(tmp_path, "i2p", I2P + "3,a bridge,hate,10,7,512,768\n")
    given = ("concept=nudity", "prompts=i2p", f"prompts.path={file}", "evaluation=erasure")
    requests = asked(*given)
    # Rows of one guidance and size stand together, so that they fill batches.
    assert [(s.row, s.seed, s.guidance, s.size) for s in requests] == [
        ("0", 7, 7.0, (768, 512)),
        ("3", 10, 7.0, (768, 512)),
        ("1", 8, 7.5, (512, 512)),
        ("2", 9, 12.0, (768, 512)),
    ]
    assert {(s.purpose, s.kind, s.label) for s in requests} == {("concept", "nudity", "naked")}
    public = asked(*given, "prompts.public_code=true")
    assert [(s.row, s.seed, s.guidance, s.size) for s in public] == [(n, 0, None, None) for n in "0123"]
    assert {(s.row, s.prompt) for s in public} == {(s.row, s.prompt) for s in requests}


def test_the_public_code_keeps_the_seeds_of_imagenette(tmp_path: Path):
    given = ("concept=church", "prompts=imagenette", f"prompts.path={of(tmp_path, 'set', IMAGENETTE)}")
    assert asked(*given, "prompts.public_code=true") == asked(*given)


def test_nudity_on_one_set_and_quality_on_another(tmp_path: Path):
    captions = "image_id,source,prompt,evaluation_seed\n0007,coco-30k,A dog.,5\n0008,coco-30k,A cat.,6\n"
    given = ["concept=nudity", "prompts=i2p", f"prompts.path={of(tmp_path, 'i2p', I2P)}", "retention_prompts=coco30k"]
    given += [f"retention_prompts.path={of(tmp_path, 'coco', captions)}"]
    requests = asked(*given, "evaluation.metrics=[erasure,quality]")
    assert Counter((s.purpose, s.kind, s.label) for s in requests) == {
        ("concept", "nudity", "naked"): 3,
        ("retention", "caption", ""): 2,
    }
    assert [s.row for s in requests][3:] == ["0007", "0008"]
    with pytest.raises(UserError, match="whether an image shows its caption"):
        asked(*given)


def test_a_retention_set_leaves_the_concept_out_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    given = (
        "concept=church",
        "retention_prompts=imagenette",
        f"retention_prompts.path={of(tmp_path, 'set', IMAGENETTE)}",
    )
    requests = asked(*given, "evaluation.samples=5")
    assert Counter((s.purpose, s.label, s.row) for s in requests) == {
        ("concept", "church", ""): 5,
        ("retention", "tench", "1"): 1,
    }
    assert "2 images of the concept itself left out" in capsys.readouterr().out


def test_styles_and_the_worlds_prompts_beside_a_set(tmp_path: Path):
    text = ",case_number,prompt,evaluation_seed,artist\n0,0,sun,1,Van Gogh\n1,1,night,2,Rembrandt\n"
    given = ("concept=van_gogh", "prompts=artists", f"prompts.path={of(tmp_path, 'artists', text)}")
    assert [(s.purpose, s.label) for s in asked(*given)] == [("concept", "Van Gogh"), ("retention", "Rembrandt")]
    world = asked(*given, "retention_prompts=world", "evaluation.retention_samples=1")
    default = asked("concept=van_gogh", "evaluation.retention_samples=1")
    assert world[1:] == [request for request in default if request.purpose == "retention"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["concept=church", "prompts=i2p"], "asks for nudity, the concept is church"),
        (["concept=nudity", "prompts=imagenette"], "no row of prompts=imagenette asks for the concept"),
        (
            ["concept=nudity", "prompts=i2p"],
            "quality and retention need prompts of what is to stay.*retention_prompts=coco30k",
        ),
        (["concept=nudity", "retention_prompts=none"], "need prompts of what is to stay"),
    ],
)
def test_sets_that_do_not_fit_are_refused(tmp_path: Path, overrides: list[str], message: str):
    text = I2P if "prompts=i2p" in overrides else IMAGENETTE
    path = [f"prompts.path={of(tmp_path, 'set', text)}"] if "retention_prompts=none" not in overrides else []
    with pytest.raises(UserError, match=message):
        asked(*overrides, *path)


def test_rows_without_seeds_and_several_images_of_a_row(tmp_path: Path):
    given = ("concept=nudity", "prompts=mma", "evaluation=erasure", "prompts.per_prompt=2")
    file = of(tmp_path, "mma", "adv_prompt\nx\ny\nx\n")
    given += (f"prompts.path={file}",)
    requests = asked(*given)
    assert [s.row for s in requests] == ["0", "0", "1", "1", "2", "2"] and len({s.seed for s in requests}) == 6
    other = asked(*given, "evaluation.seed=1")
    assert not {s.seed for s in requests} & {s.seed for s in other}
    assert [(s.prompt, s.seed) for s in asked(*given, "prompts.per_prompt=1")] == [
        (s.prompt, s.seed) for s in requests[::2]
    ]


@pytest.mark.parametrize("prompts", sorted(set(options("prompts", [FOLDER]))))
@pytest.mark.parametrize("retention", sorted(set(options("retention_prompts", [FOLDER]))))
def test_every_option_goes_with_every_other(prompts: str, retention: str):
    config = composed(f"prompts={prompts}", f"retention_prompts={retention}", *MANDATORY.get(prompts, []))
    assert (config["prompts"]["name"], config["retention_prompts"]["name"]) == (prompts, retention)
    if retention in options("prompts", [FOLDER]):
        assert config["retention_prompts"] == composed(f"prompts={retention}")["prompts"]


@given(st.sets(REQUESTS))
def test_no_two_requests_of_a_run_share_a_file(requests: set[ImageRequest]):
    images_ = {(s.purpose, s.prompt.replace("!", ""), s.row, s.seed) for s in requests}
    names = {contact_sheet.file_name(request) for request in requests}
    assert len(names) == len(images_)
    assert all(name.count("/") == 1 and len(name.encode()) < 255 for name in names)


def test_the_sheet_shows_pictures_of_one_size_per_prompt():
    requests = [
        ImageRequest("concept", "a", n, "object", "church", None, size) for n, size in enumerate([None, (8, 8), None])
    ]
    assert contact_sheet.choice(requests) == {"a": [0, 2]}
    assert contact_sheet.file_name(ImageRequest("concept", "a photo of a church", 7, "object", "church")) == (
        "concept/a_photo_of_a_church-0000000007.png"
    )


class Painter(torch.nn.Module):
    """Stands for a model: paints an image that tells how it was asked for."""

    resolution = 16

    def generate(self, prompts, seeds, steps, guidance, batch_size, progress, size=None):
        assert batch_size == len(prompts) == len(seeds)
        height, width = size or (16, 16)
        return np.stack([np.full((height, width, 3), [seed, guidance * 10, steps], np.uint8) for seed in seeds])


def test_own_guidance_and_size_reach_the_model(tmp_path: Path):
    runtime, graph, config = graph_of(tmp_path, "model.steps=3", "model.guidance=4.0")
    runtime.put(graph.model, Painter())
    plain = [ImageRequest("concept", "a", seed, "nudity", "naked") for seed in (1, 2)]
    own = [
        ImageRequest("concept", "a", 1, "nudity", "naked", 7.5, (8, 24), "r"),
        ImageRequest("concept", "a", 1, "nudity", "naked", 4.0),
    ]
    files = runtime.get(unedited(config, graph, [*plain, *own]))
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert [picture.shape[:2] for picture in pictures] == [(16, 16), (16, 16), (8, 24), (16, 16)]
    assert [picture[0, 0].tolist() for picture in pictures] == [[1, 40, 3], [2, 40, 3], [1, 75, 3], [1, 40, 3]]
    again = runtime.cache.made["images"]
    runtime.get(unedited(config, graph, [*plain, *own]))
    assert runtime.cache.made["images"] == again == 3
    keys = [json.loads((file.parent / "entry.json").read_text())["inputs"]["of"] for file in files]
    assert keys[0]["size"] is None and keys[2]["size"] == [8, 24] and keys[2]["guidance"] == 7.5
    runtime.get(unedited(config, graph, [ImageRequest("concept", "a", 1, "nudity", "naked")]))
    assert runtime.cache.made["images"] == again  # the model's own guidance, named or not, is one entry


def test_a_run_of_a_written_set(tmp_path: Path):
    rows = [("r1", "a photo of a church", "church", 21), ("r2", "a photo of a tench", "tench", 22)]
    rows += [("r3", "a picture of a church", "church", 23), ("r4", "a photo of a church", "church", 100_000)]
    with open(tmp_path / "own.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD.strip().split(","))
        writer.writerows(rows)
    given = [*FAST, "concept=church", "granularity=layer", "edit=none", "estimator=first_order", "model.steps=2"]
    given += ["runtime.cache=null", "noisy_latents.samples=1", "noisy_latents.steps=2", "evaluation.batch_size=1"]
    set_ = ["prompts=imagenette", f"prompts.path={tmp_path / 'own.csv'}"]
    with undrawn():
        run(composed(*given, *set_), tmp_path / "set")
    table = pd.read_parquet(tmp_path / "set" / "records.parquet")
    joined = table.merge(pd.DataFrame(rows, columns=["row", "asked", "class", "own"]), on="row", validate="m:1")
    assert (
        len(joined) == len(table) == 4 and (joined.prompt == joined.asked).all() and (joined.seed == joined.own).all()
    )
    assert dict(zip(table.row, table.purpose, strict=True)) == {
        "r1": "concept",
        "r3": "concept",
        "r4": "concept",
        "r2": "retention",
    }
    facts = json.loads((tmp_path / "set" / "results.json").read_text())["run"]
    assert list(facts["prompt_files"]) == ["own.csv"] and len(facts["prompt_files"]["own.csv"]) == 64
    saved = {path.name: path for path in (tmp_path / "set" / "images" / "unedited").rglob("*.png")}
    assert len(saved) == 4
    # A row with the seed and prompt of an ordinary run gives its image, though neither run knows the other's cache.
    with undrawn():
        run(composed(*given, "evaluation=erasure", "evaluation.samples=1"), tmp_path / "plain")
    [ordinary] = (tmp_path / "plain" / "images" / "unedited").rglob("*.png")
    assert ordinary.name == "a_photo_of_a_church-0000100000.png"
    ours, theirs = images.load([saved["a_photo_of_a_church-r4-0000100000.png"], ordinary])
    assert np.array_equal(ours, theirs) and not np.array_equal(ours, images.load([min(saved.values())])[0])
