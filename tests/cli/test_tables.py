"""The table of a study, from results.json files made by hand. Nothing here loads torch."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from matplotlib.image import imread
from omegaconf import OmegaConf

from cad_exp.cli.tables import main
from cad_exp.config.compose import hydra
from cad_exp.config.effective import effective
from cad_exp.config.options import conf_folder, options
from cad_exp.config.resolve import resolve
from cad_exp.pipeline.identity import run_hash
from cad_exp.reporting.results import run_info, signed
from cad_exp.reporting.tables import write
from cad_exp.reporting.tables.cells import short
from cad_exp.reporting.tables.collect import Found, changes, collect, read_all
from cad_exp.reporting.tables.folder import collect as collect_folder
from cad_exp.reporting.tables.folder import summary
from cad_exp.reporting.tables.layout import lay_out, mark_best
from cad_exp.reporting.tables.pareto import _Picture
from cad_exp.reporting.tables.pareto import draw as draw_picture
from cad_exp.reporting.tables.plan import Job, Plan, plan
from cad_exp.reporting.tables.study import OWN, read
from cad_exp.reporting.tables.table import Entry
from cad_exp.reporting.wording import number
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import digest
from cad_exp.utils.io import write_json
from tests.cli.test_cli import ROOT

STUDY = {
    "title": "A study",
    "rows": ["estimator.name"],
    "columns": ["concept.name"],
    "cells": ["concept_rate"],
}
ESTIMATORS, CONCEPTS = ("first_order", "magnitude"), ("church", "tench")


def config(concept: str = "church", estimator: str = "first_order", seed: int = 0, ratio: float = 0.1) -> dict:
    named = {"concept": {"name": concept}, "estimator": {"name": estimator}, "edit": {"ratio": ratio, "count": None}}
    return {**named, "seed": seed, "noisy_latents": {"samples": 4, "steps": 25}}


def job(**values) -> Job:
    made = config(**values)
    keys = {"ratio": "edit.ratio"}
    return Job(tuple(f"{keys.get(k, k)}={v}" for k, v in values.items()), made, digest(effective(made)))


JOBS = tuple(job(concept=concept, estimator=estimator) for concept in CONCEPTS for estimator in ESTIMATORS)


def planned(jobs=JOBS, given=(), **study) -> Plan:
    return Plan("mine", read(STUDY | study, "mine"), tuple(jobs), given, (conf_folder(),))


def metric(name: str, value: float | None, variant: str = "edited", higher: bool | None = False, **definition) -> dict:
    low, high = (None, None) if value is None else (value - 0.05, value + 0.05)
    made = {"name": name, "variant": variant, "value": value, "low": low, "high": high, "n": 64}
    return {**made, "higher_is_better": higher, "definition": {"what": "share of images", **definition}, "changes": {}}


def leave(folder: Path, done: Job, *metrics: dict | float, complete: bool = True, written: float | None = None, **run):
    """A results.json as a run leaves it; a bare number is the concept rate."""
    facts = {
        "config_hash": done.hash,
        "complete": complete,
        "seconds": {},
        "seed": done.config["seed"],
        "git": "abc",
        "model": "mini",
    }
    facts |= {"weights": "w1", "versions": {"torch": "2.9"}, "device": "cpu", "config": done.config, "threads": 2}
    made = [metric("concept_rate", item) if isinstance(item, (float, int)) else item for item in metrics]
    path = folder / f"{len(list(folder.glob('*')))}" / "results.json"
    write_json(path, signed({"schema_version": 2, "run": facts | run, "metrics": made}))
    if written is not None:
        os.utime(path, (written, written))
    return path.parent


def page(made: Plan, folder: Path) -> str:
    found = collect([folder])
    return write.markdown(made, lay_out(made, found), [], found)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_table_has_every_number_in_its_place(tmp_path: Path):
    for each, value in zip(JOBS, (0.1, 0.2, 0.3, 0.4), strict=True):
        leave(tmp_path, each, value)
    assert lines(page(planned(), tmp_path)) == [
        "| estimator | church | tench |",
        "| --- | ---: | ---: |",
        "| first_order | 0.100 | 0.300 |",
        "| magnitude | 0.200 | 0.400 |",
    ]


def test_labels_percent_and_intervals(tmp_path: Path):
    for each in JOBS:
        leave(tmp_path, each, 0.25)
    cells = [{"metric": "concept_rate", "label": "left", "percent": True}]
    labels = {"first_order": "CAD", "estimator.name": "scores", "church": "a | b"}
    text = page(planned(cells=cells, labels=labels, columns=[], rows=["concept.name", "estimator.name"]), tmp_path)
    assert lines(text)[0] == "| concept | scores | left ↓, % |" and lines(text)[2] == r"| a \| b | CAD | 25.0 |"
    assert "| magnitude | 0.250 [0.200, 0.300] |" in page(planned(intervals=True), tmp_path)


def test_several_metrics_are_columns_or_joined(tmp_path: Path):
    for each in JOBS[:3]:
        leave(tmp_path, each, 0.67, metric("fidelity@0.1", -0.04, "attribution", True), metric("whole", 0.999))
    cells = ["concept_rate", "fidelity@0.1", "whole"]
    assert lines(page(planned(cells=cells), tmp_path))[0] == "| estimator | church: concept rate ↓ | " + (
        "church: fidelity@0.1 ↑ | church: whole ↓ | tench: concept rate ↓ | tench: fidelity@0.1 ↑ | tench: whole ↓ |"
    )
    text = page(planned(cells=cells, join=" "), tmp_path)
    assert lines(text)[2:] == ["| first_order | .67 -.04 1.0 | .67 -.04 1.0 |", "| magnitude | .67 -.04 1.0 | · |"]
    assert "Each cell: concept rate ↓, fidelity@0.1 ↑, whole ↓." in text and "**" not in text
    leave(tmp_path, JOBS[3], 0.5, metric("fidelity@0.1", 0.8, "attribution", True), metric("whole", 0.999))
    text = page(planned(cells=cells, join=" ", best="rows"), tmp_path)
    assert lines(text)[3] == "| magnitude | <u>.67</u> <u>-.04</u> **1.0** | **.50** **.80** **1.0** |"


@pytest.mark.parametrize(
    "value, text", [(0.0, ".00"), (-0.001, ".00"), (1.0, "1.0"), (-1, "-1.0"), (1.25, "1.25"), (12.34, "12.3")]
)
def test_short_numbers(value: float, text: str):
    assert short(value) == text


def test_best_and_second_best_share_their_marks_in_ties(tmp_path: Path):
    names = ("a", "b", "c", "d")
    jobs = [job(concept=concept, estimator=name) for concept in CONCEPTS for name in names]
    for each, value in zip(jobs, (0.1, 0.2, 0.1001, 0.3, 0.9, 0.2, 0.3, 0.4), strict=True):
        leave(tmp_path, each, value)
    assert lines(page(planned(jobs, best="columns"), tmp_path))[2:] == [
        "| a | **0.100** | 0.900 |",
        "| b | <u>0.200</u> | **0.200** |",
        "| c | **0.100** | <u>0.300</u> |",
        "| d | 0.300 | 0.400 |",
    ]
    assert "| b | **0.200** | **0.200** |" in page(planned(jobs, best="rows"), tmp_path)
    tex = write.latex(planned(jobs, best="columns"), lay_out(planned(jobs, best="columns"), collect([tmp_path])), [])
    assert r"c & \textbf{0.100} & \underline{0.300} \\" in tex


def test_marks_follow_the_direction_of_the_metric():
    for higher, marks in ((True, [0, 1, 2, 0]), (False, [1, 0, 2, 0]), (None, [0, 0, 0, 0])):
        entries = [Entry(text, higher=higher) for text in ("0.1", "0.9", "0.5", "·")]
        mark_best(entries)
        assert [entry.mark for entry in entries] == marks
    mark_best(mixed := [Entry("0.1", higher=True), Entry("0.2", higher=False)])
    mark_best(alone := [Entry("0.1", higher=True)])
    assert not any(entry.mark for entry in (*mixed, *alone))


def test_runs_that_share_a_cell_are_mean_and_range(tmp_path: Path):
    jobs = [job(concept="church", estimator="a", seed=seed) for seed in range(3)]
    for each, value in zip(jobs, (0.1, 0.2, 0.6), strict=True):
        leave(tmp_path, each, value)
    text = page(planned(jobs, intervals=True), tmp_path)
    assert "| a | 0.300 (0.100–0.600) |" in text and "mean and range over runs that differ in seed." in text
    more = planned([*jobs, job(concept="church", estimator="a", seed=3)])
    text = page(more, tmp_path)
    assert "| a | 0.300 (0.100–0.600) · |" in text and "some of its runs are missing or have no value." in text


def test_a_run_without_a_value_takes_no_part_in_a_mean(tmp_path: Path):
    jobs = [job(concept="church", estimator="a", seed=seed) for seed in range(2)]
    leave(tmp_path, jobs[0], metric("concept_rate", None))
    leave(tmp_path, jobs[1], 0.2)
    assert lines(page(planned(jobs, intervals=True), tmp_path))[2] == "| a | 0.200 [0.150, 0.250] · |"
    text = page(planned([*jobs, job(concept="church", estimator="a", seed=2)], cells=["fid"]), tmp_path)
    assert lines(text)[2] == "| a | - · |"


def test_a_part_of_the_runs_is_never_the_best(tmp_path: Path):
    jobs = [job(concept="church", estimator=name, seed=seed) for name in "abc" for seed in range(2)]
    for each, value in zip(jobs[1:], (0.01, 0.3, 0.3, 0.5, 0.5), strict=True):
        leave(tmp_path, each, value)
    assert [line.split("|")[2].strip() for line in lines(page(planned(jobs, best="columns"), tmp_path))[2:]] == [
        "0.010 ·",
        "**0.300** (0.300–0.300)",
        "<u>0.500</u> (0.500–0.500)",
    ]


def test_results_of_several_folders_are_one_table(tmp_path: Path, monkeypatch):
    for each, folder in zip(JOBS, ("a", "b", "a", "b"), strict=True):
        leave(tmp_path / folder / "deep", each, 0.5)
    assert len(collect([tmp_path / "a"]).runs) == 2 and len(collect([tmp_path / "a", tmp_path / "b"]).runs) == 4
    assert len(read_all([tmp_path, tmp_path / "a"])[0]) == 4, "each file once"
    with pytest.raises(UserError, match="no folder"):
        collect([tmp_path / "c"])


def test_the_newest_complete_run_wins(tmp_path: Path):
    leave(tmp_path, JOBS[0], 0.2, written=2000)
    leave(tmp_path, JOBS[0], 0.1, written=1000)
    leave(tmp_path, JOBS[0], 0.9, written=3000, complete=False)
    assert "| 0.200 |" in page(planned(JOBS[:1]), tmp_path)


def test_what_is_missing_is_named_with_its_command(tmp_path: Path):
    leave(tmp_path, JOBS[0], 0.1)
    started = leave(tmp_path, JOBS[1], 0.2, complete=False)
    text = page(planned(given=("seed=0", "model.edits=[a b]")), tmp_path)
    assert lines(text)[2:] == ["| first_order | 0.100 | · |", "| magnitude | · | · |"]
    assert "3 of 4 runs. All of them:" in text
    assert "    python -m cad_exp -m experiment=mine seed=0 'model.edits=[a b]'\n" in text
    one = f"    python -m cad_exp experiment=mine concept=church estimator=magnitude  # did not finish: {started}"
    assert one in text and "    python -m cad_exp experiment=mine concept=tench estimator=magnitude\n" in text


def test_many_missing_runs_are_not_all_listed(tmp_path: Path):
    made = planned([replace(JOBS[0], hash=str(number)) for number in range(300)])
    text = page(made, tmp_path)
    assert "300 of 300 runs. All of them:" in text and f"the first {write.SINGLE}:" in text
    assert text.count("    python -m cad_exp ") == write.SINGLE + 1


def test_files_that_are_no_results_are_counted(tmp_path: Path):
    leave(tmp_path, JOBS[0], 0.1)
    for name, text in {"a": "{", "b": "[]", "c": '{"schema_version": 2}', "d": '{"schema_version": 9}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(text)
    found = collect([tmp_path])
    assert len(found.runs) == 1 and [path.parent.name for path in found.skipped] == ["a", "b", "c", "d"]


def test_a_value_that_a_run_does_not_have_is_a_dash(tmp_path: Path):
    leave(tmp_path, JOBS[0], 0.1)
    leave(tmp_path, JOBS[1], metric("concept_rate", None))
    leave(tmp_path, JOBS[2], metric("fid", 3.0))
    rows = lines(page(planned(rows=["estimator.name", "edit.count"]), tmp_path))[2:]
    assert rows == ["| first_order | - | 0.100 | - |", "| magnitude | - | - | · |"]


def test_an_unknown_metric_says_which_there_are(tmp_path: Path):
    leave(tmp_path, JOBS[0], 0.1)
    for study, message in (
        ({"cells": ["concept_rat"]}, "did you mean 'concept_rate'"),
        ({"cells": [{"metric": "concept_rate", "variant": "random"}]}, "no variant 'random'. There are: edited"),
    ):
        with pytest.raises(UserError, match=message):
            page(planned(JOBS[:1], **study), tmp_path)
        # While the sweep runs, the metric may be one of the runs to come.
        text = page(planned(JOBS[:2], **study), tmp_path)
        assert lines(text)[2:] == ["| first_order | - |", "| magnitude | · |"] and "-: no run that is there has" in text


REFERENCE = {"where": {"concept.name": "church", "estimator.name": "magnitude"}, "metric": "concept_rate"}
REFERENCE |= {"value": 0.12, "source": "A. Author, table 2"}


def test_a_reference_stands_beside_our_number(tmp_path: Path):
    leave(tmp_path, JOBS[0], 0.1)
    text = page(planned(reference=[REFERENCE]), tmp_path)
    assert "| magnitude | · (paper: 0.120) | · |" in text and "paper: A. Author, table 2" in text
    other = REFERENCE | {"source": "B", "value": 0.5}
    assert "· (paper 1: 0.120) (paper 2: 0.500)" in page(planned(reference=[REFERENCE, other]), tmp_path)


def test_a_reference_that_fits_no_cell_is_refused(tmp_path: Path):
    wrong = REFERENCE | {"where": {"concept.name": "chruch"}}
    with pytest.raises(UserError, match="concept.name: chruch.*fits no cell"):
        page(planned(reference=[wrong]), tmp_path)
    narrowed = planned(reference=[wrong], given=("concept=tench",))
    assert "1 of 1 references fit no cell" in page(narrowed, tmp_path)


def test_the_unedited_model_has_a_row_or_a_column(tmp_path: Path):
    for each, value in zip(JOBS, (0.8, 0.6, 1.0, 1.0), strict=True):
        leave(tmp_path, each, 0.1, metric("concept_rate", value, "unedited"))
    assert lines(page(planned(baseline=["concept_rate"]), tmp_path))[-1] == "| unedited | 0.700 | 1.000 |"
    turned = planned(baseline=["concept_rate"], rows=STUDY["columns"], columns=STUDY["rows"])
    assert lines(page(turned, tmp_path)) == [
        "| concept | first_order | magnitude | unedited |",
        "| --- | ---: | ---: | ---: |",
        "| church | 0.100 | 0.100 | 0.700 |",
        "| tench | 0.100 | 0.100 | 1.000 |",
    ]
    both = planned(baseline=["concept_rate"], cells=["concept_rate", "concept_rate"], join=" ")
    assert lines(page(both, tmp_path))[-1] == "| unedited | .70 .70 | 1.0 1.0 |"


def test_latex_shows_what_is_written(tmp_path: Path):
    assert write.escaped(r"a_b % c & d # e $ f {g} ~ ^ \ h") == (
        r"a\_b \% c \& d \# e \$ f \{g\} \textasciitilde{} \textasciicircum{} \textbackslash{} h"
    )
    assert write.escaped("α = 5°… “µ”") == r"$\alpha$ = 5$^\circ$\ldots{} ``$\mu$''"
    assert write.escaped("-.04 (0.1–0.2) x-y ↓ ·") == r"$-$.04 (0.1--0.2) x-y $\downarrow$ $\cdot$"
    for each in JOBS:
        leave(tmp_path, each, 0.1, metric("whole", 0.5))
    made = planned(title="50 % of A & B", cells=["concept_rate", "whole"], footnote="#1_2")
    tex = write.latex(made, lay_out(made, collect([tmp_path])), ["Runs: 4."])
    assert tex.splitlines()[2:] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \% of A \& B.}",
        r"\label{tab:mine}",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r" & \multicolumn{2}{c}{church} & \multicolumn{2}{c}{tench} \\",
        r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}",
        r"estimator" + 2 * r" & concept rate $\downarrow$ & whole $\downarrow$" + r" \\",
        r"\midrule",
        r"first\_order & 0.100 & 0.500 & 0.100 & 0.500 \\",
        r"magnitude & 0.100 & 0.500 & 0.100 & 0.500 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize n of every value: 64 (concept rate $\downarrow$), 64 (whole $\downarrow$).}",
        r"\par\smallskip{\footnotesize \#1\_2}",
        r"\end{table}",
    ]
    assert tex.count("{") == tex.count("}")


def test_latex_rows_that_begin_like_an_option(tmp_path: Path):
    """After a line's end [ and * would be read as its option."""
    made = planned(labels={"first_order": "[ours]", "magnitude": "*"})
    rows = write.latex(made, lay_out(made, Found()), []).splitlines()
    assert [row.partition(" &")[0] for row in rows if row.endswith(r"\\")] == ["estimator", "{}[ours]", "{}*"]


