"""report.html: what it shows, from the folder alone; what it refuses; and that nothing in a run can speak HTML."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cad_exp.cli import report
from cad_exp.interventions import edit_file
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.spaces import sites
from cad_exp.reporting import contact_sheet, run_folder, wording
from cad_exp.reporting.html import edit as html_edit
from cad_exp.reporting.html import fidelity, gallery, layers, metrics, render
from cad_exp.reporting.html import source as html_source
from cad_exp.reporting.html.source import Source
from cad_exp.reporting.results import harm, load_results
from cad_exp.utils.io import write_json
from tests.reporting.finished_runs import LAYERS, METRICS, RUN, attribute_run, finished, metric, requests

HOSTILE = '</script><img src=x onerror="window.hacked=1">\'"&amp;\u202e\u2066\x00<b>{{7*7}}'


class Page(HTMLParser):
    """The tags of a page, its text, and its ids."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


WALK = {"tried": [{"strength": 0.0424, "rate": 0.0, "images": 96, "kept": 1.0, "left": 0.25}], "chosen": 0}
WALK["why"] = "the weakest"


def written(folder: Path, *arguments: str) -> str:
    assert report.main([str(folder), *arguments]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_part_of_a_run_is_shown(tmp_path: Path, capsys):
    page = Page(written(attribute_run(tmp_path / "run")))
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "report.html")
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"verdicts", "metrics", "gallery", "layers", "components", "counterfactuals", "fidelity", "made"} <= ids
    assert "Which neurons of mini make church, which suppress it, and what does the edit “erase” do" in page.text
    assert "The concept is gone" in page.text and "concept rate" in page.text and "the concept_rate" in page.text
    assert "[0.025, 0.050]" in page.text and "neuron 11" in page.text and "arXiv preprint arXiv:2412.02542" in page.text


