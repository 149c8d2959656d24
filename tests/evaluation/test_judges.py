"""The real judges: against other implementations, on drawn images and small random networks; and what they leave."""

import dataclasses
import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cad_exp.config.resolve import resolve
from cad_exp.data.metric_registry import METRICS
from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation import judge_sources, redaction
from cad_exp.evaluation.distances import (
    Statistics,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
    kernel_estimate,
    quick_frechet,
)
from cad_exp.evaluation.erasure import Records, judge_batch, shows, tabulate
from cad_exp.evaluation.judge_sources import at_hand, locate, reference_digest, wanted
from cad_exp.evaluation.judges import load_judge
from cad_exp.evaluation.judges.nudenet import EXPOSED, counts, detections, strongest
from cad_exp.evaluation.judges.real import RealJudge
from cad_exp.evaluation.judges.weights import read_state
from cad_exp.pipeline.cache.store import Cache
from cad_exp.pipeline.identity import run_identity
from cad_exp.pipeline.stages.judgements import Judged
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed
from tests.graphs import graph_of, unedited

SETTINGS = {"fid_bootstrap": 5, "higher_concept_is_better": False}


def pictures(number: int = 4, size: tuple[int, int] = (96, 80), seed: int = 0) -> np.ndarray:
    """Persons of the mini world, enlarged: uint8 (number, height, width, 3)."""
    from cad_exp.mini.world import LABELS, Scene, render

    rng = np.random.default_rng(seed)
    drawn = [render(Scene(LABELS.index("person"), 0, True, i % 3), rng) for i in range(number)]
    return np.stack([np.asarray(Image.fromarray(image).resize(size[::-1])) for image in drawn])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Random networks of the true architectures, saved as their weights are published."""
    from torchvision.models import alexnet, resnet50

    folder, found = tmp_path_factory.mktemp("weights"), {}
    torch.manual_seed(0)
    for name, network in {"resnet": resnet50(), "lpips": alexnet()}.items():
        found[name] = folder / f"{name}.pth"
        torch.save(network.state_dict(), found[name])
    return found | {"clip": tiny_clip(folder / "clip")}


def tiny_clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    from tests.conftest import _tokenizer

    _tokenizer(folder).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 74, "eos_token_id": 73, "pad_token_id": 73}
    text = small | ids | {"vocab_size": 75, "max_position_embeddings": 16}
    vision = small | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(1)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    return folder


def settings(**given: dict) -> dict:
    """The config's group judge=real, with what is given per part."""
    found = resolve(composed("judge=real"))["judge"]
    for part, values in given.items():
        found[part] = found[part] | values
    return found


# --- which judge, and what it needs


@pytest.mark.parametrize(
    "overrides, name",
    [
        ([], "mini"),
        (["model.judge=null"], None),
        (["model=local", "model.path=x"], "real"),
        (["model=sd14"], "real"),
        (["model=flux_schnell", "judge=none"], None),
        (["model=local", "model.path=x", "model.judge=mini"], "mini"),
        (["model=local", "model.path=x", "judge=mini"], "mini"),
        (["judge=real"], "real"),
        (["model.judge=real"], "real"),
        (["judge=none"], None),
        (["judge=real_cad"], "real"),
    ],
)
def test_the_judge_follows_the_model_unless_told(overrides: list[str], name: str | None):
    config = resolve(composed(*overrides))
    assert config["judge"]["name"] == config["model"]["judge"] == name
    assert set(config["judge"]) > {"nudenet", "parts"} if name == "real" else set(config["judge"]) == {"name"}
    assert resolve(config)["judge"] == config["judge"]


def test_an_unknown_judge_is_refused():
    with pytest.raises(UserError, match="did you mean 'real'"):
        resolve(composed("model.judge=reel"))


@pytest.mark.parametrize(
    "overrides, parts",
    [
        (["concept=nudity", "evaluation=erasure"], ["nudenet"]),
        (["concept=church", "evaluation=erasure"], ["resnet"]),
        (["concept=van_gogh", "evaluation=erasure"], ["lpips"]),
        (["concept=van_gogh", "evaluation.metrics=[erasure,retention]"], ["resnet", "lpips"]),
        (["concept=nudity"], ["nudenet", "resnet", "clip", "inception", "lpips"]),
        (["concept=nudity", "judge.parts=[nudenet]"], ["nudenet"]),
        (["concept=church", "evaluation=none", "objective=clip"], ["clip"]),
        (["concept=church", "evaluation=none"], []),
    ],
)
def test_only_the_judges_that_are_asked_are_wanted(overrides: list[str], parts: list[str]):
    assert wanted(resolve(composed("judge=real", "evaluation.fidelity=null", *overrides))) == parts


def test_parts_that_leave_nobody_to_judge_are_refused():
    config = resolve(composed("judge=real", "concept=van_gogh", "evaluation=erasure", "judge.parts=[nudenet,clip]"))
    with pytest.raises(UserError, match="leaves out all that these metrics need: lpips"):
        wanted(config)


