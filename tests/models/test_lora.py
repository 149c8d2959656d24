"""LoRA layers added to a model: the weights are those added by hand, and what does not fit is one sentence."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cad_exp.config.resolve import resolve
from cad_exp.models.content import model_content
from cad_exp.models.lora import fuse
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.pipeline.preflight import check as ready
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.model import Model
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed

BLOCK = "mid_block.attentions.0.transformer_blocks.0"
MODULES = (f"{BLOCK}.attn1.to_out.0", f"{BLOCK}.attn2.to_k", f"{BLOCK}.ff.net.2")


@pytest.fixture
def model(tiny_folder) -> DiffusionModel:
    """A model of one's own, to be changed."""
    return DiffusionModel.load(tiny_folder, device="cpu", steps=2)


def layers(model: DiffusionModel, modules=MODULES, rank: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random LoRA layers under the names that diffusers writes."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name in modules:
        out, into = model.denoiser.get_submodule(name).weight.shape
        found[f"unet.{name}.lora_A.weight"] = torch.randn(rank, into, generator=generator)
        found[f"unet.{name}.lora_B.weight"] = 0.3 * torch.randn(out, rank, generator=generator)
    return found


@pytest.fixture
def file(model, tmp_path) -> Path:
    save_file(layers(model), tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


def kohya(state: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """The same layers under the names of most files that people share."""
    found = {}
    for name, x in state.items():
        module, _, kind = name.removeprefix("unet.").removesuffix(".weight").rpartition(".")
        place = "lora_unet_" + module.replace(".", "_")
        found[f"{place}.lora_{'down' if kind == 'lora_A' else 'up'}.weight"] = x
        found[f"{place}.alpha"] = torch.tensor(alpha)
    return found


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_the_weights_are_those_merged_by_hand(naming, scale, model, tiny_folder, tmp_path):
    state, by_hand = layers(model), DiffusionModel.load(tiny_folder, device="cpu", steps=2)
    save_file(state if naming == "peft" else kohya(state, 1.0), tmp_path / "x.safetensors")
    own = 1.0 if naming == "peft" else 0.5  # alpha / rank
    with torch.no_grad():
        for name in MODULES:
            down, up = (state[f"unet.{name}.lora_{kind}.weight"] for kind in "AB")
            by_hand.denoiser.get_submodule(name).weight += own * scale * up @ down
    before = {name: x.clone() for name, x in model.denoiser.state_dict().items()}
    assert fuse(model.pipe, [tmp_path / "x.safetensors"], scale) == len(MODULES)
    found = model.denoiser.state_dict()
    changed = {name for name in before if not torch.equal(before[name], found[name])}
    assert list(found) == list(before) and changed == {f"{name}.weight" for name in MODULES}
    assert all(isinstance(model.denoiser.get_submodule(name), torch.nn.Linear) for name in MODULES)
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    text = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        predictions = [each.denoiser(x, t, text).sample for each in (model, by_hand)]
        plain = DiffusionModel.load(tiny_folder, device="cpu").denoiser(x, t, text).sample
    assert torch.allclose(*predictions, atol=1e-5) and not torch.allclose(predictions[0], plain, atol=1e-3)


def test_two_files_add_up(model, file, tiny_folder, tmp_path):
    second = layers(model, MODULES[1:], rank=3, seed=1)
    save_file(second, tmp_path / "second.safetensors")
    both = DiffusionModel.load(tiny_folder, device="cpu")
    fuse(model.pipe, [file])
    fuse(model.pipe, [tmp_path / "second.safetensors"])
    fuse(both.pipe, [file, tmp_path / "second.safetensors"])
    assert both.fingerprint() == model.fingerprint()


def test_a_run_starts_from_the_fused_model(model, file, tiny_folder, tmp_path):
    few = ["concept=church", "model=local", f"model.path={tiny_folder}", "judge=none", "runtime.device=cpu"]
    config = resolve(composed(*few, f"model.lora=[{file}]", "model.lora_scale=0.5"))
    ready(config)
    loaded = Runtime(config["runtime"], tmp_path / "cache").get(Model.of(config["model"]))
    fuse(model.pipe, [file], 0.5)
    assert loaded.fingerprint() == model.fingerprint()


def test_content_and_scale_are_in_the_keys(model, file, tiny_folder, tmp_path):
    def keys(*more: str) -> tuple[str, str]:
        few = ["concept=church", "model=local", f"model.path={tiny_folder}", "judge=none", "runtime.device=cpu"]
        config = resolve(composed(*few, *more))
        runtime = Runtime(config["runtime"], tmp_path / "cache")
        return runtime.key(Model.of(config["model"])), str(model_content(config["model"]))

    found = [keys(), keys(f"model.lora={file}"), keys(f"model.lora={file}", "model.lora_scale=0.5")]
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    assert keys(f"model.lora={copy}")[1] == found[1][1]  # by content, not by name
    save_file(layers(model, seed=1), file)
    found.append(keys(f"model.lora={file}"))
    assert len({each[0] for each in found}) == len({each[1] for each in found}) == 4


def unfit(kind: str, model: DiffusionModel) -> dict[str, torch.Tensor]:
    state = layers(model)
    first = next(iter(state))
    return {
        "other shapes": {name: torch.ones(x.shape[0] * 2, x.shape[1] * 2) for name, x in state.items()},
        "other names": {name.replace("mid_block", "middle"): x for name, x in state.items()},
        "one other name": state | {n.replace("attn1", "attn9"): x.clone() for n, x in state.items() if "attn1" in n},
        "not finite": state | {first: torch.full_like(state[first], torch.nan)},
        "no pairs": {name: x for name, x in state.items() if "lora_B" in name},
        "unequal ranks": {name: x[:, :1].contiguous() if "lora_B" in name else x for name, x in state.items()},
    }[kind]


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What diffusers and peft log meanwhile."""
    found, handler = [], logging.Handler()
    handler.emit = found.append
    for name in ("diffusers", "peft"):
        logging.getLogger(name).addHandler(handler)
    yield found
    for name in ("diffusers", "peft"):
        logging.getLogger(name).removeHandler(handler)


@pytest.mark.parametrize(
    "kind", ["other shapes", "other names", "one other name", "not finite", "no pairs", "unequal ranks"]
)
def test_what_does_not_fit_changes_nothing(kind, model, tmp_path, logged):
    save_file(unfit(kind, model), tmp_path / "x.safetensors")
    before = model.fingerprint()
    with pytest.raises(UserError, match="(not fit|fits|not in) this model") as error:
        fuse(model.pipe, [tmp_path / "x.safetensors"])
    assert "\n" not in str(error.value) and model.fingerprint() == before
    assert not logged, "the libraries said it in their own words too"
    assert list(model.denoiser.state_dict()) == [name for name in model.denoiser.state_dict() if "lora" not in name]


def test_files_that_are_no_lora(model, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"\x80\x04K\x01.")
    save_file({"conv_in.weight": torch.ones(2)}, tmp_path / "plain.safetensors")
    for name, said in {
        "x.bin": "is a pickle, .*not opened",
        "plain.safetensors": "holds no LoRA layers",
        "absent.safetensors": "there is no LoRA file",
        "loras/absent.safetensors": "there is no LoRA file",
        ".": "there is no LoRA file",
    }.items():
        with pytest.raises(UserError, match=said):
            ready(
                resolve(
                    composed(
                        "model=local", f"model.path={tiny_folder}", f"model.lora={name}", "judge=none", "concept=church"
                    )
                )
            )