def test_the_page_is_one_file_that_loads_nothing(tmp_path: Path):
    """No address, no style sheet, no script of elsewhere; and the policy of the page forbids them."""
    page = Page(written(attribute_run(tmp_path / "run")))
    assert not page.of("link") and not page.of("iframe") and all("src" not in each for each in page.of("script"))
    assert page.of("img") and all((each["src"] or "").startswith("data:image/webp;base64,") for each in page.of("img"))
    assert all((each["href"] or "").startswith("#") for each in page.of("a"))
    policy = next(each["content"] for each in page.of("meta") if each.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")


def test_the_page_can_be_read_by_everybody(tmp_path: Path):
    page = Page(written(attribute_run(tmp_path / "run")))
    assert page.of("html") == [{"lang": "en"}] and len(page.of("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), levels
    assert all(each.get("alt") for each in page.of("img"))
    assert all(each.get("aria-label") or each.get("aria-labelledby") for each in page.of("svg") if each.get("role"))
    assert all(each.get("scope") for each in page.of("th"))


@pytest.mark.parametrize("kind", ["prompt", "component", "metric", "config", "reason", "model", "instead"])
def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path, kind: str):
    folder = tmp_path / "run"
    asked = requests((("concept", HOSTILE if kind == "prompt" else "a church"),))
    name = f"neuron {{}} {HOSTILE.replace('{', '').replace('}', '')}" if kind == "component" else "neuron {}"
    changed = {"model": HOSTILE} if kind == "model" else {"left_out": {HOSTILE: HOSTILE}} if kind == "reason" else {}
    if kind == "instead":
        changed = {"instead": HOSTILE, "strength": WALK | {"why": HOSTILE}}
    if kind == "config":
        changed["config"] = RUN["config"] | {"concept": {"name": HOSTILE, "prompt": HOSTILE, "kind": "object"}}
    said = [metric(HOSTILE, "edited", 1.0, definition={HOSTILE: HOSTILE, "warning": HOSTILE})]
    attribute_run(folder, asked, name=name, metrics=said if kind == "metric" else None, **changed)
    text = written(folder)
    page = Page(text)
    assert "onerror" not in {key for _, attributes in page.tags for key in attributes}
    assert len(page.of("script")) == 2 and not page.of("b") and all(each["src"] != "x" for each in page.of("img"))
    assert not {"\x00", "\u202e", "\u2066"} & set(text) and "\\u202e" in page.text and "49" not in page.of("title")
    zoom = text.partition('id="zoom-data">')[2].partition("</script>")[0]
    assert len(json.loads(zoom)["names"]) == 12 and "<" not in zoom


def test_the_walk_over_strengths_is_told(tmp_path: Path):
    text = written(attribute_run(tmp_path / "run", strength=WALK, instead="a photo of a person"))
    page = Page(text)
    assert "What is to take the concept's place: a photo of a person." in page.text
    assert all(f">{cell}</td>" in text for cell in ("0.0424", "96", "0.250")) and "judged images" in page.text
    assert "left at noisy latents (1 = all)" in page.text and "Left: how far the concept's predictions" in page.text
    assert "Others moved" not in page.text  # this walk knows nothing of them
    assert "✓ taken" in page.text and "The choice: the weakest." in page.text


def test_components_are_counted_and_told_apart(tmp_path: Path):
    """Twelve scores from 1 to -1: each layer has six; of all absolute scores the first makes 1 / 6.545."""
    source = source_of(attribute_run(tmp_path / "run"))
    found = layers.layers(source)
    assert found is not None and [(row.count, row.name) for row in found.rows] == [
        (6, "down 0, transformer 0"),
        (6, "up 1, transformer 0"),
    ]
    total = np.abs(np.linspace(1, -1, 12)).sum()
    assert found.rows[0].helps == pytest.approx(100 * (1 + 7 / 11 + 3 / 11) / total)
    zoom = found.zoom
    assert zoom is not None and zoom["layer"] == [0, 1] * 6 and zoom["rank"] == list(range(1, 13))
    assert zoom["pairs"][0] == [[1, 0.5], [2, -0.25]] and zoom["pairs"][2] == [[0, -0.25], [1, 0.1]]


def test_marks_of_a_metric_stand_on_one_scale():
    """0.5 with its interval from 0.25 to 0.5, from 0 to 1 on 142 pixels; and one that leaves this range."""
    source = Source(Path(), {"run": {}, "metrics": [metric("a", "edited", 0.5), metric("b", "edited", 4.0)]}, Path())
    tables = metrics.metrics(source)
    assert tables is not None
    inside, outside = (row.marks[0] for row in tables[0].rows)
    assert (inside.low, inside.x) == (4 + 142 * 0.25, 75.0) and (outside.low, outside.x) == (75.0, 146.0)


def test_true_predictions_stand_on_the_line(tmp_path: Path):
    panels = fidelity.fidelity(source_of(attribute_run(tmp_path / "run")))
    assert panels is not None and [one.rate for one in panels[0][0].series] == ["5 %", "20 %"]
    on_the_line(panels[0][0])


def on_the_line(panel: fidelity.Panel) -> None:
    x1, y1, x2, y2 = panel.line
    for x, y in (point for one in panel.series for point in one.points):
        assert y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.2)
    assert all(one.r == pytest.approx(1.0) for one in panel.series)


def test_predictions_with_interactions_stand_beside_the_sums_of_scores(tmp_path: Path):
    """Of one kind of ablation alone they were made, there they are true; the sums are far off."""
    folder = attribute_run(tmp_path / "run")
    assert "with interactions counted" not in written(folder).lower()
    table = pd.read_parquet(folder / "fidelity.parquet")
    both = table.assign(second=table["true"], predicted=-table["true"])
    pd.concat([both, table.assign(kind="top", second=np.nan)]).to_parquet(folder / "fidelity.parquet")
    panels = fidelity.fidelity(source_of(folder))
    assert panels is not None
    assert [[panel.name for panel in row] for row in panels] == [[*fidelity.NAMES.values()], ["sums of scores"]]
    on_the_line(panels[0][1])
    assert all(one.r == pytest.approx(-1.0) for one in panels[0][0].series)
    text = str(render.part("fidelity.html", part=panels))
    assert text.count("<svg class") == 3 and "Right</span>" in text and "Below</span>" in text


def test_distances_and_damage_are_told_in_plain_words(tmp_path: Path):
    """Below the table and outside of any fold; only where such rows are there."""
    distance, scale, outside = "Distance: how far", "is the scale.", "Outside the world: the image resembles nothing"
    said = [metric("perceptual_distance", "edited", 0.5), metric("outside_world_retention", "edited", 0.1)]
    scaled = [*said, metric("perceptual_distance_other_seed", "unedited", 3.0)]
    for number, (of, told) in enumerate(((None, ()), (said, (distance, outside)), (scaled, (distance, scale)))):
        text = written(attribute_run(tmp_path / str(number), metrics=of))
        shown = Page(text.partition('id="metrics"')[2].partition("<details")[0]).text
        assert all(each in shown for each in told)
        assert (distance in shown) == (outside in shown) == bool(told) and (scale in shown) == (scale in told)


def test_joint_attention_is_shown_where_cross_attention_was_asked_for(tmp_path: Path):
    """As attribution itself takes it, where text and image attend together."""
    folder = attribute_run(tmp_path / "run", config=RUN["config"] | {"granularity": {"kinds": ["cross-attention"]}})
    table = pd.read_parquet(folder / "components.parquet")
    table.replace({"kind": {"cross-attention": "joint-attention"}}).to_parquet(folder / "components.parquet")
    found = source_of(folder).components
    assert found is not None and set(found["kind"]) == {"joint-attention"} and len(found) == len(table) // 2
    assert html_source.ALSO == sites.ALSO


def source_of(folder: Path) -> Source:
    return Source(folder, load_results(folder), folder / "config")


# What the edit changes

HERE = [f"{block}.x" for block, _ in LAYERS]  # the two modules, of six neurons each
FACTS = {"granularity": "neuron", "components": 12}


def edited(folder: Path, edit: Edit, /, **meta) -> Path:
    """A run's folder with this edit."""
    edit.meta |= FACTS | {"achieved": sum(map(len, edit.indices.values()))} | meta
    edit.save(attribute_run(folder) / "edit.safetensors")
    return folder


def gates(*factors: float, **meta) -> Edit:
    """Factors of the second module's last neurons, in no order, and of the first module's first one."""
    places = {HERE[0]: torch.tensor([0]), HERE[1]: torch.arange(6 - len(factors), 6).flip(0)}
    own = {HERE[0]: torch.tensor([0.9]), HERE[1]: torch.tensor(factors).flip(0)}
    return Edit(places, "column", factors=own, meta=meta)


def test_factors_are_counted_and_stand_beside_their_components(tmp_path: Path):
    folder = edited(tmp_path / "run", gates(0.5, 0.0, -1.0, 2.0, 1.19), beyond=1.0)
    text = written(folder)
    told = "The edit changes 6 of 12 neurons: 2 are weakened, 1 switched off, 1 reversed, 2 strengthened. "
    told += "4 change by a fifth or more. It finds these factors itself, and not by the scores below."
    assert f"<p>{told}</p>" in text and ">factor</th>" in text
    rows = [" ".join(Page(row).text.split()) for row in text.partition('id="components-table"')[2].split("<tr>")[2:14]]
    second = ["1", "0.50", "0.00", "−1.00", "2.00", "1.19"]
    expected = [each for pair in zip(["0.90", *["1"] * 5], second, strict=True) for each in pair]
    assert [row.split(" %")[1].split()[0] for row in rows] == expected


@pytest.mark.parametrize(
    ("edit", "meta", "told"),
    [
        (
            gates(0.0, 0.0),
            {},
            "The edit changes 3 of 12 neurons: 1 is weakened, 2 switched off. 2 change by a fifth or more.",
        ),
        (
            gates(0.9, 1.1),
            {},
            "The edit changes 3 of 12 neurons: 2 are weakened, 1 strengthened. None changes by a fifth or more.",
        ),
        (gates(0.5), {"achieved": 9}, "The edit changes 9 of 12 neurons."),  # of another table
        (Edit({HERE[0]: torch.arange(3)}), {}, "The edit switches off 3 of 12 neurons, chosen by their scores."),
        (
            Edit({HERE[0]: torch.arange(3)}),
            {"edit": "random"},
            "The edit switches off 3 of 12 neurons, drawn at random.",
        ),
        (
            Edit({HERE[0]: torch.arange(3)}, factor=-1.5),
            {},
            "The edit multiplies 3 of 12 neurons by −1.5, chosen by their scores.",
        ),
        (
            Edit({HERE[0]: torch.arange(2)}, "direction", vectors={HERE[0]: torch.ones(2, 4)}, taps={HERE[0]: (-1, 0)}),
            {"ablation": "resample"},
            "The edit puts what the base prompt would give in place of 2 of 12 neurons, chosen by their scores.",
        ),
        (
            Edit({}, replaced={"a.weight": torch.ones(2, 2), "b.weight": torch.ones(3)}),
            {"changed": 6, "achieved": None},
            "The edit gives 6 single weights of 2 tensors another value.",
        ),
        (
            Edit({}, steering={"a": torch.ones(2)}, meta={"acts": "x", "settings": {}}),
            {"changed": 0},
            "The edit steers activations while the model runs.",
        ),
    ],
)
def test_every_edit_is_told_as_it_is(tmp_path: Path, edit: Edit, meta: dict, told: str):
    folder = edited(tmp_path / "run", edit, **meta)
    assert " ".join(html_edit.edit(source_of(folder)) or []) == told


def test_single_weights_are_counted_by_their_factors(tmp_path: Path):
    """A row of the table is a matrix there, so no column shows factors."""
    folder = edited(tmp_path / "run", gates(0.0, 0.0), granularity="weight", components=1000, beyond=1.0)
    content = json.loads((folder / "results.json").read_text())
    content["run"]["granularity"] = "weight"
    source = Source(folder, content, folder)
    told = "The edit changes 3 of 1,000 weights: 1 is weakened, 2 switched off. 2 change by a fifth or more. "
    assert " ".join(html_edit.edit(source) or []).startswith(told) and html_edit.factors(source) is None


def test_a_run_without_an_edit_says_nothing_of_it(tmp_path: Path):
    text = written(attribute_run(tmp_path / "run"))
    assert "What the edit changes" not in text and ">factor</th>" not in text


def test_marks_of_an_edit_file_are_those_of_its_writer():
    assert (html_edit.REPLACED, html_edit.FACTORS, html_edit.STEERING) == (
        edit_file.REPLACED,
        edit_file.FACTORS,
        edit_file.STEERING,
    )


@given(st.floats(-1e9, 1e9, allow_nan=False))
def test_numbers_are_short_and_true(value: float):
    told = render.number(value).replace("−", "-").replace(",", "")
    assert float(told) == pytest.approx(value, rel=0.01, abs=0.0006) and len(told) <= 11


@pytest.mark.parametrize(
    ("value", "low", "high", "change", "told"),
    [
        (0.00024, 0.0002, 0.0003, False, "0.0002 [0.0002, 0.0003]"),
        (0.004, 0.0004, 0.0083, False, "0.0040 [0.0004, 0.0083]"),
        (-0.2, -0.4, -0.00004, False, "−0.20000 [−0.40000, −0.00004]"),
        (0.0004, -0.0001, 0.013, False, "0.000 [0.000, 0.013]"),  # which may well be 0
        (-0.00027, -0.0046, 0.004, True, "−0.0003 [−0.0046, 0.0040]"),
        (0.0, -0.02, 0.02, True, "+0.000 [−0.020, 0.020]"),
        (-0.0, -0.02, 0.02, True, "+0.000 [−0.020, 0.020]"),
        (0.0004, None, None, False, "0.0004"),
        (2e-9, 1e-9, 3e-9, False, "2e−09 [1e−09, 3e−09]"),
        (5.0, 4.0, 6.0, False, "5.000 [4.000, 6.000]"),
    ],
)
def test_what_is_surely_not_zero_is_not_written_as_zero(value, low, high, change, told):
    digits = render.places(value, low, high, change)
    shown = render.signed(value, digits) if change else render.number(value, digits)
    interval = "" if low is None else f" [{render.number(low, digits)}, {render.number(high, digits)}]"
    assert shown + interval == told
    found = metric("kid", "edited", value, low=low, high=high)
    template = render.environment().from_string('{% from "macros.html" import cell %}{{ cell(found) }}')
    assert change or "".join(Page(template.render(found=found)).text.split()) == "".join(told.split())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fidelity_sign@0.05", "sums of scores: sign, 5 % off"),
        ("second_order_r2@0.2", "with interactions: R², 20 % off"),
        ("fidelity_bias_top@0.001", "sums of scores: bias, 0.1 % of the best off"),
        ("second_order_pearson_single", "with interactions: correlation, one off at a time"),
        ("stability_spearman", "stability: rank correlation"),
        ("stability_overlap@0.05", "stability: top 5 % shared"),
        ("stability_spearman_96_noisy_latents", "stability spearman 96 noisy latents"),
        ("fidelity_area_best", "fidelity area best"),
        ("concept_rate@0.5", "concept rate, 0.5"),
    ],
)
def test_metrics_of_predictions_have_names_that_people_read(name: str, told: str):
    assert wording.of_scores(name) == told


