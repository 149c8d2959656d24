"""Gates of all components at once: the sum by hand and against finite differences, and what each method makes of it."""

from dataclasses import replace

import pytest
import torch

from cad_exp.attribution.attribute import spaces_of
from cad_exp.attribution.gates.balance import Balance
from cad_exp.attribution.gates.greedy import Greedy
from cad_exp.attribution.gates.hard_concrete import HardConcrete, mask
from cad_exp.attribution.gates.joint import Joint
from cad_exp.attribution.gates.task import Task, distances, edit_of, predicted
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
        task = Task(tiny_model, heads, [tiny_latents], [kept], beyond, power)
        assert task.distances(task.concept).mean().item() == pytest.approx(left, rel=1e-3)
        assert task.distances(task.retained).max().item() < 1e-6


def test_the_concept_is_led_to_what_takes_its_place_and_along_its_images_no_further(
    tiny_model, tiny_latents, heads, kept
):
    """The prompt of the landing replaces the base prompt: as target, and as what lies at a distance of 1."""
    landed = Task(tiny_model, heads, [tiny_latents], [kept], 1.0, landing=[kept])
    first = len(tiny_latents)
    assert len(landed.concept) == first + len(kept)
    there = predicted(tiny_model, tiny_latents, "a golf ball", 3)
    of_concept, targets = tiny_latents.cond.float(), landed.concept.at(torch.arange(len(landed.concept)))[2]
    torch.testing.assert_close(targets[:first], 2 * there - of_concept, rtol=1e-3, atol=1e-5)
    assert landed.unit == pytest.approx((of_concept - there).square().mean().item(), rel=1e-4)
    torch.testing.assert_close(targets[first:], kept.cond.float())
    asked = tiny_model.encode([tiny_latents.prompt])
    apart = tiny_model.predict(kept.x, kept.t, asked) - kept.cond
    expected = apart.square().flatten(1).mean(1) / landed.unit
    torch.testing.assert_close(landed.distances(landed.concept)[first:, 0], expected, rtol=1e-3, atol=1e-6)


def test_where_nothing_lands_a_given_prompt_takes_the_place(tiny_model, tiny_latents, heads, kept):
    """The base prompt of a concept whose noisy latents were guided from another."""
    told = Task(tiny_model, heads, [tiny_latents], [kept], 1.0, instead="a golf ball")
    landed = Task(tiny_model, heads, [tiny_latents], [kept], 1.0, landing=[kept])
    first = torch.arange(len(tiny_latents))
    assert len(told.concept) == len(first) and told.unit == landed.unit
    for one, other in zip(told.concept.at(first), landed.concept.at(first), strict=True):
        assert torch.equal(one, other)


def test_each_prompt_of_several_is_led_to_what_takes_its_own_place(tiny_model, tiny_latents, heads, kept):
    """A style is asked for with several things: each is led to the thing alone, and a distance of 1 is their mean."""
    places = [kept, sample_trajectory(tiny_model, "a dog", "", [8], steps=2)]
    task = Task(tiny_model, heads, [tiny_latents, kept], [kept], 0.5, landing=places)
    concepts, expected, far = [tiny_latents, kept], [], []
    for each, other in zip(concepts, places, strict=True):
        there = predicted(tiny_model, each, other.prompt, 64)
        far += (each.cond - there).square().flatten(1).mean(1).tolist()
        expected += [there - 0.5 * (each.cond - there)]
    whole = torch.cat([*expected, *(each.cond for each in places)])
    _, _, targets, prompts = task.concept.at(torch.arange(len(task.concept)))
    torch.testing.assert_close(targets, whole, rtol=1e-3, atol=1e-5)
    assert task.unit == pytest.approx(sum(far) / len(far), rel=1e-4)
    names = [task.names[number] for number in prompts.tolist()]
    sizes = [len(each) for each in (*concepts, *places)]
    assert names == [name for size, each in zip(sizes, concepts * 2, strict=True) for name in [each.prompt] * size]


