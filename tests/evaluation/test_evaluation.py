import numpy as np
import pandas as pd
import pytest

from cad_exp.config.resolve import resolve
from cad_exp.data import prompts
from cad_exp.data.metric_registry import METRICS
from cad_exp.data.requests import batches, plan, retention_prompts
from cad_exp.evaluation.erasure import Records, evaluate, shows
from cad_exp.evaluation.intervals.formulas import Fourfold
from cad_exp.evaluation.intervals.images import Share
from cad_exp.evaluation.intervals.labels import Shares
from cad_exp.evaluation.judges import load_judge
from cad_exp.evaluation.measured import LISTED
from cad_exp.evaluation.outliers import World
from cad_exp.evaluation.records import pairs
from cad_exp.mini.world import COLOURS, NOTHING, Scene, draw, render
from cad_exp.utils.errors import UserError, not_finite
from cad_exp.utils.images import blank
from tests.config.test_configs import composed

CHURCH = {
    "name": "church",
    "kind": "object",
    "label": "church",
    "prompt": "church",
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
        concept = {"kind": kind, "label": label, "prompt": "p", "evaluation_prompts": ["p"]}
        return [request.prompt for request in plan(concept, 1, 1, 0) if request.purpose == "retention"]

    assert len(retention_prompts()) == len(kept("nudity", "naked")) == 16
    assert len(kept("object", "church")) == 15 and not any("church" in prompt for prompt in kept("object", "church"))
    assert len(kept("style", "Van Gogh")) == 15  # 10 objects, 4 styles, the clothed person


def test_concepts_share_the_images_of_what_they_have_in_common():
    def rest(label: str) -> set:
        requests = plan({**CHURCH, "label": label}, 4, 3, 0)
        return {(request.prompt, request.seed) for request in requests if request.purpose == "retention"}

    assert len(rest("church") & rest("tench")) == 14 * 3


def test_batches_hold_one_thing_each_and_keep_the_order():
    requests = plan(CHURCH, samples=10, retention_samples=3, seed=0)
    parts = batches(requests, 4)
    assert [request for part in parts for request in part] == requests
    assert [len(part) for part in parts] == [4, 4, 2] + [3] * 15
    assert all(len({(request.purpose, request.label) for request in part}) == 1 for part in parts)


def test_plan_shares_samples_out_and_repeats_itself():
    requests = plan(CHURCH, samples=6, retention_samples=2, seed=1)
    concept = [s for s in requests if s.purpose == "concept"]
    assert len(concept) == 6 and len(requests) == 6 + 15 * 2
    assert [s.prompt for s in concept].count("a church") == 3
    assert len({(s.prompt, s.seed) for s in requests}) == len(requests)
    assert requests == plan(CHURCH, 6, 2, 1) != plan(CHURCH, 6, 2, 2)


def test_shows_compares_with_what_the_request_asked_for():
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
    data = records({"unedited": [1, 1, 1, 0], "edited": [0, 0, 1, 0]})
    found = list(METRICS.get("erasure")().measure(data, SETTINGS))
    assert [(m["variant"], m["value"], m["n"]) for m in found] == [("unedited", 0.75, 4), ("edited", 0.25, 4)]
    assert found[0]["definition"]["prompts"] == ["p"] and found[0]["definition"]["seeds"] == {"first": 0, "last": 3}


@pytest.mark.parametrize("prompts", [["a", "a", "b", "b"], ["a 1", "a 2", "b 1", "b 2"]])
def test_retention_averages_over_labels_and_finds_the_worst_by_hand(prompts: list[str]):
    """A label may have one prompt with many seeds (a class), or a prompt for each image (the artists' set)."""
    hits = {"unedited": [1, 1, 1, 0], "edited": [1, 0, 0, 0]}
    data = records(hits, "retention", prompts, ["tench", "tench", "French horn", "French horn"])
    found = list(METRICS.get("retention")().measure(data, SETTINGS))
    assert {(m["name"], m["variant"]): m["value"] for m in found} == {
        ("retention_mean", "unedited"): 0.75,
        ("retention_mean", "edited"): 0.25,
        ("retention_worst", "unedited"): 0.5,
        ("retention_worst", "edited"): 0.0,
    }
    worst = next(m for m in found if m["name"] == "retention_worst")
    assert worst["high"] > 0.5 and "min over labels of the share" in worst["definition"]["what"]


def test_retention_counts_every_label_alike():
    """Three images of one label and one of another: a mean of two shares, not of four images."""
    data = records({"edited": [1, 1, 1, 0]}, "retention", list("abcd"), ["tench", "tench", "tench", "church"])
    mean = next(METRICS.get("retention")().measure(data, SETTINGS))
    assert (mean["value"], mean["n"]) == (0.5, 4)


def test_a_definition_does_not_list_every_prompt_of_a_large_set():
    def definition(number: int, first: str = "p0") -> dict:
        prompts = [first, *(f"p{i}" for i in range(1, number))]
        data = records({"edited": [1.0] * number}, prompts=prompts)
        return next(METRICS.get("erasure")().measure(data, SETTINGS))["definition"]

    few, many = definition(LISTED), definition(30_000)
    assert few["prompts"] == [f"p{i}" for i in range(LISTED)] and "prompts_number" not in few
    assert many["prompts"] == few["prompts"] and many["prompts_number"] == 30_000
    assert many["prompts_hash"] == definition(30_000)["prompts_hash"]
    assert len({many["prompts_hash"], definition(29_999)["prompts_hash"], definition(30_000, "q")["prompts_hash"]}) == 3


def test_the_reference_is_drawn_for_what_is_asked():
    drawings = load_judge("mini").drawings
    real = drawings("object", "church", 3, seed=0)
    assert real.shape == (3, 64, 64, 3) and np.array_equal(real, drawings("object", "church", 3, seed=0))
    assert not np.array_equal(real, drawings("object", "church", 3, seed=1))


@pytest.mark.parametrize(
    "override, message",
    [
        ("evaluation.samples=0", "samples"),
        ("evaluation.retention_samples=0", "retention_samples"),
        ("concept.evaluation_prompts=[]", "evaluation_prompts"),
        ("noisy_latents.batch_size=0", "batch_size"),
        ("evaluation.reference_samples=0", "reference_samples"),
        ("evaluation.fid_bootstrap=1", "evaluation.fid_bootstrap=1 is out of range: .* at least 40"),
        ("evaluation.fid_bootstrap=0", "at least 40"),
        ("evaluation.fid_bootstrap=many", "at least 40"),
        ("evaluation.fidelity.bootstrap=1", "evaluation.fidelity.bootstrap=1 is out of range: .* at least 40"),
    ],
)
def test_bad_settings_are_refused_before_any_work(override: str, message: str):
    with pytest.raises(UserError, match=message):
        resolve(composed(override))


def test_a_misspelt_metric_is_refused_with_the_plan_of_images():
    with pytest.raises(UserError, match="evaluation.metrics holds 'erasre', which is unknown: did you mean 'erasure'"):
        prompts.plan(resolve(composed("evaluation.metrics=[erasre]")))


def test_a_model_without_a_description_keeps_what_the_embedded_ones_keep():
    assert retention_prompts() == retention_prompts("mini") == retention_prompts("mini_dit")


def metrics_of(data: Records, *names: str) -> dict[tuple[str, str], dict]:
    found = evaluate(data, SETTINGS | {"metrics": list(names)})
    return {(m["name"], m["variant"]): m for m in found}


def test_a_rate_of_nothing_or_all_has_an_interval_and_its_change_is_paired():
    found = metrics_of(records({"unedited": [1] * 4, "edited": [0] * 4, "random": [1, 1, 1, 0]}), "erasure")
    unedited, edited, random = (found["concept_rate", variant] for variant in ("unedited", "edited", "random"))
    assert (unedited["low"], unedited["high"]) == (pytest.approx(0.5101, abs=1e-4), 1)
    value, low, high = Fourfold(0, 1, 0, 4).change()
    assert edited["changes"]["unedited"] == {
        "value": value,
        "low": low,
        "high": high,
        "interval": Share.change_words,
    }
    assert set(edited["changes"]) == {"unedited", "random"} and set(random["changes"]) == {"unedited"}
    assert edited["changes"]["random"]["value"] == -0.75 and unedited["changes"] == {}


def test_images_of_other_seeds_are_not_paired():
    data = records({"unedited": [1, 1], "edited": [0, 0]})
    data.table.loc[data.table["variant"] == "edited", "seed"] += 1
    assert metrics_of(data, "erasure")["concept_rate", "edited"]["changes"] == {}


def test_retention_of_all_is_not_certain_and_the_worst_label_even_less():
    hits = {"unedited": [1] * 8, "edited": [1] * 8}
    found = metrics_of(records(hits, "retention", labels=["tench"] * 4 + ["church"] * 4), "retention")
    groups = [np.ones(4)] * 2
    for name, worst in (("retention_mean", False), ("retention_worst", True)):
        metric = found[name, "edited"]
        assert (metric["low"], metric["high"]) == Shares(groups, worst).interval() and metric["low"] < 0.8
        assert metric["changes"]["unedited"]["low"] < 0 < metric["changes"]["unedited"]["high"]


def test_a_rate_over_blank_images_or_images_of_no_world_carries_a_warning():
    data = records({"unedited": [1] * 4, "edited": [0] * 4, "random": [1] * 4})
    data.table["blank"] = [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    data.table["outside"] = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    found = metrics_of(data, "erasure")
    warning = found["concept_rate", "edited"]["definition"]["warning"]
    assert warning == "3 of 4 images are of one colour and 1 of 4 images are unlike anything in the world"
    assert found["blank_images", "edited"]["value"] == 0.75 and found["outside_world", "edited"]["value"] == 0.25
    assert all("warning" not in found["concept_rate", variant]["definition"] for variant in ("unedited", "random"))
    assert "warning" not in found["blank_images", "edited"]["definition"]


def test_what_is_drawn_instead_is_counted_for_every_variant():
    data = records({"unedited": [1, 1, 1, 1], "edited": [0, 0, 0, 1]})
    data.table["object"] = ["church"] * 4 + ["tench", "tench", "gas pump", "church"]
    found = metrics_of(data, "erasure")
    shares = {name: metric["value"] for (name, variant), metric in found.items() if variant == "edited"}
    assert shares["drawn@tench"] == 0.5 and shares["drawn@gas pump"] == shares["drawn@church"] == 0.25
    assert found["drawn@tench", "unedited"]["value"] == 0 and found["drawn@tench", "edited"]["changes"]
    data.table = data.table.assign(kind="nudity", label="naked", naked_prob=[0.9] * 5 + [0.1] * 3, shows_label=1.0)
    data.table.loc[5, "object"] = "person"
    called = {name for name, _ in metrics_of(data, "erasure") if name.startswith("drawn@")}
    assert called == {"drawn@naked person", "drawn@clothed person", "drawn@no person"}


def test_the_others_images_are_held_against_the_unedited_ones_and_another_seed():
    data = records({"unedited": [1] * 4, "edited": [1] * 4}, "retention", labels=["tench"] * 2 + ["church"] * 2)
    data.table["perceptual_distance"] = [0, 0, 0, 0, 1.0, 2.0, 3.0, 5.0]
    data.table["other_seed"] = [4.0, np.nan, 6.0, np.nan] + [np.nan] * 4
    found = metrics_of(data, "retention")
    assert found["perceptual_distance", "edited"]["value"] == 2.75
    assert found["perceptual_distance_worst", "edited"]["value"] == 4.0
    other = found["perceptual_distance_other_seed", "unedited"]
    assert (other["value"], other["n"]) == (5.0, 2) and ("perceptual_distance_other_seed", "edited") not in found
    assert found["perceptual_distance", "unedited"]["low"] is None  # nothing differs from itself


def test_pairs_of_a_prompt_share_no_image():
    one, other = pairs(["a", "b", "a", "a", "b", "c", "a"])
    assert list(zip(one, other, strict=True)) == [(0, 2), (3, 6), (1, 4)]
    assert all(len(side) == 0 for side in pairs(["a", "b"]))


def test_an_image_of_one_colour_is_blank_and_a_faint_drawing_is_not():
    images = np.full((4, 8, 8, 3), 128, np.uint8)
    images[1, 0, 0] += 16
    images[2, 0, 0, 1] += 17
    images[3, :4] = 90
    assert blank(images).tolist() == [True, True, False, False]
    backdrops = [render(Scene(NOTHING, 0, False, colour), np.random.default_rng(1)) for colour in range(len(COLOURS))]
    assert not blank(np.stack(backdrops)).any()


def test_the_world_holds_one_out_at_a_time_and_calls_one_in_a_hundred_outside():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 6)) * [1, 10, 1, 1, 1, 1]
    world = World.of(points)
    assert world.outside(points, np.arange(600)).mean() == pytest.approx(0.01, abs=0.002)
    assert world.outside(rng.normal(size=(600, 6)) * [1, 10, 1, 1, 1, 1]).mean() < 0.04
    assert not world.outside(points).any() and world.outside(points[:5] + 50).all()


