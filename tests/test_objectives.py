"""Objectives: their values by the formula, and their gate gradients against ablation and finite differences."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cad_exp.components import CROSS, FF, Site, find_sites, make_granularity
from cad_exp.edit import Edit
from cad_exp.errors import UserError
from cad_exp.estimators import FirstOrder, make_estimator
from cad_exp.objectives import OBJECTIVES, make_objective
from cad_exp.probes import Probes, sample_noised


@pytest.fixture(scope="module")
def objectives(tiny_model, tiny_probes):
    noised = sample_noised(tiny_model, "church", n=4, steps=2)
    return {n: make_objective(n, tiny_model, noised if n == "amplify" else tiny_probes, 4) for n in OBJECTIVES}


def test_intact_values(objectives):
    probes = objectives["erase"].probes
    erase = (probes.cond - probes.base).square().mean().item()
    assert objectives["erase"].value({}) == pytest.approx(erase, rel=1e-4)
    probes = objectives["amplify"].probes
    amplify = -(probes.cond - probes.target).square().mean().item()
    assert objectives["amplify"].value() == pytest.approx(amplify, rel=1e-4)
    assert objectives["projection"].value({}) == pytest.approx(1, abs=1e-3)


def test_projection_without_the_prompt_is_zero(tiny_model, objectives):
    """With all cross-attention ablated the network cannot tell the prompts apart."""
    sites = [site for site in find_sites(tiny_model.denoiser) if site.kind == CROSS]
    gates = {site.module: torch.zeros(site.shape[1]) for site in sites}
    assert objectives["projection"].value(gates) == pytest.approx(0, abs=1e-5)
    assert objectives["erase"].value(gates) >= 0


def test_projection_survives_equal_prompts(tiny_model, tiny_probes):
    probes = replace(tiny_probes, cond=tiny_probes.base)
    assert make_objective("projection", tiny_model, probes).value() == 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weight_scores_sum_to_the_gates_gradient(name, tiny_model, objectives):
    """Summed over a column, w dJ/dw is the gradient of that column's gate, on every UNet block."""
    sites, objective = find_sites(tiny_model.denoiser), objectives[name]
    scores = FirstOrder().estimate(objective, sites)
    _, columns = objective.value_and_gradient({site.module: torch.ones(site.shape[1]) for site in sites})
    for site in sites:
        scale = scores[site.module].abs().max().item()
        torch.testing.assert_close(scores[site.module].sum(0), columns[site.module], atol=1e-4 * scale, rtol=1e-3)
    heads = make_granularity("head")
    by_hand = torch.cat([columns[s.module].view(s.heads, -1).sum(1) for s in heads.sites(sites)])
    torch.testing.assert_close(heads.reduce(scores, sites), by_hand, atol=1e-5, rtol=1e-3)


def test_score_is_w_times_gradient(tiny_model, objectives):
    """Against autograd on the real weight, and against a finite difference of the gate."""
    objective, site = objectives["erase"], find_sites(tiny_model.denoiser)[-1]
    scores = FirstOrder().estimate(objective, [site])[site.module]
    weight = tiny_model.denoiser.get_submodule(site.module).weight
    probes = objective.probes
    weight.requires_grad_()
    states = objective.concept.expand(len(probes), -1, -1)
    loss = (tiny_model.predict(probes.x, probes.t, states) - probes.base).square().mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    weight.requires_grad_(False)
    torch.testing.assert_close(scores, weight.detach() * gradient, atol=1e-7, rtol=1e-3)
    values = [objective.value({site.module: torch.full((site.shape[1],), 1 + step)}) for step in (0.05, -0.05)]
    assert (values[0] - values[1]) / 0.1 == pytest.approx(scores.sum().item(), rel=0.02)


@pytest.mark.parametrize("unit", ["column", "entry"])
def test_zero_gates_equal_zeroed_weights(unit, tiny_model, objectives):
    """Ablating by gate is ablating by editing, for every listed component of the layer granularity."""
    objective = objectives["projection"]
    before = tiny_model.fingerprint()
    for site in find_sites(tiny_model.denoiser):
        gate = torch.zeros(site.shape[1]) if unit == "column" else torch.zeros(site.shape)
        weight = tiny_model.denoiser.get_submodule(site.module).weight
        gated, old = objective.value({site.module: gate}), weight.data.clone()
        weight.data.zero_()
        edited = objective.value({})
        weight.data.copy_(old)
        assert gated == pytest.approx(edited, abs=1e-5), site
    assert tiny_model.fingerprint() == before, "gates leave the model alone"