def test_it_holds_no_copy_of_noisy_latents(tiny_model, tiny_latents, heads, kept):
    """All that it adds is the concept's target; the rest lies where the noisy latents have it."""
    task = Task(tiny_model, heads, [tiny_latents], [kept, kept], 1.0, landing=[kept])
    parts = [part for points in (task.concept, task.retained) for part in points.parts.datasets]
    known = [tensor for each in (tiny_latents, kept) for tensor in (each.x, each.t, each.base, each.cond)]
    places = {tensor.untyped_storage().data_ptr() for tensor in known}
    own = [x for part in parts for x in part.tensors if x.untyped_storage().data_ptr() not in places]
    assert [x.shape for x in own] == [tiny_latents.x.shape]


def test_how_far_prompts_lie_from_the_concept(tiny_model, tiny_latents):
    """The concept's own prompt at nearly 0, the base prompt at the objective, others as predicted one by one."""
    prompts = [tiny_latents.prompt, tiny_latents.base_prompt, "a golf ball"]
    own, base, other = distances(tiny_model, tiny_latents, prompts, 0.0, 3)
    assert own < 1e-6
    assert base == pytest.approx((tiny_latents.cond - tiny_latents.base).square().mean().item(), rel=1e-3)
    asked = tiny_model.encode(["a golf ball"])
    points = [(x[None], t[None]) for x, t in zip(tiny_latents.x, tiny_latents.t, strict=True)]
    by_hand = torch.cat([tiny_model.predict(*each, asked) for each in points])
    apart = (by_hand - tiny_latents.cond).square().flatten(1).mean(1)
    assert other == pytest.approx(apart.mean().item(), rel=1e-3)
    one = torch.ones_like(points[0][0])
    moved = [tiny_model.predicted_x0(x, t, one) - tiny_model.predicted_x0(x, t, 0 * one) for x, t in points]
    counts = torch.stack([each.abs().mean() for each in moved])
    early = distances(tiny_model, tiny_latents, ["a golf ball"], 1.0)
    assert early == [pytest.approx((apart * counts).mean().item(), rel=1e-3)]


def test_it_is_the_erase_objective_of_the_paper(tiny_model, tiny_latents, heads, kept):
    objective = make_objective("erase", tiny_model, tiny_latents, 4)
    task = Task(tiny_model, heads, [tiny_latents], [kept])
    gates = 1 - torch.rand(heads.n, generator=torch.Generator().manual_seed(0))
    with heads.gated(tiny_model, gates):
        left = task.distances(task.concept).mean().item()
    assert left == pytest.approx(objective.value(heads, gates) / objective.value(), rel=1e-3)


def test_weights_of_timesteps_are_those_of_the_picture(tiny_model, tiny_latents, heads, kept):
    """By the power 2 a distance of predictions is that of the clean latents which they imply."""
    task = Task(tiny_model, heads, [tiny_latents], [kept], 0.0, 2.0)
    x, t = tiny_latents.x, tiny_latents.t
    ends = [tiny_model.predicted_x0(x, t, each) for each in (tiny_latents.cond, tiny_latents.base)]
    expected = (ends[0] - ends[1]).square().flatten(1).mean(1)
    found = task.distances(task.concept)[:, 0]
    torch.testing.assert_close(found / found.sum(), expected / expected.sum(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "granularity, kinds",
    [("head", ["cross-attention"]), ("weight", ["cross-attention"]), ("neuron", ["text-attention", "cross-attention"])],
)
def test_slopes_are_those_of_finite_differences(tiny_model, tiny_latents, kept, granularity, kinds):
    """Those of text encoders too, under whose gates every prompt is another; in passes of any size."""
    space = spaces_of(tiny_model, [make_granularity(granularity, kinds)])[0]
    task = Task(tiny_model, space, [tiny_latents], [kept], 1.0, 1.0, batch_size=3)
    every = (torch.arange(len(task.concept)), torch.arange(len(task.retained)))
    generator = torch.Generator().manual_seed(0)
    gates, d = (1 - torch.rand(space.n, generator=generator) for _ in range(2))
    value, slopes = task.slopes(every, gates, 0.5)
    assert value == pytest.approx(whole(task, gates, 0.5), rel=1e-3)
    step = 2e-2
    ends = [whole(task, gates + sign * step * d, 0.5) for sign in (1, -1)]
    assert float(slopes @ d) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=3e-2, abs=1e-4)


