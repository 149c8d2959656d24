"""Metrics of a probe map, on a table written by hand."""

import numpy as np
import pandas as pd
import pytest

from cad_exp.evaluation.intervals.formulas import wilson
from cad_exp.evaluation.probing import metrics, shares, verdict
from cad_exp.evaluation.variants import COMPONENTS, LATENT, NETWORK, PIXELS, UNTRAINED


def row(source: str, hookpoint: str, t: int, validation: float, accuracy: float, gain: float = float("nan")) -> dict:
    return {
        "label": "object", "source": source, "hookpoint": hookpoint, "order": 0, "t": t, "classes": 4, "chance": 0.25,
        "accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "gain": gain, "gain_low": gain - 0.05,
        "gain_high": gain + 0.05, "validation": validation, "strength": 1.0, "n": 40,
    }  # fmt: skip


TABLE = pd.DataFrame(
    [
        row(LATENT, "noisy_latent", 1, 0.8, 0.79),
        row(LATENT, "noisy_latent", 500, 0.4, 0.41),
        row(NETWORK, "early", 1, 0.9, 0.85, 0.06),
        row(NETWORK, "early", 500, 0.5, 0.6, 0.19),
        row(NETWORK, "late", 1, 0.85, 0.95, 0.16),  # better on the test images, but not chosen
        row(NETWORK, "late", 500, 0.7, 0.65, 0.24),
        row(UNTRAINED, "late", 1, 0.6, 0.55, -0.24),
        row(PIXELS, "", -1, 0.7, 0.7),
        row(COMPONENTS, "", -1, 0.6, 0.6),
    ]
)


def test_places_are_chosen_by_validation_images():
    found = {(metric["name"], metric["variant"]): metric for metric in metrics(TABLE)}
    best = found["accuracy@object", NETWORK]
    assert (best["value"], best["definition"]["hookpoint"], best["definition"]["t"]) == (0.85, "early", 1)
    assert found["accuracy@object", LATENT]["value"] == 0.79 and found["accuracy@object", UNTRAINED]["value"] == 0.55
    assert (
        found["accuracy@object", PIXELS]["value"] == 0.7 and found["accuracy@object", PIXELS]["definition"]["t"] is None
    )
    gain = found["gain@object", NETWORK]
    assert (gain["value"], gain["definition"]["hookpoint"], gain["definition"]["t"]) == (0.24, "late", 500)
    assert found["accuracy@object@500", NETWORK]["value"] == 0.65
    assert best["definition"]["chance"] == 0.25 and gain["definition"]["chance"] == 0.0


def test_the_verdict_says_where():
    assert verdict(TABLE) == {
        "object": "Read best at t = 1, in early (0.85); the network adds most to its input at t = 500, in late (+0.24)."
    }
    lost = TABLE.assign(low=0.2, gain_low=-1.0)
    said = "Not surely read better than by chance (0.25): best at t = 1, in early (0.85); no gain over its input can"
    assert verdict(lost)["object"] == f"{said} be told."
    unsure = TABLE.assign(gain_low=-1.0)
    assert verdict(unsure)["object"].endswith("no gain over its input can be told.")


def test_balanced_accuracy_and_its_interval():
    """Of class 0 one of two, of class 1 four of four: .75, as sure as one share of 2^2 / (1/2 + 1/4) images."""
    found = shares(np.array([1, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1]))
    assert found.value == 0.75 and found.interval() == pytest.approx(wilson(0.75, 4 / 0.75))