@pytest.mark.parametrize(
    "part, url",
    [("resnet", "resnet50-11ad3fa6.pth"), ("lpips", "alexnet-owt-7be5be79.pth"), ("inception", "2015-12-05")],
)
def test_missing_weights_name_the_file_and_the_command(part: str, url: str, monkeypatch, tmp_path: Path):
    pytest.importorskip("torch_fidelity") if part == "inception" else None
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / judge_sources.PARTS[part].file
    with pytest.raises(UserError, match=rf"`curl -fL --create-dirs -o {file} https://.*{url}.*`") as error:
        locate(part, {"weights": None})
    assert f"judge.{part}.weights=FILE" in str(error.value)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half of the weights")
    with pytest.raises(UserError, match="is damaged or was not loaded to its end; `curl"):
        locate(part, {"weights": None})
    begin = hashlib.sha256(b"half of the weights").hexdigest()[:8]
    whole = dataclasses.replace(judge_sources.PARTS[part], file=f"weights-{begin}.pth")
    monkeypatch.setitem(judge_sources.PARTS, part, whole)
    file.rename(file.parent / whole.file)
    assert locate(part, {"weights": None}) == file.parent / whole.file
    with pytest.raises(UserError, match="is not a file"):
        locate(part, {"weights": str(tmp_path / "none")})


def test_missing_clip_names_the_download(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    with pytest.raises(UserError, match="`hf download openai/clip-vit-large-patch14 config.json ") as error:
        locate("clip", {"weights": None, "model": "ViT-L/14"})
    command = shlex.split(str(error.value).split("`")[1])
    assert {"vocab.json", "merges.txt", "model.safetensors"} < set(command) and "--include" not in command
    assert command[-2] == "--revision" and command[-1].startswith("32bd642")
    with pytest.raises(UserError, match="did you mean 'ViT-B/32'"):
        locate("clip", {"weights": None, "model": "ViT-B32"})
    with pytest.raises(UserError, match=r"config\.json"):
        locate("clip", {"weights": str(tmp_path), "model": "ViT-B/32"})


def test_the_download_of_clip_is_found(monkeypatch, weights):
    def cached(hub: str, name: str, revision: str) -> str | None:
        place = weights["clip"] / ("model.safetensors" if name == "pytorch_model.bin" else name)
        return str(place) if place.is_file() and hub.startswith("openai/") and len(revision) == 40 else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    assert locate("clip", {"weights": None, "model": "ViT-B/32"}) == weights["clip"]


@pytest.mark.parametrize("part", ["nudenet", "inception"])
def test_a_missing_package_names_the_extra(part: str, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(judge_sources, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'cad-exp\[judges\]'") as error:
        locate(part, {"weights": None})
    assert ("curl" in str(error.value)) == (part == "inception")  # NudeNet's weights come with its package


def test_all_that_is_missing_is_said_at_once_or_skipped(monkeypatch, tmp_path: Path, weights):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    chosen = settings(clip={"weights": str(weights["clip"])})
    assert chosen["missing"] == "refuse"
    with pytest.raises(UserError, match=r"(?s)2 of 3.*resnet.*lpips.*judge\.missing=skip.*with clip.*judge=none"):
        at_hand(chosen, ["resnet", "clip", "lpips"])
    skipping = chosen | {"missing": "skip"}
    found, lacking = at_hand(skipping, ["resnet", "clip", "lpips"])
    assert list(found) == ["clip"] and list(lacking) == ["resnet", "lpips"]
    with pytest.raises(UserError, match=r"(?s)1 of 1.*resnet.*judge=none") as error:  # nobody would judge
        at_hand(skipping, ["resnet"])
    assert "judge.missing" not in str(error.value)
    with pytest.raises(UserError, match="judge.clip.weights: 'nowhere'"):  # a slip of the pen is no missing file
        at_hand(skipping | {"clip": skipping["clip"] | {"weights": "nowhere"}}, ["resnet", "clip"])


def test_a_run_without_weights_ends_before_any_work(monkeypatch, tmp_path: Path):
    from cad_exp.pipeline import preflight
    from cad_exp.pipeline.run import run

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = composed("judge=real", "concept=church", "evaluation=erasure", "runtime.device=cpu")
    for stopped in (lambda: preflight.check(resolve(asked)), lambda: run(asked, tmp_path / "run")):
        with pytest.raises(UserError, match="resnet50"):
            stopped()
    assert not (tmp_path / "run").exists()


def test_the_model_is_asked_for_before_its_judges(monkeypatch, tmp_path: Path):
    from cad_exp.pipeline import preflight

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match="'CompVis/stable-diffusion-v1-4' is not on this machine") as error:
        preflight.check(resolve(composed("model=sd14")))
    assert "judge" not in str(error.value)


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["model.weights=nowhere.pt"], "there is no weights file 'nowhere.pt': check model.weights"),
        (
            ["model.edits=[nowhere.safetensors]"],
            "there is no edit file 'nowhere.safetensors': give the edit.safetensors of a run as",
        ),
        (["prompts=i2p", "prompts.path=nowhere.csv"], "there is no prompt file 'nowhere.csv'"),
    ],
)
def test_the_files_of_a_run_are_asked_for_after_its_model(overrides: list[str], said: str, monkeypatch, tmp_path: Path):
    from cad_exp.pipeline import preflight

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    asked = ["judge=real", "concept=nudity", "judge.nudenet.weights=nowhere.onnx", *overrides]
    with pytest.raises(UserError, match=said):  # before the judges
        preflight.check(resolve(composed(*asked)))
    with pytest.raises(UserError, match="'CompVis/stable-diffusion-v1-4' is not on this machine"):
        preflight.check(resolve(composed("model=sd14", *asked)))


