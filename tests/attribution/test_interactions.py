"""Interactions: functions of gates by hand, their sketch against finite differences."""

import pytest
import torch

from cad_exp.attribution.attribute import spaces_of
from cad_exp.attribution.interactions.quadratic import COLUMNS, Quadratic, shrunk, total
from cad_exp.attribution.interactions.sketch import Sketcher, concept
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.interventions.spaces import make_granularity

# ------------------------------------------------------------------------------ by hand

TWO = Quadratic.of(torch.tensor([[1.0, 2.0]]), torch.tensor([1.0]))  # (1 + a + 2 b)^2


def test_a_function_of_two_gates_by_hand():
    d = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]])
    assert TWO.value(d).tolist() == [1, 0, 1, 4]
    assert TWO.constant == 1 and TWO.linear.tolist() == [2, 4]
    assert TWO.gradient(d[3]).tolist() == [-4, -8]
    # the second difference of these four: 4 - 0 - 1 + 1
    assert TWO.interaction([0], [1]).tolist() == [[4.0]]
    assert TWO.interaction([0, 1]).tolist() == [[2, 4], [4, 8]]


def test_redundant_and_joint_components_by_hand():
    """Of two that do the same, the second loss costs nothing; of two that cancel, only both together are harmless."""
    redundant = Quadratic.of(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([2.0, 0.0]))
    alone, both = redundant.value(torch.tensor([[-1.0, 0.0], [-1.0, -1.0]])).tolist()
    assert (alone, both) == (1, 0) and redundant.interaction([0], [1]).item() == 2
    opposed = Quadratic.of(torch.tensor([[1.0, -1.0]]))
    assert opposed.value(torch.tensor([[-1.0, 0.0], [-1.0, -1.0]])).tolist() == [1, 0]
    assert opposed.interaction([0], [1]).item() == -2


def test_sums_weights_and_groups():
    d = torch.tensor([-0.5, -1.0])
    assert total([TWO, TWO.times(3)]).value(d).item() == pytest.approx(4 * TWO.value(d).item())
    whole = TWO.grouped(torch.tensor([0, 0]), 1)
    assert whole.value(torch.tensor([-0.5])).item() == pytest.approx(TWO.value(torch.tensor([-0.5, -0.5])).item())


def test_a_sketch_of_few_rows_is_shrunk_and_nearer_to_the_truth():
    """Rows of a known covariance: the more there are, the less is shrunk; of few the shrunk matrix errs less."""
    n = 40
    generator = torch.Generator().manual_seed(0)
    root = torch.eye(n) + 0.3 * torch.ones(n, n) / n**0.5
    true = root @ root.T
    alphas = []
    for number in (10, 100, 10_000):
        rows = torch.randn(number, n, generator=generator) @ root / number**0.5
        found, alpha = shrunk(rows)
        alphas.append(alpha)
        matrix = found.interaction(range(n)).float() / 2
        plain = Quadratic.of(rows).interaction(range(n)).float() / 2
        torch.testing.assert_close(matrix.diagonal(), plain.diagonal(), rtol=1e-4, atol=1e-5)
        if number < 1000:
            assert (matrix - true).norm() < (plain - true).norm()
    assert 1 >= alphas[0] > alphas[1] > alphas[2] and alphas[0] > 0.5 and alphas[2] < 0.1


@pytest.mark.parametrize("number, n", [(7, 3 * COLUMNS), (40, COLUMNS + 1), (2, 5)])
def test_blocks_of_columns_shrink_as_all_at_once(number: int, n: int):
    """The share and the diagonal are those of the whole matrix, written as the source has them."""
    rows = torch.randn(number, n, generator=torch.Generator().manual_seed(0)) / number**0.5
    x = rows.double() * number**0.5
    matrix, diagonal = x.T @ x / number, x.square().mean(0)
    off = (matrix - torch.diag(diagonal)).square().sum()
    squares = sum((each.outer(each) - torch.diag(each.square())).square().sum() for each in x)
    expected = float(((squares / number - off) / ((number - 1) * off)).clamp(0, 1))
    found, alpha = shrunk(rows)
    assert alpha == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(found.diagonal, (alpha * diagonal).float())
    torch.testing.assert_close(found.factor, rows * (1 - alpha) ** 0.5)


# ------------------------------------------------------------------------------ the sketch