def test_a_list_is_shown_by_its_items(tmp_path: Path):
    made = config() | {"edits": ["a", "b"]}
    done = Job((), made, "1")
    leave(tmp_path, done, 0.1)
    assert lines(page(planned([done], rows=["edits"]), tmp_path))[2] == "| a, b | 0.100 |"


def test_the_change_itself_its_n_and_its_warning_are_shown(tmp_path: Path):
    """In Markdown, LaTeX and CSV: the paired change against each other variant, as a table of its own."""
    for each, n in zip(JOBS, (64, 64, 64, 16), strict=True):
        made = metric("concept_rate", 0.1, warning="9 of 64 images are of one colour") | {"n": n}
        made["changes"] = {"unedited": {"value": -0.9, "low": -0.95, "high": -0.8, "interval": "paired"}}
        leave(tmp_path, each, made)
    found = collect([tmp_path])
    text = page(planned(), tmp_path)
    assert "| magnitude | 0.100*, n 64 | 0.100*, n 16 |" in text and "## Change: edited less unedited" in text
    assert "| first_order | -0.900* [-0.950, -0.800], n 64 |" in text and "less random" not in text
    assert "9 of 64 images are of one colour: little can be read" in text
    tex = write.latex(planned(), lay_out(planned(), found), [])
    assert (
        tex.count(r"\begin{table}") == 2
        and r"\label{tab:mine-change1}" in tex
        and "$-$0.900*" in tex.replace("−", "$-$")
    )
    first = next(csv.DictReader(write.long_form(planned(), lay_out(planned(), found), found).splitlines()))
    assert (first["change_unedited"], first["change_unedited_high"], first["change_random"]) == ("-0.9", "-0.8", "")
    table, _ = collect_folder(tmp_path)
    assert "0.100* (-), change -0.900 [-0.950, -0.800], n 64" in summary(table)