def test_the_size_of_a_pass_changes_nothing(tiny_model, tiny_latents, heads, kept):
    found, gates = [], torch.full((heads.n,), 0.5)
    for size in (1, 2, 64):
        task = Task(tiny_model, heads, [tiny_latents], [kept], batch_size=size)
        found.append(task.slopes((torch.arange(3), torch.arange(2)), gates, 2.0)[1])
    rounding = 1e-5 * float(found[2].abs().max())  # a slope near 0 is a difference of large numbers
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=rounding)
    torch.testing.assert_close(found[1], found[2], rtol=1e-4, atol=rounding)


def test_gates_fall_and_grow_stay_in_the_box_and_are_the_same_again(tiny_model, tiny_latents, heads, kept):
    task = Task(tiny_model, heads, [tiny_latents], [kept])
    found = [Joint.gates(task, 1.0, lowest=-0.5, highest=0.25, steps=12, rate=0.1, batch=4) for _ in range(2)]
    assert torch.equal(*found) and found[0].min() == 0.5 and found[0].max() == 1.25
    assert whole(task, found[0], 1.0) < 0.95 * whole(task, torch.ones(heads.n), 1.0)
    only_less = Joint.gates(task, 1.0, lowest=-0.5, highest=0.0, steps=12, rate=0.1, batch=4)
    assert only_less.max() == 1
    other = Joint.gates(task, 1.0, lowest=-0.5, steps=12, rate=0.1, batch=4, seed=1)
    assert not torch.equal(other, found[0])


def test_a_stronger_edit_leaves_less_and_moves_more(tiny_model, tiny_latents, heads, kept):
    task, told = Task(tiny_model, heads, [tiny_latents], [kept]), []
    for strength in (0.01, 10.0):
        with heads.gated(tiny_model, Joint.gates(task, strength, steps=30, rate=0.1, batch=4)):
            told.append([task.distances(points).mean().item() for points in (task.concept, task.retained)])
    assert told[1][0] < told[0][0] and told[1][1] > told[0][1]


def test_it_begins_where_it_is_told(tiny_model, tiny_latents, heads, kept):
    task, start = Task(tiny_model, heads, [tiny_latents], [kept]), torch.full((heads.n,), 0.25)
    near = Joint.gates(task, 1.0, steps=1, rate=1e-3, batch=4, start=start)
    torch.testing.assert_close(near, start, rtol=0, atol=2e-3)
    assert start.eq(0.25).all()


class ByHand:
    """A task whose sum is known: two backups, of which only both together are missed, and one that does nothing.

    With a and b what is left of the two, the concept is a or b: 1 - (1 - a)(1 - b). Each moves .1 of all else, the
    third component 1.
    """

    def __init__(self):
        self.space, self.groups = Directions([Place.of("a", torch.eye(3))]), torch.zeros(2, dtype=torch.long)

    def draws(self, steps, batch, seed):
        return iter([(torch.arange(2), torch.arange(2))] * steps)

    def value(self, rows, gates, strength):
        a, b, c = gates
        moved = 0.1 * (1 - a).square() + 0.1 * (1 - b).square() + (1 - c).square()
        return float(strength * (1 - (1 - a) * (1 - b)) + moved)

    def slopes(self, rows, gates, strength, balance=None):
        a, b, c = gates
        of = [strength * (1 - b) - 0.2 * (1 - a), strength * (1 - a) - 0.2 * (1 - b), -2 * (1 - c)]
        return self.value(rows, gates, strength), torch.stack(of)


def test_backups_by_hand():
    """Neither's loss helps alone, so a greedy choice and the slopes at the intact model see nothing to gain."""
    task = ByHand()
    intact = torch.ones(3)
    assert Greedy.gates(task, 1.0).tolist() == intact.tolist() == Joint.gates(task, 1.0).tolist()
    both = task.value(None, torch.tensor([0.0, 0.0, 1.0]), 1.0)
    assert both == pytest.approx(0.2) and both < task.value(None, intact, 1.0)
    begun = torch.tensor([0.5, 0.9, 1.0])  # once one is going, both go, and nothing else
    torch.testing.assert_close(
        Joint.gates(task, 1.0, lowest=-1.0, rate=0.1, start=begun), torch.tensor([0.0, 0.0, 1.0])
    )


