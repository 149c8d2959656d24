"""The analysis of prototypes: groups and names by hand, k-means beside scikit-learn, settings that cannot work."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from cad_exp.evaluation.analyses.prototype_agreement import k_means
from cad_exp.evaluation.analyses.prototype_guidance import Guidance, Guided
from cad_exp.evaluation.analyses.prototypes import SinkhornPrototypes
from cad_exp.evaluation.intervals.resampled import LeftOut, Permuted
from cad_exp.evaluation.variants import GUIDED, RANDOM_DIRECTION, UNGUIDED
from cad_exp.representations.prototypes import Standard
from cad_exp.utils.errors import UserError

SETTINGS = {"label": None, "hookpoint": "auto", "timestep": 100, "number": 3, "guided": 1, "images": 2, "steps": 2}
SETTINGS |= {"scale": 0.3, "temperature": 0.1}


@pytest.mark.parametrize(
    ("settings", "said"), [({"label": "objekt"}, "did you mean 'object'"), ({"guided": 4}, "as many prototypes as")]
)
def test_settings_that_cannot_work_are_answered(settings: dict, said: str):
    with pytest.raises(UserError, match=said):
        SinkhornPrototypes(**{**SETTINGS, **settings}).check({"object": ["tench", "church"]})


def test_k_means_finds_what_scikit_learn_finds():
    rng = np.random.default_rng(0)
    centres = 5 * rng.standard_normal((4, 6))
    x = np.concatenate([each + 0.5 * rng.standard_normal((30, 6)) for each in centres])
    train = rng.permutation(120)[:80]
    expected = (
        KMeans(4, n_init=5, random_state=0)
        .fit(Standard.of(x[train]).unit(x[train]))
        .predict(Standard.of(x[train]).unit(x))
    )
    assert adjusted_rand_score(k_means(x, train, 4, 0), expected) == pytest.approx(1.0)


def test_guidance_is_told_beside_both_of_its_controls():
    hits = {GUIDED: np.ones(32, bool), UNGUIDED: np.arange(32) < 8, RANDOM_DIRECTION: np.arange(32) < 4}
    images = {name: np.zeros((32, 4, 4, 3), np.uint8) for name in hits}
    found = Guided("object", [(3, "church")], Guidance(1, 32, 2, 0.3, 0.1), images, hits, hits, 0.9)
    told = {(each["name"], each["variant"]): each for each in found.metrics()}
    assert told["shown@object", GUIDED]["value"] == 1.0 and told["shown@object", UNGUIDED]["value"] == 0.25
    assert told["shown@object", GUIDED]["changes"][RANDOM_DIRECTION]["value"] == pytest.approx(0.875)
    assert "surely more often" in found.verdict() and found.view().images.shape == (3, 8, 4, 4, 3)


def test_the_jackknife_of_a_mean_is_its_student_interval():
    values = np.array([1.0, 2.0, 4.0, 8.0, 3.0])
    mean = LeftOut(values.mean(), (values.sum() - values) / 4)
    from scipy import stats

    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert mean.interval() == pytest.approx((low, high))
    other = LeftOut(0.0, np.zeros(5))
    assert mean.change(other)[0] == pytest.approx(values.mean()) and LeftOut(1.0, np.ones(5)).interval() is None


def test_what_is_by_chance_is_told_with_its_middle():
    by_chance = Permuted(np.arange(101.0))
    assert by_chance.value == 50 and by_chance.interval() == pytest.approx((2.5, 97.5))