def test_what_is_drawn_instead_is_a_column_of_text(tmp_path: Path):
    shares = [metric(f"drawn@{name}", value, higher=None) for name, value in (("tench", 0.75), ("gas pump", 0.25))]
    leave(tmp_path, JOBS[0], 0.1, *shares)
    table, _ = collect_folder(tmp_path)
    text = summary(table)
    assert "| drawn instead |" in text and "tench 75 %, gas pump 25 %" in text and "drawn@" not in text
    own = page(planned(cells=["concept_rate", "drawn"]), tmp_path)
    assert "| first_order | 0.100 | tench 75 %, gas pump 25 % | · | · |" in own and "no run that is there" not in own


def test_csv_has_one_line_per_job_and_metric(tmp_path: Path):
    folder = leave(tmp_path, JOBS[0], 0.1, metric("fid", 3.0, "random"))
    made = planned(JOBS[:2])
    found = collect([tmp_path])
    first, second, missing = csv.DictReader(write.long_form(made, lay_out(made, found), found).splitlines())
    assert first == {
        "estimator.name": "first_order",
        "concept.name": "church",
        "job": "concept=church estimator=first_order",
        "metric": "concept_rate",
        "variant": "edited",
        "value": "0.1",
        "low": "0.05",
        "high": "0.15000000000000002",
        "n": "64",
        **dict.fromkeys(changes({}), ""),
        "folder": str(folder),
        "git": "abc",
        "complete": "True",
    }
    assert (second["metric"], second["variant"], second["value"]) == ("fid", "random", "3.0")
    assert (missing["estimator.name"], missing["value"], missing["complete"]) == ("magnitude", "", "False")


