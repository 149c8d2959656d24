"""Lights tell what the verdict tells, and never more."""

import pytest

from cad_exp.evaluation import lights, verdict
from cad_exp.evaluation.lights import FAIR, GOOD, POOR, UNKNOWN
from cad_exp.evaluation.verdict.of_edit import IS_GONE, IS_MORE


def metric(name: str, value: float, variant: str = "attribution", width: float = 0.0, **more) -> dict:
    base = {"name": name, "variant": variant, "value": value, "low": value - width, "high": value + width, "n": 64}
    return base | {"higher_is_better": False, "definition": {}, "changes": {}} | more


def rates(
    edited: float, unedited: float = 1.0, random: float = 1.0, width: float = 0.05, more: bool = False
) -> list[dict]:
    found = {"edited": edited, "unedited": unedited, "random": random}
    return [metric("concept_rate", found[each], each, width, higher_is_better=more) for each in found]


def kept(mean: float, worst: float = 1.0, moved: float = 0.2, control: float = 0.2, blank: float = 0.0) -> list[dict]:
    others = [metric("perceptual_distance", moved, "edited"), metric("perceptual_distance", control, "random")]
    others.append(metric("blank_images_retention", blank, "edited"))
    return [metric("retention_mean", mean, "edited"), metric("retention_worst", worst, "edited"), *others]


def light(number: int, metrics: list[dict]) -> tuple[str, str]:
    found = lights.of(metrics)[number]
    return found.word, found.level


@pytest.mark.parametrize(
    ("metrics", "word", "level"),
    [
        ([metric("stability_spearman", 0.95), metric("stability_overlap@0.05", 0.9)], "stable", GOOD),
        ([metric("stability_spearman", 0.95), metric("stability_overlap@0.05", 0.5)], "not stable", POOR),
        (
            [metric("stability_spearman", 0.95), metric("sanity_random_weights", 0.9)],
            "the same with shuffled weights",
            POOR,
        ),
        ([], "not asked", UNKNOWN),
    ],
)
def test_is_the_ranking_stable(metrics, word: str, level: str):
    assert light(0, metrics) == (word, level)


@pytest.mark.parametrize(
    ("sign", "r2", "pearson", "word", "level"),
    [
        (0.95, 0.8, 0.9, "right", GOOD),
        (0.95, 0.1, 0.9, "right in sign, not in size", FAIR),
        (0.7, -1.0, 0.9, "in the right order only", FAIR),
        (0.6, -1.0, 0.1, "no better than a guess", POOR),
        (0.1, -1.0, 0.9, "in the right order with the wrong sign", FAIR),
        (0.1, -1.0, 0.1, "the wrong way", POOR),
    ],
)
def test_are_predicted_effects_right(sign: float, r2: float, pearson: float, word: str, level: str):
    found = {"sign": sign, "r2": r2, "pearson": pearson}
    one = [metric(f"fidelity_{name}@0.05", value, width=0.01) for name, value in found.items()]
    assert light(1, one) == (word, level)
    good = [metric(f"fidelity_{name}@0.2", 0.99, width=0.001) for name in found]
    if level != GOOD:
        assert light(1, [*one, *good]) == (f"{word} at 5 %, right at 20 %", FAIR)


def test_predictions_that_count_interactions_are_a_light_of_their_own():
    wrong = [metric(f"fidelity_{name}@0.2", value) for name, value in (("sign", 0.1), ("r2", -9.0), ("pearson", 0.9))]
    right = [metric(f"second_order_{name}@0.2", 0.95) for name in ("sign", "r2", "pearson")]
    # The scores that the page shows are sums.
    assert light(1, wrong + right) == ("with interactions yes, by sums of scores no", FAIR)
    neither = [each | {"value": 0.1, "low": 0.1, "high": 0.1} for each in right]
    assert light(1, wrong + neither) == ("in the right order with the wrong sign", FAIR)


@pytest.mark.parametrize(
    ("metrics", "word", "level"),
    [
        (rates(0.02), IS_GONE, GOOD),
        (rates(0.08), "the concept is almost gone", FAIR),
        (rates(0.5), "the concept is weaker but not gone", FAIR),
        (rates(0.98), "no erasure can be told from chance", POOR),
        (rates(0.02, random=0.05), "the concept is gone, but a random edit may do as much", FAIR),
        (rates(0.02, unedited=0.1), "little to change, so little is proved", UNKNOWN),
        (rates(0.9, unedited=0.5, random=0.5, more=True), IS_MORE, GOOD),
        (rates(0.52, unedited=0.5, random=0.5, more=True), "no amplification can be told from chance", POOR),
        ([metric("fid", 3.0, "edited")], "not measured", UNKNOWN),
    ],
)
def test_is_the_concept_erased(metrics, word: str, level: str):
    assert light(2, metrics) == (word, level)
    assert (
        word in ("not measured", "little to change, so little is proved")
        or word[:19].lower() in verdict.edit(metrics).lower()
    )


def test_a_concept_that_ends_in_damage_is_not_called_gone():
    damaged = [*rates(0.0), metric("outside_world", 0.61, "edited")]
    assert light(2, damaged) == ("the concept is not seen any more, in damaged images", FAIR)
    said = verdict.edit(damaged)
    assert (
        said.startswith("The concept is not seen any more (rate from 1.00 to 0.00") and "61% of the concept's" in said
    )
    others = [*rates(0.0), metric("outside_world_retention", 0.61, "edited")]
    assert light(2, others) == (IS_GONE, GOOD) and verdict.edit(others).startswith("The concept is gone")


@pytest.mark.parametrize(
    ("metrics", "word", "level"),
    [
        (kept(0.99), "others are kept", GOOD),
        (kept(0.99, moved=0.4), "other images change more than by a random edit", FAIR),
        (kept(0.5), "other prompts suffer", POOR),
        (kept(0.99, worst=0.1), "other prompts suffer", POOR),
        (kept(0.99, blank=0.9), "images are damaged", POOR),
        ([], "not measured", UNKNOWN),
    ],
)
def test_what_did_it_cost(metrics, word: str, level: str):
    assert light(3, metrics) == (word, level)
