"""What takes an ablated component's place: zero, the mean, or the base prompt's activation, each done by hand."""

from contextlib import ExitStack

import pytest
import torch

from cad_exp.attribution.objectives.build import make_objective
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.spaces import find_sites
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import ToyModel, ablations, leftovers
from tests.placed import placed, rows_placed

REMOVED = ("mean", "resample")


def inputs_under(model, latents, prompt, modules):
    """Inputs (N, ..., in) of the modules at all noisy latents, by hooks of the test's own."""
    seen, states = {}, model.encode([prompt]).expand(len(latents))
    with ExitStack() as hooks:
        for name in modules:
            module = model.denoiser.get_submodule(name)
            note = lambda _, args, name=name: seen.update({name: args[0].clone()})  # noqa: E731
            hooks.callback(module.register_forward_pre_hook(note).remove)
        with torch.no_grad():
            model.predict(latents.x, latents.t, states)
    return seen


def replacements(ablation, model, latents, modules):
    found = inputs_under(model, latents, latents.base_prompt if ablation == "resample" else latents.prompt, modules)
    return found if ablation == "resample" else {m: x.flatten(0, -2).double().mean(0).float() for m, x in found.items()}


@pytest.mark.parametrize("ablation", REMOVED)
def test_an_ablated_site_sees_its_replacement(ablation, tiny_model, tiny_latents):
    """All gates of one site 0: its input is what the ablation says, for the first site, a middle one and the last."""
    sites = find_sites(tiny_model.denoiser)
    zero = make_objective("guidance_norm", tiny_model, tiny_latents, len(tiny_latents))
    objective = make_objective("guidance_norm", tiny_model, tiny_latents, 4, ablation=ablation)
    for site in (sites[0], sites[7], sites[-1]):
        (replacement,) = replacements(ablation, tiny_model, tiny_latents, [site.module]).values()
        module = tiny_model.denoiser.get_submodule(site.module)
        put = lambda _, args, replacement=replacement: (replacement.expand_as(args[0]),)  # noqa: E731
        hook = module.register_forward_pre_hook(put)
        expected = zero.value()
        hook.remove()
        for gate in (torch.zeros(site.shape[1]), torch.zeros(site.shape)):
            assert objective.value(*placed({site.module: gate})) == pytest.approx(expected, rel=1e-5), site
        rows = torch.stack([torch.zeros(site.shape[1]), torch.ones(site.shape[1])])
        assert objective.values(*rows_placed({site.module: rows})).tolist() == pytest.approx(
            [expected, zero.value()], rel=1e-5
        )
        assert expected != pytest.approx(zero.value(*placed({site.module: torch.zeros(site.shape[1])})), rel=1e-4)
    assert leftovers(tiny_model.denoiser) == 0


@pytest.mark.parametrize("unit", ["column", "entry"])
@pytest.mark.parametrize("ablation", REMOVED)
def test_gates_of_one_change_nothing(ablation, unit, tiny_model, tiny_latents):
    """Bit for bit."""
    sites = find_sites(tiny_model.denoiser)
    gates = {site.module: torch.ones(site.shape if unit == "entry" else site.shape[1]) for site in sites}
    objective = make_objective("erase", tiny_model, tiny_latents, 5, ablation=ablation)
    assert objective.value(*placed(gates)) == objective.value()
    assert objective.value_and_gradient(*placed(gates))[0] == objective.value()


@pytest.mark.parametrize("ablation", REMOVED)
def test_values_equal_single_ablations(ablation, tiny_model, tiny_latents):
    gates = ablations(tiny_model.denoiser)
    objective = make_objective("projection", tiny_model, tiny_latents, 3, ablation=ablation)
    singly = [objective.value(*placed({module: gate[i] for module, gate in gates.items()})) for i in range(7)]
    assert objective.values(*rows_placed(gates)).tolist() == pytest.approx(singly, rel=1e-5)
    assert leftovers(tiny_model.denoiser) == 0