def test_how_the_numbers_were_made(tmp_path: Path):
    from cad_exp.reporting.tables.origin import origin

    leave(tmp_path, JOBS[0], metric("concept_rate", 0.1, threshold=0.5, interval="95 %", judge="mini judge"))
    leave(tmp_path, JOBS[1], {**metric("concept_rate", 0.1), "n": 32}, git="def", device="cuda", seed=1)
    made, found = planned(JOBS[:2]), collect([tmp_path])
    assert origin(made, list(found.runs.values()), lay_out(made, found).metrics) == [
        "Runs: 2 of 2 planned.",
        "`concept_rate` (edited): share of images; n = 32 to 64; threshold: 0.5; interval: 95 %; judge: mini judge.",
        "Model: mini (weights w1).",
        "Seed: 0 / 1.",
        "Noisy latents: 4 samples x 25 steps.",
        "Code: git abc / def.",
        "Runs differ in device: cpu / cuda.",
    ]
    assert origin(made, [], []) == ["Runs: 0 of 2 planned."]


RULE = "share of images in which the judge's most likely {} is {}"


@pytest.mark.parametrize(
    "texts, expected",
    [
        ([], ""),
        (["a b c d"], "a b c d"),
        ([RULE.format("object", x) for x in ("church", "gas pump")], RULE.format("object", "(church / gas pump)")),
        ([f"{n} samples x 25 steps" for n in (4, 8, 16)], "(4 / 8 / 16) samples x 25 steps"),
        (["mean over labels of it", "min over labels of it"], "(mean / min) over labels of it"),
        (["the share of n here", "the share of m there"], "the share of (n here / m there)"),
        # the shorter text is a part of the longer: neither may become nothing
        (["the share of images", "the share of images made"], "the share of (images / images made)"),
        (["one of the images", "all and one of the images"], "(one / all and one) of the images"),
        # too little in common, however alike
        (["mini (weights a)", "mini (weights b)"], "mini (weights a) / mini (weights b)"),
        (["first_order", "magnitude"], "first_order / magnitude"),
        (["a b c", "d e f"], "a b c / d e f"),
    ],
)
def test_what_definitions_have_in_common_is_said_once(texts: list[str], expected: str):
    from cad_exp.reporting.tables.origin import joined

    assert joined(texts) == expected