def test_a_prompt_set_that_nobody_looks_at_is_not_asked_for():
    from cad_exp.pipeline import preflight

    preflight.check(resolve(composed("concept=nudity", "prompts=i2p", "prompts.path=nowhere.csv", "evaluation=none")))


def test_judges_that_are_not_there_make_an_identity_and_no_error(monkeypatch, tmp_path: Path, weights):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = resolve(composed("judge=real", "concept=church", "evaluation=erasure"))
    nobody = RealJudge.identity_of(config)
    assert nobody == {"weights": {}, "packages": [], "reference": None}
    config["judge"]["resnet"] = {"weights": str(weights["resnet"])}
    assert list(RealJudge.identity_of(config)["weights"]) == ["resnet"]


def test_weights_reference_and_thresholds_are_part_of_the_run(tmp_path: Path):
    def identity(*overrides: str) -> str:
        file = f"judge.resnet.weights={tmp_path / 'w'}"
        return run_identity(resolve(composed("judge=real", "concept=church", "evaluation=erasure", file, *overrides)))

    (tmp_path / "w").write_bytes(b"one")
    first = identity()
    assert identity() == first != identity("judge.nudenet.threshold=0.6")
    (tmp_path / "w").write_bytes(b"three")
    assert identity() != first


def test_weights_are_never_unpickled(tmp_path: Path):
    torch.save({"layer": torch.zeros(1), "other": Path("x")}, tmp_path / "odd.pth")
    (tmp_path / "text.safetensors").write_text("no")
    for name in ("odd.pth", "text.safetensors"):
        with pytest.raises(UserError, match="read safely"):
            read_state(tmp_path / name)
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the weights of torchvision's ResNet-50"):
        _ = RealJudge(settings(), {"resnet": tmp_path / "other.pth"}).parts["resnet"].network


# --- NudeNet


def nudenet(**given) -> RealJudge:
    pytest.importorskip("nudenet")
    chosen = settings(nudenet=given)
    return RealJudge(chosen, {"nudenet": locate("nudenet", chosen["nudenet"])})


def test_nudenet_runs_on_drawn_images(tmp_path: Path):
    judge = nudenet()
    table, features = judge.labels(pictures(4, (320, 240)))
    found = [json.loads(each) for each in table["detections"]]
    assert features.shape == (4, 0) and sum(map(len, found)) > 0  # feet of the mannequins, with low scores
    for each in [item for image in found for item in image]:
        x, y, width, height = each["box"]
        assert 0.05 <= each["score"] <= 1 and 0 <= x and x + width <= 240 and 0 <= y and y + height <= 320
    assert list(table["exposed"]) == [strongest(image) for image in found]


def test_nudenet_is_fed_as_the_package_feeds_files(tmp_path: Path):
    package = pytest.importorskip("nudenet.nudenet")
    from cad_exp.evaluation.judges.nudenet import blob

    for size in ((96, 80), (80, 96), (320, 320)):
        image = pictures(1, size)[0]
        Image.fromarray(image).save(tmp_path / "image.png")
        np.testing.assert_array_equal(blob(image, 320), package._read_image(str(tmp_path / "image.png"), 320)[0])


def test_detections_above_a_quarter_are_the_packages_own():
    package = pytest.importorskip("nudenet.nudenet")
    names, rng = vars(package)["__labels"], np.random.default_rng(0)
    raw = np.zeros((22, 300), np.float32)
    raw[:2], raw[2:4] = rng.uniform(0, 320, (2, 300)), rng.uniform(20, 120, (2, 300))
    raw[4:] = rng.beta(1, 12, (18, 300))
    height, width = 480, 640
    asked = (raw[None], 0, width - height, 1.0, width / height, width, height, 320, 320)
    theirs = package._postprocess(list(asked[:1]), *asked[1:])
    ours = [each for each in detections(raw, (height, width), 320, names) if each["score"] > 0.25]
    assert len(theirs) > 20
    assert [(each["label"], each["box"]) for each in ours] == [(each["class"], each["box"]) for each in theirs]
    np.testing.assert_allclose([each["score"] for each in ours], [each["score"] for each in theirs])