def test_predictions_are_folded_and_their_bias_has_a_scale(tmp_path: Path):
    """A bias of 0.001 of J, which is a half of the mean true change; without such a share it stays as it is."""
    bias = metric("fidelity_bias@0.05", "attribution", 0.001, low=0.0008, high=0.0014, higher_is_better=None)
    alone = bias | {"name": "second_order_bias@0.05"}
    said = [*METRICS, bias | {"definition": {"what": "a bias", "relative": 0.5}}, alone]
    text = written(attribute_run(tmp_path / "run", metrics=said))
    before, _, folded = text.partition("How right predicted effects are")
    assert before.rstrip().endswith('<details class="fold"><summary>') and "stability: rank correlation" in before
    rows = [" ".join(Page(row).text.split()) for row in folded.partition("</table>")[0].split("<tr>")]
    assert "sums of scores: relative bias, 5 % off 0.500[0.400, 0.700] 8" in rows
    assert "with interactions: bias, 5 % off 0.001[0.001, 0.001] 8" in rows


# Size


@pytest.mark.parametrize(("side", "prompts", "seeds"), [(64, 17, 12), (512, 17, 8)])
def test_a_default_run_stays_below_five_megabytes(tmp_path: Path, side: int, prompts: int, seeds: int):
    """Noise is the worst of all images: photographs of the same size take a fifth."""
    asked = requests(tuple(("concept" if not i else "retention", f"prompt {i}") for i in range(prompts)), seeds)
    page = written(attribute_run(tmp_path / "run", asked, number=3520, side=side))
    assert len(page.encode()) < 5_000_000 and page.count("data-prompt=") == gallery.MOST


