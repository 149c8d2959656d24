"""Objectives: their values by the formula, and their gate gradients against ablation and finite differences."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from cad_exp.attribution.objectives.build import OBJECTIVES, make_objective
from cad_exp.data.noisy_latents import NoisyLatents, sample_noised, sample_trajectory
from cad_exp.evaluation.judges import load_judge
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.spaces import CROSS, find_sites, make_granularity
from cad_exp.utils.errors import UserError
from tests.placed import placed, rows_placed


@pytest.fixture(scope="module")
def context(tiny_model):
    """What the stages give to an objective: judges, the concept's label, noisy latents of prompts to retain."""
    kept = [sample_trajectory(tiny_model, prompt, "", seeds=[5], steps=3) for prompt in ("a person", "golf ball")]
    return {"judge": load_judge("mini"), "kind": "object", "label": "church", "retained": kept}


@pytest.fixture(scope="module")
def objectives(tiny_model, tiny_latents, context):
    noised = sample_noised(tiny_model, "church", n=4, steps=2)
    return {
        n: make_objective(n, tiny_model, noised if n == "amplify" else tiny_latents, 4, context=context)
        for n in OBJECTIVES
    }


def test_intact_values(objectives):
    latents = objectives["erase"].latents
    erase = (latents.cond - latents.base).square().mean().item()
    assert objectives["erase"].value() == pytest.approx(erase, rel=1e-4)
    latents = objectives["amplify"].latents
    amplify = -(latents.cond - latents.target).square().mean().item()
    assert objectives["amplify"].value() == pytest.approx(amplify, rel=1e-4)
    assert objectives["projection"].value() == pytest.approx(1, abs=1e-3)


def test_projection_without_the_prompt_is_zero(tiny_model, objectives):
    """With all cross-attention ablated the network cannot tell the prompts apart."""
    sites = [site for site in find_sites(tiny_model.denoiser) if site.kind == CROSS]
    gates = {site.module: torch.zeros(site.shape[1]) for site in sites}
    assert objectives["projection"].value(*placed(gates)) == pytest.approx(0, abs=1e-5)
    assert objectives["erase"].value(*placed(gates)) >= 0


def test_projection_survives_equal_prompts(tiny_model, tiny_latents):
    latents = replace(tiny_latents, cond=tiny_latents.base)
    assert make_objective("projection", tiny_model, latents).value() == 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weight_scores_sum_to_the_gates_gradient(name, tiny_model, objectives):
    """Summed over a column, w dJ/dw is the gradient of that column's gate, on every UNet block."""
    sites, objective = find_sites(tiny_model.denoiser), objectives[name]
    _, scores = objective.value_and_gradient(*placed({site.module: torch.ones(site.shape) for site in sites}))
    _, slopes = objective.value_and_gradient(*placed({site.module: torch.ones(site.shape[1]) for site in sites}))
    for site in sites:
        scale = scores[site.module].abs().max().item()
        torch.testing.assert_close(scores[site.module].sum(0), slopes[site.module], atol=1e-4 * scale, rtol=1e-3)
    heads = make_granularity("head")
    by_hand = torch.cat([slopes[s.module].view(s.heads, -1).sum(1) for s in heads.sites(sites)])
    torch.testing.assert_close(heads.on(sites).join(scores), by_hand, atol=1e-5, rtol=1e-3)


def test_score_is_w_times_gradient(tiny_model, objectives):
    """Against autograd on the real weight, and against a finite difference of the gate."""
    objective, site = objectives["erase"], find_sites(tiny_model.denoiser)[-1]
    scores = objective.value_and_gradient(*placed({site.module: torch.ones(site.shape)}))[1][site.module]
    weight = tiny_model.denoiser.get_submodule(site.module).weight
    latents = objective.latents
    weight.requires_grad_()
    states = objective.concept.expand(len(latents))
    loss = (tiny_model.predict(latents.x, latents.t, states) - latents.base).square().mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    weight.requires_grad_(False)
    torch.testing.assert_close(scores, weight.detach() * gradient, atol=1e-7, rtol=1e-3)
    values = [objective.value(*placed({site.module: torch.full((site.shape[1],), 1 + step)})) for step in (0.05, -0.05)]
    assert (values[0] - values[1]) / 0.1 == pytest.approx(scores.sum().item(), rel=0.02)


