"""Objectives on predicted images, and contrasts: values by another road, gradients by finite differences, errors."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from cad_exp.attribution.objectives.build import check, formula, make_objective, retained_prompts
from cad_exp.data.noisy_latents import sample_noised, sample_trajectory
from cad_exp.evaluation.judges import load_judge
from cad_exp.interventions.spaces import find_sites
from cad_exp.mini.world import LABELS, OBJECTS, PERSON, STYLES, draw
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import ablations, leftovers
from tests.placed import placed, rows_placed

CONCEPT = {"kind": "object", "label": "church"}


@pytest.fixture(scope="module")
def judge():
    return load_judge("mini")


@pytest.fixture(scope="module")
def pictures():
    images, scenes = zip(*(draw(30_000_000 + i) for i in range(12)), strict=True)
    return np.stack(images), scenes


def tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


@pytest.fixture(params=["eps", "v"])
def model(request, tiny_model, tiny_v_model):
    return tiny_model if request.param == "eps" else tiny_v_model


def test_predicted_x0_undoes_the_noise(model):
    latents, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 400, 999])
    x = model.add_noise(latents, noise, t)
    found = model.predicted_x0(x, t, model.target(latents, noise, t))
    torch.testing.assert_close(found, latents, atol=1e-4, rtol=1e-4)
    scheduler = DDIMScheduler.from_config(model.pipe.scheduler.config)
    scheduler.set_timesteps(10)
    prediction, step = torch.randn(1, 4, 8, 8), scheduler.timesteps[3]
    expected = scheduler.step(prediction, step, x[:1]).pred_original_sample
    torch.testing.assert_close(model.predicted_x0(x[:1], step[None], prediction), expected, atol=1e-5, rtol=1e-4)


def test_decode_is_the_pipelines_own(tiny_model):
    latents = torch.randn(2, 4, 8, 8, requires_grad=True)
    images = tiny_model.decode(latents)
    plain = tiny_model.pipe.vae.decode(latents / tiny_model.pipe.vae.config.scaling_factor).sample
    assert images.shape == (2, 3, 16, 16) and images.dtype == torch.float32
    expected = tiny_model.pipe.image_processor.postprocess(plain.detach(), output_type="pt")
    torch.testing.assert_close(images.detach(), expected)
    images.sum().backward()
    assert latents.grad.abs().sum() > 0


def test_log_odds_are_those_of_the_probabilities(judge, pictures):
    images, _ = pictures
    said = judge.classifier.predict(images)
    for kind, label, p in (
        ("object", "church", said["object_prob"][:, OBJECTS.index("church")]),
        ("style", "Van Gogh", said["style_prob"][:, STYLES.index("Van Gogh")]),
        ("nudity", "naked", said["naked_prob"]),
        ("clothed", "person", said["object_prob"][:, PERSON] * (1 - said["naked_prob"])),
    ):
        found = judge.log_odds(tensor(images), kind, label)
        np.testing.assert_allclose(torch.sigmoid(found).numpy(), p, atol=1e-5)
        assert torch.isfinite(found).all()
    table, _ = judge.labels(images)
    sure = torch.stack([judge.log_odds(tensor(images), "object", name) for name in LABELS])
    assert [LABELS[i] for i in sure.argmax(0)] == table["object"].tolist()


def test_similarity_is_the_clip_score(judge, pictures):
    images, _ = pictures
    found = judge.similarity(tensor(images), "a photo of a church")
    np.testing.assert_allclose(found.numpy(), judge.clip_scores(images, ["a photo of a church"] * 12), atol=1e-5)


def test_large_and_small_images_are_judged_alike(judge, pictures):
    images, _ = pictures
    large = torch.nn.functional.interpolate(tensor(images), scale_factor=2, mode="nearest")
    for ask in (lambda x: judge.similarity(x, "church"), lambda x: judge.log_odds(x, "object", "church").sigmoid()):
        torch.testing.assert_close(ask(large), ask(tensor(images)), atol=0.1, rtol=0)


def test_a_saturated_judge_stays_finite(judge):
    judge.classifier.forward, old = (lambda x: (60 * x, x, 60 * x[:, 0])), judge.classifier.forward
    try:
        extreme = torch.full((2, len(LABELS)), -1.0).index_fill(1, torch.tensor(PERSON), 1.0)
        extreme[1] *= -1
        x = extreme.clone().requires_grad_()
        found = judge.classifier.log_odds(x, "clothed", "person")
        found.sum().backward()
        assert torch.isfinite(found).all() and torch.isfinite(x.grad).all()
    finally:
        judge.classifier.forward = old


def by_hand(name, model, latents, judge, guidance):
    """J with plain diffusers: the scheduler's own x0, the pipeline's own decoding, a judge that sees fp32 images."""
    scheduler = DDIMScheduler.from_config(model.pipe.scheduler.config)
    scores = []
    for x, t, cond, base in zip(latents.x, latents.t, latents.cond, latents.base, strict=True):
        scheduler.set_timesteps(1000)
        x0 = scheduler.step((base + guidance * (cond - base))[None], t, x[None]).pred_original_sample
        with torch.no_grad():
            image = model.pipe.vae.decode(x0 / model.pipe.vae.config.scaling_factor).sample
        image = torch.nn.functional.interpolate((image / 2 + 0.5).clamp(0, 1), (64, 64), mode="bilinear") * 2 - 1
        if name == "judge":
            p = judge.classifier(image)[0].softmax(1)[0, LABELS.index("church")].double()
            scores.append(float(torch.log(p / (1 - p))))
        else:
            tower = judge.clip.model
            vector = tower.visual_projection(tower.vision_model(pixel_values=image).pooler_output)
            text = judge.clip.texts([latents.prompt])
            scores.append(float(torch.nn.functional.cosine_similarity(vector, text)))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", ["clip", "judge"])
def test_values_by_hand(name, guidance, model, judge):
    latents = sample_trajectory(model, "church", "", seeds=[0], steps=4)
    objective = make_objective(name, model, latents, 3, context={"judge": judge, **CONCEPT}, guidance=guidance)
    assert objective.value() == pytest.approx(by_hand(name, model, latents, judge, guidance), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "name, settings", [("guidance_norm", {}), ("clip", {}), ("judge", {"guidance": 2.0}), ("contrast", {"of": "judge"})]
)
def test_gradients_against_finite_differences(name, settings, model, judge):
    """Single gates of one site, and a whole one; a four-point stencil, for fp32 has few digits."""
    latents, kept = (sample_trajectory(model, prompt, "", seeds=[0], steps=3) for prompt in ("church", "golf ball"))
    context, site = {"judge": judge, **CONCEPT, "retained": [kept]}, find_sites(model.denoiser)[-1]
    objective = make_objective(name, model, latents, 3, context=context, **settings)
    gate = torch.ones(site.shape[1])
    value, gradient = objective.value_and_gradient(*placed({site.module: gate}))
    assert value == pytest.approx(objective.value(), rel=1e-5, abs=1e-6)
    slopes = gradient[site.module]
    top = slopes.abs().topk(2).indices
    directions = [torch.zeros_like(gate).index_fill(0, column, 1.0) for column in top] + [slopes.sign()]
    for direction in directions:
        step = 0.2 / direction.norm()
        near = [objective.value(*placed({site.module: gate + k * step * direction})) for k in (1, -1, 2, -2)]
        slope = (8 * (near[0] - near[1]) - (near[2] - near[3])) / 12 / step.item()
        assert slope == pytest.approx((slopes * direction).sum().item(), rel=2e-3, abs=1e-6)
    assert not any(p.requires_grad or p.grad is not None for p in model.denoiser.parameters())
    assert leftovers(model.denoiser) == 0


def test_guidance_norm_by_hand(tiny_model, tiny_latents):
    expected = (tiny_latents.cond - tiny_latents.base).square().mean().item()
    assert make_objective("guidance_norm", tiny_model, tiny_latents, 4).value() == pytest.approx(expected, rel=1e-4)


def test_contrast_is_the_difference(tiny_model, tiny_latents, judge):
    """Value, values and gradient by the parts; a weight for each; what is removed is the concept's everywhere."""
    kept = [sample_trajectory(tiny_model, prompt, "", seeds=[1], steps=2) for prompt in ("golf ball", "a person")]
    context, gates = {"judge": judge, **CONCEPT, "retained": kept}, ablations(tiny_model.denoiser)
    row = {module: gate[4] for module, gate in gates.items()}
    seen = []
    report = lambda *count: seen.append(count)  # noqa: E731
    contrast = make_objective(
        "contrast", tiny_model, tiny_latents, 4, report, context, of="erase", weight=[0.5, 2.0], ablation="mean"
    )
    parts = [make_objective("erase", tiny_model, latents, 4, ablation="mean") for latents in (tiny_latents, *kept)]
    for part in parts:
        part.ablation = parts[0].ablation
    shares = (1, -0.25, -1)
    values = sum(share * part.values(*rows_placed(gates)) for share, part in zip(shares, parts, strict=True))
    torch.testing.assert_close(contrast.values(*rows_placed(gates)), values)
    assert seen[-1] == (70, 70) and seen == sorted(set(seen))
    seen.clear()
    value, gradient = contrast.value_and_gradient(*placed(row))
    assert seen[-1] == (10, 10) and seen == sorted(set(seen))
    assert value == pytest.approx(values[4].item(), rel=1e-4) == contrast.value(*placed(row))
    found = [part.value_and_gradient(*placed(row))[1] for part in parts]
    for module, slope in gradient.items():
        expected = sum(share * each[module] for share, each in zip(shares, found, strict=True))
        torch.testing.assert_close(slope, expected, atol=1e-7, rtol=1e-4)


