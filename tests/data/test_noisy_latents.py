"""Noisy latents: every x_t belongs to its timestep, and every record follows from its seed."""

import numpy as np
import pytest
import torch

from cad_exp.data.noisy_latents import NoisyLatents, look, sample_noised, sample_trajectory, walk
from cad_exp.utils.errors import UserError


@pytest.mark.parametrize("name", ["tiny_model", "tiny_v_model"])
def test_noise_level_matches_timestep(name, request):
    """Each recorded x, stepped at its recorded t with its recorded predictions, is the next recorded x."""
    model, steps, guidance = request.getfixturevalue(name), 5, 3.0
    latents = sample_trajectory(model, "church", "", seeds=[0, 1], steps=steps, guidance=guidance)
    scheduler = model.sampler(steps)
    x, t, base, cond = (
        tensor.unflatten(0, (2, steps)) for tensor in (latents.x, latents.t, latents.base, latents.cond)
    )
    assert torch.equal(x[:, 0], model.noise_like([0, 1])), "the first noisy latent is the initial noise"
    assert t[0].tolist() == t[1].tolist() == scheduler.timesteps.tolist(), "at the first timestep"
    assert abs(x[:, 0].std().item() - 1) < 0.1
    for i in range(steps - 1):
        guided = base[:, i] + guidance * (cond[:, i] - base[:, i])
        torch.testing.assert_close(scheduler.step(guided, t[0, i], x[:, i]).prev_sample, x[:, i + 1])


def test_noise_level_falls_as_the_schedule_says(tiny_model, monkeypatch):
    """A denoiser that knows the noise leaves exactly sqrt(abar) x0 + sqrt(1 - abar) noise at every noisy latent."""
    noise, x0 = tiny_model.noise_like([0]), torch.zeros(1, 4, 8, 8)
    monkeypatch.setattr(type(tiny_model), "predict", lambda self, x, t, states, weights=None: noise.expand_as(x))
    latents = sample_trajectory(tiny_model, "church", "", seeds=[0], steps=10)
    signal = tiny_model.sampler().alphas_cumprod[latents.t].view(-1, 1, 1, 1)
    x0 = (latents.x[:1] - (1 - signal[:1]).sqrt() * noise) / signal[:1].sqrt()
    expected = signal.sqrt() * x0 + (1 - signal).sqrt() * noise
    torch.testing.assert_close(latents.x, expected, atol=1e-4, rtol=1e-4)


def test_predictions_are_those_at_the_noisy_latent(tiny_model, tiny_latents):
    for prompt, kept in ((tiny_latents.prompt, tiny_latents.cond), (tiny_latents.base_prompt, tiny_latents.base)):
        states = tiny_model.encode([prompt]).expand(len(tiny_latents))
        torch.testing.assert_close(
            tiny_model.predict(tiny_latents.x, tiny_latents.t, states), kept, atol=1e-4, rtol=1e-4
        )


def test_seeds(tiny_model, tiny_latents):
    again = sample_trajectory(tiny_model, "church", "", seeds=[0, 1], steps=5)
    assert torch.equal(again.x, tiny_latents.x) and torch.equal(again.cond, tiny_latents.cond)
    seen = []
    split = sample_trajectory(
        tiny_model, "church", "", seeds=[0, 1], steps=5, batch_size=1, progress=lambda *count: seen.append(count)
    )
    torch.testing.assert_close(split.x, tiny_latents.x, atol=1e-4, rtol=1e-4)
    assert torch.equal(split.t, tiny_latents.t) and seen == [(i, 10) for i in range(1, 11)]
    assert not torch.allclose(sample_trajectory(tiny_model, "church", "", seeds=[2, 3], steps=5).x, again.x)
    with pytest.raises(UserError, match="at least one seed"):
        sample_trajectory(tiny_model, "church", "", seeds=[])


def test_batches(tiny_latents):
    batches = list(tiny_latents.batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 2] and len(tiny_latents) == 10
    assert torch.equal(torch.cat([batch.x for batch in batches]), tiny_latents.x)


def test_noised(tiny_model, tiny_v_model):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    latents = sample_noised(tiny_model, "church", images=images, n=10, seed=1)
    assert len(latents) == 10 and latents.t.sort().values.tolist() != latents.t.tolist()
    assert sorted(t // 100 for t in latents.t.tolist()) == list(range(10)), "one timestep per tenth of the schedule"
    signal = tiny_model.sampler().alphas_cumprod[latents.t].view(-1, 1, 1, 1)
    clean = (latents.x - (1 - signal).sqrt() * latents.target) / signal.sqrt()
    expected = tiny_model.encode_images(images)[torch.arange(10) % 3]
    torch.testing.assert_close(clean, expected, atol=1e-3, rtol=1e-3)
    same, other = (sample_noised(tiny_model, "church", images=images, n=10, seed=seed) for seed in (1, 2))
    assert torch.equal(same.x, latents.x) and torch.equal(same.t, latents.t) and not torch.equal(other.x, latents.x)
    assert not torch.allclose(sample_noised(tiny_v_model, "church", images=images, n=10, seed=1).target, latents.target)
    generated = sample_noised(tiny_model, "church", n=2, steps=2)
    assert generated.meta["images"] == "generated" and len(generated) == 2
    with pytest.raises(UserError, match="at least one image"):
        sample_noised(tiny_model, "church", n=0)


def test_file(tiny_latents, tmp_path):
    path = tiny_latents.save(tmp_path / "deep" / "noisy_latents.safetensors")
    loaded = NoisyLatents.load(path)
    assert torch.equal(loaded.x, tiny_latents.x) and torch.equal(loaded.t, tiny_latents.t) and loaded.target is None
    assert (loaded.prompt, loaded.base_prompt, loaded.meta) == ("church", "", tiny_latents.meta)
    assert [file.name for file in path.parent.iterdir()] == ["noisy_latents.safetensors"]
    with pytest.raises(UserError, match="no noisy latents file at"):
        NoisyLatents.load(tmp_path / "none")


def test_a_walk_is_the_unguided_trajectory_that_concepts_share(tiny_model):
    walked = walk(tiny_model, "a photo", seeds=[0, 1, 2], steps=4, batch_size=2)
    whole = sample_trajectory(tiny_model, "church", "a photo", [0, 1, 2], 4, guidance=0.0)
    seen = look(tiny_model, walked, "church", batch_size=5)
    assert walked.cond is None and seen.prompt == "church" and torch.equal(seen.t, whole.t)
    assert seen.meta == whole.meta
    for name in ("x", "base", "cond"):
        torch.testing.assert_close(getattr(seen, name), getattr(whole, name), atol=1e-4, rtol=1e-4)
