"""The command `shared`, as a user types it: runs of two concepts, and runs that cannot be compared."""

from pathlib import Path

import pandas as pd
import pytest

from cad_exp.__main__ import main
from cad_exp.attribution.attribute import Attribution
from cad_exp.evaluation.shared import pairs_of_concepts
from tests.pipeline.test_experiment import fast

SMALL = ["edit=none", "evaluation=none", "granularity=head", "objective=erase", "estimator=first_order"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    for concept in ("church", "nudity"):
        fast(folder / concept, f"concept={concept}", *SMALL)
    return folder


def test_two_concepts_are_compared(runs: Path, capsys):
    assert main(["shared", str(runs), "--share", "0.5"]) == 0
    told = capsys.readouterr().out
    assert "pairs of concepts" in told and "church and nudity share most: " in told
    assert "Compared are the strongest 50 % of the components." in told and "not of one kind" not in told
    assert "head 0" in told  # components that serve both stand there by name


def test_every_number_as_csv(runs: Path, capsys):
    assert main(["shared", str(runs / "church"), str(runs / "nudity"), "--csv"]) == 0
    (runs / "pairs.csv").write_text(capsys.readouterr().out)
    scored = {name: Attribution.load(runs / name) for name in ("church", "nudity")}
    layers = scored["church"].space("head").groups("layer").numpy()
    expected = pairs_of_concepts({name: each.scores["head"].numpy() for name, each in scored.items()}, layers)
    pd.testing.assert_frame_equal(pd.read_csv(runs / "pairs.csv"), expected)


def test_scores_of_two_objectives_are_compared_with_a_warning(runs: Path, tmp_path: Path, capsys):
    fast(tmp_path / "tench", "concept=tench", *SMALL, "objective=projection")
    assert main(["shared", str(runs), str(tmp_path)]) == 0
    assert "these scores are not of one kind (objective: erase, projection)" in capsys.readouterr().out


def test_what_cannot_be_compared_is_a_sentence(runs: Path, tmp_path: Path, capsys):
    fast(tmp_path / "layers", "concept=tench", *SMALL, "granularity=layer")
    wrong = {
        "of different components (granularity: head, layer)": [str(runs), str(tmp_path)],
        "scores of two concepts or more are compared, and here are those of: church": [str(runs / "church")],
        "there is no folder": [str(tmp_path / "nowhere")],
        "is a file and no folder": [__file__],
    }
    for said, folders in wrong.items():
        assert main(["shared", *folders]) == 1 and said in capsys.readouterr().err
    for share in ("0", "1.5", "x"):
        assert main(["shared", str(runs), "--share", share]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
