"""Gates of all components at once: the sum by hand and against finite differences, and what the gates do."""

from dataclasses import replace

import pytest
import torch

from cad_exp.attribution.attribute import spaces_of
from cad_exp.attribution.joint import Joint, Task, edit_of
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.data.noisy_latents import sample_trajectory
from cad_exp.interventions.spaces import Directions, make_granularity
from cad_exp.interventions.spaces.directions import Place
from cad_exp.utils.errors import UserError


@pytest.fixture(scope="module")
def heads(tiny_model):
    return spaces_of(tiny_model, [make_granularity("head")])[0]


@pytest.fixture(scope="module")
def kept(tiny_model):
    return sample_trajectory(tiny_model, "a golf ball", "", [7], steps=2)


def whole(task: Task, gates: torch.Tensor, strength: float) -> float:
    """The sum that is minimised, by predictions under an edit's gates."""
    with task.space.gated(task.model, gates):
        left, moved = (task.distances(points).mean().item() for points in (task.concept, task.retained))
    return strength * left + moved


def test_the_intact_model_moves_nothing_and_leaves_all(tiny_model, tiny_latents, heads, kept):
    """Its distance from the base prompt is the unit, 1; from a target as far again beyond it, (1 + 1)^2."""
    for beyond, power, left in ((0, 0, 1), (1, 0, 4), (1, 1.5, 4)):
        task = Task(tiny_model, heads, tiny_latents, [kept], beyond, power)
        assert task.distances(task.concept).mean().item() == pytest.approx(left, rel=1e-3)
        assert task.distances(task.retained).max().item() < 1e-6


def test_it_is_the_erase_objective_of_the_paper(tiny_model, tiny_latents, heads, kept):
    objective = make_objective("erase", tiny_model, tiny_latents, 4)
    task = Task(tiny_model, heads, tiny_latents, [kept])
    gates = 1 - torch.rand(heads.n, generator=torch.Generator().manual_seed(0))
    with heads.gated(tiny_model, gates):
        left = task.distances(task.concept).mean().item()
    assert left == pytest.approx(objective.value(heads, gates) / objective.value(), rel=1e-3)


def test_weights_of_timesteps_are_those_of_the_picture(tiny_model, tiny_latents, heads, kept):
    """By the power 2 a distance of predictions is that of the clean latents which they imply."""
    task = Task(tiny_model, heads, tiny_latents, [kept], 0.0, 2.0)
    x, t = tiny_latents.x, tiny_latents.t
    ends = [tiny_model.predicted_x0(x, t, each) for each in (tiny_latents.cond, tiny_latents.base)]
    expected = (ends[0] - ends[1]).square().flatten(1).mean(1)
    found = task.distances(task.concept)[:, 0]
    torch.testing.assert_close(found / found.sum(), expected / expected.sum(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("granularity", ["head", "weight"])
def test_slopes_are_those_of_finite_differences(tiny_model, tiny_latents, kept, granularity):
    space = spaces_of(tiny_model, [make_granularity(granularity, ["cross-attention"])])[0]
    task = Task(tiny_model, space, tiny_latents, [kept], 1.0, 1.0)
    every = (torch.arange(len(task.concept)), torch.arange(len(task.retained)))
    generator = torch.Generator().manual_seed(0)
    gates, d = (1 - torch.rand(space.n, generator=generator) for _ in range(2))
    value, slopes = task.slopes(every, gates, 0.5)
    assert value == pytest.approx(whole(task, gates, 0.5), rel=1e-3)
    step = 2e-2
    ends = [whole(task, gates + sign * step * d, 0.5) for sign in (1, -1)]
    assert float(slopes @ d) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=3e-2, abs=1e-4)


def test_gates_fall_stay_in_the_box_and_are_the_same_again(tiny_model, tiny_latents, heads, kept):
    task = Task(tiny_model, heads, tiny_latents, [kept])
    found = [Joint.gates(task, 1.0, lowest=-0.5, steps=12, rate=0.1, batch=4) for _ in range(2)]
    assert torch.equal(*found) and found[0].min() >= 0.5 and found[0].max() <= 1
    assert whole(task, found[0], 1.0) < 0.95 * whole(task, torch.ones(heads.n), 1.0)
    other = Joint.gates(task, 1.0, lowest=-0.5, steps=12, rate=0.1, batch=4, seed=1)
    assert not torch.equal(other, found[0])


def test_a_stronger_edit_leaves_less_and_moves_more(tiny_model, tiny_latents, heads, kept):
    task, told = Task(tiny_model, heads, tiny_latents, [kept]), []
    for strength in (0.01, 10.0):
        with heads.gated(tiny_model, Joint.gates(task, strength, steps=30, rate=0.1, batch=4)):
            told.append([task.distances(points).mean().item() for points in (task.concept, task.retained)])
    assert told[1][0] < told[0][0] and told[1][1] > told[0][1]


def test_it_begins_where_it_is_told(tiny_model, tiny_latents, heads, kept):
    task, start = Task(tiny_model, heads, tiny_latents, [kept]), torch.full((heads.n,), 0.25)
    near = Joint.gates(task, 1.0, steps=1, rate=1e-3, batch=4, start=start)
    torch.testing.assert_close(near, start, rtol=0, atol=2e-3)
    assert start.eq(0.25).all()


def test_small_changes_are_left_out_of_the_edit():
    space = Directions([Place.of("a", torch.eye(3))])
    edit = edit_of(space, torch.tensor([1.0, 0.99, -0.5]), 0.02, {"edit": "joint"})
    assert edit.indices["a"].tolist() == [2] and edit.factors["a"].tolist() == [-0.5]
    with pytest.raises(UserError, match="a larger edit.strength changes more"):
        edit_of(space, torch.ones(3), 0.02, {})


def test_what_cannot_be_asked_is_refused(tiny_model, tiny_latents, heads, kept):
    text = spaces_of(tiny_model, [make_granularity("head", ["text-attention"])])[0]
    with pytest.raises(UserError, match="choose other granularity.kinds"):
        Task(tiny_model, text, tiny_latents, [kept])
    with pytest.raises(UserError, match="add a prompt to keep"):
        Task(tiny_model, heads, tiny_latents, [])
    with pytest.raises(UserError, match="with 'base' and 'cond'"):
        Task(tiny_model, heads, replace(tiny_latents, cond=None), [kept])
    with pytest.raises(UserError, match="nothing in the model tells"):
        Task(tiny_model, heads, replace(tiny_latents, cond=tiny_latents.base), [kept])