def test_batch_size_does_not_matter(tiny_model, tiny_probes):
    sites = find_sites(tiny_model.denoiser)[:3]
    seen = []
    first = make_objective("erase", tiny_model, tiny_probes, 3, progress=lambda *count: seen.append(count))
    second = make_objective("erase", tiny_model, tiny_probes, 10)
    ones = {site.module: torch.ones(site.shape) for site in sites}
    (a, left), (b, right) = first.value_and_gradient(ones), second.value_and_gradient(ones)
    assert a == pytest.approx(b, rel=1e-4) and seen == [(3, 10), (6, 10), (9, 10), (10, 10)]
    for site in sites:
        torch.testing.assert_close(left[site.module], right[site.module], atol=1e-6, rtol=1e-3)


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
    """
    x, t = torch.tensor([[1.0, 4.0]]), torch.zeros(1, dtype=torch.long)
    probes = Probes(x, t, torch.tensor([[-10.0]]), torch.tensor([[-8.0]]), torch.tensor([[0.0]]), "c", "")
    site = Site("0", "0", FF, (1, 2))
    for name, value, scores in (("erase", 4, [16, -48]), ("amplify", -64, [64, -192]), ("projection", 1, [1, 0])):
        objective, estimator = make_objective(name, ToyModel(), probes), make_estimator("first_order")
        assert estimator.estimate(objective, [site])["0"].tolist() == [scores]
        assert estimator.intact == objective.value({}) == value
    objective = make_objective("erase", ToyModel(), probes)
    assert objective.value({"0": torch.tensor([0.0, 1.0])}) == 4
    assert objective.value({"0": torch.tensor([[1.0, 0.0]])}) == (4 + 10) ** 2


def test_unreached_module_scores_zero():
    probes = Probes(torch.ones(1, 2), torch.zeros(1), torch.zeros(1, 1), None, None, "c", "")
    objective = make_objective("erase", ToyModel(), probes)
    objective.loss = lambda batch, predict: torch.zeros(1, requires_grad=True)
    assert objective.value_and_gradient({"0": torch.ones(2)})[1]["0"].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["head", "layer"])
def test_ablating_every_component(name, tiny_model, tiny_probes):
    """For each component in turn: editing the weight, gating it, and masking the projection's input agree."""
    objective, sites = make_objective("erase", tiny_model, tiny_probes[2:3]), find_sites(tiny_model.denoiser)
    cut, before = make_granularity(name), tiny_model.fingerprint()
    effects = []
    for component in range(cut.count(sites)):
        ((module, columns),) = cut.locate(sites, torch.tensor([component])).items()
        layer = tiny_model.denoiser.get_submodule(module)
        gate = torch.ones(layer.in_features).index_fill(0, columns, 0)
        hook = layer.register_forward_pre_hook(lambda module, args, gate=gate: (args[0] * gate,))
        masked = objective.value()
        hook.remove()
        with Edit({module: columns}).apply(tiny_model):
            edited = objective.value()
        assert objective.value({module: gate}) == pytest.approx(masked, rel=1e-4)
        assert edited == pytest.approx(masked, rel=1e-4)
        effects.append(masked)
    assert len(effects) == len(cut.table(sites)) and len(set(effects)) == len(effects), "each one matters, differently"
    assert tiny_model.fingerprint() == before


def test_errors(tiny_model, tiny_probes):
    with pytest.raises(UserError, match="unknown objective 'erse': did you mean 'erase'"):
        make_objective("erse", tiny_model, tiny_probes)
    with pytest.raises(UserError, match="objective amplify needs probes with 'target': use noised"):
        make_objective("amplify", tiny_model, tiny_probes)
    with pytest.raises(UserError, match="no probes"):
        make_objective("erase", tiny_model, tiny_probes[:0])
    with pytest.raises(UserError, match="unknown estimator"):
        make_estimator("second_order")
