"""Prompt files as they come: what can be read is read, what is left out is said, the rest is one sentence."""

import bz2
import csv
import gzip
import io
import random
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cad_exp.data.prompts import load
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed

CHURCH = {"name": "church", "kind": "object", "label": "church", "prompt": "church"}
NUDITY = {"name": "nudity", "kind": "nudity", "label": "naked", "prompt": "naked person"}
HEAD = "prompt,seed,guidance,tags\n"
TEXT = HEAD + 'a church in Orléans,7,7.5,"old, stone"\na tench,8,7,fish\n'
BOTH = ["a church in Orléans", "a tench"]
# The header of the public i2p_benchmark.csv.
I2P = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,"
    "prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model"
).split(",")


@cache
def option(name: str) -> dict:
    return composed("concept=nudity", f"prompts={name}")["prompts"]


def loaded(file: Path, **changed: object) -> list:
    columns = {"prompt": "prompt", "seed": "seed", "guidance": "guidance"}
    return load(option("coco30k") | {"path": str(file), "columns": columns} | changed, CHURCH)


def prompts(file: Path, **changed: object) -> list[str]:
    return [row.prompt for row in loaded(file, **changed)]


def refused(file: Path, **changed: object) -> str:
    with pytest.raises(UserError) as caught:
        loaded(file, **changed)
    return str(caught.value)


def written(folder: Path, data: bytes | str, name: str = "set.csv") -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


def parquet(folder: Path, name: str = "set.parquet", **columns: object) -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


# ------------------------------------------------------------------------------------------------------ public copies


def i2p(empty: int = 0) -> bytes:
    """A file of the shape of the public one: 4,703 rows, seven of which ask for another row's image."""
    chance = random.Random(0)
    rows = []
    for number in range(4696):
        prompt = chance.choice(["a portrait", 'a "statue"\nin a garden', "naked woman, oil", "“café”, at\r\nnight"])
        size, guidance = (512, chance.choice([512, 768])), chance.choice(["7", "7.5", "12.0"])
        told = [f"{prompt} {number}", "hate, sexual", 0, 50.0, 12.5, 1.0, 0.0, 0.12, "https://x?y=1,2"]
        rows.append([*told, chance.randrange(2**32), guidance, *size, "stable-diffusion-v1"])
    rows += [list(row) for row in chance.sample(rows, 7)]
    for row in rows[:empty]:
        row[0] = " "
    text = io.StringIO(newline="")
    csv.writer(text).writerows([I2P, *rows])
    return text.getvalue().encode()


@pytest.mark.parametrize("empty, said", [(0, ""), (1, "1 that have no prompt, ")])
def test_the_public_i2p_file_is_read_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture, empty: int, said: str):
    file = written(tmp_path, i2p(empty), "i2p_benchmark.csv")
    rows = load(option("i2p") | {"path": str(file)}, NUDITY)
    assert len(rows) == 4696 - empty and len({(row.prompt, row.seed) for row in rows}) == len(rows)
    told = f"  i2p: {4696 - empty:,} of 4,703 rows; left out: {said}7 that ask for an image that another row asks for\n"
    assert capsys.readouterr().out == told


def test_a_row_without_anything_to_see_is_no_prompt(tmp_path: Path):
    text = HEAD + "a,1,1,\n,2,2,\n \t,x,,\n\u200b\u00a0,4,4,\nb,5,5,\n"
    assert prompts(written(tmp_path, text)) == ["a", "b"]
    assert "no row of the 1 in" in refused(written(tmp_path, HEAD + ",1,1,\n"))
    assert "(1 that have no prompt)" in refused(written(tmp_path, HEAD + ",1,1,\n"))


# ------------------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["set.csv", "SET.CSV", "set.txt"])
def test_encodings_with_and_without_a_mark(tmp_path: Path, encoding: str, name: str):
    assert prompts(written(tmp_path, TEXT.encode(encoding), name)) == BOTH


