"""Optimisers of sparse autoencoders against their definitions, and against torch's."""

import pytest
import torch

from cad_exp.representations.sae.optimisers import make_optimiser

OPTIMISERS = ["annealed", "sign", "adam"]


def steps_of(lr: float, warmup: int, number: int) -> list[float]:
    return [lr * min(1.0, step / max(1, warmup)) for step in range(1, number + 1)]


def weights_and_gradients(number: int) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Weights without a decoder, whose rows are kept at length 1, and a gradient that depends on where they are."""
    make = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (5, 3), "b_enc": (5,), "b_dec": (3,)}
    draws = [{name: torch.randn(shape, generator=make) for name, shape in shapes.items()} for _ in range(number + 1)]
    return draws[0], draws[1:]


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_schedule_free_sign_descent_is_the_papers(warmup: int):
    """Defazio et al. 2405.15682, equations 3 to 5, written out; the gradient is taken at y."""
    start, noise = weights_and_gradients(12)
    optimiser = make_optimiser(start, {"name": "sign", "lr": 0.1, "warmup": warmup, "momentum": 0.8})
    z, x = ({name: tensor.clone() for name, tensor in start.items()} for _ in range(2))
    total = 0.0
    for lr, drawn in zip(steps_of(0.1, warmup, 12), noise, strict=True):
        y = {name: 0.2 * z[name] + 0.8 * x[name] for name in start}
        point = optimiser.point()
        for name in start:
            torch.testing.assert_close(point[name], y[name])
        optimiser.step({name: point[name] + drawn[name] for name in start})
        total += lr**2
        for name in start:
            z[name] = z[name] - lr * (y[name] + drawn[name]).sign()
            x[name] = (1 - lr**2 / total) * x[name] + lr**2 / total * z[name]
            torch.testing.assert_close(optimiser.result()[name], x[name])


@pytest.mark.parametrize("warmup", [0, 4])
def test_adam_is_torchs(warmup: int):
    start, noise = weights_and_gradients(12)
    optimiser = make_optimiser(start, {"name": "adam", "lr": 0.1, "warmup": warmup})
    theirs = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    reference = torch.optim.Adam(theirs.values(), lr=0.1)
    for lr, drawn in zip(steps_of(0.1, warmup, 12), noise, strict=True):
        optimiser.step({name: tensor + drawn[name] for name, tensor in optimiser.point().items()})
        reference.param_groups[0]["lr"] = lr
        for name, parameter in theirs.items():
            parameter.grad = parameter.detach() + drawn[name]
        reference.step()
        for name, parameter in theirs.items():
            torch.testing.assert_close(optimiser.result()[name], parameter.detach())


def test_annealed_adam_is_torchs_with_its_schedule():
    """Betas .7 and .95; the rate rises for a twentieth of the training, and falls to 0 in a line."""
    start, noise = weights_and_gradients(40)
    optimiser = make_optimiser(start, {"name": "annealed", "lr": 0.1})
    theirs = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    reference = torch.optim.Adam(theirs.values(), betas=(0.7, 0.95))
    rates = [0.025, 0.075, *(0.1 * (39.5 - step) / 38 for step in range(2, 40))]
    for step, (lr, drawn) in enumerate(zip(rates, noise, strict=True)):
        optimiser.step(drawn, (step + 0.5) / 40)
        reference.param_groups[0]["lr"] = lr
        for name, parameter in theirs.items():
            parameter.grad = drawn[name]
        reference.step()
        for name, parameter in theirs.items():
            torch.testing.assert_close(optimiser.result()[name], parameter.detach())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_decoders_rows_keep_their_length(name: str):
    start = {"W_enc": torch.ones(4, 3), "W_dec": torch.eye(4, 3) + 0.1}
    start["W_dec"] /= start["W_dec"].norm(dim=1, keepdim=True)
    optimiser = make_optimiser(start, {"name": name, "lr": 0.3})
    for _ in range(5):
        optimiser.step({key: torch.randn_like(tensor) for key, tensor in optimiser.point().items()})
    torch.testing.assert_close(optimiser.weights["W_dec"].norm(dim=1), torch.ones(4))
    assert not torch.allclose(optimiser.weights["W_enc"].norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_rate_by_width(name: str):
    """It falls with the root of the width, unless it is given."""
    narrow, wide = (make_optimiser({"W_enc": torch.zeros(n, 1)}, {"name": name}) for n in (64, 256))
    assert narrow.lr == pytest.approx(2 * wide.lr)
    assert make_optimiser({"W_enc": torch.zeros(64, 1)}, {"name": name, "lr": 0.5}).lr == 0.5