def test_a_prompt_counts_by_how_far_it_moved():
    """By hand: means 1 and 3 count 1/2 and 3/2 by the power 1, 1/5 and 9/5 by the power 2; newer ones for more."""
    groups, rows = torch.tensor([0, 0, 1]), torch.tensor([1, 2])
    for power, expected in ((0.0, [1, 1]), (1.0, [0.5, 1.5]), (2.0, [0.2, 1.8])):
        balance = Balance(groups, power)
        assert balance.weights(rows).tolist() == [1, 1]
        balance.saw(torch.arange(3), torch.tensor([0.0, 2.0, 3.0]))
        assert balance.weights(rows).tolist() == pytest.approx(expected)
    balance = Balance(groups, 1.0)
    for _ in range(200):
        balance.saw(rows, torch.tensor([3.0, 1.0]))
    balance.saw(rows, torch.tensor([0.0, 1.0]))
    assert balance.weights(rows).tolist() == pytest.approx([2 * 2.85 / 3.85, 2 / 3.85], rel=1e-3)


def test_a_prompt_that_was_not_seen_yet_counts_as_the_mean():
    """Of four prompts two were seen; those two share what two count."""
    balance = Balance(torch.arange(4), 1.0)
    balance.saw(torch.tensor([0, 2]), torch.tensor([1.0, 3.0]))
    assert balance.weights(torch.arange(4)).tolist() == pytest.approx([0.5, 1, 1.5, 1])


def test_rounding_at_the_intact_model_is_no_movement(tiny_model, tiny_latents, heads, kept):
    task = Task(tiny_model, heads, [tiny_latents], [kept])
    rows, balance = next(task.draws(1, 3, 0)), Balance(task.groups, 1.0)
    task.slopes(rows, torch.ones(heads.n), 1.0, balance)
    assert not balance.seen.any()
    task.slopes(rows, torch.full((heads.n,), 0.5), 1.0, balance)
    assert balance.seen.any()


def test_slopes_count_each_prompt_as_told(tiny_model, tiny_latents, heads, kept):
    """Those of the sum with weights are weighted sums of those of single prompts."""
    other = sample_trajectory(tiny_model, "a dog", "", [8], steps=2)
    task, gates = Task(tiny_model, heads, [tiny_latents], [kept, other]), torch.full((heads.n,), 0.5)
    assert task.groups.tolist() == [0] * len(kept) + [1] * len(other)
    balance, rows = Balance(task.groups, 1.0), torch.arange(len(task.retained))
    balance.saw(rows, torch.tensor([1.0] * len(kept) + [3.0] * len(other)))
    concept = torch.arange(3)
    value, found = task.slopes((concept, rows), gates, 1e-9, balance)
    alone = [task.slopes((concept, rows[task.groups == number]), gates, 1e-9) for number in (0, 1)]
    assert value == pytest.approx((0.5 * alone[0][0] + 1.5 * alone[1][0]) / 2, rel=1e-4)
    torch.testing.assert_close(found, (0.5 * alone[0][1] + 1.5 * alone[1][1]) / 2, rtol=1e-4, atol=1e-7)
    seen = balance.moved[1] / balance.seen[1]
    assert seen == pytest.approx((0.95 * 3 + alone[1][0]) / 1.95, rel=1e-4)  # and it took in how far they moved


class Neighbours:
    """A concept that two components share, and two prompts; the second moves four times as far.

    What is left is (1 - d1 - d2)^2 for removals d; the prompts move d1^2 and 4 d2^2.
    """

    def __init__(self):
        self.space, self.groups = Directions([Place.of("a", torch.eye(2))]), torch.arange(2)

    def draws(self, steps, batch, seed):
        return iter([(torch.arange(1), torch.arange(2))] * steps)

    def slopes(self, rows, gates, strength, balance):
        d, counts = 1 - gates, balance.weights(rows[1])
        balance.saw(rows[1], d.square() * torch.tensor([1.0, 4.0]))
        of_d = -2 * strength * (1 - d.sum()) + counts * d * torch.tensor([1.0, 4.0])  # half of 2, for their mean
        return 0.0, -of_d


@pytest.mark.parametrize("worst, ratio", [(0.0, 4), (1.0, 16 ** (1 / 3)), (2.0, 4 ** (3 / 5))])
def test_the_worst_prompt_by_hand(worst: float, ratio: float):
    """d1 (d1^2)^p = 4 d2 (4 d2^2)^p: d1 = 4 d2 with all alike, and towards 2 d2, where both move as far."""
    d = 1 - Joint.gates(Neighbours(), 3.0, steps=1000, rate=0.02, worst=worst)
    assert d.min() > 0.05 and (d[0] / d[1]).item() == pytest.approx(ratio, rel=0.02)


