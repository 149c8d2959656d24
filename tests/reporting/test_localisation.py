"""Where concepts sit: effects and shares by hand, what changes nothing, what is refused, and the files. No torch."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from cad_exp.cli.tables import main
from cad_exp.reporting.html import study_page
from cad_exp.reporting.results import signed
from cad_exp.reporting.tables.collect import collect as collect_runs
from cad_exp.reporting.tables.localisation import lay_out, read, stage, summary
from cad_exp.reporting.tables.localisation_figure import draw, takeaway
from cad_exp.reporting.tables.metrics import found_runs
from cad_exp.reporting.tables.plan import Job, Plan, plan
from cad_exp.reporting.tables.study import read as read_study
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import write_json

KINDS = {"attn1.to_out.0": "self-attention", "attn2.to_out.0": "cross-attention", "ff.net.2": "feed-forward"}
BLOCKS = ("down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.2.attentions.1")
LAYERS = [(f"{block}.transformer_blocks.0.{end}", block, kind) for block in BLOCKS for end, kind in KINDS.items()]
SHARES = {
    "kind": ["self-attention", "cross-attention", "feed-forward"],
    "part": ["down", "mid", "up"],
    "t": ["t 999–500", "t 499–0"],
}
# Three of four noisy latents lie in the first bin. Weighted: .3, -.15, .15 in it, .05, .2, .1 in the second.
BY_HAND = [{0: 0.4, 4: -0.2, 8: 0.2}, {0: 0.2, 1: 0.8, 8: 0.4}]


def config(concept: str, kind: str) -> dict:
    return {"concept": {"name": concept, "kind": kind}, "evaluation": {"timesteps": 2}, "noisy_latents": {}, "seed": 0}


def run(folder: Path, concept="church", kind="object", scores=BY_HAND, latents=(3, 1), layers=LAYERS, hash_=None):
    """A finished run whose scores are those of the layers in `scores` (one dict per bin), and zero elsewhere."""
    facts = {"concept": concept, "model": "mini", "config_hash": hash_ or concept, "config": config(concept, kind)}
    ends = [(999 - 1000 * i // len(scores), 1000 - 1000 * (i + 1) // len(scores)) for i in range(len(scores))]
    rows = [
        (*end, n, *layer, 0, float(own.get(number, 0.0)))
        for own, end, n in zip(scores, ends, latents, strict=True)
        for number, layer in enumerate(layers)
    ]
    folder.mkdir(parents=True)
    columns = ["t_high", "t_low", "n_latents", "module", "block", "kind", "component", "score"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "timesteps.parquet")
    content = {"schema_version": 2, "run": facts | {"complete": True, "seconds": {}}, "metrics": []}
    write_json(folder / "results.json", signed(content))
    return folder


def planned(*concepts: tuple[str, str]) -> Plan:
    """The plan of a study with one job per (concept, kind)."""
    study = read_study({"title": "Where concepts sit", "picture": "localisation"}, "mine")
    jobs = tuple(Job((f"concept={name}",), config(name, kind), name) for name, kind in concepts)
    return Plan("mine", study, jobs, (), (Path("conf"),))


def collect(folder: Path) -> pd.DataFrame:
    """The effects of all runs below a folder, asked for by a plan of just these."""
    found = collect_runs([folder])
    return read(planned(*((r.run["concept"], r.run["config"]["concept"]["kind"]) for r in found.runs.values())), found)


def test_effects_by_hand(tmp_path):
    table = collect(run(tmp_path / "one"))
    columns = "concept concept_kind module part block layer kind t_high t_low n_latents effect"
    assert list(table.columns) == columns.split() and len(table) == 2 * len(LAYERS)
    found = table[table["effect"] != 0]
    assert found["effect"].tolist() == pytest.approx([0.3, -0.15, 0.15, 0.05, 0.2, 0.1])
    assert found["block"].tolist() == ["down 1", "mid", "up 2", "down 1", "down 1", "up 2"]
    assert found["t_high"].tolist() == [999] * 3 + [499] * 3
    last = found.iloc[-1]
    assert (last["layer"], last["kind"], last["part"]) == ("up 2, transformer 1", "feed-forward", "up")


def test_shares_by_hand(tmp_path):
    """The positive effects sum to 0.8, the negative ones to 0.15; the first layer's bins add up to 0.35."""
    first, mean = summary(collect(run(tmp_path / "one"))).to_dict("records")
    assert [first[name] for name in SHARES["kind"]] == pytest.approx([0.35 / 0.8, 0.2 / 0.8, 0.25 / 0.8])
    assert [first[name] for name in SHARES["part"]] == pytest.approx([0.55 / 0.8, 0, 0.25 / 0.8])
    assert [first[name] for name in SHARES["t"]] == pytest.approx([0.45 / 0.8, 0.35 / 0.8])
    assert first["negative"] == pytest.approx(0.15 / 0.8)
    assert first["strongest layer"] == "down 1, transformer 0 self-attention"
    assert first["effect"] == pytest.approx(0.35)
    assert mean == pytest.approx(first | {"concept": "mean of 1"})
    assert takeaway(collect(tmp_path)).replace("\u00a0", " ") == (
        "self-attention: 44 %\ndown 1, transformer 0,\nself-attention: 44 %"
    )


