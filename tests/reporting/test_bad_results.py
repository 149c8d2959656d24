"""results.json files that were damaged, or are something else: named on one line, and the rest is shown."""

import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cad_exp.cli.tables import main
from cad_exp.reporting.results import SCHEMA_VERSION, load_results, signed
from cad_exp.reporting.schema import FIELDS
from cad_exp.utils.errors import UserError

METRIC = dict.fromkeys(FIELDS) | {"name": "concept_rate", "variant": "edited", "value": 0.5, "n": 4, "definition": {}}
METRIC |= {"changes": {}}
RUN = {
    "config_hash": "a",
    "config": {"edit": {"ratio": 0.1}, "noisy_latents": {}},
    "versions": {"torch": "2"},
    "concept": "x",
    "seconds": {},
    "complete": True,
}
GOOD = {"schema_version": SCHEMA_VERSION, "run": RUN, "metrics": [METRIC]}

BAD = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep in a field": json.dumps(GOOD).replace('"x"', "[" * 400 + "]" * 400),
    "400 digits": json.dumps(GOOD).replace("0.5", "9" * 400),
    "5000 digits": json.dumps(GOOD).replace("0.5", "9" * 5000),
    "NaN": json.dumps(GOOD).replace("0.5", "NaN"),
    "beyond floats": json.dumps(GOOD).replace("0.5", "1e999"),
    "not UTF-8": json.dumps(GOOD).encode("utf-16"),
    "half": json.dumps(GOOD)[:50],
    "half a character": json.dumps(GOOD).replace('"x"', '"\\ud800"'),
    "a list": "[]",
    "nothing": "",
    "variant": json.dumps(GOOD).replace('"edited"', '"other"'),
    "variant of another type": json.dumps(GOOD).replace('"edited"', "[]"),
    "versions": json.dumps(GOOD).replace('{"torch": "2"}', "[1]"),
    "config": json.dumps(GOOD | {"run": RUN | {"config": "x"}}),
    "no hash": json.dumps(GOOD | {"run": RUN | {"config_hash": 3}}),
    "schema of a list": json.dumps(GOOD | {"schema_version": [[]]}),
}


def _signed(data: bytes) -> bytes:
    """With the checksum that fits, where that can be: damage must be noticed for what it is, too."""
    try:
        content = json.loads(data.decode())
        return json.dumps(signed(content)).encode() if isinstance(content, dict) else data
    except (ValueError, RecursionError):
        return data


def leave(folder: Path, content) -> Path:
    folder.mkdir(parents=True)
    data = content if isinstance(content, bytes) else str(content).encode()
    (folder / "results.json").write_bytes(_signed(data))
    return folder


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_and_the_rest_is_shown(name, tmp_path, capsys):
    leave(tmp_path / "bad \x1b[2J", BAD[name])
    leave(tmp_path / "good", json.dumps(GOOD))
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "0.500" in said.out and said.err.count("\n") == 1 and "bad \\x1b[2J/results.json" in said.err
    with pytest.raises(UserError, match="results.json"):
        load_results(tmp_path / "bad \x1b[2J")


def test_what_is_no_ordinary_file_is_named(tmp_path, capsys):
    (tmp_path / "folder" / "results.json").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "results.json")
    leave(tmp_path / "good", json.dumps(GOOD))
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "0.500" in said.out and all(f"{name}/results.json" in said.err for name in ("folder", "pipe"))


def test_many_are_counted_after_the_first_few(tmp_path, capsys):
    for number in range(8):
        leave(tmp_path / f"bad{number}", "{")
    leave(tmp_path / "good", json.dumps(GOOD))
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "bad4" in said and "bad5" not in said and "and 3 more" in said


def test_strings_of_a_result_are_harmless_in_every_format(tmp_path, capsys):
    evil = "a|b\n<script>\x1b[2J`"
    run = RUN | {"concept": evil, "edit": "=1+1", "estimator": ["x"], "granularity": {"a": 1}}
    leave(tmp_path / "run", json.dumps({**GOOD, "run": run, "metrics": [METRIC | {"name": evil}]}))
    for flags in ([], ["--csv"]):
        assert main([str(tmp_path), *flags]) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert "'=1+1" in said if flags else "<script>" not in said
    assert said.count("\n") >= 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(content, at=()):
    """The paths of all values of a JSON content."""
    yield at
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield from places(value, (*at, key))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(list(places(GOOD))), value=JSON, flag=st.sampled_from([[], ["--csv"]]))
def test_any_json_in_any_field_is_shown_or_named(place, value, flag, tmp_path_factory, capsys):
    changed = copy.deepcopy(GOOD)
    if place:
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
    folder = tmp_path_factory.mktemp("runs")
    leave(folder / "good", json.dumps(GOOD))
    leave(folder / "odd", json.dumps(changed if place else value))
    capsys.readouterr()
    assert main([str(folder), *flag]) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err and (said.err.count("odd/results.json") == 1 or not said.err)


@pytest.mark.parametrize("content", [*BAD.values(), "3", '{"error": "x", "code": [], "command": 1}'])
def test_an_error_file_that_cannot_be_read_does_not_hide_the_others(content, tmp_path):
    from cad_exp.cli.job import _failure

    place = tmp_path / "error.json"
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = _failure(place)
    assert isinstance(found["code"], int) and "error.json cannot be read" in found["error"]


def test_a_finished_run_says_what_was_not_drawn(capsys):
    from cad_exp.reporting.summary import say_left_out

    say_left_out({"run": {}})
    assert not capsys.readouterr().out
    say_left_out({"run": {"left_out": {"fidelity.png": "no space"}}})
    assert "fidelity.png (no space)" in capsys.readouterr().out