def test_definitions_that_differ_by_the_concept_are_one_sentence(tmp_path: Path):
    from cad_exp.reporting.tables.origin import origin

    for each, concept in zip((JOBS[0], JOBS[2]), CONCEPTS, strict=True):
        leave(tmp_path, each, metric("concept_rate", 0.1, what=RULE.format("object", concept)))
    made, found = planned((JOBS[0], JOBS[2])), collect([tmp_path])
    [line] = [line for line in origin(made, list(found.runs.values()), lay_out(made, found).metrics) if "share" in line]
    assert line == "`concept_rate` (edited): " + RULE.format("object", "(church / tench)") + "; n = 64."


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"titel": "x"}, "did you mean 'title'"),
        ({"cells": []}, "needs cells"),
        ({"cells": [{"metric": "a", "varient": "edited"}]}, "did you mean 'variant'"),
        ({"cells": [{"label": "a"}]}, "lacks metric"),
        ({"cells": [{"metric": "a", "variant": "edit"}]}, "did you mean 'edited'"),
        ({"best": "row"}, "did you mean 'rows'"),
        ({"picture": "parto", "series": ["a"], "along": "b"}, "did you mean 'pareto'"),
        ({"picture": "pareto"}, "needs series and along"),
        ({"baseline": ["concept"]}, "did you mean 'concept_rate'"),
        ({"reference": [{"metric": "concept_rate"}]}, "lacks where, value, source"),
        ({"reference": [REFERENCE | {"value": "many"}]}, "a number as value"),
        ({"labels": ["a"]}, "labels of study: .* must be names for values"),
        ({"picture": "pareto", "series": ["a", "b", "c", "d"], "along": "e"}, "at most 3 series"),
        ({"cells": 5}, "holds '5'"),
    ],
)
def test_a_misspelt_study_is_refused(change: dict, expected: str):
    with pytest.raises(UserError, match=expected):
        planned(**change)


def test_numbers_in_a_study_are_texts_where_texts_belong():
    """YAML reads 2024 as a number."""
    cells = [{"metric": "concept_rate", "label": 50}]
    made = planned(title=2024, question=None, footnote=5, join=3, rows=[3], labels={0: 1}, cells=cells).study
    assert (made.title, made.question, made.footnote, made.join, made.rows) == ("2024", "", ("5",), "3", ("3",))
    assert made.labels == {"0": "1"} and made.cells[0].label == "50"


EXPERIMENTS = options("experiment", [conf_folder()])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_study_that_composes(name: str):
    made = plan([f"experiment={name}"])
    assert len(made.jobs) == len({each.hash for each in made.jobs}) > 1, "no two jobs are the same run"
    assert made.study.cells or made.study.picture in OWN
    assert not any("study" in each.config or "hydra" in each.config for each in made.jobs)
    assert "${" not in json.dumps([each.config for each in made.jobs])
    if made.study.cells:
        table = lay_out(made, Found())
        assert len(table.missing) == len(made.jobs)
        assert sum(bool(cell) for row in table.rows for cell in row.cells) == len(table.rows) * len(table.columns)


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["concept=church"],
        ["concept=tench,church", "seed=1,2"],
        ["concept=choice(church,tench)", "seed=range(0,3)"],
        ["estimator=first_order", "noisy_latents.steps=5", "model.edits=[a,b]"],
        ["+concept.note='a, b',c", "granularity=head"],
    ],
)
@pytest.mark.parametrize("name", ["fidelity", "estimators"])
def test_a_sweep_is_split_as_hydra_splits_it(name: str, given: list[str]):
    asked = [f"experiment={name}", *given]
    params = OmegaConf.load(conf_folder() / "experiment" / f"{name}.yaml").hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([*(f"{k}={v}" for k, v in params.items()), *asked])
    [expected] = BasicSweeper.split_arguments(parsed, None)
    with hydra([conf_folder()]) as composer:
        assert composer.sweep(asked)[0] == expected