def test_a_part_of_the_denoising_is_named_where_it_stands_out(tmp_path):
    """From 1.5 times its share of the noisy latents on: here half of them, and .74 or .76 of the effects."""
    for name, effect in (("even", 0.74), ("most", 0.76)):
        run(tmp_path / name, scores=[{0: effect}, {0: 1 - effect}], latents=(1, 1))
    assert "t =" not in takeaway(collect(tmp_path / "even"))
    assert takeaway(collect(tmp_path / "most")).splitlines()[-1] == "t = 999–500: 76\u00a0%"


def test_the_mean_of_a_kind_counts_every_concept_alike(tmp_path):
    """Shares are averaged after they were normalised; the strongest layer is that of the mean effect."""
    run(tmp_path / "a", "nudity", "nudity", [{3: 0.1}, {3: 0.1}], (1, 1))
    run(tmp_path / "b", "van_gogh", "style", [{0: 0.1}, {0: 0.1}], (1, 1))
    run(tmp_path / "c", "rembrandt", "style", [{4: 5.0}, {4: 5.0}], (1, 1))
    table = summary(collect(tmp_path))
    assert table["concept"].tolist() == ["van_gogh", "rembrandt", "nudity", "mean of 2", "mean of 1"]
    styles = table.iloc[3]
    assert styles["concept_kind"] == "style" and styles["effect"] == pytest.approx(2.5)
    assert styles["strongest layer"] == "mid, transformer 0 cross-attention"
    assert styles[[*SHARES["kind"], *SHARES["part"]]].tolist() == pytest.approx([0.5, 0.5, 0, 0.5, 0.5, 0])


def test_shares_are_shares_and_know_no_scale(tmp_path):
    scores = [{n: ((7 * n + 3 * part) % 11) / 11 - 0.4 for n in range(len(LAYERS))} for part in range(2)]
    run(tmp_path / "one" / "a", scores=scores)
    run(tmp_path / "ten" / "a", scores=[{n: 10 * score for n, score in own.items()} for own in scores])
    one, ten = (summary(collect(tmp_path / name)) for name in ("one", "ten"))
    for names in SHARES.values():
        assert one[names].sum(axis=1).tolist() == pytest.approx([1, 1])
        assert ((one[names] >= 0) & (one[names] <= 1)).all(axis=None)
    pd.testing.assert_frame_equal(one.drop(columns="effect"), ten.drop(columns="effect"))
    assert ten["effect"].tolist() == pytest.approx((10 * one["effect"]).tolist())


def test_heads_of_a_layer_are_one_effect(tmp_path):
    """Any granularity may be asked for: what a layer's components do is added up before it is split by sign."""
    scores = [{0: 0.5, 1: -0.3}, {}]
    folder = run(tmp_path / "heads", scores=scores, layers=[LAYERS[0], LAYERS[0], LAYERS[4]], latents=(1, 1))
    table = collect(folder)
    assert table["effect"].tolist() == pytest.approx([0.1, 0, 0, 0])
    assert summary(table)["negative"].tolist() == [0, 0]


def test_a_concept_that_nothing_makes(tmp_path):
    table = collect(run(tmp_path / "one", scores=[{0: -1.0}, {}]))
    assert summary(table)[SHARES["kind"]].isna().all(axis=None) and takeaway(table) == "no positive effect"
    made, found = planned(("church", "object")), collect_runs([tmp_path])
    assert [cell[0].text for cell in lay_out(made, found).rows[0].cells][:3] == ["-"] * 3
    picture = draw(made, found, tmp_path / "none.png")
    assert picture == tmp_path / "none.png" and picture.exists()


def test_stages_of_any_network(tmp_path):
    names = {
        "down_blocks.1.attentions.0": "down 1",
        "mid_block.attentions.0": "mid",
        "up_blocks.3.attentions.2.transformer_blocks.1": "up 3",
        "transformer_blocks.7": "block 7",
        "single_transformer_blocks.11": "single block 11",
        "layers.3": "layers 3",
    }
    assert {name: stage(name) for name in names} == names
    layers = [(f"transformer_blocks.{i}.attn.to_out.0", f"transformer_blocks.{i}", "self-attention") for i in range(7)]
    table = collect(run(tmp_path / "dit", layers=layers, scores=[{0: 1.0}], latents=(4,)))
    assert table["part"].tolist() == ["early"] * 3 + ["middle"] * 2 + ["late"] * 2
    assert table["block"].tolist() == [f"block {i}" for i in range(7)]


def test_a_run_that_is_missing_has_dots(tmp_path):
    made = planned(("church", "object"), ("nudity", "nudity"))
    empty = lay_out(made, collect_runs([tmp_path]))
    assert [row.labels for row in empty.rows] == [["church", "object"], ["nudity", "nudity"]]
    assert not empty.columns and len(empty.missing) == 2
    assert draw(made, collect_runs([tmp_path]), tmp_path / "nothing.png") is None
    run(tmp_path / "one", "nudity", "nudity")
    half = lay_out(made, collect_runs([tmp_path]))
    assert [row.labels[0] for row in half.rows] == ["nudity", "church", "mean of 1"]
    assert {cell[0].text for cell in half.rows[1].cells} == {"·"} and [job.hash for job in half.missing] == ["church"]
    assert "·: not run yet." in half.notes


