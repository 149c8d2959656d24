"""The JSON Schema of results.json: written down as the types have it, true of what is written, and strict."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

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


@pytest.mark.parametrize(
    "break_it",
    [
        lambda it: it.pop("checksum"),
        lambda it: it.update(schema_version=3),
        lambda it: it["run"].pop("complete"),
        lambda it: it["metrics"][0].pop("n"),
        lambda it: it["metrics"][0].update(value="0.5"),
        lambda it: it["metrics"][0].update(variant="other"),
        lambda it: it["metrics"][0].update(more=1),
        lambda it: it["metrics"][1]["changes"]["unedited"].pop("low"),
    ],
)
def test_what_is_broken_is_not(break_it, content):
    broken = copy.deepcopy(content)
    break_it(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("version, said", [(1, "run it again"), (SCHEMA_VERSION + 1, "a newer cad_exp wrote it")])
def test_other_versions_are_answered_plainly(version, said, content, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(signed(content | {"schema_version": version})))
    with pytest.raises(UserError, match=f"schema version {version}, this cad_exp reads {SCHEMA_VERSION}: {said}"):
        load_results(tmp_path)
