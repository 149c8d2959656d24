import numpy as np
import pandas as pd
import pytest

from cad_exp.errors import UserError
from cad_exp.evaluation import EVALUATIONS, Records, check, plan, retention_prompts, shows, world_reference

CHURCH = {
    "name": "church",
    "kind": "object",
    "label": "church",
    "evaluation_prompts": ["a photo of a church", "a church"],
}
SETTINGS = {"bootstrap": 100, "higher_concept_is_better": False}


class Definitions:
    definition = {"judge": "test"}
    clip_definition = {"judge": "test"}


def records(hits: dict[str, list[float]], purpose: str = "concept", prompts: list[str] | None = None) -> Records:
    rows = [
        {
            "variant": variant,
            "purpose": purpose,
            "prompt": (prompts or ["p"] * len(values))[i],
            "seed": i,
            "kind": "object",
            "label": "church",
            "shows_label": float(value),
        }
        for variant, values in hits.items()
        for i, value in enumerate(values)
    ]
    return Records(pd.DataFrame(rows), np.zeros((len(rows), 2)))


def test_retention_asks_for_everything_but_the_concept():
    assert len(retention_prompts("object", "church")) == 15  # 9 objects, 5 styles, the clothed person
    assert len(retention_prompts("style", "Van Gogh")) == 15
    assert len(retention_prompts("nudity", "naked")) == 16
    assert not any("church" in prompt for prompt, _, _ in retention_prompts("object", "church"))


def test_plan_shares_samples_out_and_repeats_itself():
    shots = plan(CHURCH, samples=6, retention_samples=2, seed=1)
    concept = [s for s in shots if s.purpose == "concept"]
    assert len(concept) == 6 and len(shots) == 6 + 15 * 2
    assert [s.prompt for s in concept].count("a church") == 3
    assert len({(s.prompt, s.seed) for s in shots}) == len(shots)
    assert shots == plan(CHURCH, 6, 2, 1) != plan(CHURCH, 6, 2, 2)


def test_shows_compares_with_what_the_shot_asked_for():
    table = pd.DataFrame(
        {
            "kind": ["object", "object", "style", "nudity", "nudity", "clothed", "clothed", "custom"],
            "label": ["church", "church", "Van Gogh", "naked", "naked", "person", "person", ""],
            "object": ["church", "tench", "tench", "person", "person", "person", "church", "church"],
            "style": ["photo", "photo", "Van Gogh", "photo", "photo", "photo", "photo", "photo"],
            "naked_prob": [0, 0, 0, 0.9, 0.2, 0.1, 0.0, 0],
        }
    )
    np.testing.assert_array_equal(shows(table), [1, 0, 1, 1, 0, 1, 0, np.nan])


def test_erasure_is_the_share_of_hits_by_hand():
    found = list(
        EVALUATIONS["erasure"](records({"unedited": [1, 1, 1, 0], "edited": [0, 0, 1, 0]}), Definitions(), [], SETTINGS)
    )
    assert [(m["variant"], m["value"], m["n"]) for m in found] == [("unedited", 0.75, 4), ("edited", 0.25, 4)]
    assert found[0]["definition"]["prompts"] == ["p"] and found[0]["definition"]["seeds"] == {"first": 0, "last": 3}


def test_retention_averages_over_prompts_and_finds_the_worst_by_hand():
    data = records({"unedited": [1, 1, 1, 0], "edited": [1, 0, 0, 0]}, "retention", ["a", "a", "b", "b"])
    values = {
        (m["name"], m["variant"]): m["value"] for m in EVALUATIONS["retention"](data, Definitions(), [], SETTINGS)
    }
    assert values == {
        ("retention_mean", "unedited"): 0.75,
        ("retention_mean", "edited"): 0.25,
        ("retention_worst", "unedited"): 0.5,
        ("retention_worst", "edited"): 0.0,
    }


def test_the_reference_is_drawn_for_what_is_asked():
    shots = plan(CHURCH, 1, 1, 0)
    real = world_reference(shots, 3, seed=0)
    assert real.shape == (45, 64, 64, 3)
    assert np.array_equal(real, world_reference(shots, 3, seed=0))


def test_bad_settings_are_refused_before_any_work():
    with pytest.raises(UserError, match="did you mean"):
        check({"metrics": ["erasre"], "samples": 4, "retention_samples": 4}, CHURCH)
    with pytest.raises(UserError, match="samples"):
        check({"metrics": ["erasure"], "samples": 0, "retention_samples": 4}, CHURCH)
    with pytest.raises(UserError, match="evaluation_prompts"):
        check({"metrics": [], "samples": 4, "retention_samples": 4}, {**CHURCH, "evaluation_prompts": []})
