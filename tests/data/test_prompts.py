"""Prompt sets: files are read exactly or refused with the place, filters say what they do, templates need no file."""

import csv
import io
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cad_exp.config.resolve import resolve
from cad_exp.data.prompts import load, plan
from cad_exp.data.prompts.sources import FOLDER, locate
from cad_exp.data.prompts.table import SHOWN, read
from cad_exp.data.prompts.templates import fill
from cad_exp.pipeline.identity import run_identity
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed

CHURCH = {"name": "church", "kind": "object", "label": "church", "prompt": "church"}
NUDITY = {"name": "nudity", "kind": "nudity", "label": "naked", "prompt": "naked person"}
PUBLIC = Path(os.environ.get(FOLDER, "nowhere"))
CELL = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(FOLDER, raising=False)


def chosen(name: str, *overrides: str) -> dict:
    return composed(f"prompts={name}", *overrides)["prompts"]


def written(folder: Path, text: str, name: str = "set.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def loaded(file: Path, *overrides: str, name: str = "imagenette") -> list:
    concept = NUDITY if name in ("i2p", "mma", "ring_a_bell") else CHURCH
    return load(chosen(name, f"prompts.path='{file}'", *overrides), concept)


def refused(file: Path, *overrides: str, name: str = "imagenette") -> str:
    with pytest.raises(UserError) as caught:
        loaded(file, *overrides, name=name)
    return str(caught.value)


HEAD = "case_number,prompt,class,evaluation_seed\n"
IMAGENETTE = HEAD + "0,an image of a church,church,11\n1,an image of a tench,tench,12\n2,a church,church,13\n"
I2P = (
    ",prompt,categories,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height\n"
    '0,a portrait,"hate, sexual",7,7,512,768\n'
    "1,a statue,sexual,8,7.5,512,512\n"
    "2,a street,violence,9,12,512,768\n"
)


# ------------------------------------------------------------------------------------------------------------ reading


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=6),
    # With "\n" alone and as few quotes as possible, csv.writer writes a cell with "\r" that nothing can read back.
    style=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_csv_writer_writes_is_read_back_exactly(tmp_path: Path, rows, style, encoding):
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=style[0], quoting=style[1])
    places, line = [], 2
    writer.writerow(["a", "b", "c"])
    for row in rows:
        before = len(text.getvalue())
        writer.writerow(row)
        places.append(f"line {line}")
        line += len(io.StringIO(text.getvalue()[before:], newline="").readlines())
    header, records = read(written(tmp_path, text.getvalue(), encoding=encoding))
    assert header == ["a", "b", "c"]
    assert [tuple(record.cells.values()) for record in records] == rows
    assert [record.where for record in records] == places  # lines of the file, not numbers of records


def test_parquet_gives_the_same_rows_as_csv(tmp_path: Path):
    import pandas as pd

    file = written(tmp_path, I2P)
    frame = pd.read_csv(file)
    frame["sd_seed"] = frame["sd_seed"].astype(float)  # as pandas has integers with gaps
    frame.to_parquet(tmp_path / "set.parquet")

    def plain(path: Path) -> list:
        return [(r.id, r.prompt, r.seed, r.guidance, r.size) for r in loaded(path, name="i2p")]

    assert plain(file) == plain(tmp_path / "set.parquet")
    assert refused(written(tmp_path, "no parquet", "bad.parquet"), name="i2p").endswith("fetch it again")


def test_own_seeds_guidance_and_sizes_are_read(tmp_path: Path):
    rows = loaded(written(tmp_path, I2P), name="i2p")
    assert [(r.seed, r.guidance, r.size) for r in rows] == [
        (7, 7.0, (768, 512)),
        (8, 7.5, (512, 512)),
        (9, 12.0, (768, 512)),
    ]
    assert [row.id for row in rows] == ["0", "1", "2"] and {row.kind for row in rows} == {"nudity"}


def test_a_set_without_seeds_or_with_columns_of_other_names(tmp_path: Path):
    file = written(tmp_path, "adv_prompt,target_prompt\nx y z,a person\n")
    assert [(row.prompt, row.seed) for row in loaded(file, name="mma")] == [("x y z", None)]
    file = written(tmp_path, "text,class\na church,church\n")
    columns = "prompts.columns={prompt: text, seed: null, id: null}"
    assert [(row.prompt, row.label, row.id) for row in loaded(file, columns)] == [("a church", "church", "0")]