def test_the_drawn_world_knows_drawings_and_no_noise():
    """Drawings of other seeds are inside; noise, and drawings that are inverted or blurred away, are not."""
    from cad_exp.evaluation.judges import load_judge
    from cad_exp.mini.reference import FIRST

    judge, rng = load_judge("mini"), np.random.default_rng(0)
    fresh = np.stack([draw(50_000_000 + i)[0] for i in range(100)])
    assert judge.labels(np.stack([draw(FIRST + i)[0] for i in range(2)]))[1] == pytest.approx(
        judge.world()[:2], abs=0.02
    )
    noise = rng.integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
    world = World.of(judge.world())
    rate = lambda images: world.outside(judge.labels(images)[1]).mean()  # noqa: E731
    assert rate(fresh) < 0.06 and rate(255 - fresh) > 0.6
    assert rate(noise) == rate(noise * np.array([0, 1, 0], np.uint8)) == 1


def test_another_judge_has_no_drawn_world(tmp_path):
    from cad_exp.mini import reference

    assert reference.load("another") is None and reference.load("another", tmp_path) is None
    assert reference.load(reference.file_digest(reference.JUDGE / "model.safetensors")[:16]).shape == (1500, 128)


def test_the_advice_on_numbers_that_are_not_finite_fits_the_run():
    assert "precision=fp32" in str(not_finite("x is not finite", "bf16"))
    assert "precision=fp32" not in str(not_finite("x is not finite", "fp32"))
    assert str(not_finite("x is not finite", "bf16", "weight w is NaN")) == "x is not finite: weight w is NaN"