DETECTED = [
    [("FEMALE_BREAST_EXPOSED", 0.9), ("FEMALE_BREAST_EXPOSED", 0.55), ("FACE_FEMALE", 0.99)],
    [("FEET_EXPOSED", 0.45), ("BELLY_COVERED", 0.8)],
    [],
    [("BELLY_EXPOSED", 0.5), ("MALE_GENITALIA_EXPOSED", 0.22)],
]


def stored() -> list[list[dict]]:
    return [[{"label": label, "score": score, "box": [0, 0, 1, 1]} for label, score in image] for image in DETECTED]


def test_thresholds_are_applied_afterwards_by_hand():
    import pandas as pd

    judge = nudenet()
    requests = [ImageRequest("concept", "p", seed, "nudity", "naked") for seed in range(4)]
    said = pd.DataFrame({"detections": [json.dumps(each) for each in stored()]})
    said["exposed"] = [strongest(each) for each in stored()]
    said["clip_score"] = said["perceptual_distance"] = np.nan
    table = tabulate(requests, {"unedited": said, "edited": said.iloc[[2, 2, 2, 1]]}, judge)
    who = judge.definitions
    found = list(
        METRICS.get("erasure")().measure(
            Records(table, np.zeros((8, 0)), who, threshold=judge.threshold, thresholds=judge.thresholds), SETTINGS
        )
    )
    value = {(m["name"], m["variant"]): m["value"] for m in found}
    assert value["concept_rate", "unedited"] == 0.25 and value["concept_rate", "edited"] == 0  # .5 is not above .5
    rates = [value[f"concept_rate@{t}", "unedited"] for t in ("0.2", "0.3", "0.4", "0.45", "0.5", "0.6", "0.75")]
    assert rates == [0.75, 0.75, 0.75, 0.5, 0.25, 0.25, 0.25]
    assert value["nudity_detections", "unedited"] == 2 == value["nudity_detections@FEMALE_BREAST", "unedited"]
    assert {name.split("@")[1] for name, _ in value if name.startswith("nudity_detections@")} == set(EXPOSED)
    assert counts(said["detections"][3], 0.2) == dict.fromkeys(EXPOSED, 0) | {"BELLY": 1, "MALE_GENITALIA": 1}
    told = found[0]["definition"]
    assert {"library", "weights", "resolution", "threshold", "labels"} <= set(told) and found[0]["n"] == 4
    by_name = {m["name"]: m["definition"] for m in found}
    assert by_name["concept_rate@0.3"]["threshold"] == 0.3 and told["threshold"] == 0.5
    assert found[0]["higher_is_better"] is False


def test_another_threshold_does_not_judge_again():
    first, second = nudenet(), nudenet(threshold=0.6)
    assert first.identity == second.identity and first.definition != second.definition
    with pytest.raises(UserError, match="thresholds lie in"):
        nudenet(threshold=1.5)


# --- ResNet-50, CLIP, LPIPS


def test_accuracy_equals_a_direct_loop(weights):
    from torchvision.models import ResNet50_Weights, resnet50

    judge, images = RealJudge(settings(), {"resnet": weights["resnet"]}), pictures(3)
    network = resnet50()
    network.load_state_dict(torch.load(weights["resnet"], weights_only=True))
    network.eval()
    transform, names = ResNet50_Weights.IMAGENET1K_V2.transforms(), ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    with torch.no_grad():
        logits = torch.cat([network(transform(Image.fromarray(image))[None]) for image in images])
    table, _ = judge.labels(images)
    direct = [names[int(row.argmax())] for row in logits]
    assert list(table["object"]) == direct
    np.testing.assert_allclose(table["object_prob"], logits.softmax(1).max(1).values, rtol=1e-4)
    requests = [
        ImageRequest("concept", "p", i, "object", label) for i, label in enumerate([direct[0], "church", direct[2]])
    ]
    assert list(tabulate(requests, {"unedited": table}, judge)["shows_label"]) == [
        float(a == b.label) for a, b in zip(direct, requests, strict=True)
    ]


def test_imagenettes_names_are_torchvisions(weights):
    from cad_exp.mini.world import OBJECTS

    classes = RealJudge(settings(), {"resnet": weights["resnet"]}).parts["resnet"].classes
    assert [classes.index(name) for name in OBJECTS] == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def test_log_odds_are_those_of_the_label_and_have_a_gradient(weights):
    judge = RealJudge(settings(), {"resnet": weights["resnet"]})
    pixels = torch.from_numpy(pictures(1)).permute(0, 3, 1, 2).float().div(255).requires_grad_()
    odds = judge.log_odds(pixels, "object", "church")
    logits = judge.parts["resnet"].network(judge.parts["resnet"].transform(pixels))
    probability = logits.softmax(1)[:, 497]
    torch.testing.assert_close(odds, torch.logit(probability), rtol=1e-3, atol=1e-3)
    odds.sum().backward()
    assert pixels.grad.abs().sum() > 0
    with pytest.raises(UserError, match="did you mean 'church'"):
        judge.log_odds(pixels, "object", "churhc")
    with pytest.raises(UserError, match="no differentiable judge of nudity"):
        judge.log_odds(pixels, "nudity", "naked")
    assert judge.question("a photo of a garbage truck") == ("object", "garbage truck")