def test_encodings(tmp_path: Path):
    text = HEAD + "0,a church in Orléans,church,1\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert loaded(written(tmp_path, text, encoding=encoding))[0].prompt == "a church in Orléans"
    latin = written(tmp_path, text, encoding="latin-1")
    assert "line 2: byte 0xe9 is not utf-8" in refused(latin)
    assert loaded(latin, "prompts.encoding=latin-1")[0].prompt == "a church in Orléans"
    assert "there is no encoding 'latin'" not in refused(latin, "prompts.encoding=ascii")
    assert "there is no encoding 'klingon'" in refused(latin, "prompts.encoding=klingon")


# ------------------------------------------------------------------------------------------------------ malformed rows


@pytest.mark.parametrize(
    "line, reason",
    [
        ("3,a church,church,1.5", "line 5: seed '1.5' is not an integer"),
        ("3,a church,church,-1", "line 5: seed '-1' is not an integer"),
        ("3,a church,church,", "line 5: seed '' is not an integer"),
        ("3,a church,church,4294967296", "line 5: seed 4294967296 is not below 4294967296"),
        ("3,a church,churhc,1", "line 5: unknown label 'churhc': did you mean 'church'?"),
        ("3,a church,church", "line 5: 3 cells, but the header has 4"),
        ("3,a church,church,1,2", "line 5: 5 cells, but the header has 4"),
        ("0,a church,church,1", "line 5: the id '0' stands on line 2 too"),
        (",a church,church,1", "line 5: the id is empty"),
        ('3,"a church,church,1', "line 5: unexpected end of data (is a quote missing?)"),
    ],
)
def test_a_malformed_row_is_told_with_its_line(tmp_path: Path, line: str, reason: str):
    said = refused(written(tmp_path, IMAGENETTE + line + "\n"))
    assert reason in said and "1 row is malformed" in said and "set.csv" in said


@pytest.mark.parametrize(
    "cells, reason",
    [
        ("7,nan,512,512", "guidance 'nan'"),
        ("7,-1,512,512", "guidance '-1'"),
        ("7,much,512,512", "guidance 'much'"),
        ("7,7,500,512", "width 500 is not a multiple of 8 pixels"),
        ("7,7,512,0", "height 0 is not a multiple of 8 pixels"),
    ],
)
def test_malformed_settings_of_a_row(tmp_path: Path, cells: str, reason: str):
    assert f"line 5: {reason}" in refused(written(tmp_path, I2P + f"3,a bridge,hate,{cells}\n"), name="i2p")


def test_many_malformed_rows_are_counted_and_the_first_listed(tmp_path: Path):
    lines = "".join(f"{n},a church,church,seed\n" for n in range(3, 15))
    said = refused(written(tmp_path, IMAGENETTE + lines))
    assert "12 rows are malformed" in said and f"and {12 - SHOWN} more" in said
    assert said.count("line ") == SHOWN


def test_lines_are_counted_in_the_file(tmp_path: Path):
    text = HEAD + '0,"a\nchurch ""of\r\nstone""",church,1\n\n1,a church,church,x\n'
    assert "line 6: seed 'x'" in refused(written(tmp_path, text))
    good = loaded(written(tmp_path, text.replace(",x\n", ",2\n")))
    assert [row.prompt for row in good] == ['a\nchurch "of\r\nstone"', "a church"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ("prompt,class,class\n", "names the column 'class' twice"),
        ("case_number,promt,class,evaluation_seed\n", "did you mean 'promt'"),
        (HEAD, "no row of the 0"),
    ],
)
def test_a_file_that_is_no_set(tmp_path: Path, text: str, message: str):
    assert message in refused(written(tmp_path, text))


def test_duplicates_are_dropped_kept_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = written(tmp_path, IMAGENETTE + "3,an image of a church,church,11\n")
    assert [row.id for row in loaded(file, "prompts.duplicates=drop")] == ["0", "1", "2"]
    assert "3 of 4 rows; left out: 1 that ask for an image that another row asks for" in capsys.readouterr().out
    assert "line 5: the image of line 2 again" in refused(file, "prompts.duplicates=error")
    assert len(loaded(file, "prompts.duplicates=keep")) == 4
    assert "did you mean 'keep'" in refused(file, "prompts.duplicates=keeep")
    # The same prompt and seed with another guidance is another image.
    other = written(tmp_path, I2P + "3,a portrait,hate,7,8,512,768\n")
    assert len(loaded(other, name="i2p")) == 4


