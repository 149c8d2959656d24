"""What results.json gets of a dictionary."""

import json

import numpy as np
import pytest
from scipy import sparse

from cad_exp.evaluation.monosemanticity.absorption import absorption
from cad_exp.evaluation.monosemanticity.matching import shared
from cad_exp.evaluation.monosemanticity.metrics import measure, metrics
from cad_exp.evaluation.monosemanticity.splitting import splitting
from cad_exp.evaluation.monosemanticity.widths import absorption_metrics, shared_metrics, splitting_metric
from cad_exp.evaluation.variants import LATENT, NETWORK, UNTRAINED
from cad_exp.reporting.results import Results
from cad_exp.reporting.schema import FIELDS
from cad_exp.representations.probes.base import split_images
from tests.evaluation.dictionaries import balanced, perfect, random, task

CLASSES = balanced(240, 4)
LABELS = {"object": CLASSES, "constant": np.zeros(240, int)}
SPLIT = split_images(240, 0)
NAMES = {"purity", "pure_latents", "label_entropy", "sigma_label", "f1"}


@pytest.fixture(scope="module")
def listed() -> list[dict]:
    own = measure(perfect(CLASSES, 2), LABELS, SPLIT, ks=(1, 2))
    rival = measure(random(240, 50), LABELS, SPLIT, ks=(1, 2))
    return [*metrics(NETWORK, own, {NETWORK: own, UNTRAINED: rival}), *metrics(UNTRAINED, rival)]


def test_every_measure_is_there_with_definition_interval_and_chance(listed):
    names = {f"{each}@object" for each in NAMES} | {"sparse_probe@object@1", "sparse_probe@object@2"}
    assert {(each["name"], each["variant"]) for each in listed} == {(n, v) for n in names for v in (NETWORK, UNTRAINED)}
    results = Results(None, {})
    for each in listed:
        assert set(each) == set(FIELDS) and each["definition"]["interval"].startswith("95 %")
        chance, better = each["definition"]["chance"], 1 if each["higher_is_better"] else -1
        if each["variant"] == NETWORK:
            assert better * (each["value"] - chance) > 0.1
        assert each["low"] is None or each["low"] <= each["value"] <= each["high"]
        results.add(each)
    json.dumps(results.as_dict(), allow_nan=False)


def test_changes_point_to_the_better_dictionary(listed):
    for each in listed:
        if each["variant"] == UNTRAINED or each["name"] == "pure_latents@object":
            assert each["changes"] == {}
            continue
        assert set(each["changes"]) == {UNTRAINED}  # never against itself
        change, better = each["changes"][UNTRAINED], 1 if each["higher_is_better"] else -1
        rival = next(o for o in listed if o["name"] == each["name"] and o["variant"] == UNTRAINED)
        assert change["value"] == pytest.approx(each["value"] - rival["value"])
        assert min(better * change["low"], better * change["high"]) > 0 and change["low"] <= change["high"]


def test_numbers_say_of_what(listed):
    found = {each["name"]: each for each in listed if each["variant"] == NETWORK}
    assert found["purity@object"]["n"] == 8 and found["f1@object"]["n"] == len(SPLIT.test)
    assert found["purity@object"]["definition"]["dead"] == 0 and found["purity@object"]["definition"]["classes"] == 4
    assert found["sparse_probe@object@2"]["definition"]["k"] == 2
    assert found["sparse_probe@object@1"]["definition"]["chance"] == 0.25
    assert len(found["sigma_label@object"]["definition"]["renumbered"]) == 2


def test_a_dead_dictionary_has_no_purity_and_reads_at_chance():
    own = measure(sparse.csr_matrix((240, 5)), LABELS, SPLIT, ks=(1,))
    alive = measure(perfect(CLASSES), LABELS, SPLIT, ks=(1, 2))
    found = {each["name"]: each["value"] for each in metrics(LATENT, own)}
    assert found == {"sparse_probe@object@1": 0.25, "f1@object": 0.0}
    changes = {each["name"]: set(each["changes"]) for each in metrics(NETWORK, alive, {LATENT: own})}
    assert changes["f1@object"] == changes["sparse_probe@object@1"] == {LATENT}
    assert changes["purity@object"] == changes["sparse_probe@object@2"] == set()


def test_widths_have_their_metrics():
    own, decoder = task(CLASSES), np.repeat(np.eye(4), 2, 0)
    narrow, wide = splitting(perfect(CLASSES), own), splitting(perfect(CLASSES, 2), own)
    split = splitting_metric(NETWORK, "object", wide, {UNTRAINED: narrow})
    assert (split["value"], split["changes"][UNTRAINED]["value"], split["n"]) == (2, 1, 4)
    assert 0.5 < split["definition"]["f1_of_one"] < 0.9 and split["definition"]["f1_of_all"] == 1
    features = np.eye(4)[CLASSES]
    one = [np.array([c * 2]) for c in range(4)]  # the class's second latent speaks where the first is silent
    found = absorption(perfect(CLASSES, 2), decoder, features, own, one)
    none = absorption(perfect(CLASSES, 2), decoder, features, own, wide.mains)
    first, second = absorption_metrics(NETWORK, "object", found, {UNTRAINED: none})
    assert (first["name"], second["name"]) == ("absorption@object", "silence@object")
    assert 0.3 < first["value"] == second["value"] == first["changes"][UNTRAINED]["value"] < 0.7
    assert first["definition"]["chance"] < first["value"] and first["n"] == len(SPLIT.test)
    (pair,) = shared_metrics(NETWORK, "seed 1", shared(decoder, decoder, np.arange(8) < 6))
    assert (pair["name"], pair["value"], pair["n"]) == ("shared_latents@seed 1", 1, 6)
    assert (
        pair["definition"]["dead"] == 2
        and list(shared_metrics(NETWORK, "x", shared(decoder, decoder, np.zeros(8)))) == []
    )
    results = Results(None, {})
    for each in (split, first, second, pair):
        results.add(each)
    json.dumps(results.as_dict(), allow_nan=False)
