"""The flag --plan: what would be made, and nothing written."""

from pathlib import Path

import pytest

from cad_exp.__main__ import main
from cad_exp.utils import progress
from tests.config.test_configs import composed
from tests.pipeline.test_experiment import FAST

SMALL = [item for item in FAST if "cache" not in item]


def rows(said: str) -> dict[str, list[int]]:
    """Stage -> parts, from the cache, will be made."""
    lines = [line.split() for line in said.splitlines()]
    found = [line for line in lines if len(line) > 3 and all(part.isdigit() for part in line[-3:])]
    return {" ".join(line[:-3]): [int(part) for part in line[-3:]] for line in found}


def test_a_plan_says_what_would_be_made_and_writes_nothing(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = [*SMALL, "concept=church", "granularity=layer", "edit=none", "evaluation=none", "runtime.cache=kept"]
    assert main([*asked, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "granularity:\n  name: layer" in said and rows(said)["attribution"] == [1, 0, 1]
    assert not list(tmp_path.iterdir())
    from cad_exp.pipeline.run import run

    run(composed(*asked), tmp_path / "run")
    capsys.readouterr()
    assert main([*asked, "--plan"]) == 0
    assert rows(capsys.readouterr().out) == {"noisy latents": [1, 1, 0], "attribution": [1, 1, 0]}


def test_a_sweep_is_planned_run_by_run(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "concept=church,tench", "evaluation=none", "edit=none", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "run 1 of 2: concept=church" in said and "run 2 of 2: concept=tench" in said
    assert not list(tmp_path.iterdir())


def test_a_long_check_of_a_sweep_says_how_far_it_is(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)
    assert main(["-m", "concept=church,tench,parachute", "evaluation=none", "edit=none", "--plan"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "checking the jobs" in line]
    assert len(told) == 2 and "1/3" in told[0] and "2/3" in told[1]


def test_a_sweeps_plan_shows_what_can_work_and_names_the_rest(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["estimator=shapley", "granularity=weight,head", "edit=erase", "evaluation=none"]
    assert main(["-m", *asked, "--plan"]) == 2
    said = capsys.readouterr()
    assert "run 2 of 2: " in said.out and "run 1 of 2" not in said.out
    assert said.err.startswith("error: 1 of 2 jobs cannot be run:\n") and "granularity=weight" in said.err


def test_a_plan_of_a_choice_says_at_most(tmp_path: Path, monkeypatch, capsys):
    """The walk over strengths ends early, and of several prompts the nearest alone is walked."""
    monkeypatch.chdir(tmp_path)
    for edit, said in ((["edit=joint"], True), (["edit=erase"], False), (["edit=erase", "edit.strength=auto"], True)):
        assert main(["concept=church", "granularity=head", *edit, "--plan"]) == 0
        assert ("will be made, at most" in capsys.readouterr().out) is said


@pytest.mark.parametrize("flag", ["--cfg=job", "--info=all"])
def test_a_plan_goes_with_no_other_view(flag: str, capsys):
    assert main(["concept=church", "--plan", flag]) == 2
    assert "--plan and" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["prompts=null"], "unknown prompts 'null'. There are: "),
        (["-m", "concept=church,nan"], "unknown concept 'nan'. There are: "),
        (["concept=church,tench"], "add -m to run them one after the other"),
        (["concept="], "concept"),
    ],
)
def test_a_plan_refuses_what_a_run_refuses(asked: list[str], said: str, capsys):
    assert main([*asked, "--plan"]) == 2
    answer = capsys.readouterr().err
    assert said in answer and answer.count("\n") == 1


def test_an_option_whose_name_looks_like_a_number_stands_in_quotes(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "concept").mkdir(parents=True)
    (tmp_path / "own" / "experiment").mkdir()
    file = tmp_path / "own" / "concept" / "1984.yaml"
    file.write_text("defaults: [_object, _self_]\nname: 1984\nnoun: church\nlabel: church\n")
    study = "# @package _global_\nhydra: {sweeper: {params: {concept: 'church,1984'}}}\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(study)
    shuffled = ["-m", f"concept=shuffle({','.join(['church'] * 20)},1984)"]  # in another order at each look
    for asked in (["concept=1984"], ["-m", "concept=church,1984"], shuffled, ["-m", "experiment=mine"]):
        assert main(["--config-dir=own", *asked, "--plan"]) == 2
        assert "read as a number, not as a name: write 'concept=\"1984\"'" in capsys.readouterr().err
    assert main(["--config-dir=own", "-m", "experiment=mine"]) == 2
    assert "read as a number, not as a name: write 'concept=\"1984\"'" in capsys.readouterr().err
    assert main(["--config-dir=own", 'concept="1984"', "--plan"]) == 2
    assert "concept.name=1984 is no text" in capsys.readouterr().err
    file.write_text(file.read_text().replace("name: 1984", "name: '1984'"))
    assert main(["--config-dir=own", 'concept="1984"', "evaluation=none", "edit=none", "--plan"]) == 0