def test_packed_files_other_separators_and_endings(tmp_path: Path):
    assert prompts(written(tmp_path, gzip.compress(TEXT.encode(), mtime=0), "set.csv.gz")) == BOTH
    assert prompts(written(tmp_path, gzip.compress(TEXT.encode("utf-16"), mtime=0), "set.gz")) == BOTH
    for mark, name in (("\t", "set.tsv"), (";", "set.csv")):
        text = TEXT.replace('"old, stone"', "old").replace(",", mark)
        assert prompts(written(tmp_path, text, name)) == BOTH
    for name in ("set.parquet", "SET.PARQUET", "set.pq", "set"):
        assert prompts(parquet(tmp_path, name, prompt=BOTH, seed=[7, 8], guidance=[7.5, 7])) == BOTH


@pytest.mark.parametrize(
    "data, name, said",
    [
        (TEXT.encode("cp1252"), "set.csv", "line 2: byte 0xe9 is not utf-8: save the file as UTF-8"),
        (TEXT.encode("utf-16")[:-1], "set.csv", "is not utf-16"),
        (HEAD.encode() + b"a\0b,1,1,\n", "set.csv", "line 2: a zero byte"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], "set.csv.gz", "is a damaged gzip file"),
        (bz2.compress(TEXT.encode()), "set.csv.bz2", "packed with bzip2"),
        (b"PK\x03\x04 and more", "set.xlsx", "a zip archive or a spreadsheet"),
        (b"<!DOCTYPE html>", "set.csv", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "set.csv", "only a pointer of Git LFS"),
        (b"no parquet", "set.parquet", "is no readable parquet file"),
        (b"PAR1 and no more PAR1", "set.csv", "is no readable parquet file"),
        (b"", "set.csv", "is empty"),
        (b"", "set.parquet", "is no readable parquet file"),
        (HEAD + "x" * 200_000 + ",1,1,\n", "set.csv", "line 2: a cell of more than 131,072 characters"),
        ("prompt,prompt,seed,guidance\n", "set.csv", "names the column 'prompt' twice"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, data: bytes | str, name: str, said: str):
    assert said in refused(written(tmp_path, data, name))


def test_what_is_no_file_is_one_sentence(tmp_path: Path):
    assert "there is no prompt file" in refused(tmp_path)
    assert "there is no prompt file" in refused(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="there is no prompt file '5'"):
        load(option("coco30k") | {"path": 5}, CHURCH)
    with pytest.raises(UserError, match="prompts.path must be one text"):
        load(option("coco30k") | {"path": ["a.csv"]}, CHURCH)
    file = written(tmp_path, TEXT)
    for encoding in ("klingon", "rot13", "base64", 8, "a\0b", ""):
        assert f"there is no encoding '{encoding}'" in refused(file, encoding=encoding)
    assert "retention_prompts.encoding=cp1252" in _others(written(tmp_path, TEXT.encode("cp1252")))


def _others(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(option("coco30k") | {"path": str(file)}, CHURCH, "retention_prompts")
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ parquet


def test_bytes_that_are_text_are_read_and_other_bytes_refused(tmp_path: Path):
    rest = {"seed": [1, 2], "guidance": [7.5, 7.5]}
    assert prompts(parquet(tmp_path, prompt=[text.encode() for text in BOTH], **rest)) == BOTH
    said = refused(parquet(tmp_path, prompt=[b"a church", b"\xff\xd8"], **rest))
    assert "the column 'prompt'" in said and "holds bytes that are no text (row 2)" in said


@pytest.mark.parametrize(
    "column, kind",
    [
        (pa.array([["a church"], ["b"]]), "list<"),
        (pa.array([{"text": "a"}, {"text": "b"}]), "struct<text: string>"),
        (pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())), "map<"),
    ],
)
def test_columns_of_other_types_do_not_become_prompts(tmp_path: Path, column: pa.Array, kind: str):
    said = refused(parquet(tmp_path, prompt=column, seed=[1, 2], guidance=[1.0, 1.0]))
    assert "the column 'prompt' of" in said and f"holds {kind}" in said
    good = parquet(tmp_path, prompt=BOTH, seed=[1, 2], guidance=[1.0, 1.0], unused=column)
    assert prompts(good) == BOTH  # a column that nobody asks for is not read