def test_contrast_asks_the_judge_for_each_prompt(tiny_model, tiny_latents, judge):
    kept = sample_trajectory(tiny_model, "a photo of a golf ball", "", seeds=[1], steps=2)
    contrast = make_objective(
        "contrast", tiny_model, tiny_latents, context={"judge": judge, **CONCEPT, "retained": [kept]}, of="judge"
    )
    assert [(part.kind, part.label) for part in contrast.members] == [("object", "church"), ("object", "golf ball")]


def test_the_judge_reads_prompts(judge):
    asked = {
        "a photo of an English springer": ("object", "English springer"),
        "a church in the style of Van Gogh": ("style", "Van Gogh"),
        "a photo of a naked person": ("nudity", "naked"),
        "a photo of a person": ("clothed", "person"),
    }
    assert {prompt: judge.question(prompt) for prompt in asked} == asked
    with pytest.raises(UserError, match="knows no label in the prompt 'a red background'"):
        judge.question("a red background")


def test_which_prompts_are_retained_and_which_noisy_latents_are_needed():
    concept = {"prompt": "golf ball", "evaluation_prompts": ["a photo of a golf ball"]}
    assert retained_prompts({"retain": ["a photo of a golf ball", "church"]}, concept) == ["church"]
    assert retained_prompts({"name": "erase"}, concept) == []
    configs = [{"name": "erase"}, {"name": "amplify"}, {"name": "contrast", "of": "amplify"}, {"name": "contrast"}]
    assert [formula(config).latents_kind for config in configs] == ["trajectory", "noised", "noised", "trajectory"]
    assert "judge" in formula({"name": "contrast", "of": "clip"}).context and "judge" not in formula(configs[3]).context