@pytest.mark.parametrize("unit", ["column", "entry"])
def test_zero_gates_equal_zeroed_weights(unit, tiny_model, tiny_latents):
    """Ablating by gate is ablating by editing, for every listed component of the layer granularity."""
    objective = make_objective("projection", tiny_model, tiny_latents[:2], 4)
    before = tiny_model.fingerprint()
    for site in find_sites(tiny_model.denoiser):
        gate = torch.zeros(site.shape[1]) if unit == "column" else torch.zeros(site.shape)
        weight = tiny_model.denoiser.get_submodule(site.module).weight
        gated, old = objective.value(*placed({site.module: gate})), weight.data.clone()
        weight.data.zero_()
        edited = objective.value()
        weight.data.copy_(old)
        assert gated == pytest.approx(edited, abs=1e-5), site
    assert tiny_model.fingerprint() == before, "gates leave the model alone"


def test_batch_size_does_not_matter(tiny_model, tiny_latents):
    sites = find_sites(tiny_model.denoiser)[:3]
    seen = []
    first = make_objective("erase", tiny_model, tiny_latents, 3, progress=lambda *count: seen.append(count))
    second = make_objective("erase", tiny_model, tiny_latents, 10)
    ones = {site.module: torch.ones(site.shape) for site in sites}
    (a, left), (b, right) = first.value_and_gradient(*placed(ones)), second.value_and_gradient(*placed(ones))
    assert a == pytest.approx(b, rel=1e-4) and seen == [(3, 10), (6, 10), (9, 10), (10, 10)]
    for site in sites:
        torch.testing.assert_close(left[site.module], right[site.module], atol=1e-6, rtol=1e-3)


def ablations(denoiser, count=7):
    """Column gates of `count` ablations: single heads, whole layers, real numbers, and one that changes nothing."""
    sites, generator = find_sites(denoiser), torch.Generator().manual_seed(0)
    gates = {site.module: torch.ones(count, site.shape[1]) for site in sites}
    gates[sites[0].module][1] = 0
    gates[sites[-1].module][2, :4] = 0
    gates[sites[9].module][3] = torch.randn(sites[9].shape[1], generator=generator)
    for site in sites:
        gates[site.module][4] = torch.rand(site.shape[1], generator=generator)
        gates[site.module][5] = (torch.rand(site.shape[1], generator=generator) > 0.1).float()
    gates[sites[4].module][6, 1:] = -1.5
    return gates


def leftovers(denoiser):
    """Hooks and replaced forwards that someone forgot in the network."""
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in denoiser.modules()]
    return sum(hooks) + sum("forward" in vars(module) for module in denoiser.modules())


@pytest.mark.parametrize("batch_size", [3, 64])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_equal_single_ablations(name, batch_size, tiny_model, objectives, context):
    gates, latents = ablations(tiny_model.denoiser), objectives[name].latents[:5]
    before = {module: gate.clone() for module, gate in gates.items()}
    seen = []
    report = lambda *count: seen.append(count)  # noqa: E731
    objective = make_objective(name, tiny_model, latents, batch_size, report, context)
    values, ticks = objective.values(*rows_placed(gates)), list(seen)
    singly = [objective.value(*placed({module: gate[i] for module, gate in gates.items()})) for i in range(7)]
    assert values.shape == (7,) and values.device.type == "cpu" and values.dtype == torch.float64
    assert values.tolist() == pytest.approx(singly, rel=1e-5, abs=1e-6 if name == "contrast" else None)
    assert values[0].item() == pytest.approx(objective.value(), rel=1e-5, abs=1e-6), "the first one changes nothing"
    assert len({round(value, 6) for value in singly[1:]}) == 6, "the other ablations differ"
    assert ticks[-1] == (7 * len(latents), 7 * len(latents))
    assert all(later - earlier <= batch_size for (earlier, _), (later, _) in pairwise([(0, 0), *ticks]))
    assert leftovers(tiny_model.denoiser) == 0
    assert all(torch.equal(gates[module], gate) for module, gate in before.items())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_of_v_prediction(name, tiny_v_model, context):
    settings = {"weight": 0.5} if name == "contrast" else {}  # of itself: half of it is left
    if name == "amplify":
        latents = sample_noised(tiny_v_model, "church", n=3, steps=2)
    else:
        latents = sample_trajectory(tiny_v_model, "church", "", seeds=[3], steps=3)
    objective = make_objective(name, tiny_v_model, latents, 5, context={**context, "retained": [latents]}, **settings)
    gates = ablations(tiny_v_model.denoiser)
    singly = [objective.value(*placed({module: gate[i] for module, gate in gates.items()})) for i in range(7)]
    assert objective.values(*rows_placed(gates)).tolist() == pytest.approx(singly, rel=1e-5)