def test_the_concept_comes_first_and_every_prompt_has_its_share():
    shown = [gallery.Shown(each, None, ()) for each in requests((("retention", "a"), ("concept", "b")), 200)]
    kept = [shown[number].request for number in gallery.even(shown)]
    assert [each.prompt for each in kept] == ["b"] * gallery.OF_CONCEPT + ["a"] * (gallery.MOST - gallery.OF_CONCEPT)
    assert [each.seed for each in kept[:3]] == [0, 1, 2]


# Explicit images


@pytest.mark.parametrize("how", ["dropped", "blurred", "kept", None])
def test_explicit_images_are_covered_as_the_run_was_told(tmp_path: Path, how: str | None):
    """Even where the folder holds them uncovered; a run that does not say counts as one that drops them."""
    folder, asked = tmp_path / "run", requests((("concept", "a naked person"),), 1, "nudity")
    attribute_run(folder, asked, side=32, explicit=how)
    for picture in (folder / "images").rglob("*.png"):
        Image.fromarray((np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)).save(picture)  # the finest pattern
    shown = gallery.gallery(source_of(folder))
    assert shown is not None and shown.strips[0].covered == {"blurred": "blurred", "kept": ""}.get(
        how or "", "not kept"
    )
    pixels = np.asarray(decoded(shown.strips[0].picture.uri).convert("L"), dtype=float)
    assert (pixels.std() > 90) == (how == "kept") and (pixels.std() < 12 or how == "kept")