@pytest.mark.parametrize("ablation", REMOVED)
def test_gradient_against_finite_differences(ablation, tiny_model, tiny_latents):
    """At half-open gates, columns and weights of one site; a four-point stencil, for fp32 has few digits."""
    site = find_sites(tiny_model.denoiser)[-1]
    objective = make_objective("projection", tiny_model, tiny_latents[:4], 4, ablation=ablation)
    gate = torch.linspace(0.2, 1, site.shape[1])
    _, gradient = objective.value_and_gradient(*placed({site.module: gate}))
    _, entries = objective.value_and_gradient(*placed({site.module: gate.expand(site.shape).contiguous()}))
    scale = gradient[site.module].abs().max().item()
    torch.testing.assert_close(entries[site.module].sum(0), gradient[site.module], atol=1e-4 * scale, rtol=1e-3)
    for column in gradient[site.module].abs().topk(3).indices.tolist():
        step = torch.zeros(site.shape[1]).index_fill(0, torch.tensor(column), 0.25)
        near = [objective.value(*placed({site.module: gate + k * step})) for k in (1, -1, 2, -2)]
        slope = (8 * (near[0] - near[1]) - (near[2] - near[3])) / 12 / 0.25
        assert slope == pytest.approx(gradient[site.module][column].item(), rel=2e-3, abs=1e-3 * scale)


def test_toy_by_hand():
    """x = (1, 4) and (3, 0), the prompt adds 1: inputs (2, 4), (4, 0), their mean (3, 2); y = 2 x0 - 3 x1.

    Base predictions are 0. Column 0 ablated: y = 6 - 12 = -6 and 6 - 0 = 6 for the mean, J = 36; under the base prompt
    x0 is 1 and 3: y = 2 - 12 = -10 and 6: J = (100 + 36) / 2. dJ/dgate at 1 is the mean of 2 y w (x - r).
    """
    x, t = torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.zeros(2, dtype=torch.long)
    latents = NoisyLatents(x, t, torch.zeros(2, 1), None, None, "c", "")
    gates, intact = {"0": torch.tensor([0.0, 1.0])}, (64 + 64) / 2
    for ablation, value, slope in (("mean", 36, [32.0, 96.0]), ("resample", 68, [0.0, 0.0])):
        objective = make_objective("erase", ToyModel(), latents, 1, ablation=ablation)
        assert (
            objective.value(*placed(gates)) == value
            and objective.values(*rows_placed({"0": gates["0"][None]})).item() == value
        )
        found = objective.value_and_gradient(*placed({"0": torch.ones(2)}))
        assert found[0] == intact and found[1]["0"].tolist() == slope
    assert make_objective("erase", ToyModel(), latents, 1).value(*placed(gates)) == (144 + 0) / 2


def test_module_called_twice():
    """The mean is over both calls; the base prompt's inputs come in the order of the calls."""

    class Twice(ToyModel):
        def predict(self, x, t, states, weights=None):
            first = super().predict(x, t, states, weights)
            return super().predict(torch.cat([first, x[:, 1:]], 1), t, states, weights)

    latents = NoisyLatents(
        torch.tensor([[1.0, 4.0], [2.0, 1.0]]), torch.zeros(2), torch.zeros(2, 1), None, None, "c", ""
    )
    model, gates = Twice(), torch.tensor([[1.0, 1], [0, 1], [0.5, -1]])
    for ablation in REMOVED:
        objective = make_objective("erase", model, latents, 3, ablation=ablation)
        singly = [objective.value(*placed({"0": gate})) for gate in gates]
        assert objective.values(*rows_placed({"0": gates})).tolist() == pytest.approx(singly)
    # Under the base prompt the first call sees (1, 4) and gives -10, the second (-10, 4): y = -20 - 12, then -2 and 1.
    first = objective.value(*placed({"0": torch.zeros(2)}))
    assert first == pytest.approx((32**2 + (2 * 1 - 3) ** 2) / 2)


def test_v_prediction_and_low_precision(tiny_v_model, tiny_folder, tiny_latents):
    site = find_sites(tiny_v_model.denoiser)[3]
    low = DiffusionModel.load(tiny_folder, device="cpu", precision="bf16")
    for model in (tiny_v_model, low):
        gates = torch.stack([torch.zeros(site.shape[1]), torch.ones(site.shape[1])])
        for ablation in REMOVED:
            objective = make_objective("guidance_norm", model, tiny_latents[:3], 2, ablation=ablation)
            singly = [objective.value(*placed({site.module: gate})) for gate in gates]
            assert objective.values(*rows_placed({site.module: gates})).tolist() == pytest.approx(singly, rel=0.05)
            assert singly[1] == objective.value()


def test_unknown_ablation(tiny_model, tiny_latents):
    with pytest.raises(UserError, match="unknown ablation 'man': did you mean 'mean'.*zero, mean, resample"):
        make_objective("erase", tiny_model, tiny_latents, ablation="man")
