"""The JSON Schema of results.json: written down as the types have it, true of what is written, and strict."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest

from cad_exp.reporting import result_file
from cad_exp.reporting.results import SCHEMA_VERSION, Results, load_results, run_info, signed
from cad_exp.reporting.schema import ResultFile, json_schema
from cad_exp.utils.errors import UserError
from tests.reporting.test_results import metric

ROOT = Path(__file__).parents[2]


@pytest.fixture
def content(tmp_path) -> dict:
    results = Results(tmp_path, run_info({"seed": 3}, seed=3, device="cpu", concept="church"))
    with results.time("images"):
        pass
    change = {"value": -0.9, "low": -1.0, "high": -0.8, "interval": "paired"}
    results.add(metric(), metric(variant="random", changes={"unedited": change}, value=None, n=None))
    results.finish()
    return json.loads((tmp_path / "results.json").read_text())


def test_the_page_has_the_schema_of_the_types():
    written = json.loads((ROOT / "docs" / "reference" / "results.schema.json").read_text())
    assert written == json_schema(), "python -m cad_exp.reporting.schema > docs/reference/results.schema.json"
    jsonschema.Draft202012Validator.check_schema(written)


def test_what_is_written_is_what_it_describes(content):
    jsonschema.validate(content, json_schema(), jsonschema.Draft202012Validator)
    ResultFile.model_validate(content)


BROKEN = {
    "checksum is missing": lambda it: it.pop("checksum"),
    "schema_version is '3', not a version that this cad_exp reads": lambda it: it.update(schema_version=3),
    "run is 'null', not a table": lambda it: it.update(run=None),
    "run.complete is missing": lambda it: it["run"].pop("complete"),
    "run.seed is '1.5', not a whole number": lambda it: it["run"].update(seed=1.5),
    "run.config is 'x', not a table": lambda it: it["run"].update(config="x"),
    "run.complete is 'yes', not true or false": lambda it: it["run"].update(complete="yes"),
    "metrics is 'abc', not a list": lambda it: it.update(metrics="abc"),
    "metrics.0.n is missing": lambda it: it["metrics"][0].pop("n"),
    "metrics.0.n is '-1', not a number of ordinary size": lambda it: it["metrics"][0].update(n=-1),
    "metrics.0.name is '3', not a text": lambda it: it["metrics"][0].update(name=3),
    "metrics.0.value is '0.5', not a number": lambda it: it["metrics"][0].update(value="0.5"),
    "metrics.0.value is '1e+101', not a number of ordinary size": lambda it: it["metrics"][0].update(value=1e101),
    "metrics.0.variant is 'other', not one of unedited, ": lambda it: it["metrics"][0].update(variant="other"),
    "metrics.0.more is no entry of the schema": lambda it: it["metrics"][0].update(more=1),
    "metrics.1.changes.unedited.low is missing": lambda it: it["metrics"][1]["changes"]["unedited"].pop("low"),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_is_broken_is_named(said, content, tmp_path):
    """The published schema refuses it as the types do, which say where and what."""
    broken = copy.deepcopy(content)
    BROKEN[said](broken)
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(broken)
    with pytest.raises(ValueError, match=re.escape(said)):
        result_file.check(broken)
    if said.startswith(("run", "metrics")):
        (tmp_path / "results.json").write_text(json.dumps(signed(broken)))
        with pytest.raises(UserError, match=re.escape(f"results.json cannot be read as results ({said}")):
            load_results(tmp_path)


def test_a_run_of_a_test_writes_no_other_file(tmp_path):
    """tests/valid_results.py, which all tests and their commands have in force."""
    with pytest.raises(ValueError, match="run.seed"):
        Results(tmp_path, {"seed": "three"})


@pytest.mark.parametrize("version, said", [(1, "run it again"), (SCHEMA_VERSION + 1, "a newer cad_exp wrote it")])
def test_other_versions_are_answered_plainly(version, said, content, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(signed(content | {"schema_version": version})))
    with pytest.raises(UserError, match=f"schema version {version}, this cad_exp reads {SCHEMA_VERSION}: {said}"):
        load_results(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"run": {}}'])
def test_json_of_another_kind_is_not_called_an_old_schema(content: str, tmp_path: Path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot be read as results \(it has no schema_version\): run it again, or"):
        load_results(tmp_path)