def test_greedy_takes_the_best_of_all_and_stops(tiny_model, tiny_latents, kept):
    """Its first component is the best of all, and no component that is left would lower the sum."""
    layers = spaces_of(tiny_model, [make_granularity("layer")])[0]
    task = Task(tiny_model, layers, [tiny_latents], [kept])
    (rows,) = task.draws(1, 4, 0)
    sums = [task.value(rows, torch.ones(layers.n).index_fill(0, torch.tensor([i]), 0.0), 1.0) for i in range(layers.n)]
    assert Greedy.gates(task, 1.0, steps=1, batch=4).argmin() == torch.tensor(sums).argmin()
    found = Greedy.gates(task, 1.0, steps=layers.n, batch=4)
    assert set(found.tolist()) == {0.0, 1.0}
    least = task.value(rows, found, 1.0)
    for one in found.nonzero()[:, 0].tolist():
        assert task.value(rows, found.index_fill(0, torch.tensor([one]), 0.0), 1.0) >= least
    assert Greedy.gates(task, 1e-6, batch=4).eq(1).all()  # nothing is worth it


def test_greedy_is_for_few_components(tiny_model, tiny_latents, kept):
    weights = spaces_of(tiny_model, [make_granularity("weight", ["cross-attention"])])[0]
    with pytest.raises(UserError, match="use granularity=head or layer, or edit=joint"):
        Greedy.gates(Task(tiny_model, weights, [tiny_latents], [kept]), 1.0)


def test_masks_have_the_distribution_of_the_paper():
    """Louizos et al., eq. 12: a gate is 0 with probability sigmoid(temperature log(-bottom / top) - odds)."""
    u = torch.linspace(0.0005, 0.9995, 1000)
    for odds, temperature in ((0.0, 0.5), (1.5, 2 / 3), (-1.0, 0.3)):
        drawn = mask(torch.full((1000,), odds), torch.logit(u), temperature)
        closed = torch.sigmoid(temperature * torch.log(torch.tensor(0.1 / 1.1)) - odds)
        assert drawn.eq(0).float().mean().item() == pytest.approx(float(closed), abs=2e-3)


def test_learned_masks_lower_the_sum(tiny_model, tiny_latents, heads, kept):
    task = Task(tiny_model, heads, [tiny_latents], [kept])
    found = [HardConcrete.gates(task, 1.0, steps=20, rate=0.5, batch=4) for _ in range(2)]
    assert torch.equal(*found) and found[0].min() >= 0 and found[0].max() <= 1
    assert whole(task, found[0], 1.0) < 0.95 * whole(task, torch.ones(heads.n), 1.0)
    fewer = HardConcrete.gates(task, 1.0, steps=20, rate=0.5, batch=4, sparsity=100.0)
    assert fewer.lt(0.99).sum() < found[0].lt(0.99).sum()


def test_learned_masks_begin_where_they_are_told(tiny_model, tiny_latents, heads, kept):
    task, start = Task(tiny_model, heads, [tiny_latents], [kept]), torch.linspace(0, 1, heads.n)
    found = HardConcrete.gates(task, 1.0, steps=1, rate=1e-4, batch=4, start=start)
    torch.testing.assert_close(found, start, rtol=0, atol=1e-3)


def test_small_changes_are_left_out_of_the_edit():
    space = Directions([Place.of("a", torch.eye(3))])
    edit = edit_of(space, torch.tensor([1.0, 0.99, -0.5]), 0.02, {"edit": "joint"})
    assert edit.indices["a"].tolist() == [2] and edit.factors["a"].tolist() == [-0.5]
    assert edit_of(space, torch.ones(3), 0.02, {}).empty


def test_what_cannot_be_asked_is_refused(tiny_model, tiny_latents, heads, kept):
    with pytest.raises(UserError, match="add a prompt to keep"):
        Task(tiny_model, heads, [tiny_latents], [])
    with pytest.raises(UserError, match="with 'base' and 'cond'"):
        Task(tiny_model, heads, [replace(tiny_latents, cond=None)], [kept])
    with pytest.raises(UserError, match="nothing in the model tells"):
        Task(tiny_model, heads, [replace(tiny_latents, cond=tiny_latents.base)], [kept])
