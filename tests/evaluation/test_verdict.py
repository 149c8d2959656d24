"""The verdict: every branch by hand, and no combination of metrics that makes it stumble."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cad_exp.evaluation import verdict
from cad_exp.reporting.summary import show_run


def metric(name, value, low=None, high=None, variant="attribution", **more):
    return {"name": name, "variant": variant, "value": value, "low": low, "high": high} | more


def study(rate, sign, r2, pearson=0.9, wide=0.1):
    """Metrics of ablations at one rate; every interval reaches `wide` to both sides."""
    found = {"sign": sign, "r2": r2, "pearson": pearson}
    return [metric(f"fidelity_{name}{rate}", value, value - wide, value + wide) for name, value in found.items()]


def counted(rate, sign, r2):
    return [row | {"name": row["name"].replace("fidelity", "second_order")} for row in study(rate, sign, r2)]


def ranking(spearman, overlap=0.9):
    return [metric("stability_spearman", spearman), metric("stability_overlap@0.05", overlap)]


STEADY, SHAKY = ranking(0.93), ranking(0.86)


@pytest.mark.parametrize(
    "metrics, said",
    [
        ([], ""),
        (STEADY + study("@0.05", 1.0, 0.9) + study("@0.2", 0.98, 0.8), "use the scores as effects"),
        (
            SHAKY + study("@0.05", 1.0, 0.9),
            "The ranking is not stable, but at 5 % predicted effects are right in sign and size: trust the effect of",
        ),
        (
            STEADY + study("@0.05", 0.6, -2.1) + study("@0.2", 0.0, -29),
            "The ranking is stable, but at 5 % predicted effects are in the right order but wrong in sign or size, "
            "at 20 % they are in the right order with the wrong sign: use the scores as a ranking, not as effects.",
        ),
        (STEADY + study("@0.2", 1.0, -1.0), "right in sign but not in size: use the scores as a ranking, not as"),
        (STEADY + study("@0.2", 0.0, -29, pearson=0.1), "point the wrong way: do not use the scores"),
        (STEADY + study("@0.2", 0.5, -1, pearson=0.05), "no better than a guess: do not use the scores"),
        (SHAKY + study("@0.2", 0.5, -1, pearson=0.05), "do not build on them before noisy_latents.samples is larger"),
        (ranking(0.95, overlap=0.7), "The ranking is not stable: do not build on them"),
        (ranking(None), "The ranking is not stable"),
        (STEADY, "The ranking is stable: use the scores as a ranking, and not as effects, which were not checked"),
        (
            study("@0.05", 1.0, 0.9),
            "At 5 % predicted effects are right in sign and size: use the scores as",
        ),
        (STEADY + study("_single", 1.0, 0.9), "one at a time predicted effects are right"),
        (STEADY + study("_top@0.05", 1.0, 0.9), "at 5 % of the top-scored predicted effects are right"),
        # random ablations go before those of the top-scored
        (
            STEADY + study("_top@0.05", 0.0, -9) + study("@0.05", 1.0, 0.9),
            "right in sign and size: use the scores as effects",
        ),
        (STEADY + [metric("sanity_random_weights", 0.8)], "hardly change with shuffled weights"),
        (STEADY + [metric("sanity_other_concept", -0.8)], "hardly change with another concept"),
        # 9 of 10 signs, but of so few ablations that a coin could do it
        (STEADY + study("@0.05", 0.9, 0.9, wide=0.45), "in the right order but wrong"),
    ],
)
def test_scores(metrics, said):
    told = verdict.scores(metrics)
    assert said in told and told.endswith("." if said else "") and told.count(". ") == 0
    assert verdict.scores(metrics[::-1]).endswith(told.rpartition(":")[2]), "the order of metrics changes no advice"


def test_predictions_that_count_interactions_are_said_beside_the_sums():
    wrong = STEADY + study("@0.05", 0.6, -2.1) + study("@0.2", 0.0, -29)
    told = verdict.scores(wrong + counted("@0.05", 1.0, 0.95) + counted("@0.2", 1.0, 0.9))
    assert told.startswith(verdict.scores(wrong)) and "use the scores as a ranking, not as effects. " in told
    assert told.endswith(" With interactions counted, at 5 % and 20 % predicted effects are right in sign and size.")
    told = verdict.scores(wrong + counted("@0.05", 1.0, 0.95) + counted("@0.2", 0.6, -1))
    assert told.endswith("are right in sign and size, at 20 % they are in the right order but wrong in sign or size.")


def test_stable_is_what_the_agreement_calls_stable():
    import torch

    from cad_exp.evaluation.fidelity.statistics import stability

    scores = torch.arange(200.0)
    for swapped in range(0, 10, 2):
        other = scores.clone()
        other[torch.cat([torch.arange(swapped), 199 - torch.arange(swapped)])] += 0.5
        other[:swapped], other[200 - swapped :] = other[200 - swapped :].clone(), other[:swapped].clone()
        found = stability([scores, other])
        told = ranking(found["spearman"], found["overlap"][0.05])
        assert verdict.stable(told) == found["stable"]
    assert verdict.stable([]) is None


def rates(before, after, control=None, more=False, **changes):
    found = {"unedited": before, "edited": after, "random": control}
    return [
        metric("concept_rate", *value, variant=variant, higher_is_better=more, changes=changes)
        for variant, value in found.items()
        if value
    ]


ALL, NONE = (1.0, 0.94, 1.0), (0.0, 0.0, 0.06)


def kept(mean, worst):
    return [metric("retention_mean", mean, variant="edited"), metric("retention_worst", worst, variant="edited")]


def moved(edited, random=None, seed=None):
    found = [("perceptual_distance", "edited", edited), ("perceptual_distance", "random", random)]
    found.append(("perceptual_distance_other_seed", "unedited", seed))
    return [metric(name, v, v - 0.1, v + 0.1, variant=variant) for name, variant, v in found if v is not None]


@pytest.mark.parametrize(
    "metrics, said",
    [
        ([], ""),
        (
            rates(ALL, NONE, ALL),
            "The concept is gone (rate from 1.00 to 0.00, at most 0.06), unlike by a random edit (1",
        ),
        # 6 of 64: the interval reaches 19 %, so it is not called gone
        (rates(ALL, (0.094, 0.04, 0.19)), "The concept is almost gone (rate from 1.00 to 0.09, at most 0.19)."),
        (rates(ALL, (0.0, 0.0, 0.49)), "almost gone (rate from 1.00 to 0.00, at most 0.49)"),
        (rates(ALL, (0.4, 0.3, 0.5)), "weaker but not gone"),
        (
            rates(ALL, (0.97, 0.9, 0.99), ALL),
            "No erasure can be told from chance (rate from 1.00 to 0.97, at most 0.99).",
        ),
        # overlapping intervals, but a paired change that is certain
        (rates(ALL, (0.97, 0.9, 0.99), unedited={"low": -0.06, "high": -0.01}), "weaker but not gone"),
        (
            rates(ALL, NONE, (0.02, 0.0, 0.08)),
            "gone (rate from 1.00 to 0.00, at most 0.06), but not certainly more so than by a random edit (0.02)",
        ),
        (
            rates((0.1, 0.05, 0.2), NONE),
            "The model hardly showed the concept before (rate 0.10), so",
        ),
        (
            rates((0.3, 0.2, 0.4), (0.8, 0.7, 0.9), (0.3, 0.2, 0.4), more=True),
            "drawn more often (rate from 0.30 to",
        ),
        (rates((0.3, 0.2, 0.4), (0.35, 0.25, 0.45), more=True), "No amplification can be told from chance"),
        (rates(ALL, ALL, more=True), "always showed the concept before"),
        (
            kept(0.98, 0.83),
            "Whether the concept is gone was not measured; other prompts still show what",
        ),
        (rates(ALL, NONE) + kept(0.98, 0.5), "other prompts suffer (0.98 on average, 0.50 at worst)"),
        (rates(ALL, NONE) + moved(0.5), "their images change (0.50)."),
        (rates(ALL, NONE) + moved(0.5, 0.6, 1.2), "their images change (0.50, random edit 0.60, another seed 1.20)"),
        (
            rates(ALL, NONE) + moved(1.2, 0.8),
            "but their images change more than by a random edit (1.20, random edit",
        ),
        (rates(ALL, NONE) + moved(1.2, 0.8, 1.1), "change as much as with another seed"),
        (
            rates(ALL, NONE) + [metric("blank_images", 1.0, variant="edited")],
            "but 100% of the concept's images are blank: that is damage and no erasure",
        ),
        (
            rates(ALL, NONE) + [metric("outside_world_retention", 0.7, variant="edited")],
            "but 70% of the other prompts' images are like nothing the model was made for",
        ),
    ],
)
def test_edit(metrics, said):
    told = verdict.edit(metrics)
    assert said in told and told.endswith("." if said else "")


ENDS = ("@0.05", "@0.2", "_top@0.2", "_single")
NAMES = ["concept_rate", "retention_mean", "retention_worst", "perceptual_distance", "perceptual_distance_other_seed"]
NAMES += ["blank_images", "outside_world", "outside_world_retention", "stability_spearman", "stability_overlap@0.05"]
NAMES += [
    f"fidelity_{name}{end}" for name in ("pearson", "sign", "r2") for end in ("@0.05", "@0.2", "_top@0.2", "_single")
]
NAMES += ["sanity_random_weights", "fid", "fidelity_bias@0.2"]
NUMBERS = st.none() | st.floats(-30, 30) | st.just(float("nan"))
CHANGES = st.fixed_dictionaries({}, optional={"unedited": st.fixed_dictionaries({"low": NUMBERS, "high": NUMBERS})})
METRIC = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES), "variant": st.sampled_from(["attribution", "unedited", "edited", "random"])}
    | {key: NUMBERS for key in ("value", "low", "high")},
    optional={"higher_is_better": st.none() | st.booleans(), "changes": st.none() | CHANGES, "n": st.integers(0, 99)},
)


@settings(max_examples=400, deadline=None)
@given(st.lists(METRIC, max_size=12))
def test_any_metrics_give_two_sentences(metrics):
    found = verdict.of(metrics)
    assert set(found) == {"scores", "edit"}
    for sentence in found.values():
        assert not sentence or (sentence.endswith(".") and sentence[0].isupper() and sentence.isprintable())
        assert "nan" not in sentence and "None" not in sentence
    json.dumps(found)


def test_the_terminal_ends_with_the_verdict(tmp_path, capsys):
    run = {"concept": "church", "granularity": "neuron", "edit": "erase"}
    content = {"run": run | {"verdict": {"scores": "The ranking [is] stable.", "edit": ""}}, "metrics": []}
    show_run(content, tmp_path)
    assert capsys.readouterr().out.rstrip().splitlines()[-1] == "scores  The ranking [is] stable."
    show_run({"run": run, "metrics": []}, tmp_path)  # a run of before there were verdicts
