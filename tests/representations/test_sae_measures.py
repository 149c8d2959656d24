"""What a dictionary is worth: moments, measures and the controls that a trained one must beat, by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cad_exp.representations.sae import measures
from cad_exp.representations.sae.autoencoder import Autoencoder, initial
from cad_exp.representations.sae.controls import Components, RandomDictionary
from cad_exp.representations.sae.measures import measure
from cad_exp.representations.sae.moments import Moments, width_of
from cad_exp.representations.sae.selection import TopK
from cad_exp.utils.errors import UserError

# two images of two tokens; the mean of the four is (1, 1)
IMAGES = torch.tensor([[[3.0, 1.0], [1.0, 2.0]], [[1.0, 1.0], [-1.0, 0.0]]])
MEAN = torch.tensor([1.0, 1.0])
# latent 0: to the right, latent 1: up, latent 2: to the left; the third is told too short
SIMPLE = Autoencoder(
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]),
    torch.zeros(4),
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.5, 0.0], [7.0, 7.0]]),
    MEAN,
    TopK(1),
)


def test_moments_by_hand():
    found = Moments([IMAGES[0], IMAGES[1]])
    assert found.number == 4 and found.mean.tolist() == [1.0, 1.0]
    assert found.covariance.tolist() == [[2.0, 0.5], [0.5, 0.5]]
    assert found.variances.sum() == pytest.approx(2.5) and found.scale == pytest.approx(math.sqrt(1.25))
    assert found.effective_rank == pytest.approx(2.5**2 / (2**2 + 0.5**2 + 2 * 0.5**2))  # tr(C)^2 / tr(C^2)
    with pytest.raises(UserError, match="take more images"):
        Moments([torch.ones(1, 3)])
    with pytest.raises(UserError, match="take more images"):
        Moments([])


def test_effective_rank_counts_directions():
    sides = torch.cat([torch.eye(5), -torch.eye(5)])
    assert Moments([sides]).effective_rank == pytest.approx(5)
    line = torch.linspace(-1, 1, 9)[:, None] * torch.ones(5)
    assert Moments([line]).effective_rank == pytest.approx(1)
    same = Moments([torch.ones(9, 5)])
    assert same.effective_rank == 0 and same.scale > 0


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(1, 6), st.floats(-1e3, 1e3), st.integers(0, 10**6))
def test_moments_do_not_depend_on_shards(tokens: int, d: int, shift: float, seed: int):
    x = torch.randn(tokens, d, generator=torch.Generator().manual_seed(seed)) + shift
    found = Moments(x.split(7))
    np.testing.assert_allclose(found.covariance, np.cov(x.double().numpy().T, bias=True).reshape(d, d), atol=1e-8)
    assert 1 - 1e-6 <= found.effective_rank <= d + 1e-6


def test_widths():
    moments = Moments([torch.cat([torch.eye(5), -torch.eye(5)])])
    assert width_of(300, moments) == 300 and width_of("64x", moments) == 320
    assert width_of("auto", moments) == 128 and width_of("auto", moments, expansion=2) == 16


def test_measures_by_hand(monkeypatch):
    """The tokens less the mean are (2, 0), (0, 1), (0, 0) and (-2, -1); the last becomes (-1, 0)."""
    for chunk in (8192, 2):
        monkeypatch.setattr(measures, "CHUNK", chunk)
        for parts in ([IMAGES], list(IMAGES.split(1))):
            found = measure(SIMPLE, parts, MEAN)
            assert found.errors.tolist() == [0.0, 2.0] and found.variances.tolist() == [5.0, 5.0]
            assert found.fvu == 0.2 and found.tokens == 4
            assert found.l0.tolist() == [1.0, 0.5] and found.acting.tolist() == [1, 1, 1, 0] and found.dead == 0.25
            assert found.frequency.tolist() == [0.25, 0.25, 0.25, 0.0]
            np.testing.assert_allclose(found.cosines, [1.0, 2 / math.sqrt(5) / 2])
            assert found.pooled.toarray().tolist() == [[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


def test_principal_components_by_hand():
    """The longer axis explains 8 of 10; both signs are a latent of their own."""
    x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 5
    moments = Moments([x])
    first = Components.principal(moments, 1)
    codes = first.encode(x)
    assert first.width == 4 and codes.values.tolist() == [2.0, 2.0, 0.0, 0.0]
    assert {int(codes.latents[0]), int(codes.latents[1])} == {0, 1}
    assert measure(first, [x[None]], moments.mean.float()).fvu == pytest.approx(0.2)
    torch.testing.assert_close(Components.principal(moments, 9).decode(Components.principal(moments, 9).encode(x)), x)


def test_channels_by_hand():
    """The channel that is furthest from its mean, with its sign."""
    moments = Moments([IMAGES.flatten(0, 1)])
    raw = Components.channels(moments, 1)
    codes = raw.encode(IMAGES.flatten(0, 1))
    assert codes.values.tolist() == [2.0, 1.0, 0.0, 2.0] and codes.latents[[0, 1, 3]].tolist() == [0, 2, 1]
    assert raw.decode(codes).tolist() == [[3.0, 1.0], [1.0, 2.0], [1.0, 1.0], [-1.0, 1.0]]


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_no_k_directions_explain_more_than_the_principal_ones(k: int, seed: int):
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 6, generator=make) @ torch.randn(6, 6, generator=make) + 3
    moments = Moments([x])
    best = measure(Components.principal(moments, k), [x[None]], moments.mean.float()).fvu
    assert best == pytest.approx(float(moments.variances[k:].sum() / moments.variances.sum()), abs=1e-5)
    other = Components(torch.linalg.qr(torch.randn(6, 6, generator=make)).Q, moments.mean.float(), k)
    assert measure(other, [x[None]], moments.mean.float()).fvu >= best - 1e-6


def test_the_gain_of_a_random_dictionary_is_the_best():
    x = torch.randn(400, 8) + 2
    moments = Moments([x])
    fitted = RandomDictionary.fitted(64, 4, 3, moments, x.split(100))
    again = RandomDictionary.fitted(64, 4, 3, moments, [x])
    assert fitted.width == 64 and torch.equal(fitted.directions, again.directions)
    torch.testing.assert_close(fitted.directions.norm(dim=1), torch.ones(64))

    def fvu(gain: float) -> float:
        changed = RandomDictionary(fitted.directions, fitted.mean, 4, gain)
        return measure(changed, [x[None]], moments.mean.float()).fvu

    assert fvu(fitted.gain) < min(fvu(0.95 * fitted.gain), fvu(1.05 * fitted.gain)) and fvu(fitted.gain) < fvu(1.0)


def test_a_random_dictionary_is_an_untrained_autoencoder():
    """Without the gain it is what an autoencoder is before its first step."""
    x = torch.randn(50, 8)
    moments = Moments([x])
    start = initial(8, 32, TopK(4), seed=3).rescaled(moments.mean.float(), 1.0)
    random = RandomDictionary(start.W_dec, moments.mean.float(), 4)
    torch.testing.assert_close(random.decode(random.encode(x)), start.decode(start.encode(x)))