def test_runs_that_did_not_finish_or_were_not_asked_for_take_no_part(tmp_path):
    run(tmp_path / "a", "church")
    run(tmp_path / "b", "church", scores=[{0: 9.0}, {}], hash_="another setting")
    assert read(planned(("church", "object")), collect_runs([tmp_path]))["effect"].max() == pytest.approx(0.3)


def test_what_is_refused(tmp_path):
    """One run per concept, with scores per timestep: else effects would not compare."""
    twice = planned(("church", "object"), ("church", "object"))
    with pytest.raises(UserError, match="shows one run of each concept, and 2 of church are asked for"):
        lay_out(twice, collect_runs([tmp_path]))
    made = planned(("church", "object"))
    made.jobs[0].config["evaluation"]["timesteps"] = None
    with pytest.raises(UserError, match="needs scores per part of the denoising: leave evaluation.timesteps"):
        lay_out(made, collect_runs([tmp_path]))
    with pytest.raises(UserError, match="has a table of its own: no rows, columns or cells"):
        read_study({"title": "x", "picture": "localisation", "rows": ["concept.name"]}, "mine")
    folder = run(tmp_path / "a")
    (folder / "timesteps.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="timesteps.parquet' cannot be read .*: run that concept again"):
        lay_out(planned(("church", "object")), collect_runs([tmp_path]))


def test_the_command_writes_table_cells_and_picture(tmp_path, capsys):
    """With more concepts than stand side by side; where runs have different numbers of noisy latents, too."""
    concepts = "church,tench,golf_ball,chain_saw,van_gogh,rembrandt,nudity,gas_pump"
    asked = ["experiment=localisation", f"concept={concepts}"]
    to = ["--from", str(tmp_path / "sweep"), "--to", str(tmp_path / "to")]
    jobs = plan(asked).jobs
    for number, job in enumerate(jobs[:7]):
        concept = job.config["concept"]
        latents = (3 + 3 * number, 1 + number)
        run(tmp_path / "sweep" / f"{number}", concept["name"], concept["kind"], latents=latents, hash_=job.hash)
    assert main([*asked, *to]) == 0
    said = capsys.readouterr().out
    page = (tmp_path / "to" / "localisation.md").read_text(encoding="utf-8")
    assert page in said and page.startswith("# Where objects, styles and nudity sit\n")
    assert "| concept | kind | self-attention |" in page and "| mean of 4 | object | 0.438 |" in page
    assert "If all 9 layers counted alike: self-attention 0.33" in page and "Runs: 7 of 8 planned." in page
    assert "| gas_pump | object | · |" in page
    assert "    python -m cad_exp experiment=localisation concept=gas_pump\n" in page
    made, found = plan(asked), collect_runs([tmp_path / "sweep"])
    assert len(found_runs(made, found)) == 7
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "to" / "localisation.csv"), read(made, found))
    assert imread(tmp_path / "to" / "localisation.png").std() > 0.05
    assert r"mean of 4 & object & 0.438" in (tmp_path / "to" / "localisation.tex").read_text(encoding="utf-8")
    assert len(list((tmp_path / "to").iterdir())) == 5
    assert main(["experiment=localisation", "seed=0,1", *to]) == 1
    assert "shows one run of each concept, and 2 of church" in capsys.readouterr().err


def test_the_experiment_composes():
    from tests.config.test_configs import composed

    config = composed("experiment=localisation")
    assert config["evaluation"]["timesteps"] == 5 and config["evaluation"]["fidelity"] is None
    assert (config["granularity"]["name"], config["estimator"]["name"]) == ("layer", "leave_one_out")
    assert (config["objective"]["name"], config["edit"]["name"]) == ("projection", "none")
    assert config["study"]["picture"] == "localisation" and config["evaluation"]["metrics"] == []


def test_cells_lead_to_the_runs_behind_them(tmp_path):
    """A concept's cells to its own run, those of a mean to all of its kind; a missing run has no link."""
    for name in ("tench", "church"):
        (run(tmp_path / name, name) / "report.html").write_text("")
    made, found = planned(("church", "object"), ("tench", "object"), ("nudity", "nudity")), collect_runs([tmp_path])
    table = lay_out(made, found)
    runs = {row.labels[0]: [cell[0].runs for cell in row.cells] for row in table.rows}
    assert set(runs["church"]) == {(tmp_path / "church",)} and set(runs["nudity"]) == {()}
    assert set(runs["mean of 2"]) == {(tmp_path / "church", tmp_path / "tench")}
    page = study_page.write(made, table, [], found, tmp_path / "mine.html").read_text(encoding="utf-8")
    assert page.count('href="church/report.html"') == 2 * len(table.columns) == page.count('href="tench/report.html"')