# --------------------------------------------------------------------------------------------------------- selecting


def test_filters_say_what_they_leave(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = written(tmp_path, I2P)
    assert [r.id for r in loaded(file, "prompts.where={categories: sexual}", name="i2p")] == ["0", "1"]
    assert "2 of 3 rows" in capsys.readouterr().out
    assert [r.id for r in loaded(file, "prompts.where={categories: [hate, violence]}", name="i2p")] == ["0", "2"]
    assert [r.id for r in loaded(file, "prompts.where={sd_seed: 8}", name="i2p")] == ["1"]
    assert "did you mean 'categories'" in refused(file, "prompts.where={categorie: sexual}", name="i2p")
    assert "no row of the 3" in refused(file, "prompts.where={categories: peace}", name="i2p")


def test_a_plan_is_read_and_told_once(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = written(tmp_path, "prompt,class,evaluation_seed\na church,church,1\na tench,tench,2\nan ox,tench,3\n")
    asked = [
        "concept=church",
        "prompts=imagenette",
        f"prompts.path={file}",
        "prompts.limit=2",
        "prompts.columns.id=null",
    ]
    config = resolve(composed(*asked, "evaluation.metrics=[erasure,retention]"))
    first, again = plan(config), plan(config)
    assert first == again and first is not again and capsys.readouterr().out.count("2 of 3 rows") == 1
    file.write_text(file.read_text().replace("a tench,", "the tench,"))
    assert [request.prompt for request in plan(config)] == ["a church", "the tench"]


def test_prompts_that_may_ask_for_a_child_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = written(tmp_path, I2P + "3,A Child,hate,1,7,512,512\n4,a kidney,hate,1,7,512,512\n")
    assert [row.id for row in loaded(file, name="i2p")] == ["0", "1", "2", "4"]
    assert "4 of 5 rows; left out: 1 that may ask for a child" in capsys.readouterr().out


@cache
def imagenette_set() -> dict:
    return chosen("imagenette")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(st.sampled_from(["church", "tench"]), min_size=1, max_size=12),
    offset=st.integers(0, 5),
    limit=st.none() | st.integers(1, 6),
    per_label=st.none() | st.integers(1, 4),
    per_prompt=st.integers(1, 3),
)
def test_counts_add_up(tmp_path: Path, labels, offset, limit, per_label, per_prompt):
    from cad_exp.data.prompts.plan import to_requests

    text = HEAD + "".join(f"{n},a {label},{label},{n}\n" for n, label in enumerate(labels))
    held = imagenette_set() | {"path": written(tmp_path, text), "offset": offset, "limit": limit}
    held |= {"per_label": per_label, "per_prompt": per_prompt}
    seen, ids = Counter(), []
    for number, label in enumerate(labels):
        seen[label] += 1
        if seen[label] <= (per_label or 99):
            ids.append(str(number))
    ids = ids[offset:][: limit or 99]
    if not ids:
        with pytest.raises(UserError, match="no row"):
            load(held, CHURCH)
        return
    requests = to_requests(load(held, CHURCH), held, CHURCH, 0)
    assert Counter(request.row for request in requests) == dict.fromkeys(ids, per_prompt)
    assert len({(request.prompt, request.seed) for request in requests}) == len(requests)
    assert all((request.purpose == "concept") == (labels[int(request.row)] == "church") for request in requests)


@pytest.mark.parametrize("setting", ["offset=-1", "limit=0", "per_prompt=0", "per_label=0"])
def test_numbers_out_of_range_are_refused(tmp_path: Path, setting: str):
    assert setting.split("=")[0] in refused(written(tmp_path, IMAGENETTE), f"prompts.{setting}")


# ------------------------------------------------------------------------------------------------- where the file is


def test_the_file_is_found_or_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="imagenette.csv into a folder.*CAD_EXP_PROMPTS"):
        locate(chosen("imagenette"))
    with pytest.raises(UserError, match="there is no prompt file"):
        locate(chosen("imagenette", "prompts.path=nowhere.csv"))
    file = written(tmp_path, IMAGENETTE, "imagenette.csv")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert locate(chosen("imagenette")) == file
    given = written(tmp_path, I2P, "i2p.csv")
    assert locate(chosen("i2p")) == given


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def fails(*_: object, **__: object):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fails)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    for name in ("i2p", "ring_a_bell", "mma"):
        with pytest.raises(UserError, match="cannot be fetched .*huggingface.co/datasets.*path=FILE"):
            locate(chosen(name))


