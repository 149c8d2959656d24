"""Sparse autoencoders: codes, what is selected, architectures and gradients, against toys by hand and autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cad_exp.representations.sae.architectures import Matryoshka, make_architecture
from cad_exp.representations.sae.autoencoder import Autoencoder, balanced, initial
from cad_exp.representations.sae.codes import Codes, Gathered
from cad_exp.representations.sae.gradients import Aux, gradients
from cad_exp.representations.sae.selection import BatchTopK, Threshold, TopK
from cad_exp.utils.errors import UserError
from tests.representations.dense_sae import dense_gradients, doubled

# two tokens: the first is 2 of latent 0 and 3 of latent 2, the second nothing, the third 5 of latent 2
CODES = Codes(torch.tensor([0, 2, 2]), torch.tensor([2.0, 3.0, 5.0]), torch.tensor([0, 2, 2]))
PRE = torch.tensor([[0.5, 3.0, -1.0, 2.0], [-4.0, -3.0, -2.0, -1.0], [1.0, 0.25, 4.0, 0.0]])


def dense(codes: Codes, width: int) -> list[list[float]]:
    return codes.matrix(width).toarray().tolist()


def test_codes_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 10.0]])
    assert len(CODES) == 3 and CODES.rows.tolist() == [0, 0, 2]
    assert CODES.sums(vectors).tolist() == [[2.0, 30.0], [0.0, 0.0], [0.0, 50.0]]
    assert CODES.acting(4).tolist() == [1, 0, 2, 0]
    assert dense(CODES, 3) == [[2.0, 0.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]]


def test_entries_of_value_zero_do_not_act():
    codes = Codes.even(torch.tensor([[0, 1], [1, 2]]), torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    assert codes.acting(3).tolist() == [1, 0, 1] and codes.matrix(3).nnz == 2
    assert codes.latents.tolist() == [0, 1, 1, 2] and codes.values.tolist() == [1, 0, 0, 4], "the matrix is a copy"


def test_sums_for_each_latent_by_hand():
    """Latent 0 gathers 2 of the first token, latent 2 gathers 3 of the first and 5 of the third."""
    tokens = torch.tensor([[1.0, 0.0], [7.0, 7.0], [0.0, 1.0]])
    found = Gathered(CODES, 4).sums(CODES.values, tokens)
    assert found.tolist() == [[2.0, 0.0], [0.0, 0.0], [3.0, 5.0], [0.0, 0.0]]


def test_no_codes_at_all():
    none = Threshold(9.0).select(PRE)
    assert len(none) == 3 and len(none.latents) == 0 and dense(none, 4) == [[0.0] * 4] * 3
    assert none.sums(torch.ones(4, 2)).tolist() == [[0.0, 0.0]] * 3
    assert Gathered(none, 4).sums(none.values, torch.ones(3, 2)).tolist() == [[0.0, 0.0]] * 4


def test_topk_by_hand():
    """The two largest of each token, as far as they are positive."""
    assert dense(TopK(2).select(PRE), 4) == [[0, 3, 0, 2], [0, 0, 0, 0], [1, 0, 4, 0]]
    assert dense(TopK(9).select(PRE), 4) == PRE.relu().tolist()


def test_batchtopk_by_hand():
    """One latent a token on average: 4, 3 and 2, of which the second token has none."""
    assert BatchTopK(1).smallest(PRE) == 2.0
    assert dense(BatchTopK(1).select(PRE), 4) == [[0, 3, 0, 2], [0, 0, 0, 0], [0, 0, 4, 0]]
    assert BatchTopK(3).smallest(PRE) < 0 and dense(BatchTopK(3).select(PRE), 4) == PRE.relu().tolist()


def test_threshold_by_hand():
    """What reaches it counts, what is 0 never does."""
    assert dense(Threshold(2.0).select(PRE), 4) == [[0, 3, 0, 2], [0, 0, 0, 0], [0, 0, 4, 0]]
    assert dense(Threshold(0.0).select(PRE), 4) == PRE.relu().tolist()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_selections_agree_with_dense_ones(tokens: int, width: int, k: int, seed: int):
    pre = torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))
    by_token = torch.zeros_like(pre).scatter_(1, pre.topk(min(k, width)).indices, pre.topk(min(k, width)).values.relu())
    assert dense(TopK(k).select(pre), width) == by_token.tolist()
    lowest = pre.flatten().sort().values[-min(k * tokens, pre.numel())]
    assert dense(BatchTopK(k).select(pre), width) == torch.where(pre >= lowest, pre.relu(), 0.0).tolist()
    one_by_one = [dense(Threshold(0.3).select(row[None]), width)[0] for row in pre]
    assert dense(Threshold(0.3).select(pre), width) == one_by_one
    vectors = torch.randn(width, 3, generator=torch.Generator().manual_seed(seed + 1))
    torch.testing.assert_close(TopK(k).select(pre).sums(vectors), by_token @ vectors)
    gathered = Gathered(TopK(k).select(pre), width).sums(TopK(k).select(pre).values, vectors[:1].expand(tokens, 3))
    torch.testing.assert_close(gathered, by_token.T @ vectors[:1].expand(tokens, 3))


def test_an_autoencoder_by_hand():
    """z = ReLU(W_enc (x - b_dec) + b_enc) with the one largest kept, x' = W_dec z + b_dec."""
    sae = Autoencoder(
        torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]]),
        torch.tensor([0.0, 1.0, 0.0]),
        torch.tensor([[1.0, 0.0], [0.0, 0.5], [-1.0, 0.0]]),
        torch.tensor([1.0, 1.0]),
        TopK(1),
    )
    x = torch.tensor([[4.0, 1.0], [0.0, 3.0]])  # less b_dec: (3, 0) and (-1, 2)
    assert sae.width == 3 and sae.pre(x).tolist() == [[3.0, 1.0, -3.0], [-1.0, 5.0, -1.0]]
    assert dense(sae.encode(x), 3) == [[3.0, 0.0, 0.0], [0.0, 5.0, 0.0]]
    assert sae.decode(sae.encode(x)).tolist() == [[4.0, 1.0], [1.0, 3.5]]