def test_jobs_are_composed_as_hydra_composes_them():
    """Options with settings of their own, one after the other: nothing of one job is left in the next."""
    names = "coar,shapley,first_order,integrated_gradients,leave_one_out"
    fixed = ["granularity=head", "objective=erase", "concept.prompt='a, b'"]
    made = plan(["experiment=fidelity", "concept=custom,church", f"estimator={names}", *fixed])
    assert len(made.jobs) == 10
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for each in (*made.jobs[:3], *made.jobs[-2:]):
            for overrides in (each.overrides, shlex.split(made.command(each))[3:]):
                composed = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
                assert resolve(composed) == each.config
                assert each.hash == run_info(resolve(composed), 0, "cpu")["config_hash"]


def test_launchers_and_folders_of_a_pasted_command_mean_nothing():
    fixed = ["granularity=head", "objective=erase", "estimator=first_order"]
    made = plan(["experiment=fidelity", "hydra/launcher=nowhere", "hydra.sweep.dir=here", "concept=church", *fixed])
    assert {each.config["concept"]["name"] for each in made.jobs} == {"church"}
    assert "hydra/launcher=nowhere" in made.sweep


def test_what_is_asked_for_twice_is_one_run(tmp_path: Path):
    """A run stands once in a mean, however often the sweep asks for it."""
    fixed = ["experiment=fidelity", "concept=church", "granularity=head", "objective=erase", "estimator=first_order"]
    assert [each.overrides[-1] for each in plan([*fixed, "seed=0,0,1"]).jobs] == ["seed=0", "seed=1"]
    assert len(plan([*fixed, "edit=none", "edit.ratio=0.1,0.2"]).jobs) == 1


def test_a_sweep_without_one_of_its_axes():
    """As Hydra takes ~hydra.sweeper.params.KEY: the default is left of what was swept over."""
    fixed = ["experiment=fidelity", "concept=church", "granularity=head", "estimator=first_order"]
    assert [len(plan([*fixed, *more]).jobs) for more in ([], ["~hydra.sweeper.params.objective"])] == [2, 1]


@pytest.mark.parametrize("name", ["a,b", "it's", "a=b", "a [b]", "a b\\'c", "{d}"])
def test_a_folder_of_own_options_may_have_any_name(tmp_path: Path, name: str):
    folder = tmp_path / name / "experiment"
    folder.mkdir(parents=True)
    study = OmegaConf.to_yaml(OmegaConf.create({"study": STUDY}))
    (folder / "own.yaml").write_text(f"# @package _global_\n{study}")
    assert len(plan(["experiment=own"], [tmp_path / name]).jobs) == 1


def test_a_study_changes_no_hash():
    plain = {"concept": {"name": "church"}, "seed": 0}
    dressed = plain | {"study": STUDY}
    assert effective(dressed) == effective(plain)
    assert run_hash(OmegaConf.create(dressed)) == run_hash(OmegaConf.create(plain))
    asked = ["experiment=fidelity", "concept=church", "estimator=first_order"]
    changed = plan([*asked, "study.title=other", "study.rows=[seed]"])
    assert changed.study.title == "other" and changed.study.rows == ("seed",)
    assert [each.hash for each in plan(asked).jobs] == [each.hash for each in changed.jobs]
    assert changed.jobs[0].hash != plan([*asked, "seed=1"]).jobs[0].hash


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["experiment=fidelty"], "did you mean 'fidelity'"),
        (["experiment=fidelity", "concept=nudty"], "did you mean nudity?"),
        (["experiment=fidelity", "edit.ratoi=3"], "did you mean ratio?"),
        (["experiment=kinds", "study.rows=[edit.ratoi]"], "did you mean 'edit.ratio'"),
        (["experiment=fidelity", "church"], "does not understand 'church'"),
        (["experiment=fidelity", "--config-dir", "nowhere"], "no folder 'nowhere'"),
        (["experiment=" + "a" * 300], "There are: "),
        (["concept=" + "a" * 300], "unknown concept"),
        (["a" * 300], "no folder"),
        (["experiment=fidelity", "--from", "a" * 300], "no folder"),
        (["experiment=fidelity", "--from", "concept.note=" + "a" * 300], "did you mean name?"),
        ([".", "--to", "there"], "--from and --to belong to"),
        ([".", "--from", "."], "--from and --to belong to"),
        (["concept=church"], "which study?"),
        ([], "which study?"),
    ],
)
def test_a_wrong_command_gets_one_line(arguments: list[str], expected: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1 and expected in said.err and not list(tmp_path.iterdir())


def test_an_experiment_without_a_study_says_so(tmp_path: Path, capsys):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "bare.yaml").write_text("# @package _global_\nseed: 3\n")
    assert main(["experiment=bare", "--config-dir", str(tmp_path)]) == 1
    assert "conf/experiment/bare.yaml has no section study:" in capsys.readouterr().err