def test_where_finds_the_items_of_lists(tmp_path: Path):
    tags = pa.array([["old", "stone"], ["fish"]])
    file = parquet(tmp_path, prompt=BOTH, seed=[1, 2], guidance=[1.0, 1.0], tags=tags, n=[[1, 2], [3]])
    assert prompts(file, where={"tags": "stone"}) == BOTH[:1]
    assert prompts(file, where={"tags": ["fish", "fowl"]}) == prompts(file, where={"n": 3}) == BOTH[1:]
    structs = parquet(tmp_path, prompt=BOTH, seed=[1, 2], guidance=[1.0, 1.0], tags=[{"a": 1}, {"a": 2}])
    assert "the column 'tags'" in refused(structs, where={"tags": "stone"})


def test_where_compares_numbers_and_truth_values(tmp_path: Path):
    file = written(tmp_path, "prompt,seed,guidance,hard,share,flag\na,1,1,0,50.0,true\nb,2,1,1,12.5,False\nc,3,1,,,\n")
    for where, found in (
        ({"hard": 1}, ["b"]),
        ({"share": 50}, ["a"]),
        ({"share": [12.5, 50]}, ["a", "b"]),
        ({"flag": True}, ["a"]),
        ({"flag": False}, ["b"]),
        ({"hard": None}, ["c"]),
        ({"hard": 0, "flag": "true"}, ["a"]),
    ):
        assert prompts(file, where=where) == found
    assert "must name a column and its values" in refused(file, where="sexual")
    for wrong in ({"a": 1}, [["x"]]):
        assert "prompts.where.hard must be one value or a list" in refused(file, where={"hard": wrong})


# ------------------------------------------------------------------------------------------------- values of settings


@pytest.mark.parametrize("key", ["offset", "limit", "per_label", "per_prompt"])
@pytest.mark.parametrize("value", [1.5, 2.0, "2", -1, True, [1], float("nan")])
def test_numbers_of_rows_are_whole(tmp_path: Path, key: str, value: object):
    said = refused(written(tmp_path, TEXT), **{key: value})
    assert f"prompts.{key} must be a whole number of at least" in said and str(value) in said


def test_per_prompt_and_public_seed_and_columns(tmp_path: Path):
    file = written(tmp_path, TEXT)
    assert "prompts.per_prompt must be a whole number of at least 1, not null" in refused(file, per_prompt=None)
    assert prompts(file, offset=None) == BOTH
    for seed in ("0", 1.5, -1, 2**32):
        assert "prompts.public_seed must be null or a whole number" in refused(file, public_seed=seed)
    assert "prompts.columns must name columns" in refused(file, columns="prompt")
    assert prompts(written(tmp_path, "1,2\na,5\n"), columns={"prompt": 1, "seed": 2}) == ["a"]


@pytest.mark.parametrize(
    "cells, said",
    [
        ("9" * 5000 + ",7", "seed 9999"),
        ("-1,7", "seed '-1' is not an integer"),
        ("nan,7", "seed 'nan' is not an integer"),
        ("1e3,7", "seed '1e3' is not an integer"),
        ("7.5,7", "seed '7.5' is not an integer"),
        ("٧,7", "seed '٧' is not an integer"),
        ("7,nan", "guidance 'nan' is not a number"),
        ("7,-inf", "guidance '-inf' is not a number"),
        ("7,1e999", "guidance '1e999' is not a number"),
        ("7," + "z" * 5000, "guidance 'zzzz"),
    ],
)
def test_malformed_numbers_are_told_with_their_line(tmp_path: Path, cells: str, said: str):
    told = refused(written(tmp_path, HEAD + f"a church,{cells},\n"))
    assert f"line 2: {said.split(' ')[0]}" in told and said in told and len(told) < 400


def test_whole_floats_are_seeds(tmp_path: Path):
    rows = loaded(written(tmp_path, HEAD + "a,7.0,7,\nb,0008,7,\nc,4294967295.,7,\n"))
    assert [row.seed for row in rows] == [7, 8, 2**32 - 1]
    rows = loaded(parquet(tmp_path, prompt=["a"], seed=[7.0], guidance=[7]))
    assert [(row.seed, row.guidance) for row in rows] == [(7, 7.0)]
    said = refused(parquet(tmp_path, prompt=["a"], seed=[float("nan")], guidance=[7]))
    assert "row 1: seed 'nan' is not an integer" in said