def test_values_skip_what_ablations_share(tiny_model, tiny_latents):
    """Ablations of the last block compute the first one once per noisy latent; of the first once per row."""
    sites, rows = find_sites(tiny_model.denoiser), []
    objective = make_objective("erase", tiny_model, tiny_latents[:2], 8)
    conv = tiny_model.denoiser.down_blocks[0].resnets[0].conv1
    hook = conv.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        objective.values(*rows_placed({sites[-1].module: torch.rand(6, sites[-1].shape[1])}))
        late, _ = sum(rows), rows.clear()
        early = {site.module: torch.rand(6, site.shape[1]) for site in (sites[0], sites[-1])}
        objective.values(*rows_placed(early))
    finally:
        hook.remove()
    assert (late, sum(rows)) == (2, 2), "the first residual block comes before every site"
    rows, conv = [], tiny_model.denoiser.mid_block.resnets[0].conv1
    hook = conv.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        objective.values(*rows_placed(early))
    finally:
        hook.remove()
    assert sum(rows) == 2 + 12


def test_values_leave_nothing_behind_when_stopped(tiny_model, tiny_latents):
    gates = ablations(tiny_model.denoiser)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_objective("projection", tiny_model, tiny_latents, 4, progress=stop).values(*rows_placed(gates))
    objective, sites = make_objective("erase", tiny_model, tiny_latents, 4), find_sites(tiny_model.denoiser)
    wrong = {sites[3].module: torch.zeros(2, 3)}
    assert sites[3].shape[1] != 3
    with pytest.raises(RuntimeError):  # in the middle of a forward pass
        objective.values(*rows_placed(wrong))
    with pytest.raises(AttributeError):
        objective.values(*rows_placed({"nowhere": torch.zeros(2, 3)}))
    assert leftovers(tiny_model.denoiser) == 0
    space = make_granularity("head").on(sites)
    for unfit in (torch.ones(space.n), torch.ones(2, space.n + 1), torch.ones(2, space.n, 4)):
        with pytest.raises(UserError, match=rf"values\(\) needs gates \(ablations, {space.n}\)"):
            objective.values(space, unfit)
    with pytest.raises(UserError, match="gates of their own for granularity weight"):
        objective.values(make_granularity("weight").on(sites[:1]), torch.ones(2, sites[0].size))


def test_values_of_a_module_called_twice():
    """A block that serves twice, or mixes up its rows, is not replayed, or refused."""

    class Twice(ToyModel):
        def predict(self, x, t, states, weights=None):
            first = super().predict(x, t, states, weights)
            return super().predict(torch.cat([first, x[:, 1:]], 1), t, states, weights)

    latents = NoisyLatents(
        torch.tensor([[1.0, 4.0], [2.0, 1.0]]), torch.zeros(2), torch.zeros(2, 1), None, None, "c", ""
    )
    objective, gates = make_objective("erase", Twice(), latents, 3), torch.tensor([[1.0, 1], [0, 1], [0.5, -1]])
    expected = [objective.value(*placed({"0": gate})) for gate in gates]
    assert objective.values(*rows_placed({"0": gates})).tolist() == pytest.approx(expected)

    class Doubled(ToyModel):
        def predict(self, x, t, states, weights=None):
            return super().predict(torch.cat([x, x]), t, states, weights)[: len(x)]

    with pytest.raises(UserError, match="module '0' does not see one row per sample"):
        make_objective("erase", Doubled(), latents, 3).values(*rows_placed({"0": gates}))