def decoded(uri: str) -> Image.Image:
    import base64
    from io import BytesIO

    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    folder, asked = tmp_path / "run", requests((("concept", "a church"),), 1)
    attribute_run(folder, asked)
    file = folder / "images" / "edited" / contact_sheet.file_name(asked[0])
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "private.png")
    file.unlink()
    file.symlink_to(tmp_path / "private.png")
    shown = gallery.gallery(source_of(folder))
    assert shown is not None and decoded(shown.strips[0].picture.uri).getpixel((24, 8)) != (255, 0, 0)


# Places


def test_a_report_breaks_no_promise_and_may_be_made_again(tmp_path: Path):
    """The same run still counts as finished, and the next run may replace the page."""
    folder = attribute_run(tmp_path / "run")
    first = written(folder)
    assert written(folder) == first and harm(folder, load_results(folder)) is None
    assert "report.html" in run_folder.published(folder)["files"]


@pytest.mark.parametrize("foreign", ["page", "link"])
def test_a_page_of_somebody_else_is_not_overwritten(tmp_path: Path, capsys, foreign: str):
    folder = attribute_run(tmp_path / "run")
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine")
    (folder / "report.html").symlink_to(mine) if foreign == "link" else mine.rename(folder / "report.html")
    assert report.main([str(folder)]) == 1
    assert "is no report of cad_exp and would be overwritten" in capsys.readouterr().err
    assert (folder / "report.html").read_text() == "<p>mine"


