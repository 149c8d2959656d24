"""Pictures of a run: results.json is complete before them, and one that cannot be drawn is named."""

import json
from pathlib import Path

from cad_exp.pipeline.drawing import draw, mirror
from cad_exp.reporting.results import STOPPED, Results


class Tracker:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str):
        said = {"log_images": lambda given: sorted(given[0]), "log_page": lambda given: given[0]}
        return lambda *given: self.told.append(f"{name} {said.get(name, lambda _: '')(given)}".strip())


def test_a_picture_that_fails_costs_nothing(tmp_path: Path):
    results = Results(tmp_path, {})

    def first() -> None:
        left = json.loads((tmp_path / "results.json").read_text())["run"]["left_out"]
        assert left == {"a.png": STOPPED, "b.png": STOPPED, "report.html": STOPPED}  # written before any picture

    def second() -> None:
        raise ValueError("no colours")

    made = draw({"a.png": first, "b.png": second}, results)
    left = json.loads((tmp_path / "results.json").read_text())["run"]["left_out"]
    assert made == ["a.png"] and left == {"b.png": "no colours"}
    tracker = Tracker()
    mirror(tracker, results, {"a": tmp_path / "a.png"}, tmp_path)
    assert tracker.told == ["log_facts", "log_metrics", "log_images ['a']", "log_page report", "log_artifact"]


def test_the_report_comes_last_and_names_what_was_left_out(tmp_path: Path):
    """It is made from what the pictures left, and no picture of its own: a run that draws nothing has one too."""
    results = Results(tmp_path, {"concept": "church"})

    def fails() -> None:
        raise OSError("no space")

    assert draw({"a.png": fails}, results) == []
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<li><strong>a.png</strong>: no space</li>" in page and "<strong>report.html" not in page
    assert "report.html" in results.run["files"] and results.run["left_out"] == {"a.png": "no space"}


def test_a_report_that_fails_costs_nothing(tmp_path: Path, monkeypatch, capsys):
    from cad_exp.reporting.html import run_page

    def fails(*given) -> None:
        raise ValueError("no page")

    monkeypatch.setattr(run_page, "write", fails)
    results = Results(tmp_path, {})
    assert draw({}, results) == [] and results.run["complete"]
    assert results.run["left_out"] == {"report.html": "no page"} and "no page" in capsys.readouterr().err
