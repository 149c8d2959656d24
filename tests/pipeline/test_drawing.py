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
        return lambda *given: self.told.append(f"{name} {sorted(given[0]) if name == 'log_images' else ''}".strip())


def test_a_picture_that_fails_costs_nothing(tmp_path: Path):
    results = Results(tmp_path, {})

    def first() -> None:
        left = json.loads((tmp_path / "results.json").read_text())["run"]["left_out"]
        assert left == {"a.png": STOPPED, "b.png": STOPPED}  # written before any picture

    def second() -> None:
        raise ValueError("no colours")

    made = draw({"a.png": first, "b.png": second}, results)
    left = json.loads((tmp_path / "results.json").read_text())["run"]["left_out"]
    assert made == ["a.png"] and left == {"b.png": "ValueError: no colours"}
    tracker = Tracker()
    mirror(tracker, results, {"a": tmp_path / "a.png"}, tmp_path)
    assert tracker.told == ["log_facts", "log_metrics", "log_images ['a']", "log_artifact"]