def test_a_config_that_is_no_yaml_says_where(tmp_path: Path, capsys):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text("# @package _global_\nstudy: [a\nb: {\n")
    assert main(["experiment=broken", "--config-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "cannot be read as YAML" in said and "broken.yaml" in said and said.count("\n") == 1


PICTURE = {"picture": "pareto", "panels": ["concept.name"], "series": ["estimator.name"], "along": "edit.ratio"}


def dots(folder: Path, values: dict[Job, tuple[float, float]], **study) -> _Picture:
    """The picture of jobs with these retentions and concept rates."""
    for each, (x, y) in values.items():
        leave(folder, each, metric("retention_worst", x, higher=True), metric("concept_rate", y))
    return _Picture(planned(values, **PICTURE | study), collect([folder]))


class Hashed(Job):
    """A job as a key."""

    def __hash__(self) -> int:
        return hash(self.hash)


def hashed(**values) -> Job:
    made = job(**values)
    return Hashed(made.overrides, made.config, made.hash)


def test_points_are_means_in_the_order_of_along(tmp_path: Path):
    values = {
        hashed(ratio=ratio, seed=seed): (1 - ratio, ratio + 0.1 * seed) for ratio in (0.5, 0.1, 0.25) for seed in (0, 1)
    }
    picture = dots(tmp_path, values)
    expected = [(0, 0.9, 0.15), (1, 0.75, 0.3), (2, 0.5, 0.55)]
    assert picture.points(picture.plan.jobs, "edited") == [pytest.approx(each) for each in expected]
    assert picture.title() == "A study (means over seed)" and picture.points(picture.plan.jobs, "random") == []
    assert [picture.size(step) for step in range(3)] == sorted(picture.size(step) for step in range(3))


def test_the_front_is_what_no_other_point_beats(tmp_path: Path):
    chosen = {0.1: (1.0, 0.9), 0.2: (0.8, 0.2), 0.3: (0.7, 0.4), 0.4: (0.5, 0.0), 0.5: (0.5, 0.1)}
    picture = dots(tmp_path, {hashed(ratio=ratio): value for ratio, value in chosen.items()})
    best = picture.front(picture.points(picture.plan.jobs, "edited"))
    assert [(x, y) for _, x, y in best] == [(0.5, 0.0), (0.8, 0.2), (1.0, 0.9)]
    picture.x, picture.y = False, True  # a search for more of the concept at the least cost
    assert [(x, y) for _, x, y in picture.front([(0, 0.1, 0.5), (0, 0.2, 0.9), (0, 0.3, 0.8)])] == [
        (0.2, 0.9),
        (0.1, 0.5),
    ]


def test_a_picture_where_every_value_is_zero_and_none_without_values(tmp_path: Path):
    picture = dots(tmp_path / "zero", {hashed(ratio=0.1): (0.0, 0.0)})
    assert picture.points(picture.plan.jobs, "edited") == [(0, 0.0, 0.0)]
    assert draw_picture(picture.plan, picture.found, tmp_path / "zero.png") == tmp_path / "zero.png"
    leave(tmp_path / "none", JOBS[0], metric("retention_worst", None), 0.5)
    assert draw_picture(planned(JOBS[:2], **PICTURE), collect([tmp_path / "none"]), tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()


def test_each_key_of_series_is_a_channel_of_its_own(tmp_path: Path):
    values = {hashed(estimator=name, seed=seed): (0.5, 0.5) for name in ESTIMATORS for seed in (0, 1)}
    picture = dots(tmp_path, values, series=["estimator.name", "seed"])
    looks = {place: picture.style(place) for place in (("first_order", 0), ("first_order", 1), ("magnitude", 1))}
    first, second, third = looks.values()
    assert first["color"] == second["color"] != third["color"] and first["line"] == third["line"]
    assert first["marker"] != second["marker"] == third["marker"]


def test_an_axis_that_no_run_has_is_refused_before_anything_is_saved(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = OmegaConf.to_yaml(OmegaConf.create({"study": STUDY | PICTURE | {"x": "retention_wrost"}}))
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}")
    command = ["experiment=own", "--config-dir", str(tmp_path / "conf")]
    for each in plan(command[:1], [tmp_path / "conf"]).jobs:
        leave(tmp_path / "runs", each, 0.1, metric("retention_worst", 0.5))
    to = ["--from", str(tmp_path / "runs"), "--to", str(tmp_path / "to")]
    assert main([*command, *to]) == 1 and "did you mean 'retention_worst'" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
    (tmp_path / "file").touch()
    assert main([*command, *to[:3], str(tmp_path / "file")]) == 1
    assert f"cannot write into '{tmp_path / 'file'}'" in capsys.readouterr().err


def test_the_whole_command(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    study = {
        **STUDY,
        "picture": "pareto",
        "panels": "concept.name",
        "series": ["estimator.name"],
        "along": "edit.ratio",
    }
    sweep = {"concept": "church,tench", "estimator": "first_order,magnitude", "edit.ratio": "0.1,0.2"}
    content = {"study": study | {"rows": ["estimator.name", "edit.ratio"]}, "hydra": {"sweeper": {"params": sweep}}}
    content["defaults"] = [{"override /edit": "erase"}]
    text = "# @package _global_\n" + OmegaConf.to_yaml(OmegaConf.create(content))
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text(text)
    command = ["experiment=own", "--config-dir", str(tmp_path / "conf"), "--to", str(tmp_path / "to")]
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "none of the 8 runs of experiment=own is there" in said.err
    assert f"--config-dir={tmp_path / 'conf'} -m experiment=own" in said.err
    assert not said.out and not (tmp_path / "to").exists()
    # A run, but none of this study: a table of dots would say nothing.
    [other, *_] = plan(["experiment=own", "concept=golf_ball,parachute"], [tmp_path / "conf"]).jobs
    leave(tmp_path / "others", other, 0.5)
    assert main([*command, "--from", "others"]) == 1 and "none of the 8 runs" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
    for each in plan(["experiment=own"], [tmp_path / "conf"]).jobs[1:]:
        rate = each.config["edit"]["ratio"]
        values = [
            metric("retention_worst", 1 - rate + shift, variant, True)
            for variant, shift in (("unedited", rate), ("edited", 0), ("random", rate / 2))
        ]
        values += [metric("concept_rate", each_rate, v) for v, each_rate in (("unedited", 1.0), ("random", 0.9))]
        leave(tmp_path / "outputs", each, rate, *values)
    assert main([*command, "--from", "outputs", "concept=church"]) == 0
    out = capsys.readouterr().out
    assert lines(out)[2:] == [
        "| first_order | 0.1 | · |",
        "| first_order | 0.2 | 0.200 |",
        "| magnitude | 0.1 | 0.100 |",
        "| magnitude | 0.2 | 0.200 |",
    ]
    assert (tmp_path / "to" / "own.md").read_text() in out
    assert imread(tmp_path / "to" / "own.png").shape[1] > 700
    page = (tmp_path / "to" / "own.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<a class="quiet \w*" href="\.\./outputs/[^"]+">0\.[12]00</a>', page)) == 3
    assert "What is missing" in page and "1 of 4 runs" in page and "estimator=first_order edit.ratio=0.1" in page
    assert main([*command, "--csv"]) == 0 and capsys.readouterr().out == (tmp_path / "to" / "own.csv").read_text()


def test_the_command_as_typed_needs_no_torch(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def typed(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess:
        start = ["-c", code] if code else ["-m", "cad_exp", "tables"]
        command = [sys.executable, *start, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    answer = typed("experiment=fidelty")
    assert answer.returncode == 1 and "did you mean 'fidelity'" in answer.stderr and "Traceback" not in answer.stderr
    assert "experiment=fidelity" in typed("--help").stdout
    narrow = ["concept=church", "granularity=head", "objective=erase", "estimator=first_order"]
    light = "import sys; from cad_exp.cli.tables import main; code = main(sys.argv[1:])\n"
    light += "sys.exit(3 if {'torch', 'pandas', 'matplotlib'} & set(sys.modules) else code)"
    missing = typed("experiment=fidelity", *narrow, code=light)
    assert missing.returncode == 1, missing.stderr
    assert "python -m cad_exp -m experiment=fidelity" in missing.stderr
    assert missing.stderr.count("\n") == 1 and not missing.stdout and not (tmp_path / "outputs").exists()


def test_any_folder_becomes_one_row_per_run(tmp_path: Path, capsys):
    for each, concept in zip(JOBS, CONCEPTS, strict=False):
        run = {"concept": concept, "granularity": "head", "objective": "erase", "edit": "erase", "estimator": "a"}
        run["config"] = {"edit": {"ratio": 0.1, "factor": -1, "count": None}}
        values = {"unedited": 1.0, "edited": 0.25, "random": 0.5}
        leave(tmp_path, each, *(metric("concept_rate", value, name) for name, value in values.items()), **run)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text("{")
    text = summary(collect_folder(tmp_path)[0])
    assert (
        lines(text)[0]
        == "| concept | granularity | objective | estimator | edit | factor | ratio | seed | concept_rate |"
    )
    assert "| church | head | erase | a | erase | -1 | 0.1 | 0 | 1.000 → 0.250 (0.500), n 64 |" in text
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "| tench | head |" in said.out and said.err.count("results.json") == 1 and "left out" in said.err
    assert main([str(tmp_path), "--csv"]) == 0 and capsys.readouterr().out.count("\n") == 8


def test_runs_without_an_edit_a_seed_or_a_value_have_rows_too(tmp_path: Path):
    leave(tmp_path, JOBS[0], metric("fid", None), concept="church", seed=None, config={"edit": {"name": "none"}})
    leave(tmp_path, JOBS[1], metric("faith", 0.5, "attribution"), concept="tench", complete=False)
    leave(tmp_path, JOBS[2], concept="nudity", complete=False)
    assert lines(summary(collect_folder(tmp_path)[0])) == [
        "| concept | ratio | seed | fid | faith |",
        "| --- | --- | --- | --- | --- |",
        "| church | - | - | - → - (-) |  |",
        "| tench (unfinished) | 0.1 | 0 |  | 0.500, n 64 |",
        "| nudity (unfinished) | 0.1 | 0 |  |  |",
    ]


def test_a_result_whose_config_is_null_is_left_out(tmp_path: Path):
    leave(tmp_path, JOBS[0], 0.1, config=None)
    assert len(collect([tmp_path]).skipped) == 1


def test_no_number_is_minus_zero(tmp_path: Path):
    assert [number(value) for value in (-0.0001, 0.0, -0.5, -12.34)] == ["0.000", "0.000", "-0.500", "-12.3"]
    leave(tmp_path, JOBS[0], -0.0001)
    cells = [{"metric": "concept_rate", "percent": True}]
    assert lines(page(planned(JOBS[:1], cells=cells), tmp_path))[2] == "| first_order | 0.0 |"


def test_an_empty_folder_says_so(tmp_path: Path, capsys):
    assert main([str(tmp_path)]) == 1 and "no results" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 1 and "no folder" in capsys.readouterr().err
