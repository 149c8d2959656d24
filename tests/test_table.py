from pathlib import Path

import pytest

from cad_exp.errors import UserError
from cad_exp.results import Results
from cad_exp.table import collect, main, summary

METRIC = {"name": "concept_rate", "low": 0.0, "high": 1.0, "n": 4, "higher_is_better": False, "definition": {}}


def test_a_sweep_becomes_one_row_per_run(tmp_path: Path, capsys):
    for number, concept in enumerate(("church", "tench")):
        run = {"concept": concept, "granularity": "head", "objective": "erase", "edit": "erase", "seed": 0}
        (tmp_path / str(number)).mkdir()
        results = Results(tmp_path / str(number), run)
        for variant, value in (("unedited", 1.0), ("edited", 0.25), ("random", 0.5 + number / 4)):
            results.add({**METRIC, "variant": variant, "value": value})
    table = summary(collect(tmp_path))
    assert list(table["concept"]) == ["church", "tench"]
    assert list(table["concept_rate"]) == ["1.000 → 0.250 (0.500)", "1.000 → 0.250 (0.750)"]
    assert main([str(tmp_path)]) == 0 and "| church | head |" in capsys.readouterr().out


def test_an_empty_folder_says_so(tmp_path: Path, capsys):
    with pytest.raises(UserError, match="no results"):
        collect(tmp_path)
    assert main([str(tmp_path)]) == 1 and "no results" in capsys.readouterr().err