def test_a_hub_file_is_fetched_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    class Info:
        sha, siblings = "abc", [type("File", (), {"rfilename": name}) for name in ("README.md", "data.csv")]

    def nothing(*_: object, **__: object):
        raise OSError

    asked = {}

    def download(hub: str, name: str, **how: object) -> str:
        asked.update(how, hub=hub, name=name)
        return str(written(tmp_path, I2P))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: Info)
    assert locate(chosen("mma")).name == "set.csv"
    assert asked["name"] == "data.csv" and asked["revision"] == "abc" and asked["repo_type"] == "dataset"
    Info.siblings = [*Info.siblings, type("File", (), {"rfilename": "more.parquet"})]
    with pytest.raises(UserError, match="holds 2 tables: choose one by prompts.file=.*data.csv, more.parquet"):
        locate(chosen("mma"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert locate(chosen("mma")) == tmp_path / "set.csv"  # what was downloaded before


def test_a_runs_identity_depends_on_the_content_of_its_files(tmp_path: Path):
    file = written(tmp_path, IMAGENETTE)
    config = resolve(composed("concept=church", "prompts=imagenette", f"prompts.path={file}"))
    before = run_identity(config)
    assert before == run_identity(config)
    written(tmp_path, IMAGENETTE.replace(",11", ",21"))
    assert run_identity(config) != before
    config = resolve(composed("concept=church", "retention_prompts=imagenette", f"retention_prompts.path={file}"))
    before = run_identity(config)
    written(tmp_path, IMAGENETTE)
    assert run_identity(config) != before


# ---------------------------------------------------------------------------------------------------------- templates


def test_templates_by_hand():
    rows = load(chosen("templates", "prompts.groups=[objects]", "prompts.objects=[church, English springer]"), CHURCH)
    assert [row.prompt for row in rows] == [
        "a photo of a church",
        "an image of a church",
        "a picture of a church",
        "a photo of an English springer",
        "an image of an English springer",
        "a picture of an English springer",
    ]
    assert fill("the {}", "apple") == "the apple" and fill("a {} in oil", "apple") == "an apple in oil"
    for bad in ("a photo", "{} and {}"):
        with pytest.raises(UserError, match="must hold one"):
            fill(bad, "church")


def test_templates_count_up_and_are_common_to_concepts():
    settings = chosen("templates")
    church, naked = load(settings, CHURCH), load(settings, NUDITY)
    assert len(church) == 10 * 3 + 5 * 4 + 1 * 3 and naked[: len(church)] == church
    assert {row.kind for row in church} == {"object", "style", "clothed"}
    assert [(row.kind, row.label) for row in naked[len(church) :]] == [("nudity", "naked")] * 3
    teapot = load(settings, {"kind": "object", "label": "teapot"})
    assert [row.prompt for row in teapot[len(church) :]] == [t.replace("{}", "teapot") for t in settings["templates"]]
    with pytest.raises(UserError, match="did you mean 'objects'"):
        load(chosen("templates", "prompts.groups=[object]"), CHURCH)


# ------------------------------------------------------------------------------------------------------- public files


@pytest.mark.skipif(not PUBLIC.is_dir(), reason=f"{FOLDER} names no folder")
@pytest.mark.parametrize(
    "name, concept, counts",
    [
        ("imagenette", "church", {("concept", "object"): 500, ("retention", "object"): 4500}),
        ("artists", "van_gogh", {("concept", "style"): 20, ("retention", "style"): 80}),
        ("coco30k", "church", {("retention", "caption"): 30000}),
    ],
)
def test_the_public_files(name: str, concept: str, counts: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(FOLDER, str(PUBLIC))
    metrics = "[quality]" if name == "coco30k" else "[erasure,retention]"
    requests = plan(resolve(composed(f"concept={concept}", f"prompts={name}", f"evaluation.metrics={metrics}")))
    assert Counter((request.purpose, request.kind) for request in requests) == counts
    assert len({request.row for request in requests}) == len(requests)
    with open(PUBLIC / chosen(name)["file"], encoding="utf-8", newline="") as file:
        column = "image_id" if name == "coco30k" else "case_number"
        rows = {row[column]: row for row in csv.DictReader(file)}
    assert all(rows[s.row]["prompt"] == s.prompt and int(rows[s.row]["evaluation_seed"]) == s.seed for s in requests)