def test_clip_scores_equal_the_models_own_similarity(weights, capsys):
    from transformers import CLIPModel, CLIPTokenizer

    chosen = settings(clip={"weights": str(weights["clip"])})
    judge, images = RealJudge(chosen, {"clip": weights["clip"]}), pictures(3, (32, 32))
    prompts = ["a church", "a very long caption " * 9, "a church"]
    scores = judge.clip_scores(images, prompts)
    assert capsys.readouterr().out.count("prompts of more than 16 tokens are cut") == 1
    network, tokenizer = (
        CLIPModel.from_pretrained(weights["clip"]).eval(),
        CLIPTokenizer.from_pretrained(weights["clip"]),
    )
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # of the model's size: nothing to resize
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        for row, prompt in enumerate(prompts):
            ids = tokenizer([prompt], truncation=True, max_length=16, return_tensors="pt")
            out = network(**ids, pixel_values=pixels[row : row + 1])
            expected = float(out.logits_per_image / network.logit_scale.exp())
            assert scores[row] == pytest.approx(expected, abs=1e-5)
    assert (np.abs(scores) <= 1).all() and "16 tokens" in judge.clip_definition["captions"]
    given = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(judge.similarity(given, "a church")[[0, 2]], scores[[0, 2]], atol=1e-5)


@pytest.mark.parametrize("resize", [None, 64])
def test_lpips_equals_the_lpips_package(weights, resize: int | None):
    lpips = pytest.importorskip("lpips")
    from torchvision.models import alexnet

    judge = RealJudge(settings(lpips={"resize": resize}), {"lpips": weights["lpips"]})
    a, b = pictures(2), pictures(2, seed=5)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    backbone = alexnet()
    backbone.load_state_dict(torch.load(weights["lpips"], weights_only=True))
    slices = [theirs.net.slice1, theirs.net.slice2, theirs.net.slice3, theirs.net.slice4, theirs.net.slice5]
    for part in slices:
        for index, layer in part.named_children():
            layer.load_state_dict(backbone.features[int(index)].state_dict())
    if resize:
        small = [
            np.stack([np.asarray(Image.fromarray(i).resize((64, 64), Image.Resampling.BICUBIC)) for i in x])
            for x in (a, b)
        ]
    else:
        small = [a, b]
    tensors = [torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in small]
    with torch.no_grad():
        expected = theirs(*tensors).flatten()
    np.testing.assert_allclose(judge.distance(a, b), expected, rtol=1e-4)
    assert (judge.distance(a, a) == 0).all() and (judge.distance(a, b) > 0).all()
    assert judge.definitions["distance"]["resolution"] == (resize or "full size")


# --- FID and KID


def features(seed: int, n: int, shift: float = 0.0, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, width)).astype(np.float32)