def test_contrast_of_amplify(tiny_model):
    latents, kept = (sample_noised(tiny_model, prompt, n=2, steps=2) for prompt in ("church", "golf ball"))
    contrast = make_objective("contrast", tiny_model, latents, context={"retained": [kept]}, of="amplify")
    one, other = (make_objective("amplify", tiny_model, each).value() for each in (latents, kept))
    assert contrast.value() == pytest.approx(one - other, rel=1e-5)


def test_errors(tiny_model, tiny_latents, judge):
    for name in ("clip", "judge"):
        with pytest.raises(UserError, match=f"objective {name} needs a judge and this model has none"):
            make_objective(name, tiny_model, tiny_latents)
    with pytest.raises(UserError, match="objective judge needs a label"):
        make_objective("judge", tiny_model, tiny_latents, context={"judge": judge, "kind": "custom", "label": None})
    for label in ({"kind": "object", "label": "chruch"}, {"kind": "custom", "label": "church"}):
        with pytest.raises(UserError, match="unknown .*for the judge"):
            make_objective("judge", tiny_model, tiny_latents, context={"judge": judge, **label})
    with pytest.raises(UserError, match="give objective.retain"):
        make_objective("contrast", tiny_model, tiny_latents)
    with pytest.raises(UserError, match="2 numbers for 1 prompts"):
        make_objective("contrast", tiny_model, tiny_latents, context={"retained": [tiny_latents]}, weight=[1, 2])
    with pytest.raises(UserError, match="unknown objective in objective.of 'contrast'"):
        make_objective("contrast", tiny_model, tiny_latents, of="contrast")