def test_rescaling_tells_the_same_in_other_units():
    sae, x = doubled(random_autoencoder(TopK(3))), torch.randn(20, 6, dtype=torch.float64)
    mean, scale = torch.randn(6, dtype=torch.float64), 2.5
    other = sae.rescaled(mean, scale)
    inner = (x - mean) / scale
    torch.testing.assert_close(other.encode(x).values, sae.encode(inner).values)
    torch.testing.assert_close(other.decode(other.encode(x)), sae.decode(sae.encode(inner)) * scale + mean)


def test_the_start():
    sae = initial(8, 30, TopK(4), seed=5)
    assert torch.equal(sae.W_enc, sae.W_dec) and sae.W_enc.data_ptr() != sae.W_dec.data_ptr()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(30))
    assert torch.equal(sae.W_dec, initial(8, 30, TopK(4), seed=5).W_dec)
    assert not torch.equal(sae.W_dec, initial(8, 30, TopK(4), seed=6).W_dec)


def test_a_start_that_keeps_tokens_length():
    """The encoder alone is scaled; then no other scale reconstructs better, and on orthogonal directions it is 1."""
    x = torch.randn(200, 8)
    start = initial(8, 64, TopK(8), seed=0)
    found = balanced(start, x)
    gain = found.W_enc[0] / start.W_enc[0]
    assert gain.max() < 0.8 and torch.equal(found.W_dec, start.W_dec)

    def error(factor: float) -> float:
        other = found.with_tensors({**found.tensors, "W_enc": found.W_enc * factor})
        return float((other.decode(other.encode(x)) - x).square().sum())

    assert error(1.0) < min(error(0.95), error(1.05)) and torch.allclose(balanced(found, x).W_enc, found.W_enc)
    axes = Autoencoder(torch.eye(8), torch.zeros(8), torch.eye(8), torch.zeros(8), TopK(8))
    torch.testing.assert_close(balanced(axes, x).W_enc, axes.W_enc)


def test_architectures_by_name():
    topk = make_architecture({"name": "topk", "k": 3})
    assert topk.training() == topk.trained(0.5) == TopK(3) and topk.prefixes(10) == [10] and not topk.threshold
    batch = make_architecture({"name": "batchtopk", "k": 3})
    assert batch.training() == BatchTopK(3) and batch.trained(0.5) == Threshold(0.5) and batch.threshold
    nested = make_architecture({"name": "matryoshka", "k": 3})
    assert nested.prefixes(64) == [4, 8, 16, 32, 64] and nested.prefixes(3) == [1, 2, 3]
    assert Matryoshka(2, [0.5, 1]).prefixes(6) == [3, 6]
    with pytest.raises(UserError, match="topk"):
        make_architecture({"name": "topkk", "k": 3})


@pytest.mark.parametrize("shares", [[], [0.5], [0.5, 0.5, 1.0], [1.0, 0.5], [0.0, 1.0], [0.5, 2.0, 1.0]])
def test_shares_that_do_not_rise_to_one(shares: list[float]):
    with pytest.raises(UserError, match="rise to 1"):
        Matryoshka(2, shares)


def random_autoencoder(selects, d: int = 6, width: int = 20) -> Autoencoder:
    make = torch.Generator().manual_seed(1)
    shapes = [(width, d), (width,), (width, d), (d,)]
    return Autoencoder(*[0.5 * torch.randn(shape, generator=make) for shape in shapes], selects)


@pytest.mark.parametrize("dead", [0, 2, 11])
@pytest.mark.parametrize(
    ("selects", "prefixes"),
    [(TopK(4), [20]), (BatchTopK(4), [20]), (BatchTopK(4), [3, 8, 20]), (TopK(4), [1, 20]), (BatchTopK(19), [5, 20])],
)
def test_gradients_are_those_of_autograd(selects, prefixes: list[int], dead: int):
    """Dense codes and autograd in double precision; few and many latents of which AuxK makes use."""
    sae, x = doubled(random_autoencoder(selects)), torch.randn(33, 6, dtype=torch.float64)
    aux = Aux(1 / 32, 5, torch.arange(20) < dead) if dead else None
    outcome = gradients(sae, x, prefixes, aux)
    loss, wanted = dense_gradients(sae, x, prefixes, aux)
    weight = aux.weight * min(1.0, dead / aux.k) if aux else 0.0
    assert outcome.loss + weight * outcome.aux == pytest.approx(float(loss), rel=1e-12)
    for name, gradient in wanted.items():
        torch.testing.assert_close(outcome.gradients[name], gradient, rtol=1e-9, atol=1e-12)
    assert torch.equal(outcome.acted, sae.encode(x).acting(20) > 0)


def test_gradients_where_nothing_acts():
    """Only b_dec moves then: towards the mean of the tokens."""
    sae = random_autoencoder(BatchTopK(4))
    asleep = sae.with_tensors({**sae.tensors, "b_enc": torch.full((20,), -100.0)})
    outcome = gradients(asleep, torch.randn(30, 6) + 3, [20])
    assert not outcome.acted.any() and outcome.loss > 1
    assert all(not outcome.gradients[name].any() for name in ("W_enc", "b_enc", "W_dec"))
    assert (outcome.gradients["b_dec"] < 0).all()