class ToyModel:
    """y = W x with W = [[2, -3]]: small enough for a pencil. The 'text state' is added to x's first entry."""

    device = torch.device("cpu")

    def __init__(self):
        self.denoiser = nn.Sequential(nn.Linear(2, 1, bias=False))
        self.denoiser[0].weight.data = torch.tensor([[2.0, -3.0]])

    def encode(self, prompts):
        return torch.tensor([[[float(len(prompt))]] for prompt in prompts])

    def predict(self, x, t, states, weights=None):
        x = torch.stack([x[:, 0] + states[:, 0, 0], x[:, 1]], 1)
        return torch.func.functional_call(self.denoiser, weights or {}, (x,))


def test_toy_by_hand():
    """x = (1, 4), prompt adds 1: y = 2*2 - 3*4 = -8; base prediction -10 (nothing added).

    erase: J = (y + 10)^2 = 4, dJ/dy = 4, so w dJ/dw = (2*2*4, -3*4*4) = (16, -48); removing column 0: y = -12, J = 4.
    amplify with target 0: J = -64, dJ/dy = 16: scores (64, -192). projection: J = 2 w_0 / 4 = 1: scores (1, 0).
    guidance_norm: the predictions differ by w_0 = 2, J = 4: scores (2*2*2, 0).
    """
    x, t = torch.tensor([[1.0, 4.0]]), torch.zeros(1, dtype=torch.long)
    latents = NoisyLatents(x, t, torch.tensor([[-10.0]]), torch.tensor([[-8.0]]), torch.tensor([[0.0]]), "c", "")
    for name, value, scores in (
        ("erase", 4, [16, -48]),
        ("amplify", -64, [64, -192]),
        ("projection", 1, [1, 0]),
        ("guidance_norm", 4, [8, 0]),
    ):
        objective = make_objective(name, ToyModel(), latents)
        intact, found = objective.value_and_gradient(*placed({"0": torch.ones(1, 2)}))
        assert found["0"].tolist() == [scores] and intact == objective.value() == value
    objective = make_objective("erase", ToyModel(), latents)
    assert objective.value(*placed({"0": torch.tensor([0.0, 1.0])})) == 4
    assert objective.value(*placed({"0": torch.tensor([[1.0, 0.0]])})) == (4 + 10) ** 2
    assert objective.values(*rows_placed({"0": torch.tensor([[1.0, 1], [0, 1], [1, 0]])})).tolist() == [
        4,
        4,
        (4 + 10) ** 2,
    ]


def test_unreached_module_scores_zero():
    latents = NoisyLatents(torch.ones(1, 2), torch.zeros(1), torch.zeros(1, 1), None, None, "c", "")
    objective = make_objective("erase", ToyModel(), latents)
    objective.loss = lambda batch, predict: torch.zeros(1, requires_grad=True)
    assert objective.value_and_gradient(*placed({"0": torch.ones(2)}))[1]["0"].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["head", "layer"])
def test_ablating_every_component(name, tiny_model, tiny_latents):
    """For each component in turn: editing the weight, gating it, and masking the projection's input agree."""
    objective, sites = make_objective("erase", tiny_model, tiny_latents[2:3]), find_sites(tiny_model.denoiser)
    cut, before = make_granularity(name), tiny_model.fingerprint()
    effects = []
    for component in range(cut.on(sites).n):
        ((module, columns),) = cut.on(sites).locate(torch.tensor([component])).items()
        layer = tiny_model.denoiser.get_submodule(module)
        gate = torch.ones(layer.in_features).index_fill(0, columns, 0)
        hook = layer.register_forward_pre_hook(lambda module, args, gate=gate: (args[0] * gate,))
        masked = objective.value()
        hook.remove()
        with Edit({module: columns}).apply(tiny_model):
            edited = objective.value()
        assert objective.value(*placed({module: gate})) == pytest.approx(masked, rel=1e-4)
        assert edited == pytest.approx(masked, rel=1e-4)
        effects.append(masked)
    assert len(effects) == len(cut.on(sites).table()) and len(set(effects)) == len(effects), (
        "each one matters, differently"
    )
    assert tiny_model.fingerprint() == before


def test_errors(tiny_model, tiny_latents):
    with pytest.raises(UserError, match="unknown objective 'erse': did you mean 'erase'"):
        make_objective("erse", tiny_model, tiny_latents)
    with pytest.raises(UserError, match="objective amplify needs noisy latents with 'target': use noised"):
        make_objective("amplify", tiny_model, tiny_latents)
    with pytest.raises(UserError, match="no noisy latents"):
        make_objective("erase", tiny_model, tiny_latents[:0])