def test_a_config_is_checked_before_noisy_latents_are_sampled(judge):
    church = {"prompt": "church", "evaluation_prompts": ["a photo of a church"], **CONCEPT}
    custom = {"prompt": "a ball", "evaluation_prompts": ["a ball"], "kind": "custom", "label": None}
    contrast = {"name": "contrast", "of": "judge", "retain": ["a photo of a church", "a person"]}
    for settings in ({"name": "erase"}, {"name": "clip"}, {"name": "judge"}, contrast):
        check(settings, church, judge)
    check({"name": "clip"}, custom, judge)
    for settings, concept, asked, says in (
        ({"name": "clip"}, church, None, "objective clip needs a judge"),
        ({"name": "contrast", "of": "clip"}, church, None, "objective clip needs a judge"),
        ({"name": "judge"}, custom, judge, "objective judge needs a label"),
        ({"name": "judge"}, church | {"label": "chruch"}, judge, "unknown object for the judge 'chruch'"),
        (contrast | {"retain": ["a photo of a church"]}, church, judge, "contrast needs something to keep"),
        (contrast | {"retain": ["a red ball"]}, church, judge, "no label in the prompt 'a red ball'"),
        ({"name": "contrast", "of": "contrast"}, church, judge, "unknown objective in objective.of"),
    ):
        with pytest.raises(UserError, match=says):
            check(settings, concept, asked)


def test_another_device_gets_its_own_judge(judge):
    assert judge.on("cpu") is judge
    moved = judge.on("meta")
    assert moved is not judge and moved.device == torch.device("meta") and isinstance(judge, type(moved))


def test_every_config_says_the_defaults():
    """objective/<name>.yaml and the constructor's own defaults are the same, so a script gets what a run gets."""
    import inspect

    from omegaconf import OmegaConf

    from cad_exp.attribution.objectives import build
    from cad_exp.config.options import conf_folder

    for name in build.OBJECTIVES:
        said = OmegaConf.to_container(OmegaConf.load(conf_folder() / "objective" / f"{name}.yaml"))
        assert said.pop("name") == name and said.pop("ablation") == "zero" and said.pop("weighting") == "uniform"
        said.pop("retain", None)
        cls = build.OBJECTIVES.get(name)
        maker = cls.make if name == "contrast" else cls
        defaults = {key: p.default for key, p in inspect.signature(maker).parameters.items()}
        assert said == {key: defaults[key] for key in said}