def moved(model, space, latents, condition, d, step=2e-2):
    """A d by central differences: how the prediction (M, ...) moves with the gates."""
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            with space.gated(model, 1 + sign * step * d):
                ends.append(model.predict(latents.x, latents.t, condition))
    return (ends[0] - ends[1]) / (2 * step)


@pytest.fixture(scope="module")
def heads(tiny_model):
    return spaces_of(tiny_model, [make_granularity("head")])[0]


@pytest.fixture(scope="module")
def two(tiny_latents):
    return tiny_latents[torch.arange(2)]


def test_every_row_is_a_projection_of_how_the_prediction_moves(tiny_model, two, heads):
    """Against finite differences, row by row; and over all signs the squares average to the squared distance."""
    d = torch.randn(heads.n, generator=torch.Generator().manual_seed(0)) / 3
    condition = tiny_model.encode([two.prompt])
    change = moved(tiny_model, heads, two, condition, d)
    sketcher = Sketcher(tiny_model, heads, 3, batch_size=2)
    signs, scale = sketcher._signs(two).float(), (change[0].numel() * 2 * 3) ** -0.5
    expected = (signs * change).flatten(2).sum(2).flatten() * scale
    torch.testing.assert_close(
        sketcher.sketch(two, condition) @ d, expected, rtol=2e-2, atol=2e-3 * expected.abs().max()
    )
    assert set(signs.unique().tolist()) == {-1.0, 1.0} and not torch.equal(signs[0], signs[1])


def test_a_distance_is_known_along_itself_and_signs_see_the_rest(tiny_model, two, heads):
    d = torch.randn(heads.n, generator=torch.Generator().manual_seed(1)) / 3
    condition = tiny_model.encode([two.prompt])
    change, distance = moved(tiny_model, heads, two, condition, d), two.cond - two.base
    unit = distance / distance.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    sketcher = Sketcher(tiny_model, heads, 2, batch_size=2)
    found = sketcher.along(two, condition, distance)
    assert found.constant == pytest.approx(distance.square().mean().item(), rel=1e-4)
    length = ((distance + change) * unit).flatten(1).sum(1).square().sum().item() / distance.numel()
    assert found.value(d).item() == pytest.approx(length, rel=2e-2)
    rest = change - (change * unit).flatten(1).sum(1).reshape(-1, 1, 1, 1) * unit
    expected = (sketcher._signs(two).float() * rest).flatten(2).sum(2).flatten() * (distance.numel() * 2) ** -0.5
    seen = sketcher.sketch(two, condition, distance) @ d
    torch.testing.assert_close(seen, expected, rtol=2e-2, atol=2e-3 * expected.abs().max())


def test_first_order_is_the_gradient_of_erase(tiny_model, tiny_latents, heads):
    objective = make_objective("erase", tiny_model, tiny_latents, 4)
    left = concept(Sketcher(tiny_model, heads, 2, batch_size=4), tiny_latents)
    value, slopes = objective.value_and_gradient(heads, torch.ones(heads.n))
    torch.testing.assert_close(left.linear.float(), heads.join(slopes), rtol=1e-3, atol=1e-7)
    assert left.constant == pytest.approx(value, rel=1e-4)


def test_the_sketch_does_not_depend_on_the_batch(tiny_model, tiny_latents, heads):
    one, two = (concept(Sketcher(tiny_model, heads, 2, 3, size), tiny_latents) for size in (2, 4))
    torch.testing.assert_close(one.factor, two.factor, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(one.offset, two.offset, rtol=1e-4, atol=1e-7)


def test_weights_share_a_row_of_a_batch(tiny_model, two):
    """Gates of single weights, all columns alike, do what gates of neurons do; along the distance row by row."""
    cuts = [make_granularity(name, ["cross-attention"]) for name in ("neuron", "weight")]
    neurons, weights = (spaces_of(tiny_model, [cut])[0] for cut in cuts)
    condition, distance = tiny_model.encode([two.prompt]), two.cond - two.base
    own, shared = (Sketcher(tiny_model, space, 2, batch_size=2) for space in (neurons, weights))
    d, same = -torch.ones(neurons.n) / 4, -torch.ones(weights.n) / 4
    rows = (own.sketch(two, condition) @ d).reshape(2, 2).sum(1)
    torch.testing.assert_close(shared.sketch(two, condition) @ same, rows, rtol=1e-3, atol=1e-6)
    along = [each.along(two, condition, distance).value(x).item() for each, x in ((own, d), (shared, same))]
    assert along[0] == pytest.approx(along[1], rel=1e-3)