def _damage(folder: Path) -> None:
    (folder / "components.parquet").write_bytes(b"x")


def _forge(folder: Path) -> None:
    content = json.loads((folder / "results.json").read_text())
    content["metrics"][0]["value"] = 0.9
    write_json(folder / "results.json", content)


def _age(folder: Path) -> None:
    write_json(folder / "results.json", {"schema_version": 1})


def _copy(folder: Path) -> None:
    run_folder.shutil.rmtree(folder / run_folder.MARK)


def _empty(folder: Path) -> None:
    for file in [each for each in folder.glob("*.*") if each.is_file()]:
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_damage, "is damaged (components.parquet is not what was written)"),
        (_forge, "is not what was written (its checksum does not fit)"),
        (_age, "has schema version 1, this cad_exp reads 2"),
        (_copy, "is not a folder that a run made"),
        (_empty, "has left no results yet"),
    ],
)
def test_a_folder_that_cannot_be_reported_is_named_in_one_line(tmp_path: Path, capsys, spoil, said: str):
    folder = attribute_run(tmp_path / "run")
    spoil(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert report.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_copy_is_reported_into_another_file(tmp_path: Path):
    folder = attribute_run(tmp_path / "run")
    _copy(folder)
    assert report.main([str(folder), "--to", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").is_file() and not (folder / "report.html").exists()


@pytest.mark.parametrize("given", [["."], ["absent"], [".", "--to", "notes.txt"], ["results.json"]])
def test_what_is_no_run_gets_one_line(tmp_path: Path, capsys, monkeypatch, given: list[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert report.main(given) == 1
    assert capsys.readouterr().err.startswith("error: ") and [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_one_part_that_fails_costs_only_itself(tmp_path: Path, monkeypatch, capsys):
    def fails(source: Source) -> None:
        raise ValueError("no colours")

    from cad_exp.reporting.html import run_page

    monkeypatch.setitem(run_page.PARTS, "layers", ("Where it sits", fails))
    page = Page(written(attribute_run(tmp_path / "run")))
    assert "Where it sits: no colours" in " ".join(page.text.split()).replace(" :", ":")
    assert "Metrics" in page.text and "is left out" in capsys.readouterr().err


def test_the_command_needs_no_torch(tmp_path: Path):
    folder = edited(tmp_path / "run", gates(0.5))
    code = "import sys; from cad_exp.__main__ import main; code = main(['report', sys.argv[1]])\n"
    code += "sys.exit(3 if {'torch', 'matplotlib', 'diffusers'} & set(sys.modules) else code)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr


def test_stages_of_no_time_are_told(tmp_path: Path):
    """0 is a stage that the run did not have; a little more is one from the cache, or one that had little to do."""
    for number, (seconds, told) in enumerate(
        (
            ({"images": 61.0, "timesteps": 0.0}, ""),
            ({"images": 61.0, "edit": 0.2}, "Other stages came from the cache"),
            ({"images": 0.2}, "All stages came from the cache"),
            ({}, ""),
        )
    ):
        text = Page(written(attribute_run(tmp_path / str(number), seconds=seconds))).text
        assert (told in text) and ("came from the cache" in text) == bool(told)
        assert ("1 min 01 s" in text) == (61.0 in seconds.values())


# Other tasks, sweeps


@pytest.mark.parametrize(
    ("task", "picture"), [("probe", "probes.png"), ("sae", "features.png"), ("analyse", "analysis.png")]
)
def test_other_tasks_have_a_report(tmp_path: Path, task: str, picture: str):
    folder = tmp_path / "run"
    (folder / run_folder.MARK).mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(folder / picture)
    if task == "sae":
        (folder / "latents").mkdir()
        Image.new("RGB", (40, 20)).save(folder / "latents" / "17.png")
    variant = {"probe": "network", "sae": "autoencoder", "analyse": "control"}[task]
    finished(
        folder,
        {"task": task, "model": "mini", "config": {}, "analysis": "cka"},
        [metric("gain@object", variant, 0.5)]
        + [metric("distance@100", variant, 0.5, definition={"warning": "it is coarse"})],
    )
    page = Page(written(folder))
    assert picture in page.text and "gain, object" in page.text and variant in page.text
    headings = {"probe": "Map of the probes", "sae": "Measures of the autoencoder", "analyse": "What was found"}
    assert headings[task] in page.text  # and not the title that the picture has itself
    assert ("latent 17" in page.text) == (task == "sae") and "None" not in page.text
    assert "distance, t = 100" in page.text and f"* {variant}: it is coarse, so little" in page.text
    assert ("order the images alike (CKA)." in page.text) == (task == "analyse")


def sweep(folder: Path) -> Path:
    """Two finished runs that differ in their concept, one that failed, and Hydra's file."""
    for concept in ("church", "tench"):
        config = RUN["config"] | {"concept": {"name": concept, "prompt": concept, "kind": "object"}}
        attribute_run(folder / f"concept={concept}", concept=concept, config=config, config_hash=concept)
    (folder / "failed" / run_folder.MARK).mkdir(parents=True)
    told = {"error": "no such prompt <file>", "code": 1, "command": "python -m cad_exp concept=gas_pump"}
    write_json(folder / "failed" / run_folder.ERROR, told)
    (folder / "multirun.yaml").write_text("hydra: {callbacks: cad_exp.cli.job.Sweep}")
    return folder


def test_a_sweep_is_a_table_whose_rows_lead_to_their_runs(tmp_path: Path):
    folder = sweep(tmp_path / "sweep")
    page = Page(written(folder))
    links = {each["href"] for each in page.of("a")}
    assert {"concept%3Dchurch/report.html", "concept%3Dtench/report.html"} <= links
    assert all((folder / f"concept={name}" / "report.html").is_file() for name in ("church", "tench"))
    assert "no such prompt <file>" in page.text and "python -m cad_exp concept=gas_pump" in page.text
    assert "2 runs, and 1 that did not finish" in " ".join(page.text.split())


def test_a_sweep_writes_its_page_at_its_end(tmp_path: Path, monkeypatch, capsys):
    from cad_exp.cli import job

    monkeypatch.setattr(job.Sweep, "folder", sweep(tmp_path / "sweep"))
    monkeypatch.setattr(job, "codes", [])
    job.report_failures()
    assert "concept=tench" in (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert "1 of 3 jobs failed" in capsys.readouterr().err and job.codes == [1]


def test_any_folder_of_runs_is_reported_only_into_a_file_of_your_choice(tmp_path: Path, capsys):
    folder = sweep(tmp_path / "sweep")
    (folder / "multirun.yaml").unlink()
    assert report.main([str(folder)]) == 1 and "is neither a run's folder nor a sweep's" in capsys.readouterr().err
    assert report.main([str(folder), "--to", str(tmp_path / "all.html")]) == 0
    assert "sweep/concept%3Dchurch" in (tmp_path / "all.html").read_text(encoding="utf-8")
    assert not (folder / "report.html").exists()


def test_a_run_says_what_it_does_with_metrics_of_every_kind(tmp_path: Path):
    """No metric, one without a value, and more than a table holds."""
    none = [metric("kid", "edited", 0.0) | {"value": None, "low": None, "high": None}]
    many = [metric(f"gain@{i}", "network", 0.5) for i in range(200)]
    for number, said in enumerate(([], none, many, METRICS)):
        written(attribute_run(tmp_path / str(number), metrics=said))
