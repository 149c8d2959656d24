"""Probes: every x_t belongs to its timestep, and every record follows from its seed."""

import numpy as np
import pytest
import torch

from cad_exp.data.noisy_latents import Probes, look, sample_noised, sample_trajectory, walk
from cad_exp.utils.errors import UserError


@pytest.mark.parametrize("name", ["tiny_model", "tiny_v_model"])
def test_noise_level_matches_timestep(name, request):
    """Each recorded x, stepped at its recorded t with its recorded predictions, is the next recorded x."""
    model, steps, guidance = request.getfixturevalue(name), 5, 3.0
    probes = sample_trajectory(model, "church", "", seeds=[0, 1], steps=steps, guidance=guidance)
    scheduler = model.sampler(steps)
    x, t, base, cond = (tensor.unflatten(0, (2, steps)) for tensor in (probes.x, probes.t, probes.base, probes.cond))
    assert torch.equal(x[:, 0], model.noise_like([0, 1])), "the first probe is the initial noise"
    assert t[0].tolist() == t[1].tolist() == scheduler.timesteps.tolist(), "at the first timestep"
    assert abs(x[:, 0].std().item() - 1) < 0.1
    for i in range(steps - 1):
        guided = base[:, i] + guidance * (cond[:, i] - base[:, i])
        torch.testing.assert_close(scheduler.step(guided, t[0, i], x[:, i]).prev_sample, x[:, i + 1])


def test_noise_level_falls_as_the_schedule_says(tiny_model, monkeypatch):
    """A denoiser that knows the noise leaves exactly sqrt(abar) x0 + sqrt(1 - abar) noise at every probe."""
    noise, x0 = tiny_model.noise_like([0]), torch.zeros(1, 4, 8, 8)
    monkeypatch.setattr(type(tiny_model), "predict", lambda self, x, t, states, weights=None: noise.expand_as(x))
    probes = sample_trajectory(tiny_model, "church", "", seeds=[0], steps=10)
    signal = tiny_model.sampler().alphas_cumprod[probes.t].view(-1, 1, 1, 1)
    x0 = (probes.x[:1] - (1 - signal[:1]).sqrt() * noise) / signal[:1].sqrt()
    expected = signal.sqrt() * x0 + (1 - signal).sqrt() * noise
    torch.testing.assert_close(probes.x, expected, atol=1e-4, rtol=1e-4)


def test_predictions_are_those_at_the_probe(tiny_model, tiny_probes):
    for prompt, kept in ((tiny_probes.prompt, tiny_probes.cond), (tiny_probes.base_prompt, tiny_probes.base)):
        states = tiny_model.encode([prompt]).expand(len(tiny_probes))
        torch.testing.assert_close(tiny_model.predict(tiny_probes.x, tiny_probes.t, states), kept, atol=1e-4, rtol=1e-4)


def test_seeds(tiny_model, tiny_probes):
    again = sample_trajectory(tiny_model, "church", "", seeds=[0, 1], steps=5)
    assert torch.equal(again.x, tiny_probes.x) and torch.equal(again.cond, tiny_probes.cond)
    seen = []
    split = sample_trajectory(
        tiny_model, "church", "", seeds=[0, 1], steps=5, batch_size=1, progress=lambda *count: seen.append(count)
    )
    torch.testing.assert_close(split.x, tiny_probes.x, atol=1e-4, rtol=1e-4)
    assert torch.equal(split.t, tiny_probes.t) and seen == [(i, 10) for i in range(1, 11)]
    assert not torch.allclose(sample_trajectory(tiny_model, "church", "", seeds=[2, 3], steps=5).x, again.x)
    with pytest.raises(UserError, match="at least one seed"):
        sample_trajectory(tiny_model, "church", "", seeds=[])


def test_batches(tiny_probes):
    batches = list(tiny_probes.batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 2] and len(tiny_probes) == 10
    assert torch.equal(torch.cat([batch.x for batch in batches]), tiny_probes.x)


def test_noised(tiny_model, tiny_v_model):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    probes = sample_noised(tiny_model, "church", images=images, n=10, seed=1)
    assert len(probes) == 10 and probes.t.sort().values.tolist() != probes.t.tolist()
    assert sorted(t // 100 for t in probes.t.tolist()) == list(range(10)), "one timestep per tenth of the schedule"
    signal = tiny_model.sampler().alphas_cumprod[probes.t].view(-1, 1, 1, 1)
    latents = (probes.x - (1 - signal).sqrt() * probes.target) / signal.sqrt()
    expected = tiny_model.encode_images(images)[torch.arange(10) % 3]
    torch.testing.assert_close(latents, expected, atol=1e-3, rtol=1e-3)
    same, other = (sample_noised(tiny_model, "church", images=images, n=10, seed=seed) for seed in (1, 2))
    assert torch.equal(same.x, probes.x) and torch.equal(same.t, probes.t) and not torch.equal(other.x, probes.x)
    assert not torch.allclose(sample_noised(tiny_v_model, "church", images=images, n=10, seed=1).target, probes.target)
    generated = sample_noised(tiny_model, "church", n=2, steps=2)
    assert generated.meta["images"] == "generated" and len(generated) == 2
    with pytest.raises(UserError, match="at least one image"):
        sample_noised(tiny_model, "church", n=0)


def test_file(tiny_probes, tmp_path):
    path = tiny_probes.save(tmp_path / "deep" / "probes.safetensors")
    loaded = Probes.load(path)
    assert torch.equal(loaded.x, tiny_probes.x) and torch.equal(loaded.t, tiny_probes.t) and loaded.target is None
    assert (loaded.prompt, loaded.base_prompt, loaded.meta) == ("church", "", tiny_probes.meta)
    assert [file.name for file in path.parent.iterdir()] == ["probes.safetensors"]
    with pytest.raises(UserError, match="no probes file at"):
        Probes.load(tmp_path / "none")


def test_a_walk_is_the_unguided_trajectory_that_concepts_share(tiny_model):
    walked = walk(tiny_model, "a photo", seeds=[0, 1, 2], steps=4, batch_size=2)
    whole = sample_trajectory(tiny_model, "church", "a photo", [0, 1, 2], 4, guidance=0.0)
    seen = look(tiny_model, walked, "church", batch_size=5)
    assert walked.cond is None and seen.prompt == "church" and torch.equal(seen.t, whole.t)
    assert seen.meta == whole.meta
    for name in ("x", "base", "cond"):
        torch.testing.assert_close(getattr(seen, name), getattr(whole, name), atol=1e-4, rtol=1e-4)
