import numpy as np
import pandas as pd
import pytest

from cad_exp import settings
from cad_exp.errors import UserError
from cad_exp.evaluation import EVALUATIONS, Records, drawings, shows
from cad_exp.quality import LISTED
from cad_exp.settings import settle
from cad_exp.shots import batches, needed, plan, retention_prompts

from .test_configs import composed

CHURCH = {
    "name": "church",
    "kind": "object",
    "label": "church",
    "evaluation_prompts": ["a photo of a church", "a church"],
}
SETTINGS = {"fid_bootstrap": 40, "higher_concept_is_better": False}


def records(
    hits: dict[str, list[float]], purpose="concept", prompts: list[str] | None = None, labels: list[str] | None = None
) -> Records:
    rows = [
        {
            "variant": variant,
            "purpose": purpose,
            "prompt": (prompts or ["p"] * len(values))[i],
            "seed": i,
            "kind": "object",
            "label": (labels or ["church"] * len(values))[i],
            "shows_label": float(value),
        }
        for variant, values in hits.items()
        for i, value in enumerate(values)
    ]
    who = dict.fromkeys(("object", "style", "nudity", "features", "clip", "distance"), {"judge": "test"})
    return Records(pd.DataFrame(rows), np.zeros((len(rows), 2)), who)


def test_retention_asks_for_everything_but_the_concept():
    def kept(kind: str, label: str) -> list[str]:
        concept = {"kind": kind, "label": label, "evaluation_prompts": ["p"]}
        return [shot.prompt for shot in plan(concept, 1, 1, 0) if shot.purpose == "retention"]

    assert len(retention_prompts()) == len(kept("nudity", "naked")) == 16
    assert len(kept("object", "church")) == 15 and not any("church" in prompt for prompt in kept("object", "church"))
    assert len(kept("style", "Van Gogh")) == 15  # 10 objects, 4 styles, the clothed person


def test_concepts_share_the_images_of_what_they_have_in_common():
    def rest(label: str) -> set:
        shots = plan({**CHURCH, "label": label}, 4, 3, 0)
        return {(shot.prompt, shot.seed) for shot in shots if shot.purpose == "retention"}

    assert len(rest("church") & rest("tench")) == 14 * 3


def test_batches_hold_one_thing_each_and_keep_the_order():
    shots = plan(CHURCH, samples=10, retention_samples=3, seed=0)
    parts = batches(shots, 4)
    assert [shot for part in parts for shot in part] == shots
    assert [len(part) for part in parts] == [4, 4, 2] + [3] * 15
    assert all(len({(shot.purpose, shot.label) for shot in part}) == 1 for part in parts)


def test_only_images_that_a_metric_looks_at_are_needed():
    def purposes(*metrics: str) -> set:
        asked = {"metrics": list(metrics), "samples": 2, "retention_samples": 1, "seed": 0}
        return {shot.purpose for shot in needed(CHURCH, asked)}

    assert purposes() == set() and purposes("erasure") == {"concept"}
    assert purposes("quality") == purposes("retention", "erasure") == {"concept", "retention"}


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
    found = list(EVALUATIONS["erasure"](records({"unedited": [1, 1, 1, 0], "edited": [0, 0, 1, 0]}), SETTINGS))
    assert [(m["variant"], m["value"], m["n"]) for m in found] == [("unedited", 0.75, 4), ("edited", 0.25, 4)]
    assert found[0]["definition"]["prompts"] == ["p"] and found[0]["definition"]["seeds"] == {"first": 0, "last": 3}


@pytest.mark.parametrize("prompts", [["a", "a", "b", "b"], ["a 1", "a 2", "b 1", "b 2"]])
def test_retention_averages_over_labels_and_finds_the_worst_by_hand(prompts: list[str]):
    """A label may have one prompt with many seeds (a class), or a prompt for each image (the artists' set)."""
    hits = {"unedited": [1, 1, 1, 0], "edited": [1, 0, 0, 0]}
    data = records(hits, "retention", prompts, ["tench", "tench", "French horn", "French horn"])
    found = list(EVALUATIONS["retention"](data, SETTINGS))
    assert {(m["name"], m["variant"]): m["value"] for m in found} == {
        ("retention_mean", "unedited"): 0.75,
        ("retention_mean", "edited"): 0.25,
        ("retention_worst", "unedited"): 0.5,
        ("retention_worst", "edited"): 0.0,
    }
    worst = next(m for m in found if m["name"] == "retention_worst")
    assert worst["high"] == 1.0 and "min over labels of the share" in worst["definition"]["what"]


def test_retention_counts_every_label_alike():
    """Three images of one label and one of another: a mean of two shares, not of four images."""
    data = records({"edited": [1, 1, 1, 0]}, "retention", list("abcd"), ["tench", "tench", "tench", "church"])
    mean = next(EVALUATIONS["retention"](data, SETTINGS))
    assert (mean["value"], mean["n"]) == (0.5, 4)


def test_a_definition_does_not_list_every_prompt_of_a_large_set():
    def definition(number: int, first: str = "p0") -> dict:
        prompts = [first, *(f"p{i}" for i in range(1, number))]
        data = records({"edited": [1.0] * number}, prompts=prompts)
        return next(EVALUATIONS["erasure"](data, SETTINGS))["definition"]

    few, many = definition(LISTED), definition(30_000)
    assert few["prompts"] == [f"p{i}" for i in range(LISTED)] and "prompts_number" not in few
    assert many["prompts"] == few["prompts"] and many["prompts_number"] == 30_000
    assert many["prompts_hash"] == definition(30_000)["prompts_hash"]
    assert len({many["prompts_hash"], definition(29_999)["prompts_hash"], definition(30_000, "q")["prompts_hash"]}) == 3


def test_the_reference_is_drawn_for_what_is_asked():
    real = drawings("object", "church", 3, seed=0)
    assert real.shape == (3, 64, 64, 3) and np.array_equal(real, drawings("object", "church", 3, seed=0))
    assert not np.array_equal(real, drawings("object", "church", 3, seed=1))


@pytest.mark.parametrize(
    "override, message",
    [
        ("evaluation.metrics=[erasre]", "did you mean"),
        ("evaluation.samples=0", "samples"),
        ("evaluation.retention_samples=0", "retention_samples"),
        ("concept.evaluation_prompts=[]", "evaluation_prompts"),
        ("probes.batch_size=0", "batch_size"),
    ],
)
def test_bad_settings_are_refused_before_any_work(override: str, message: str):
    with pytest.raises(UserError, match=message):
        settle(composed(override))


def test_the_names_of_the_evaluations_agree():
    assert set(settings.EVALUATIONS) == set(EVALUATIONS)