def test_fid_equals_scipy_and_torch_fidelity():
    linalg, fidelity = pytest.importorskip("scipy.linalg"), pytest.importorskip("torch_fidelity.metric_fid")
    real, fake = features(0, 90), features(1, 60, 0.4)
    ours = frechet_distance(real, fake)
    a, b = np.cov(real.astype(float), rowvar=False), np.cov(fake.astype(float), rowvar=False)
    gap = real.astype(float).mean(0) - fake.astype(float).mean(0)
    assert ours == pytest.approx(gap @ gap + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real), rel=1e-6)
    stats = [fidelity.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    theirs = fidelity.fid_statistics_to_metric(*stats, verbose=False)
    assert ours == pytest.approx(next(iter(theirs.values())), rel=1e-5)


@pytest.mark.parametrize("n", [8, 60])
def test_fid_from_statistics_and_its_quick_form_are_the_same(n: int):
    real, fake = features(0, 90), features(1, n, 0.4)
    known = Statistics.of(real)
    value = frechet_distance(real, fake)
    assert frechet_distance(known, fake) == pytest.approx(value, rel=1e-5)
    assert frechet_distance(Statistics(known.mean, known.covariance, None), fake) == pytest.approx(value, rel=1e-5)
    assert quick_frechet(known, fake) == pytest.approx(value, rel=1e-3)
    assert frechet_estimate(known, fake, 5).drawn == pytest.approx(frechet_estimate(real, fake, 5).drawn, rel=1e-5)


def direct_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3, pair by pair."""
    kernel = lambda a, b: (float(a @ b) / len(a) + 1) ** 3  # noqa: E731
    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    return sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_kid_equals_a_direct_sum_and_its_error_the_jackknife():
    real, fake = features(0, 20).astype(float), features(1, 20, 0.5).astype(float)
    found = kernel_estimate(real, fake)
    low, high = found.interval()
    assert found.value == pytest.approx(direct_kid(real, fake), rel=1e-6) and 0 <= low < found.value < high
    left = [np.array([direct_kid(real, np.delete(fake, i, 0)) for i in range(20)])]
    left += [np.array([direct_kid(np.delete(real, i, 0), fake) for i in range(20)])]
    error = np.sqrt(19 / 20 * sum(((x - x.mean()) ** 2).sum() for x in left))
    assert high - found.value == pytest.approx(2.093024 * error, rel=1e-6)  # Student's quantile, 19 degrees of freedom
    assert kernel_distance(features(0, 40), features(1, 30)) == kernel_distance(features(0, 40), features(1, 30))


def inception_states(tmp_path: Path) -> Path:
    pytest.importorskip("torch_fidelity")
    from cad_exp.evaluation.judges.inception import _empty

    torch.manual_seed(0)
    torch.save(_empty().state_dict(), tmp_path / "inception.pth")
    return tmp_path / "inception.pth"


def test_inception_features_equal_torch_fidelitys(tmp_path: Path):
    file = inception_states(tmp_path)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    judge, images = RealJudge(settings(), {"inception": file}), pictures(2)
    theirs = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(file))
    expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())[0]
    found = judge.labels(images)[1]
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    np.testing.assert_allclose(judge.parts["inception"].of_folder(tmp_path), found, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="at least 2 needed"):
        (tmp_path / "empty").mkdir()
        judge.parts["inception"].of_folder(tmp_path / "empty")


def test_a_reference_is_a_folder_or_statistics(tmp_path: Path):
    from cad_exp.evaluation.judges.inception import read_statistics

    np.savez(tmp_path / "good.npz", mu=np.zeros(2048), sigma=np.eye(2048), n=500)
    np.savez(tmp_path / "small.npz", mu=np.zeros(64), sigma=np.eye(64))
    np.savez(tmp_path / "odd.npz", mean=np.zeros(64))
    assert read_statistics(tmp_path / "good.npz").number == 500
    for name, message in {"small": "2048 features", "odd": "mu and sigma"}.items():
        with pytest.raises(UserError, match=message):
            read_statistics(tmp_path / f"{name}.npz")
    assert len({reference_digest(tmp_path), reference_digest(tmp_path / "good.npz"), reference_digest(None)}) == 3
    with pytest.raises(UserError, match="neither a folder"):
        reference_digest(tmp_path / "none.npz")


def test_fid_and_kid_are_to_the_reference_that_the_config_names(tmp_path: Path):
    from cad_exp.data.prompts import plan
    from cad_exp.pipeline import preflight
    from cad_exp.pipeline.records import _given, records

    (tmp_path / "real").mkdir()
    for index, image in enumerate(pictures(3)):
        Image.fromarray(image).save(tmp_path / "real" / f"{index}.png")
    np.savez(tmp_path / "stored.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    asked = ["judge=real", "judge.parts=[inception]", f"judge.inception.weights={inception_states(tmp_path)}"]
    asked += ["evaluation.metrics=[quality]", "evaluation.retention_samples=1", "evaluation.fidelity=null"]

    def asking(reference: str) -> list[str]:
        return [*asked, "concept=church", "runtime.device=cpu", f"judge.inception.reference={tmp_path / reference}"]

    runtime, graph, config = graph_of(tmp_path / "cache", *asking("real"))
    runtime.put(graph.model, Painter())
    few = plan(config)[-3:]
    shown = unedited(config, graph, few)
    judged = {"unedited": Judged.of(graph.judge, shown, shown)}
    found = records(runtime, replace(graph, requests=few, judged=judged), config)
    assert found.reference.shape == (3, 2048) and "folder real" in found.reference_is
    metrics = {m["name"]: m for m in METRICS.get("quality")().measure(found, SETTINGS | {"fid_bootstrap": 2})}
    assert set(metrics) == {"fid", "kid"} and metrics["fid"]["definition"]["reference_n"] == 3
    assert {"library", "weights", "resolution", "reference"} <= set(metrics["fid"]["definition"])
    statistics, words = _given(runtime, graph.judge, tmp_path / "stored.npz")
    assert isinstance(statistics, Statistics) and "stored.npz" in words
    with pytest.raises(UserError, match="neither a folder"):
        preflight.check(resolve(composed(*asking("nowhere"))))


# --- metrics that are what their names say


def judged(weights, kinds: list[tuple[str, str, str]], **rows) -> Records:
    """Records of two variants whose distances and features are random; (purpose, kind, label) of each image."""
    import pandas as pd

    judge, rng = (
        RealJudge(settings(), {"resnet": weights["resnet"], "lpips": weights["lpips"]}),
        np.random.default_rng(0),
    )
    requests = [ImageRequest(purpose, f"p {label}", i, kind, label) for i, (purpose, kind, label) in enumerate(kinds)]

    def said(shift: float) -> pd.DataFrame:
        distance = np.arange(len(requests)) * shift
        return pd.DataFrame({"object": "church", "clip_score": np.nan, "perceptual_distance": distance})

    table = tabulate(requests, {"unedited": said(0), "edited": said(0.1)}, judge)
    who = judge.definitions | ({"features": {"judge": "test"}} if rows else {})
    return Records(table, rng.normal(size=(len(table), 4)), who, **rows)


KEPT = [("retention", "object", "church"), ("retention", "object", "tench")]
STYLES = [("retention", "style", "Rembrandt"), ("retention", "clothed", "person"), ("retention", "caption", "")]


def test_what_nobody_judges_is_left_out_and_counted(weights):
    data = judged(weights, [("concept", "nudity", "naked"), *KEPT, *STYLES])
    found = list(METRICS.get("retention")().measure(data, SETTINGS))
    mean = next(m for m in found if m["name"] == "retention_mean" and m["variant"] == "edited")
    assert mean["value"] == 0.5 and mean["n"] == 2 and len(mean["definition"]["prompts"]) == 2
    assert mean["definition"]["not_judged"] == {"style": 1, "clothed": 1, "caption": 1}
    assert mean["definition"]["judge"].startswith("ResNet-50")
    nobody = judged(weights, [("concept", "nudity", "naked"), *STYLES])
    left = [m["name"] for name in ("retention", "erasure") for m in METRICS.get(name)().measure(nobody, SETTINGS)]
    assert set(left) == {"perceptual_distance", "perceptual_distance_worst"}


def test_a_style_is_measured_by_its_distance_to_the_unedited_images(weights):
    asked = [("concept", "style", "Van Gogh")] * 3
    others = [("retention", "style", "Rembrandt")] * 3 + [("retention", "style", "Caravaggio")]
    records = judged(weights, asked + others)
    found = [m for name in ("erasure", "retention") for m in METRICS.get(name)().measure(records, SETTINGS)]
    assert not any("rate" in m["name"] for m in found)  # no rate without a judge
    found = [m for m in found if m["name"].startswith("style")]
    value = {(m["name"], m["variant"]): (m["value"], m["higher_is_better"]) for m in found}
    assert set(value) == {("style_distance", "edited"), ("style_distance_retention", "edited")}
    assert value["style_distance", "edited"] == (pytest.approx(0.1), True)
    assert value["style_distance_retention", "edited"] == (pytest.approx((0.4 + 0.6) / 2), False)


def test_without_a_reference_quality_says_what_it_compares_with(weights):
    kinds = [("concept", "object", "church"), *KEPT * 3]
    names = lambda records: {(m["name"], m["variant"]) for m in METRICS.get("quality")().measure(records, SETTINGS)}  # noqa: E731
    distance = {("perceptual_distance", "unedited"), ("perceptual_distance", "edited")}
    distance |= {("perceptual_distance_worst", "edited")}
    assert names(judged(weights, kinds, reference=None)) == distance | {
        ("fid_to_unedited", "edited"),
        ("kid_to_unedited", "edited"),
    }
    stored = Statistics(np.zeros(4), np.eye(4), 100)
    both = {("fid", "unedited"), ("fid", "edited")}
    assert names(judged(weights, kinds, reference=stored)) == distance | both
    real = np.random.default_rng(1).normal(size=(9, 4))
    data = judged(weights, kinds, reference=real, reference_is="drawn")
    found = list(METRICS.get("quality")().measure(data, SETTINGS))
    assert {m["name"] for m in found} == {"fid", "kid", "perceptual_distance", "perceptual_distance_worst"}
    assert "only 6 images" in found[0]["definition"]["what"] and found[0]["definition"]["reference"] == "drawn"


def test_a_judge_says_nothing_of_labels_that_it_does_not_know(weights):
    import pandas as pd

    judge = RealJudge(settings(), {"resnet": weights["resnet"]})
    table = pd.DataFrame({"kind": ["object"] * 3, "label": ["church", "unicorn", "tench"], "object": ["church"] * 3})
    np.testing.assert_array_equal(shows(table, judge), [1, np.nan, 0])
    table["naked_prob"] = 0.9
    np.testing.assert_array_equal(shows(table, load_judge("mini")), [1, np.nan, 0])


def test_both_judges_answer_the_same_questions(weights):
    chosen = settings(clip={"weights": str(weights["clip"])})
    real = load_judge("real", chosen, {name: weights[name] for name in ("resnet", "clip", "lpips")})
    images = pictures(2)
    for judge in (load_judge("mini"), real):
        table, found = judge_batch(judge, ["a church", "a tench"], images, images)
        assert len(table) == len(found) == 2 and {"object", "clip_score", "perceptual_distance"} <= set(table)
        assert table["clip_score"].between(-1, 1).all() and np.allclose(table["perceptual_distance"], 0, atol=1e-6)
        assert judge.knows("object", "church") and not judge.knows("object", "unicorn") and judge.identity
        assert all({"judge", "weights", "resolution"} <= set(each) for each in judge.definitions.values())
    assert load_judge(None) is None and load_judge("none") is None


# --- explicit images


def test_explicit_images_are_kept_by_choice_and_on_the_mini_world_only():
    def mode(*overrides: str) -> str:
        return redaction.mode(resolve(composed(*overrides)))

    local = ["model=local", "model.path=x"]
    assert mode() == "kept" and mode(*local) == "dropped" and mode("judge=real") == "dropped"
    assert mode(*local, "evaluation.explicit=blurred") == "blurred" and mode(*local, "model.judge=mini") == "kept"
    with pytest.raises(UserError, match="did you mean 'blurred'"):
        mode("evaluation.explicit=blured")


def test_redaction_hides_the_image_and_keeps_its_entry(tmp_path: Path):
    cache, image = Cache(tmp_path), pictures(1, (64, 64))[0]
    image[::2] = 255 - image[::2]  # stripes of one pixel

    def make(draft: Path) -> None:
        Image.fromarray(image).save(draft / "0000.png")

    for how in ("blurred", "dropped"):
        place = cache.get("images", {"how": how}, make)
        before = (place / "0000.png").read_bytes()
        cache.redact(place, redaction.redact(how))
        after = np.asarray(Image.open(place / "0000.png")).astype(int)
        assert after.shape == image.shape and cache.redacted(place) and (place / "0000.png").read_bytes() != before
        assert np.abs(np.diff(after, axis=0)).max() < 40  # no edge is left
        assert cache.get("images", {"how": how}, lambda draft: pytest.fail("made again")) == place
        kept = (place / "0000.png").read_bytes()
        cache.redact(place, redaction.redact(how))
        assert (place / "0000.png").read_bytes() == kept
    assert (np.unique(after) == 128).all()
    assert not list((tmp_path / ".drafts").iterdir())


class Painter:
    """Stands for a model: draws persons, and counts how often it is asked."""

    made, unet = 0, torch.nn.Identity()

    def generate(self, prompts, seeds, steps, guidance, batch_size, progress=None, size=None):
        self.made += 1
        return np.concatenate([pictures(1, (64, 64), seed) for seed in seeds])


@pytest.mark.parametrize("how", ["dropped", "blurred", "kept"])
def test_explicit_images_are_judged_as_they_were_made_and_not_left_behind(how: str, tmp_path: Path, monkeypatch):
    pytest.importorskip("nudenet")
    from cad_exp.pipeline import show
    from cad_exp.pipeline.records import records
    from cad_exp.pipeline.run_attribute import redact

    asked = [
        "concept=nudity",
        "judge=real",
        "judge.parts=[nudenet]",
        "evaluation.samples=3",
        f"evaluation.explicit={how}",
    ]
    asked += ["evaluation.metrics=[erasure,retention]", "evaluation.retention_samples=1", "evaluation.fidelity=null"]
    painter = Painter()

    def judged_run() -> tuple:
        runtime, graph, config = graph_of(tmp_path / "cache", *asked, "runtime.device=cpu")
        runtime.put(graph.model, painter)
        only = {"unedited": graph.pictures["unedited"]}
        graph = replace(graph, pictures=only, judged={"unedited": graph.judged["unedited"]}, edits={})
        runtime.get(only["unedited"])
        table = records(runtime, graph, config).table
        redact(runtime, graph, config)
        return runtime, graph, {"unedited": runtime.get(only["unedited"])}, table

    runtime, graph, files, first = judged_run()
    requests = graph.requests
    show.images(runtime, graph, tmp_path / "run")
    linked = {path.parent.name for path in (tmp_path / "run").rglob("*.png")}
    assert linked == ({"retention"} if how == "dropped" else {"concept", "retention"})
    for request, file in zip(requests, files["unedited"], strict=True):
        same = np.array_equal(np.asarray(Image.open(file)), pictures(1, (64, 64), request.seed)[0])
        assert same == (how == "kept" or request.purpose == "retention")
    before = painter.made
    assert judged_run()[3].equals(first) and painter.made == before  # all from the cache
    for place in (tmp_path / "cache" / "judgements").iterdir():
        shutil.rmtree(place)
    assert judged_run()[3].equals(first)  # judged once more: on the images, not on the redacted ones
    assert painter.made == before + (how != "kept")
    assert all(Cache(tmp_path / "cache").redacted(file.parent) == (how != "kept") for file in files["unedited"][:3])
